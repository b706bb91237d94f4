//! How well a sink is reached: online, degraded, offline, paused. A state machine with hysteresis, so
//! that one failure among many changes nothing and a link that comes and goes does not flap in the log.
//!
//! The share of failures is smoothed: above [`DEGRADED_FROM`] the sink is degraded, below
//! [`ONLINE_FROM`] (or after [`CALM_MILLIS`] without a failure) online again. Offline is who was not
//! reached [`OFFLINE_FAILURES`] times in a row, or not at all since the start; paused is who is not
//! offered anything because it would take nothing.

/// How a sink is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// Nothing was tried yet.
    #[default]
    Starting,
    /// It takes what it is offered.
    Online,
    /// It takes a part, or now and then.
    Degraded,
    /// It is not reached.
    Offline,
    /// It is reached, or not even tried, and takes nothing until somebody or the calendar changes
    /// something.
    Paused,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Online,
        Self::Degraded,
        Self::Offline,
        Self::Paused,
    ];

    /// Its name as a label and in the log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Online => "online",
            Self::Degraded => "degraded",
            Self::Offline => "offline",
            Self::Paused => "paused",
        }
    }

    /// Whether records go through at all.
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Online | Self::Degraded)
    }
}

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// An answer: this share of the records (0 to 1) failed.
    Answer(f64),
    /// The whole request failed, though somebody was there.
    Refused,
    /// Nobody was reached, or the connection broke.
    Unreachable,
    /// Nothing will be taken for a while: no such stream, no credentials, no budget.
    Hopeless,
}

/// A smoothed share of failures from which on a sink is degraded: two failed requests in a row.
pub const DEGRADED_FROM: f64 = 0.3;
/// Below it, it is online again.
pub const ONLINE_FROM: f64 = 0.1;
/// An answer without failure so long after the last failure makes it online, however few there are.
pub const CALM_MILLIS: u64 = 10_000;
/// Failures in a row to reach it at all.
pub const OFFLINE_FAILURES: u32 = 5;
/// What the newest answer counts.
const WEIGHT: f64 = 0.2;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Health {
    state: State,
    failing: f64,
    unreachable: u32,
    failed_at: u64,
}

impl Health {
    /// What it is now.
    pub fn state(&self) -> State {
        self.state
    }

    /// How often in a row it was not reached.
    pub fn unreachable(&self) -> u32 {
        self.unreachable
    }

    /// Takes note; the state if it has changed.
    pub fn note(&mut self, seen: Seen, now_millis: u64) -> Option<State> {
        let share = match seen {
            Seen::Answer(share) => share.clamp(0.0, 1.0),
            Seen::Refused | Seen::Unreachable | Seen::Hopeless => 1.0,
        };
        self.failing += WEIGHT * (share - self.failing);
        let calm = share == 0.0 && now_millis.saturating_sub(self.failed_at) >= CALM_MILLIS;
        if share > 0.0 {
            self.failed_at = now_millis;
        }
        self.unreachable = match seen {
            Seen::Unreachable => self.unreachable.saturating_add(1),
            _ => 0,
        };
        let next = match seen {
            Seen::Hopeless => State::Paused,
            Seen::Unreachable if self.state == State::Paused => State::Paused,
            Seen::Unreachable
                if self.unreachable >= OFFLINE_FAILURES || self.state == State::Starting =>
            {
                State::Offline
            }
            // A request as a whole or every record: it takes nothing, whatever the reason.
            Seen::Refused | Seen::Unreachable => self.after(share, false),
            Seen::Answer(_) if share >= 1.0 => self.after(share, false),
            Seen::Answer(_) => self.after(share, calm),
        };
        let changed = next != self.state;
        self.state = next;
        changed.then_some(next)
    }

    /// What follows when somebody was there.
    fn after(&mut self, share: f64, calm: bool) -> State {
        if share >= 1.0 {
            return match self.state {
                State::Online if self.failing > DEGRADED_FROM => State::Degraded,
                State::Starting => State::Degraded,
                other => other,
            };
        }
        match self.state {
            State::Starting => {
                self.failing = share;
                if share > DEGRADED_FROM {
                    State::Degraded
                } else {
                    State::Online
                }
            }
            State::Online if self.failing > DEGRADED_FROM => State::Degraded,
            State::Online => State::Online,
            _ if calm || self.failing < ONLINE_FROM => {
                self.failing = self.failing.min(ONLINE_FROM);
                State::Online
            }
            _ => State::Degraded,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLEAN: Seen = Seen::Answer(0.0);

    fn after(seen: &[Seen]) -> State {
        let mut health = Health::default();
        for (at, seen) in (0..).zip(seen) {
            health.note(*seen, at * 10);
        }
        health.state()
    }

    #[test]
    fn the_first_answer_decides() {
        assert_eq!(after(&[]), State::Starting);
        assert_eq!(after(&[CLEAN]), State::Online);
        assert_eq!(after(&[Seen::Answer(0.5)]), State::Degraded);
        assert_eq!(after(&[Seen::Unreachable]), State::Offline);
        assert_eq!(after(&[Seen::Hopeless]), State::Paused);
        assert_eq!(after(&[Seen::Refused]), State::Degraded);
    }

    #[test]
    fn one_failure_among_many_changes_nothing() {
        for failure in [Seen::Answer(0.7), Seen::Refused, Seen::Unreachable] {
            assert_eq!(after(&[CLEAN, failure, CLEAN, CLEAN]), State::Online);
        }
        assert_eq!(
            after(&[CLEAN, Seen::Refused, Seen::Refused]),
            State::Degraded
        );
    }

    #[test]
    fn five_failures_to_reach_it_in_a_row_are_offline() {
        let mut seen = vec![CLEAN];
        seen.extend([Seen::Unreachable; 4]);
        assert_eq!(after(&seen), State::Degraded);
        seen.push(Seen::Unreachable);
        assert_eq!(after(&seen), State::Offline);
        seen.push(CLEAN);
        assert_eq!(after(&seen), State::Degraded, "not at once");
        seen.extend([CLEAN; 12]);
        assert_eq!(after(&seen), State::Online);
    }

    #[test]
    fn a_rare_answer_makes_it_online_as_well() {
        let mut health = Health::default();
        for at in 0..6 {
            health.note(Seen::Unreachable, at);
        }
        assert_eq!(health.note(CLEAN, 1000), Some(State::Degraded));
        assert_eq!(health.note(CLEAN, 9000), None);
        assert_eq!(health.note(CLEAN, 11_000), Some(State::Online));
    }

    #[test]
    fn who_is_paused_is_not_called_offline_and_comes_back() {
        assert_eq!(
            after(&[CLEAN, Seen::Hopeless, Seen::Unreachable]),
            State::Paused
        );
        assert_eq!(after(&[CLEAN, Seen::Hopeless, CLEAN]), State::Degraded);
    }

    proptest! {
        /// A change is told exactly when there is one, and answers without failure always lead back.
        #[test]
        fn every_path_leads_back_to_online(path in proptest::collection::vec(0_u8..6, 0..60)) {
            let mut health = Health::default();
            for (at, step) in (0..).zip(path) {
                let seen = match step {
                    0 => CLEAN,
                    1 => Seen::Answer(0.4),
                    2 => Seen::Answer(1.0),
                    3 => Seen::Refused,
                    4 => Seen::Unreachable,
                    _ => Seen::Hopeless,
                };
                let before = health.state();
                let told = health.note(seen, at * 100);
                prop_assert_eq!(told, (before != health.state()).then_some(health.state()));
            }
            for at in 0..15 {
                health.note(CLEAN, 10_000 + at);
            }
            prop_assert_eq!(health.state(), State::Online);
        }
    }
}
