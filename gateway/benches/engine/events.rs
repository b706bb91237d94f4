//! Events as the pipeline makes them.

use std::{collections::BTreeMap, fmt::Write};

use bytes::Bytes;
use portcullis_core::{
    event::{Event, Qos},
    identity::{ClientId, GroupName, ThingName},
    record::{Clock, Draft, Envelope, Record, Shaped, event_draft},
    timestamp::Timestamp,
    topic::TopicName,
};

/// What devices send, 512 bytes of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Payload {
    /// Readings of sensors.
    Json,
    /// What is compressed or encrypted already; the record has it in base64.
    Noise,
}

impl Payload {
    pub(super) const ALL: [Self; 2] = [Self::Json, Self::Noise];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Noise => "noise",
        }
    }

    fn make(self, random: &mut fastrand::Rng) -> Bytes {
        match self {
            Self::Noise => std::iter::repeat_with(|| random.u8(..))
                .take(PAYLOAD_BYTES)
                .collect(),
            Self::Json => {
                let mut text = String::from("{");
                for n in 0.. {
                    let name = READINGS[n % READINGS.len()];
                    let unit = n / READINGS.len();
                    let value = f64::from(random.u32(..1_000_000)) / 1000.0;
                    let reading = format!("\"{name}_{unit}\":{value}");
                    if text.len() + reading.len() + 2 > PAYLOAD_BYTES {
                        break;
                    }
                    if n > 0 {
                        text.push(',');
                    }
                    text.push_str(&reading);
                }
                let rest = PAYLOAD_BYTES - text.len() - 1;
                text.extend(std::iter::repeat_n(' ', rest));
                text.push('}');
                text.into()
            }
        }
    }
}

const PAYLOAD_BYTES: usize = 512;
const READINGS: [&str; 12] = [
    "temperature",
    "humidity",
    "pressure",
    "battery_mv",
    "rssi",
    "setpoint",
    "supply_air",
    "return_air",
    "vibration_rms",
    "current_a",
    "voltage_v",
    "flow",
];
/// So many that what compresses one value never sees an event twice.
const POOL_EVENTS: usize = 4096;
const THINGS: usize = 40;

/// Events to append in batches, over and over.
pub(super) struct Pool {
    records: Vec<Record>,
    encoded: Vec<Vec<u8>>,
    batch: usize,
}

impl Pool {
    pub(super) fn new(payload: Payload, batch: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(5);
        let drafts: Vec<_> = (0..POOL_EVENTS)
            .map(|n| draft(n, &payload.make(&mut random), &mut random))
            .collect();
        let boot_id = id(&mut random);
        let envelope = Envelope::new("gateway-site-12", &boot_id);
        let records = envelope.close(drafts.iter(), 1_000_000, 1, 1_795_341_600_123);
        let encoded = records.chunks(batch).map(|records| {
            let mut out = Vec::new();
            records.iter().for_each(|record| record.encode(&mut out));
            out
        });
        Self {
            encoded: encoded.collect(),
            records,
            batch,
        }
    }

    /// Events in a batch.
    pub(super) fn batch(&self) -> u64 {
        u64::try_from(self.batch).unwrap_or(u64::MAX)
    }

    /// The next batch, with places from `first` on.
    pub(super) fn records(&self, first: u64) -> Vec<Record> {
        let at = usize::try_from(first - 1).unwrap_or(0) % self.records.len();
        let batch = self.records[at..].iter().take(self.batch);
        (first..)
            .zip(batch)
            .map(|(place, record)| Record {
                place,
                ..record.clone()
            })
            .collect()
    }

    /// The batches as bytes.
    pub(super) fn encoded(&self) -> impl Iterator<Item = &Vec<u8>> + Clone {
        self.encoded.iter()
    }
}

fn draft(n: usize, payload: &Bytes, random: &mut fastrand::Rng) -> Draft {
    let name = format!("sensor-{}", random.usize(..THINGS));
    let millis = 1_795_341_600_000 + u64::try_from(n).unwrap_or(0) * 5;
    let event = Event {
        thing: Some(ThingName::parse(&name).expect("a good name")),
        groups: [GroupName::parse("cold-chain").expect("a good name")].into(),
        client_id: ClientId::parse(&name).expect("a good client id"),
        received_at: Timestamp::from_millis(millis),
        topic: TopicName::parse(&format!("dt/{name}/telemetry")).expect("a good topic"),
        payload: payload.clone(),
        qos: Qos::AtLeastOnce,
        retain: false,
        user_properties: Vec::new(),
    };
    let shaped = Shaped {
        topic: &event.topic,
        payload: &event.payload,
        tags: &BTreeMap::new(),
    };
    event_draft(&event, &shaped, &id(random), Clock::Synced)
}

/// As long and as random as a UUID of version 7.
fn id(random: &mut fastrand::Rng) -> String {
    let mut text = String::from("019ab3c4-");
    for digits in [4, 4, 4, 12] {
        for _ in 0..digits {
            write!(text, "{:x}", random.u8(..16)).expect("text takes all");
        }
        text.push('-');
    }
    text.pop();
    text
}
