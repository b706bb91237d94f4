//! Whether the gateway is ready to serve: it is once every latch is dropped. Notes say what an operator
//! should know besides; they do not make it less ready.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

/// What `/readyz` asks.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeSet<&'static str>>>,
    notes: Arc<Mutex<BTreeMap<&'static str, String>>>,
}

/// Held by a part until it is ready to serve.
#[derive(Debug)]
pub struct Latch {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// A latch for the part called `name`; one latch a name.
    pub fn latch(&self, name: &'static str) -> Latch {
        self.names(|names| names.insert(name));
        Latch {
            name,
            readiness: self.clone(),
        }
    }

    /// The parts that are not ready; empty when all are.
    pub fn waiting(&self) -> Vec<&'static str> {
        self.names(|names| names.iter().copied().collect())
    }

    /// Sets or removes the note of the part called `name`; one note a name.
    pub fn note(&self, name: &'static str, text: Option<String>) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        match text {
            Some(text) => notes.insert(name, text),
            None => notes.remove(name),
        };
    }

    /// The notes, each a line, in the order of the parts' names.
    pub fn notes(&self) -> Vec<String> {
        let notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.values().cloned().collect()
    }

    fn names<T>(&self, act: impl FnOnce(&mut BTreeSet<&'static str>) -> T) -> T {
        act(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        self.readiness.names(|names| names.remove(self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_there_until_it_is_removed() {
        let readiness = Readiness::default();
        let other = readiness.clone();
        other.note("registry", Some("refused".to_owned()));
        other.note("registry", Some("refused again".to_owned()));
        assert_eq!(readiness.notes(), ["refused again"]);
        assert!(readiness.waiting().is_empty());
        readiness.note("registry", None);
        assert!(other.notes().is_empty());
    }

    #[test]
    fn ready_when_every_latch_is_dropped() {
        let readiness = Readiness::default();
        let buffer = readiness.latch("buffer");
        let broker = readiness.latch("broker");
        assert_eq!(readiness.waiting(), ["broker", "buffer"]);
        drop(buffer);
        assert_eq!(readiness.waiting(), ["broker"]);
        drop(broker);
        assert!(readiness.waiting().is_empty());
    }
}
