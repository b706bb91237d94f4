//! Decisions that were made before.
//!
//! One cache belongs to one connection, whose context is the same for every request until its
//! generation changes; then everything is forgotten. Decisions that hang on the time or on the
//! CONNECT are not kept. A hit allocates nothing.

use std::{collections::HashMap, sync::Arc};

use super::{Action, Context, Denial, Permit, PolicySet, set::Lasting};

/// The decisions of one connection, at most as many as it was made for; then one that was not asked
/// for lately makes room (the clock algorithm).
#[derive(Debug)]
pub struct DecisionCache {
    entries_max: usize,
    /// Whose decisions these are.
    of: Option<(PolicySet, u64)>,
    /// By action, then by resource: positions in `entries`.
    positions: [HashMap<Arc<str>, usize>; Action::ALL.len()],
    entries: Vec<Entry>,
    /// Where to look next for one to forget.
    hand: usize,
}

#[derive(Debug)]
struct Entry {
    action: Action,
    resource: Arc<str>,
    decision: Result<Permit, Denial>,
    /// Asked for since the hand came by.
    recent: bool,
}

impl DecisionCache {
    /// Room for `entries_max` decisions; it is taken as they come.
    pub fn new(entries_max: usize) -> Self {
        Self {
            entries_max,
            of: None,
            positions: Default::default(),
            entries: Vec::new(),
            hand: 0,
        }
    }

    /// What [`PolicySet::decide`] says. `generation` must change whenever anything in `context`
    /// other than `now` and `connect` does.
    pub fn decide(
        &mut self,
        policies: &PolicySet,
        generation: u64,
        context: &Context<'_>,
        action: Action,
        resource: &str,
    ) -> Result<Permit, Denial> {
        let is_current = |(set, of): &(PolicySet, u64)| *of == generation && set.is(policies);
        if !self.of.as_ref().is_some_and(is_current) {
            self.clear();
            self.of = Some((policies.clone(), generation));
        }
        if let Some(&position) = self.positions[action.index()].get(resource)
            && let Some(entry) = self.entries.get_mut(position)
        {
            entry.recent = true;
            return entry.decision.clone();
        }
        let (decision, lasting) = policies.decide_lasting(context, action, resource);
        if lasting == Lasting::Yes {
            self.insert(Entry {
                action,
                resource: resource.into(),
                decision: decision.clone(),
                recent: false,
            });
        }
        decision
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.of = None;
        self.entries.clear();
        self.positions.iter_mut().for_each(HashMap::clear);
        self.hand = 0;
    }

    fn insert(&mut self, entry: Entry) {
        if self.entries_max == 0 {
            return;
        }
        let position = if self.entries.len() < self.entries_max {
            self.entries.len()
        } else {
            self.position_to_reuse()
        };
        self.positions[entry.action.index()].insert(entry.resource.clone(), position);
        match self.entries.get_mut(position) {
            Some(old) => {
                self.positions[old.action.index()].remove(&*old.resource);
                *old = entry;
            }
            None => self.entries.push(entry),
        }
    }

    /// The next position whose entry was not asked for since the hand came by; at the latest the one
    /// where it began.
    fn position_to_reuse(&mut self) -> usize {
        loop {
            let position = self.hand % self.entries.len();
            self.hand = position + 1;
            let entry = &mut self.entries[position];
            if !std::mem::take(&mut entry.recent) {
                return position;
            }
        }
    }
}

#[cfg(test)]
mod tests;
