//! The gateway's own log events, for whoever wants to send them somewhere: beside the lines on standard
//! error, from a level of its own, over a bounded queue. Who logs never waits: an event that finds the
//! queue full is counted and gone.
//!
//! Only the gateway's own modules are heard, not the libraries; and not those that bring what is tapped
//! to the cloud, for what they say would be their next load.

use std::{
    fmt::{self, Write},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU8, Ordering},
    },
};

use portcullis_core::{
    cloudwatch::logs::Line,
    limits::{LOG_EVENT_BYTES_MAX, LOG_EVENT_FIELDS_MAX},
};
use prometheus::IntCounter;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::Interest,
};
use tracing_subscriber::layer::{Context, Filter, Layer};

use crate::clock::now;

/// Whose events are heard.
const HEARD: &str = "portcullis::";
/// Whose are not, though they are the gateway's.
const UNHEARD: &str = "portcullis::uplink::cloudwatch";

/// The tap of this process: logging is the process's, too.
static PROCESS: Slot = Slot::new();

/// Hears log events from `level` on, `events_max` of them waiting; those that find no room count into
/// `lost`. There is one tap: a former one hears nothing any more.
pub fn tap(level: Level, events_max: usize, lost: IntCounter) -> mpsc::Receiver<Line> {
    PROCESS.open(level, events_max, lost)
}

/// The layer that hears, and which events it wants to.
pub(super) fn layer<S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>>()
-> impl Layer<S> {
    Capture(&PROCESS).with_filter(Chosen(&PROCESS))
}

/// Where events go.
#[derive(Debug)]
struct Slot {
    /// Of [`rank`]: up to which level; 0 is none.
    rank: AtomicU8,
    sender: RwLock<Option<(mpsc::Sender<Line>, IntCounter)>>,
}

impl Slot {
    const fn new() -> Self {
        Self {
            rank: AtomicU8::new(0),
            sender: RwLock::new(None),
        }
    }

    fn open(&self, level: Level, events_max: usize, lost: IntCounter) -> mpsc::Receiver<Line> {
        let (sender, receiver) = mpsc::channel(events_max);
        *self.sender.write().unwrap_or_else(PoisonError::into_inner) = Some((sender, lost));
        self.rank.store(rank(level), Ordering::Release);
        tracing::callsite::rebuild_interest_cache();
        receiver
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        rank(*metadata.level()) <= self.rank.load(Ordering::Acquire)
            && target.starts_with(HEARD)
            && !target.starts_with(UNHEARD)
    }

    fn put(&self, line: impl FnOnce() -> Line) {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner);
        let Some((sender, lost)) = &*sender else {
            return;
        };
        match sender.try_reserve() {
            Ok(place) => place.send(line()),
            Err(mpsc::error::TrySendError::Full(())) => lost.inc(),
            Err(mpsc::error::TrySendError::Closed(())) => {}
        }
    }
}

const fn rank(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

struct Chosen(&'static Slot);

impl<S> Filter<S> for Chosen {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        metadata.is_event() && self.0.wants(metadata)
    }

    // Made anew when the tap is opened.
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.is_event() && self.0.wants(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(match self.0.rank.load(Ordering::Acquire) {
            0 => LevelFilter::OFF,
            1 => LevelFilter::ERROR,
            2 => LevelFilter::WARN,
            3 => LevelFilter::INFO,
            4 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        })
    }
}

struct Capture(&'static Slot);

impl<S: Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.0.put(|| {
            let metadata = event.metadata();
            let mut facts = Facts {
                message: String::new(),
                fields: Map::new(),
                bytes_left: LOG_EVENT_BYTES_MAX,
            };
            event.record(&mut facts);
            Line {
                at: now(),
                level: match *metadata.level() {
                    Level::ERROR => "error",
                    Level::WARN => "warn",
                    Level::INFO => "info",
                    Level::DEBUG => "debug",
                    Level::TRACE => "trace",
                },
                target: metadata.target().to_owned(),
                message: facts.message,
                fields: facts.fields,
            }
        });
    }
}

/// What an event says, within its bounds.
struct Facts {
    message: String,
    fields: Map<String, Value>,
    bytes_left: usize,
}

impl Facts {
    fn put(&mut self, field: &Field, value: Value) {
        if self.fields.len() < LOG_EVENT_FIELDS_MAX {
            self.fields.insert(field.name().to_owned(), value);
        }
    }

    fn put_text(&mut self, field: &Field, text: fmt::Arguments<'_>) {
        let mut cut = Cut {
            text: String::new(),
            bytes_left: self.bytes_left,
        };
        // An error says that there was more than fits.
        let whole = cut.write_fmt(text).is_ok();
        self.bytes_left = cut.bytes_left;
        if !whole {
            self.bytes_left = 0;
            cut.text.push('…');
        }
        match field.name() {
            "message" => self.message = cut.text,
            _ => self.put(field, cut.text.into()),
        }
    }
}

/// A text that takes no more than its bound, however much is written.
struct Cut {
    text: String,
    bytes_left: usize,
}

impl Write for Cut {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.floor_char_boundary(self.bytes_left);
        let (fits, rest) = text.split_at(end);
        self.text.push_str(fits);
        self.bytes_left -= end;
        if rest.is_empty() {
            Ok(())
        } else {
            Err(fmt::Error)
        }
    }
}

impl Visit for Facts {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use portcullis_core::timestamp::Timestamp;
    use tracing::{debug, error, info, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn tapped(level: Level, events_max: usize, log: impl FnOnce()) -> (Vec<Line>, u64) {
        let slot: &'static Slot = Box::leak(Box::new(Slot::new()));
        let layer = Capture(slot).with_filter(Chosen(slot));
        let lost = IntCounter::new("lost", "h").unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        let mut events = tracing::subscriber::with_default(subscriber, || {
            warn!("Nobody hears this yet.");
            let events = slot.open(level, events_max, lost.clone());
            log();
            events
        });
        let mut lines = Vec::new();
        while let Ok(line) = events.try_recv() {
            lines.push(line);
        }
        (lines, lost.get())
    }

    #[test]
    fn events_from_the_level_on_are_heard_with_their_facts() {
        crate::clock::stand_at(Timestamp::from_millis(7));
        let (lines, lost) = tapped(Level::WARN, 10, || {
            let client = "dev-1";
            warn!(%client, attempts = 3, late = true, share = 0.5, why = ?Some("x"), "Handshake timed out.");
            error!("All is lost.");
            info!("All is well.");
            debug!("All is detailed.");
        });
        let fields = [
            ("client".to_owned(), "dev-1".into()),
            ("attempts".to_owned(), 3.into()),
            ("late".to_owned(), true.into()),
            ("share".to_owned(), 0.5.into()),
            ("why".to_owned(), "Some(\"x\")".into()),
        ];
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert_eq!(
            lines[0],
            Line {
                at: Timestamp::from_millis(7),
                level: "warn",
                target: module_path!().to_owned(),
                message: "Handshake timed out.".to_owned(),
                fields: Map::from_iter(fields),
            }
        );
        assert_eq!(
            (lines[1].level, &*lines[1].message),
            ("error", "All is lost.")
        );
        assert_eq!(lost, 0);
    }

    #[test]
    fn what_the_sink_and_the_libraries_say_is_not_heard() {
        let (lines, _) = tapped(Level::TRACE, 10, || {
            warn!(target: "portcullis::uplink::cloudwatch::link", "CloudWatch does not answer.");
            warn!(target: "portcullis::uplink::cloudwatch", "CloudWatch does not answer.");
            warn!(target: "hyper::client", "A connection broke.");
            warn!(target: "portcullis::uplink::state", "Uplink is offline.");
        });
        let heard: Vec<_> = lines.iter().map(|line| &*line.message).collect();
        assert_eq!(heard, ["Uplink is offline."]);
    }

    #[test]
    fn events_that_find_the_queue_full_are_counted_and_nobody_waits() {
        let (lines, lost) = tapped(Level::WARN, 3, || {
            for n in 0..10 {
                warn!(n, "Again.");
            }
        });
        let told: Vec<_> = lines.iter().map(|line| line.fields["n"].clone()).collect();
        assert_eq!(told, [0, 1, 2]);
        assert_eq!(lost, 7);
    }

    #[test]
    fn an_event_takes_no_more_than_its_bound() {
        let (lines, _) = tapped(Level::WARN, 3, || {
            let much = "ä".repeat(LOG_EVENT_BYTES_MAX);
            warn!(much, more = ?vec![7; 100_000], "Very much.");
        });
        let bytes = lines[0].members().len();
        assert!(bytes < LOG_EVENT_BYTES_MAX + 512, "{bytes}");
        assert_eq!(lines[0].message, "Very much.");
    }
}
