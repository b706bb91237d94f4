//! What the router knows, kept beside it: its filters with the length of their logs, its topics.
//!
//! The router frees none of it and tells none of it. From here the bus knows when the router is to
//! be built anew, that a message is for nobody, and how many messages a subscriber missed: the
//! router numbers the entries of a log, and so does this.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    mem,
};

use portcullis_core::{
    routes::{Match, Routes},
    topic::{TopicFilter, TopicName},
};

use super::bounds::{Bounds, HARD};

/// See the module.
#[derive(Debug)]
pub(super) struct Index {
    bounds: Bounds,
    /// Where a filter stands in `logs`.
    filters: HashMap<TopicFilter, usize>,
    logs: Vec<Log>,
    /// Places in `logs` that nobody has.
    free: Vec<usize>,
    routes: Routes<usize, ()>,
    /// Filters that somebody is subscribed to.
    in_use: usize,
    /// Hashes of the topics, with a key of this process: nobody can aim at a collision, and one
    /// means only that a topic is not counted.
    topics: HashSet<u64>,
    hasher: RandomState,
    /// Entries of all logs.
    entries: usize,
    /// Those of one log at most; then the router overwrites the oldest.
    log_entries: usize,
    /// What the last [`find`](Self::find) found.
    found: Vec<usize>,
    topic: u64,
}

#[derive(Debug, Default)]
struct Log {
    users: usize,
    /// The router has it: somebody subscribed since the router is there.
    is_routed: bool,
    /// Entries so far, the overwritten ones included.
    appended: u64,
}

/// Whether the router is to take more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Room {
    /// Yes.
    Free,
    /// Yes, but it is to be built anew.
    Tight,
    /// No.
    Full,
}

impl Index {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            filters: HashMap::new(),
            logs: Vec::new(),
            free: Vec::new(),
            routes: Routes::default(),
            in_use: 0,
            topics: HashSet::new(),
            hasher: RandomState::new(),
            entries: 0,
            log_entries: bounds.log_entries,
            found: Vec::new(),
            topic: 0,
        }
    }

    /// Forgets a router that is gone; what is subscribed to stays.
    pub(super) fn renew(&mut self, log_entries: usize) {
        let mut renewed = Self::new(self.bounds);
        renewed.log_entries = log_entries;
        renewed.hasher = self.hasher.clone();
        for (filter, at) in mem::take(&mut self.filters) {
            let users = self.logs[at].users;
            if users > 0 {
                renewed.insert(filter, users);
                renewed.in_use += 1;
            }
        }
        *self = renewed;
    }

    fn insert(&mut self, filter: TopicFilter, users: usize) {
        let log = Log {
            users,
            ..Log::default()
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.logs[at] = log;
                at
            }
            None => {
                self.logs.push(log);
                self.logs.len() - 1
            }
        };
        self.routes.insert(&filter, None, at, ());
        self.filters.insert(filter, at);
    }

    /// Somebody subscribes.
    pub(super) fn subscribed(&mut self, filter: &TopicFilter) {
        match self.filters.get(filter) {
            Some(&at) => {
                self.in_use += usize::from(self.logs[at].users == 0);
                self.logs[at].users += 1;
            }
            None => {
                self.in_use += 1;
                self.insert(filter.clone(), 1);
            }
        }
    }

    /// Somebody unsubscribes. The router keeps the filter, and so does this.
    pub(super) fn unsubscribed(&mut self, filter: &TopicFilter) {
        let Some(&at) = self.filters.get(filter) else {
            return;
        };
        let log = &mut self.logs[at];
        log.users = log.users.saturating_sub(1);
        if log.users == 0 {
            self.in_use -= 1;
            if !log.is_routed {
                self.filters.remove(filter);
                self.free.push(at);
                self.routes.remove(filter, None, &at);
            }
        }
    }

    /// The router gets the filter now. The number of the first message that will come.
    pub(super) fn routed(&mut self, filter: &TopicFilter) -> u64 {
        match self.filters.get(filter) {
            Some(&at) => {
                self.logs[at].is_routed = true;
                self.logs[at].appended
            }
            None => 0,
        }
    }

    /// Whether the router may get the filter.
    pub(super) fn room_for_filter(&self, filter: &TopicFilter) -> Room {
        let knows = |&at: &usize| self.logs[at].is_routed;
        if self.filters.get(filter).is_some_and(knows) {
            return Room::Free;
        }
        self.room_for_filters()
    }

    fn room_for_filters(&self) -> Room {
        let idle = self.filters.len() - self.in_use;
        room(idle, self.bounds.idle_filters.max(self.in_use))
    }

    /// Looks for the filters that take the topic; whether somebody is subscribed to one of them.
    pub(super) fn find(&mut self, topic: &TopicName) -> bool {
        self.found.clear();
        let (found, logs) = (&mut self.found, &self.logs);
        let mut is_wanted = false;
        self.routes.matching(topic, |matched| {
            if let Match::Direct(&at, ()) = matched {
                is_wanted |= logs[at].users > 0;
                if logs[at].is_routed {
                    found.push(at);
                }
            }
        });
        self.topic = self.hasher.hash_one(topic.as_str());
        is_wanted
    }

    /// Whether the router may get a message with the topic that was looked for.
    pub(super) fn room(&self) -> Room {
        let mut worst = self.room_for_filters().min(Room::Tight);
        if !self.found.is_empty() && !self.topics.contains(&self.topic) {
            worst = worst.max(room(self.topics.len(), self.bounds.topics));
        }
        if self.found.iter().any(|&at| !self.is_full(at)) {
            worst = worst.max(room(self.entries, self.bounds.entries));
        }
        worst
    }

    /// The router gets a message with the topic that was looked for: whether any log takes it.
    pub(super) fn append(&mut self) -> bool {
        let found = mem::take(&mut self.found);
        for &at in &found {
            self.entries += usize::from(!self.is_full(at));
            self.logs[at].appended += 1;
        }
        self.found = found;
        if self.found.is_empty() {
            return false;
        }
        self.topics.insert(self.topic);
        true
    }

    fn is_full(&self, at: usize) -> bool {
        usize::try_from(self.logs[at].appended).is_ok_and(|entries| entries >= self.log_entries)
    }

    #[cfg(test)]
    pub(super) fn filters(&self) -> usize {
        self.filters.len()
    }

    /// Whether it is the logs that are too large.
    pub(super) fn has_long_logs(&self) -> bool {
        self.entries >= self.bounds.entries
    }
}

fn room(have: usize, bound: usize) -> Room {
    if have < bound {
        Room::Free
    } else if have < bound * HARD {
        Room::Tight
    } else {
        Room::Full
    }
}
