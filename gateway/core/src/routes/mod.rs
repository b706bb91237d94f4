//! Who gets a message: a tree of topic filters, level by level (MQTT 5.0, 4.7 and 4.8.2).
//!
//! A topic is looked up with one step for each of its levels and each wildcard beside it, whatever
//! the number of subscriptions. Values are the caller's own; a key has one value a filter. Of a
//! shared subscription the caller picks a member, because only it knows who can take a message.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::topic::{ShareName, TopicFilter, TopicName};

/// The subscriptions of everybody; see the [module](self).
#[derive(Debug)]
pub struct Routes<K, V> {
    root: Node<K, V>,
    len: usize,
    shared_len: usize,
}

#[derive(Debug)]
struct Node<K, V> {
    children: HashMap<Box<str>, Node<K, V>>,
    /// `+` at this level.
    any: Option<Box<Node<K, V>>>,
    /// Filters that end here.
    here: Ends<K, V>,
    /// Filters that end with `#` here.
    below: Ends<K, V>,
}

#[derive(Debug)]
struct Ends<K, V> {
    direct: Vec<(K, V)>,
    shared: BTreeMap<ShareName, Group<K, V>>,
}

/// The members of one shared subscription.
#[derive(Debug)]
pub struct Group<K, V> {
    members: Vec<(K, V)>,
    turn: AtomicUsize,
}

/// A subscription that takes a topic.
#[derive(Debug)]
pub enum Match<'r, K, V> {
    /// One client's own.
    Direct(&'r K, &'r V),
    /// One that is shared: one member gets the message.
    Shared(&'r Group<K, V>),
}

impl<K, V> Default for Routes<K, V> {
    fn default() -> Self {
        Self {
            root: Node::default(),
            len: 0,
            shared_len: 0,
        }
    }
}

impl<K, V> Default for Node<K, V> {
    fn default() -> Self {
        Self {
            children: HashMap::new(),
            any: None,
            here: Ends::default(),
            below: Ends::default(),
        }
    }
}

impl<K, V> Default for Ends<K, V> {
    fn default() -> Self {
        Self {
            direct: Vec::new(),
            shared: BTreeMap::new(),
        }
    }
}

impl<K: Eq, V> Routes<K, V> {
    /// Adds a subscription; the value that the key had for the same filter and share is replaced and
    /// given back.
    pub fn insert(
        &mut self,
        filter: &TopicFilter,
        share: Option<&ShareName>,
        key: K,
        value: V,
    ) -> Option<V> {
        let (levels, is_multi) = split(filter);
        let mut node = &mut self.root;
        for level in levels {
            node = if level == "+" {
                node.any.get_or_insert_default()
            } else {
                node.children.entry(level.into()).or_default()
            };
        }
        let ends = if is_multi {
            &mut node.below
        } else {
            &mut node.here
        };
        let is_shared = usize::from(share.is_some());
        let former = match share {
            None => put(&mut ends.direct, key, value),
            Some(share) => {
                let group = ends.shared.entry(share.clone()).or_insert_with(|| Group {
                    members: Vec::new(),
                    turn: AtomicUsize::new(0),
                });
                put(&mut group.members, key, value)
            }
        };
        if former.is_none() {
            self.len += 1;
            self.shared_len += is_shared;
        }
        former
    }

    /// Removes a subscription, and gives back its value.
    pub fn remove(
        &mut self,
        filter: &TopicFilter,
        share: Option<&ShareName>,
        key: &K,
    ) -> Option<V> {
        let (levels, is_multi) = split(filter);
        let levels: Vec<_> = levels.collect();
        let removed = self.root.remove(&levels, is_multi, share, key);
        if removed.is_some() {
            self.len -= 1;
            self.shared_len -= usize::from(share.is_some());
        }
        removed
    }

    /// Calls `found` for every subscription that takes `topic`.
    pub fn matching<'r>(&'r self, topic: &TopicName, mut found: impl FnMut(Match<'r, K, V>)) {
        let text = topic.as_str();
        // Wildcards at the front take no topic that begins with `$` (MQTT 5.0, 4.7.2).
        let is_reserved = text.starts_with('$');
        self.root.matching(Some(text), is_reserved, &mut found);
    }

    /// How many subscriptions there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many of them are members of shares.
    pub fn shared_len(&self) -> usize {
        self.shared_len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<K: Eq, V> Node<K, V> {
    fn matching<'r>(
        &'r self,
        rest: Option<&str>,
        no_wildcards: bool,
        found: &mut impl FnMut(Match<'r, K, V>),
    ) {
        if !no_wildcards {
            self.below.visit(found);
        }
        let Some(rest) = rest else {
            return self.here.visit(found);
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        if let Some(child) = self.children.get(level) {
            child.matching(rest, false, found);
        }
        if let (Some(any), false) = (&self.any, no_wildcards) {
            any.matching(rest, false, found);
        }
    }

    fn remove(
        &mut self,
        levels: &[&str],
        is_multi: bool,
        share: Option<&ShareName>,
        key: &K,
    ) -> Option<V> {
        let Some((&level, rest)) = levels.split_first() else {
            let ends = if is_multi {
                &mut self.below
            } else {
                &mut self.here
            };
            return ends.remove(share, key);
        };
        if level == "+" {
            let any = self.any.as_mut()?;
            let removed = any.remove(rest, is_multi, share, key);
            if any.is_empty() {
                self.any = None;
            }
            return removed;
        }
        let child = self.children.get_mut(level)?;
        let removed = child.remove(rest, is_multi, share, key);
        if child.is_empty() {
            self.children.remove(level);
            // A node that had many children once must not keep their room for ever.
            if self.children.capacity() > 64 && self.children.len() * 4 < self.children.capacity() {
                self.children.shrink_to_fit();
            }
        }
        removed
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.any.is_none()
            && self.here.is_empty()
            && self.below.is_empty()
    }
}

impl<K: Eq, V> Ends<K, V> {
    fn visit<'r>(&'r self, found: &mut impl FnMut(Match<'r, K, V>)) {
        for (key, value) in &self.direct {
            found(Match::Direct(key, value));
        }
        for group in self.shared.values() {
            found(Match::Shared(group));
        }
    }

    fn remove(&mut self, share: Option<&ShareName>, key: &K) -> Option<V> {
        let Some(share) = share else {
            return take(&mut self.direct, key);
        };
        let group = self.shared.get_mut(share)?;
        let removed = take(&mut group.members, key);
        if group.members.is_empty() {
            self.shared.remove(share);
        }
        removed
    }

    fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.shared.is_empty()
    }
}

impl<K, V> Group<K, V> {
    /// The members, beginning with the one whose turn it is; the next call begins with the one after
    /// it.
    pub fn in_turn(&self) -> impl Iterator<Item = (&K, &V)> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % self.members.len().max(1);
        let (before, from) = self.members.split_at(first);
        from.iter().chain(before).map(|(key, value)| (key, value))
    }
}

/// The levels of a filter, and whether `#` follows them.
fn split(filter: &TopicFilter) -> (impl Iterator<Item = &str>, bool) {
    let is_multi = filter.as_str().ends_with('#');
    let levels = filter.as_str().split('/').filter(|level| *level != "#");
    (levels, is_multi)
}

fn put<K: Eq, V>(entries: &mut Vec<(K, V)>, key: K, value: V) -> Option<V> {
    match entries.iter_mut().find(|(other, _)| *other == key) {
        Some((_, former)) => Some(std::mem::replace(former, value)),
        None => {
            entries.push((key, value));
            None
        }
    }
}

fn take<K: Eq, V>(entries: &mut Vec<(K, V)>, key: &K) -> Option<V> {
    let at = entries.iter().position(|(other, _)| other == key)?;
    Some(entries.remove(at).1)
}

#[cfg(test)]
mod tests;
