//! The alarm of one device and behaviour: datapoints in, transitions out (specification B.4).

use super::profile::Criteria;

/// OK, or in alarm; and how far towards the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Alarm {
    violating: u8,
    conforming: u8,
    /// The id of the open episode.
    episode: Option<String>,
}

/// What a datapoint changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    /// The episode with this id opens.
    Opened(String),
    /// The episode with this id ends.
    Cleared(String),
}

impl Alarm {
    /// Takes a datapoint. `new_id` is called if it opens an episode.
    pub(super) fn judge(
        &mut self,
        criteria: &Criteria,
        value: u64,
        new_id: impl FnOnce() -> String,
    ) -> Option<Transition> {
        if criteria.conforms(value) {
            self.violating = 0;
            self.episode.as_ref()?;
            self.conforming += 1;
            if self.conforming < criteria.datapoints_to_clear {
                return None;
            }
            self.conforming = 0;
            self.episode.take().map(Transition::Cleared)
        } else {
            self.conforming = 0;
            if self.episode.is_some() {
                return None;
            }
            self.violating += 1;
            if self.violating < criteria.datapoints_to_alarm {
                return None;
            }
            self.violating = 0;
            let id = new_id();
            self.episode = Some(id.clone());
            Some(Transition::Opened(id))
        }
    }

    /// Neither in alarm nor on the way to it.
    pub(super) fn is_quiet(&self) -> bool {
        self.violating == 0 && self.episode.is_none()
    }

    /// Whether an episode is open.
    pub(super) fn is_open(&self) -> bool {
        self.episode.is_some()
    }

    /// Ends without a verdict. The id of the episode that was open.
    pub(super) fn invalidate(self) -> Option<String> {
        self.episode
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::Comparison;

    /// `v` a violating datapoint, `c` a conforming one; the transitions as `+` and `-`.
    fn check(to_alarm: u8, to_clear: u8, datapoints: &str) -> String {
        let criteria = Criteria {
            comparison: Comparison::LessThan,
            count: 10,
            duration_secs: Some(300),
            datapoints_to_alarm: to_alarm,
            datapoints_to_clear: to_clear,
        };
        let mut alarm = Alarm::default();
        let mut ids = 0;
        let mut open = None;
        datapoints
            .chars()
            .map(|c| {
                let value = if c == 'v' { 54 } else { 9 };
                let transition = alarm.judge(&criteria, value, || {
                    ids += 1;
                    ids.to_string()
                });
                match transition {
                    None => '.',
                    Some(Transition::Opened(id)) => {
                        assert_eq!(open.replace(id), None, "one episode at a time");
                        '+'
                    }
                    Some(Transition::Cleared(id)) => {
                        assert_eq!(open.take(), Some(id), "the id of the episode");
                        '-'
                    }
                }
            })
            .collect()
    }

    #[test]
    fn alarms_open_and_clear_after_consecutive_datapoints() {
        for (to_alarm, to_clear, datapoints, transitions) in [
            (1, 1, "cccc", "...."),
            (1, 1, "cvvvc", ".+..-"),
            (1, 1, "vcvc", "+-+-"),
            (2, 1, "vcvcvvc", ".....+-"),
            (3, 2, "vvvcvccv", "..+...-."),
            (1, 3, "vccvccc", "+.....-"),
            (10, 10, "vvvvvvvvvv", ".........+"),
        ] {
            assert_eq!(
                check(to_alarm, to_clear, datapoints),
                transitions,
                "{to_alarm} to alarm, {to_clear} to clear, {datapoints}"
            );
        }
    }
}
