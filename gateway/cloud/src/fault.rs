//! What goes wrong: scripted per request, or at rates.

use std::time::Duration;

use fastrand::Rng;

use crate::{refusal::Refusal, settings::Settings};

/// What one request meets. Parts that an operation does not have (records of a log call) are nothing
/// to it. See [`crate::Cloud::next_requests`].
#[derive(Clone, Debug, Default)]
pub enum Fault {
    /// Nothing: it is served. For places in a script, and against rates.
    #[default]
    None,
    /// The records at these places fail with this code, the others are taken.
    FailRecords(Vec<usize>, &'static str),
    /// Each record fails with this probability (0 to 1).
    FailShare(f64, &'static str),
    /// Records whose data contain this fail.
    FailContaining(Vec<u8>, &'static str),
    /// The whole request is refused.
    Refuse(Refusal),
    /// The whole request is refused if a record's data contain this.
    RefuseContaining(Vec<u8>, Refusal),
    /// A status with a page of a proxy instead of AWS's error.
    Status(u16),
    /// It is served after this long.
    Delay(Duration),
    /// It is served, and answered after this long.
    DelayReply(Duration),
    /// It gets no answer, ever, and has no effect.
    Stall,
    /// It takes effect and gets no answer, ever.
    StallReply,
    /// Bodies above this size get no answer, ever, and have no effect: a link too slow for them.
    StallAbove(usize),
    /// The connection is closed before the body is read.
    CloseBefore,
    /// The connection is reset before the body is read.
    ResetBefore,
    /// It takes effect; the connection is closed instead of an answer.
    DropReply,
    /// It takes effect; the connection is reset instead of an answer.
    ResetAfter,
    /// It takes effect; the connection is closed after so many bytes of the answer, head and all.
    CutAfter(usize),
    /// Several at once.
    All(Vec<Fault>),
}

impl Fault {
    /// This and another.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match self {
            Self::All(mut all) => {
                all.push(other);
                Self::All(all)
            }
            one => Self::All(vec![one, other]),
        }
    }

    /// Refuses with status 400.
    pub fn refuse(code: &'static str) -> Self {
        Self::Refuse(Refusal::bad(code, "as the script says"))
    }

    /// `ProvisionedThroughputExceededException` for the whole call.
    pub fn throttle() -> Self {
        Self::Refuse(Refusal::throughput())
    }
}

/// Faults at random, each put on its own. Shares are probabilities from 0 to 1. Which requests they
/// strike depends on the seed and the request's number alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    /// Of records that fail, half of them for throughput and half `InternalFailure`.
    pub fail_records: f64,
    /// Of calls that are throttled.
    pub throttle: f64,
    /// Of calls that are answered with 500 or 503.
    pub server_error: f64,
    /// Of calls that take effect and are never answered: the connection is closed or reset.
    pub lose_replies: f64,
    /// Of calls whose connection is reset before they take effect.
    pub reset: f64,
    /// Of calls that are held up for `stall_for`.
    pub stall: f64,
    /// See `stall`.
    pub stall_for: Duration,
    /// Every call takes this long.
    pub latency: Duration,
    /// And up to this much more.
    pub jitter: Duration,
}

/// What happens before anything of a request takes effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Before {
    #[default]
    Go,
    Close,
    Reset,
    Stall,
}

/// What happens to the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum After {
    #[default]
    Send,
    Close,
    Reset,
    Stall,
    Cut(usize),
}

/// Which records fail.
#[derive(Clone, Debug)]
enum Failing {
    Places(Vec<usize>),
    Share(f64),
    Containing(Vec<u8>),
}

/// The faults of one request, taken together.
#[derive(Debug)]
pub(crate) struct Course {
    pub(crate) delay: Duration,
    pub(crate) before: Before,
    pub(crate) stall_above: Option<usize>,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) bare_status: Option<u16>,
    pub(crate) delay_reply: Duration,
    pub(crate) after: After,
    refuse_containing: Vec<(Vec<u8>, Refusal)>,
    failing: Vec<(Failing, &'static str)>,
    random: Rng,
}

pub(crate) const THROUGHPUT: &str = "ProvisionedThroughputExceededException";

impl Course {
    /// Without faults.
    pub(crate) fn plain() -> Self {
        Self {
            delay: Duration::ZERO,
            before: Before::Go,
            stall_above: None,
            refusal: None,
            bare_status: None,
            delay_reply: Duration::ZERO,
            after: After::Send,
            refuse_containing: Vec::new(),
            failing: Vec::new(),
            random: Rng::with_seed(0),
        }
    }

    /// Of a script.
    pub(crate) fn scripted(fault: Fault, settings: &Settings, number: u64) -> Self {
        let mut course = Self::plain();
        course.random = random(settings.seed, number);
        course.meet(fault);
        course
    }

    fn meet(&mut self, fault: Fault) {
        match fault {
            Fault::None => {}
            Fault::FailRecords(places, code) => self.failing.push((Failing::Places(places), code)),
            Fault::FailShare(share, code) => self.failing.push((Failing::Share(share), code)),
            Fault::FailContaining(text, code) => {
                self.failing.push((Failing::Containing(text), code));
            }
            Fault::Refuse(refusal) => self.refusal = Some(refusal),
            Fault::RefuseContaining(text, refusal) => self.refuse_containing.push((text, refusal)),
            Fault::Status(status) => self.bare_status = Some(status),
            Fault::Delay(delay) => self.delay += delay,
            Fault::DelayReply(delay) => self.delay_reply += delay,
            Fault::Stall => self.before = Before::Stall,
            Fault::StallAbove(bytes) => self.stall_above = Some(bytes),
            Fault::CloseBefore => self.before = Before::Close,
            Fault::ResetBefore => self.before = Before::Reset,
            Fault::StallReply => self.after = After::Stall,
            Fault::DropReply => self.after = After::Close,
            Fault::ResetAfter => self.after = After::Reset,
            Fault::CutAfter(bytes) => self.after = After::Cut(bytes),
            Fault::All(all) => all.into_iter().for_each(|fault| self.meet(fault)),
        }
    }

    /// By the rates, for a service whose calls are throttled like this.
    pub(crate) fn random(settings: &Settings, number: u64, throttled: Refusal) -> Self {
        let rates = &settings.rates;
        let mut course = Self::plain();
        if *rates == Rates::default() {
            return course;
        }
        let mut random = random(settings.seed, number);
        let mut strikes = |share: f64| random.f64() < share;
        // Each is asked for in turn, so that changing one rate leaves the others' strikes alone.
        let (reset, throttle, error) = (
            strikes(rates.reset),
            strikes(rates.throttle),
            strikes(rates.server_error),
        );
        let (lose, stall, coin) = (
            strikes(rates.lose_replies),
            strikes(rates.stall),
            strikes(0.5),
        );
        course.delay = rates.latency + rates.jitter.mul_f64(random.f64());
        if stall {
            course.delay += rates.stall_for;
        }
        if reset {
            course.before = Before::Reset;
        }
        if throttle {
            course.refusal = Some(throttled);
        } else if error {
            course.refusal = Some(match coin {
                true => Refusal::internal(),
                false => Refusal::unavailable(),
            });
        } else if lose {
            course.after = if coin { After::Close } else { After::Reset };
        }
        if rates.fail_records > 0.0 {
            let half = rates.fail_records / 2.0;
            course.failing.push((Failing::Share(half), THROUGHPUT));
            // Of those that are left.
            let rest = half / (1.0 - half).max(f64::EPSILON);
            course
                .failing
                .push((Failing::Share(rest), "InternalFailure"));
        }
        course.random = random;
        course
    }

    /// With which code the record at this place fails.
    pub(crate) fn fails(&mut self, place: usize, data: &[u8]) -> Option<&'static str> {
        let Self {
            failing, random, ..
        } = self;
        let strikes = |failing: &Failing, random: &mut Rng| match failing {
            Failing::Places(places) => places.contains(&place),
            Failing::Share(share) => random.f64() < *share,
            Failing::Containing(text) => contains(data, text),
        };
        let mut failing = failing.iter();
        let (_, code) = failing.find(|(failing, _)| strikes(failing, random))?;
        Some(code)
    }

    /// Why a request with such a record is refused.
    pub(crate) fn refuses(&self, data: &[u8]) -> Option<&Refusal> {
        let mut poison = self.refuse_containing.iter();
        let (_, refusal) = poison.find(|(text, _)| contains(data, text))?;
        Some(refusal)
    }

    /// Whether it depends on what is in the records.
    pub(crate) fn reads_data(&self) -> bool {
        let containing = |(failing, _): &(Failing, _)| matches!(failing, Failing::Containing(_));
        !self.refuse_containing.is_empty() || self.failing.iter().any(containing)
    }

    /// Whether no record fails by it.
    pub(crate) fn spares_records(&self) -> bool {
        self.failing.is_empty()
    }
}

fn random(seed: u64, number: u64) -> Rng {
    // Spread, because generators with neighbouring seeds begin alike.
    Rng::with_seed(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17))
}

fn contains(data: &[u8], text: &[u8]) -> bool {
    text.is_empty() || data.windows(text.len()).any(|part| part == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(rates: Rates) -> Settings {
        Settings::default().rates(rates).seed(7)
    }

    #[test]
    fn rates_strike_their_share_and_the_same_requests_each_time() {
        let settings = rates(Rates {
            throttle: 0.1,
            lose_replies: 0.05,
            fail_records: 0.1,
            ..Rates::default()
        });
        let (mut throttled, mut lost, mut failed) = (0, 0, 0);
        for number in 0..10_000 {
            let mut course = Course::random(&settings, number, Refusal::throughput());
            let again = Course::random(&settings, number, Refusal::throughput());
            assert_eq!(course.refusal, again.refusal);
            assert_eq!(course.after, again.after);
            throttled += u32::from(course.refusal.is_some());
            lost += u32::from(course.after != After::Send);
            failed += u32::from(course.fails(0, b"").is_some());
        }
        assert!((900..1100).contains(&throttled), "{throttled}");
        assert!((400..500).contains(&lost), "5 % of 90 %: {lost}");
        assert!((900..1100).contains(&failed), "{failed}");
    }

    #[test]
    fn another_rate_leaves_the_strikes_of_the_first_alone() {
        let struck = |lose_replies| {
            let settings = rates(Rates {
                throttle: 0.2,
                lose_replies,
                ..Rates::default()
            });
            let throttled = |number: &u64| {
                let course = Course::random(&settings, *number, Refusal::throughput());
                course.refusal.is_some()
            };
            (0..200).filter(throttled).collect::<Vec<_>>()
        };
        assert_eq!(struck(0.0), struck(0.5));
    }

    #[test]
    fn faults_add_up() {
        let fault = Fault::Delay(Duration::from_millis(5))
            .and(Fault::FailRecords(vec![1], "InternalFailure"))
            .and(Fault::DropReply);
        let mut course = Course::scripted(fault, &Settings::default(), 1);
        assert_eq!(course.delay, Duration::from_millis(5));
        assert_eq!(course.after, After::Close);
        assert_eq!(course.fails(1, b""), Some("InternalFailure"));
        assert_eq!(course.fails(0, b""), None);
    }
}
