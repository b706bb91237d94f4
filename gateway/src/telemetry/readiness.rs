//! Whether the gateway is ready to serve: it is once every latch is dropped.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

/// What `/readyz` asks.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<BTreeSet<&'static str>>>,
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
