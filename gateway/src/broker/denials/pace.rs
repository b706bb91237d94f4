//! How many lines the log gets: a token bucket a client, one for all things of the registry together,
//! and one for all strangers, so that strangers cannot silence what is told of things.
//!
//! Who floods the log hides in it, so what is over the rate is counted and summed up in a later
//! line. The table of clients is bounded: while it is full, newcomers share one bucket.

use std::{collections::HashMap, time::Duration};

use portcullis_core::limits::{DENIAL_CLIENTS_MAX, DENIAL_LINES, DENIAL_LINES_PER_CLIENT, Rate};
use tokio::time::Instant;

/// While the table is full it is searched for idle clients at most this often.
const SWEEP: Duration = Duration::from_secs(1);

/// Whether something may be logged now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Turn {
    /// Yes; so many of the same client were not logged since the last one that was.
    Log {
        /// How many.
        unlogged: u64,
    },
    /// No, but it is counted.
    Skip,
}

/// What was not logged, of all clients together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unlogged {
    pub(super) lines: u64,
    pub(super) clients: usize,
}

/// Whether somebody has proved to be somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A thing of the registry.
    Thing,
    /// Anybody else.
    Stranger,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    clients: HashMap<Box<str>, Client>,
    newcomers: Client,
    things: Bucket,
    strangers: Bucket,
    swept: Instant,
}

#[derive(Debug)]
struct Client {
    bucket: Bucket,
    unlogged: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: Rate,
    tokens: f64,
    filled: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            clients: HashMap::new(),
            newcomers: Client::new(now),
            things: Bucket::new(DENIAL_LINES, now),
            strangers: Bucket::new(DENIAL_LINES, now),
            swept: now,
        }
    }

    /// Asks for a line about `client`.
    pub(super) fn turn(&mut self, standing: Standing, client: &str, now: Instant) -> Turn {
        if !self.clients.contains_key(client) {
            self.make_room(now);
            if self.clients.len() < DENIAL_CLIENTS_MAX {
                self.clients.insert(client.into(), Client::new(now));
            }
        }
        let entry = self.clients.get_mut(client).unwrap_or(&mut self.newcomers);
        let all = match standing {
            Standing::Thing => &mut self.things,
            Standing::Stranger => &mut self.strangers,
        };
        if entry.bucket.has_one(now) && all.has_one(now) {
            entry.bucket.tokens -= 1.0;
            all.tokens -= 1.0;
            Turn::Log {
                unlogged: std::mem::take(&mut entry.unlogged),
            }
        } else {
            entry.unlogged += 1;
            Turn::Skip
        }
    }

    /// What has not been logged and not been told yet.
    pub(super) fn take_unlogged(&mut self) -> Option<Unlogged> {
        let mut sum = Unlogged {
            lines: 0,
            clients: 0,
        };
        let newcomers = std::iter::once(&mut self.newcomers);
        for client in self.clients.values_mut().chain(newcomers) {
            if client.unlogged > 0 {
                sum.lines += std::mem::take(&mut client.unlogged);
                sum.clients += 1;
            }
        }
        (sum.lines > 0).then_some(sum)
    }

    fn make_room(&mut self, now: Instant) {
        if self.clients.len() < DENIAL_CLIENTS_MAX || now < self.swept + SWEEP {
            return;
        }
        self.swept = now;
        self.clients
            .retain(|_, client| client.unlogged > 0 || !client.bucket.is_full(now));
    }
}

impl Client {
    fn new(now: Instant) -> Self {
        Self {
            bucket: Bucket::new(DENIAL_LINES_PER_CLIENT, now),
            unlogged: 0,
        }
    }
}

impl Bucket {
    fn new(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            tokens: f64::from(rate.burst),
            filled: now,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        let tokens = self.tokens + passed * self.rate.per_second;
        self.tokens = tokens.min(f64::from(self.rate.burst));
        self.filled = now;
    }

    fn has_one(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= 1.0
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.tokens >= f64::from(self.rate.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(pace: &mut Pace, client: &str, times: u32, now: Instant) -> u32 {
        let turns = (0..times).filter(|_| pace.turn(Standing::Stranger, client, now) != Turn::Skip);
        u32::try_from(turns.count()).unwrap()
    }

    #[test]
    fn a_client_that_floods_is_cut_short_and_others_are_heard() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let burst = DENIAL_LINES_PER_CLIENT.burst;
        assert_eq!(logged(&mut pace, "loud", burst + 500, now), burst);
        assert_eq!(logged(&mut pace, "quiet", 1, now), 1);
        let later = now + Duration::from_secs(60);
        assert_eq!(
            pace.turn(Standing::Stranger, "loud", later),
            Turn::Log { unlogged: 500 }
        );
        assert_eq!(pace.take_unlogged(), None);
    }

    #[test]
    fn many_clients_together_are_cut_short_as_well() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let all = DENIAL_LINES.burst;
        let heard: u32 = (0..2 * all)
            .map(|n| logged(&mut pace, &n.to_string(), 1, now))
            .sum();
        assert_eq!(heard, all);
        let unlogged = pace.take_unlogged().unwrap();
        assert_eq!(unlogged.lines, u64::from(all));
        assert_eq!(unlogged.clients, usize::try_from(all).unwrap());
        // A thing is heard all the same.
        let turn = pace.turn(Standing::Thing, "thing", now);
        assert_eq!(turn, Turn::Log { unlogged: 0 });
        assert_eq!(pace.take_unlogged(), None);
    }

    #[test]
    fn the_table_is_bounded_and_idle_clients_make_room() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        for n in 0..DENIAL_CLIENTS_MAX + 100 {
            pace.turn(Standing::Stranger, &n.to_string(), now);
        }
        assert_eq!(pace.clients.len(), DENIAL_CLIENTS_MAX);
        pace.take_unlogged();
        let later = now + Duration::from_secs(3600);
        assert_eq!(
            pace.turn(Standing::Stranger, "new", later),
            Turn::Log { unlogged: 0 }
        );
        assert_eq!(pace.clients.len(), 1);
    }
}
