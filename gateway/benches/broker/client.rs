//! A publisher or a subscriber of the load: what it sends next, and what it makes of what comes.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::{
    link::Link,
    wire::{self, Frame, PINGREQ, PINGRESP, PUBACK, PUBLISH, STAMP_BYTES},
};

/// Unacknowledged QoS 1 publishes of one publisher.
const WINDOW: u16 = 100;
/// QoS 0 has no acknowledgement: a PINGREQ follows so many publishes, and its answer says that the
/// broker has handled them. Without that, megabytes would wait in sockets that nobody has measured.
const BATCH: u64 = 100;
/// Unanswered PINGREQs of one publisher.
const BATCHES_OPEN: u64 = 3;
/// What a client writes before others have their turn.
const TURN_BYTES: usize = 64 * 1024;

/// See the module.
pub(crate) struct Client {
    link: Link,
    publisher: Option<Publisher>,
    /// The beginning of a packet.
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    pub(crate) can_read: bool,
    pub(crate) can_write: bool,
    /// Deliveries that came.
    pub(crate) received: u64,
    /// Whether times are taken.
    pub(crate) is_timed: bool,
    /// Nanoseconds from sending to delivery, or to the acknowledgement.
    pub(crate) latencies: Vec<u64>,
}

/// What a publisher has besides.
struct Publisher {
    /// The publish for each packet id; of QoS 0 one.
    packets: Vec<Vec<u8>>,
    /// Where the payload of a packet begins.
    payload_at: usize,
    qos: u8,
    free: Vec<u16>,
    sent_at: Vec<u64>,
    sent: u64,
    acknowledged: u64,
    batches_open: u64,
}

impl Client {
    pub(crate) fn subscriber(link: Link) -> Self {
        Self {
            link,
            publisher: None,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            can_read: true,
            can_write: true,
            received: 0,
            is_timed: false,
            latencies: Vec::new(),
        }
    }

    pub(crate) fn publisher(link: Link, topic: &str, qos: u8, bytes: usize) -> Result<Self> {
        // Something that does not compress to nothing, as JSON would be.
        let payload: Vec<u8> = (b'0'..=b'z').cycle().take(bytes).collect();
        let ids = if qos == 0 { 0..=0 } else { 1..=WINDOW };
        let packets = ids
            .clone()
            .map(|id| wire::publish(topic, qos, id, &payload));
        let packets = packets.collect::<Result<Vec<_>>>()?;
        let publisher = Publisher {
            payload_at: packets[0].len() - bytes,
            sent_at: vec![0; packets.len() + 1],
            packets,
            qos,
            free: ids.rev().collect(),
            sent: 0,
            acknowledged: 0,
            batches_open: 0,
        };
        Ok(Self {
            publisher: Some(publisher),
            ..Self::subscriber(link)
        })
    }

    pub(crate) fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    pub(crate) fn is_publisher(&self) -> bool {
        self.publisher.is_some()
    }

    /// Publishes given to the connection.
    pub(crate) fn sent(&self) -> u64 {
        self.publisher
            .as_ref()
            .map_or(0, |publisher| publisher.sent)
    }

    /// Publishes that the broker has answered for.
    pub(crate) fn taken(&self) -> u64 {
        let publisher = self.publisher.as_ref();
        publisher.map_or(0, |publisher| publisher.acknowledged)
    }

    /// Whether no answer is missing.
    pub(crate) fn is_answered(&self) -> bool {
        self.publisher
            .as_ref()
            .is_none_or(|publisher| match publisher.qos {
                0 => publisher.batches_open == 0,
                _ => publisher.free.len() == usize::from(WINDOW),
            })
    }

    /// Fills the output as far as a turn and the window go.
    pub(crate) fn fill(&mut self) {
        let Some(publisher) = &mut self.publisher else {
            return;
        };
        if self.written < self.output.len() {
            return;
        }
        self.output.clear();
        self.written = 0;
        while self.output.len() < TURN_BYTES {
            if publisher.qos == 0 && publisher.batches_open == BATCHES_OPEN {
                break;
            }
            let Some(packet) = publisher.next() else {
                break;
            };
            self.output.extend_from_slice(packet);
            if publisher.qos == 0 && publisher.sent.is_multiple_of(BATCH) {
                self.output.extend(PINGREQ);
                publisher.batches_open += 1;
            }
        }
    }

    /// Puts one publish with the time into the output; `false` if the window is full.
    pub(crate) fn send_stamped(&mut self, at: u64) -> bool {
        let Some(publisher) = &mut self.publisher else {
            return false;
        };
        let id = publisher.free.last().copied();
        let payload_at = publisher.payload_at;
        let Some(packet) = publisher.next() else {
            return false;
        };
        let begin = self.output.len() + payload_at;
        self.output.extend_from_slice(packet);
        self.output[begin..begin + STAMP_BYTES].copy_from_slice(&at.to_be_bytes());
        if let Some(id) = id {
            publisher.sent_at[usize::from(id)] = at;
        }
        true
    }

    /// Writes a turn's worth; whether anything went.
    pub(crate) fn write(&mut self) -> Result<bool> {
        if self.written == self.output.len() && !self.link.holds_bytes() {
            return Ok(false);
        }
        let rest = &self.output[self.written..];
        match self.link.write(rest)? {
            None => {
                self.can_write = false;
                Ok(false)
            }
            Some(count) => {
                self.written += count;
                if self.written == self.output.len() {
                    self.output.clear();
                    self.written = 0;
                    if self.link.holds_bytes() {
                        self.can_write = false;
                    }
                }
                Ok(true)
            }
        }
    }

    /// Reads a turn's worth; whether anything came.
    pub(crate) fn read(&mut self, scratch: &mut [u8], origin: Instant) -> Result<bool> {
        let Some(count) = self.link.read(scratch)? else {
            self.can_read = false;
            return Ok(false);
        };
        let at = if self.is_timed { nanos(origin) } else { 0 };
        if self.input.is_empty() {
            let used = self.take(&scratch[..count], at)?;
            self.input.extend_from_slice(&scratch[used..count]);
        } else {
            let mut input = std::mem::take(&mut self.input);
            input.extend_from_slice(&scratch[..count]);
            let used = self.take(&input, at)?;
            input.drain(..used);
            self.input = input;
        }
        Ok(true)
    }

    /// Takes the whole packets in `bytes`; how many bytes they are.
    fn take(&mut self, bytes: &[u8], at: u64) -> Result<usize> {
        let mut used = 0;
        while let Some(frame) = Frame::first(&bytes[used..]) {
            used += frame.bytes;
            match (frame.kind, &mut self.publisher) {
                (PUBLISH, None) => self.on_delivery(&frame, at)?,
                (PUBACK, Some(publisher)) => {
                    let id = frame.id(0)?;
                    publisher.acknowledged += 1;
                    publisher.free.push(id);
                    if self.is_timed {
                        let sent_at = publisher.sent_at[usize::from(id)];
                        self.latencies.push(at.saturating_sub(sent_at));
                    }
                }
                (PINGRESP, Some(publisher)) => {
                    publisher.acknowledged += BATCH;
                    publisher.batches_open -= 1;
                }
                (kind, _) => bail!("an unexpected packet of type {kind}"),
            }
        }
        Ok(used)
    }

    fn on_delivery(&mut self, frame: &Frame<'_>, at: u64) -> Result<()> {
        self.received += 1;
        if frame.qos == 0 && !self.is_timed {
            return Ok(());
        }
        let mut payload_at = frame.after_topic()?;
        if frame.qos > 0 {
            self.output.extend(wire::puback(frame.id(payload_at)?));
            payload_at += 2;
        }
        if self.is_timed
            && let Some(stamp) = frame.body.get(payload_at..payload_at + STAMP_BYTES)
        {
            let sent_at = u64::from_be_bytes(stamp.try_into()?);
            self.latencies.push(at.saturating_sub(sent_at));
        }
        Ok(())
    }
}

impl Publisher {
    fn next(&mut self) -> Option<&[u8]> {
        let at = match self.qos {
            0 => 0,
            _ => usize::from(self.free.pop()?) - 1,
        };
        self.sent += 1;
        Some(&self.packets[at])
    }
}

/// Nanoseconds since the load began.
pub(crate) fn nanos(origin: Instant) -> u64 {
    u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
