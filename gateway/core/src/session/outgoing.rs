//! QoS 1 and 2 messages for the client: those that wait and those that are in flight, in one queue.

use std::collections::VecDeque;

use crate::event::Qos;

/// What a session's queue may hold, in flight or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutgoingBounds {
    /// Messages.
    pub messages_max: usize,
    /// Their sizes together, as the caller counts them.
    pub bytes_max: usize,
}

/// The queue of a session; see the [module](super).
///
/// Messages are numbered from 0 in the order in which they were offered, and go to the client in that
/// order. A message leaves when its exchange is over.
#[derive(Clone, Debug)]
pub struct Outgoing<M> {
    /// `None`: left before an older one did.
    entries: VecDeque<Option<Entry<M>>>,
    /// Number of the first entry.
    base: u64,
    /// Number of the first message that was never sent.
    unsent: u64,
    /// Number of the first message that this connection has not seen yet.
    cursor: u64,
    /// Messages before this one need no PUBREL again on this connection. PUBRELs go before all else:
    /// open exchanges could fill the window otherwise, each waiting for the other.
    released: u64,
    /// The first message that no former connection had.
    release_until: u64,
    /// QoS 2 messages from this one on are not sent yet.
    settled: u64,
    bounds: OutgoingBounds,
    messages: usize,
    bytes: usize,
    /// Receive Maximum of the connection; 0 while there is none.
    window: u16,
    /// Exchanges that are open on this connection: the window bounds them (MQTT 5.0, 4.9). Those that
    /// a former connection left half done count as well.
    open: usize,
}

#[derive(Clone, Debug)]
struct Entry<M> {
    message: M,
    qos: Qos,
    bytes: usize,
    stage: Stage,
}

/// How far the exchange of a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits, or waits for its PUBACK or PUBREC.
    Published,
    /// The PUBREC came: it is the client's now, and a PUBREL goes out until the PUBCOMP comes.
    Received,
}

/// What goes to the client next.
#[derive(Debug, PartialEq, Eq)]
pub enum Transmission<'q, M> {
    /// A PUBLISH.
    Publish {
        /// Its number in the queue.
        number: u64,
        /// Packet id.
        pkid: u16,
        /// Whether it was sent before.
        dup: bool,
        /// Never QoS 0.
        qos: Qos,
        /// The message.
        message: &'q M,
    },
    /// A PUBREL again.
    Release {
        /// Packet id.
        pkid: u16,
    },
}

/// The message of an exchange that is over.
#[derive(Debug, PartialEq, Eq)]
pub struct Acknowledged<M> {
    /// Its number in the queue.
    pub number: u64,
    /// The message.
    pub message: M,
}

/// A message as it was written down.
#[derive(Clone, Debug)]
pub struct Restored<M> {
    /// Its number in the queue; ascending.
    pub number: u64,
    /// QoS 1 or 2.
    pub qos: Qos,
    /// As the caller counts them.
    pub bytes: usize,
    /// How far it was.
    pub stage: Stage,
    /// The message.
    pub message: M,
}

/// The queue is at a bound: the message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the queue of the session is full")]
pub struct Full;

/// An answer to nothing that is in flight. A client that lost its state may send one; it is no
/// reason to disconnect it (MQTT 5.0, 4.13 leaves that to the server), and changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no message of this packet id and stage is in flight")]
pub struct Unexpected;

/// Packet ids go from 1 to this.
const PACKET_IDS: u64 = 65_535;

impl<M> Outgoing<M> {
    /// An empty queue.
    pub fn new(bounds: OutgoingBounds) -> Self {
        Self {
            entries: VecDeque::new(),
            base: 0,
            unsent: 0,
            cursor: 0,
            released: 0,
            release_until: 0,
            settled: u64::MAX,
            bounds,
            messages: 0,
            bytes: 0,
            window: 0,
            open: 0,
        }
    }

    /// The queue as it was written down: what is in it, the number of the next message, and that of
    /// the first one that was never sent. Bounds do not count here: what was taken is kept.
    pub fn restore(
        bounds: OutgoingBounds,
        messages: impl IntoIterator<Item = Restored<M>>,
        next: u64,
        unsent: u64,
    ) -> Self {
        let mut queue = Self::new(bounds);
        for restored in messages {
            if queue.entries.is_empty() {
                queue.base = restored.number;
            }
            while queue.next_number() < restored.number {
                queue.entries.push_back(None);
            }
            queue.messages += 1;
            queue.bytes += restored.bytes;
            queue.entries.push_back(Some(Entry {
                message: restored.message,
                qos: restored.qos,
                bytes: restored.bytes,
                stage: restored.stage,
            }));
        }
        if queue.entries.is_empty() {
            queue.base = next;
        }
        while queue.next_number() < next {
            queue.entries.push_back(None);
        }
        queue.unsent = unsent.clamp(queue.base, queue.next_number());
        queue.cursor = queue.base;
        queue
    }

    /// Takes a message of QoS 1 or 2, and says its number.
    ///
    /// # Errors
    /// [`Full`]: the bound stands, the newest message is the one that is lost.
    pub fn offer(&mut self, qos: Qos, bytes: usize, message: M) -> Result<u64, Full> {
        debug_assert_ne!(qos, Qos::AtMostOnce);
        if self.messages >= self.bounds.messages_max
            || bytes > self.bounds.bytes_max.saturating_sub(self.bytes)
        {
            return Err(Full);
        }
        let number = self.next_number();
        self.messages += 1;
        self.bytes += bytes;
        self.entries.push_back(Some(Entry {
            message,
            qos,
            bytes,
            stage: Stage::Published,
        }));
        Ok(number)
    }

    /// A connection begins that takes `window` unanswered publishes: what is in flight goes again
    /// first.
    pub fn connect(&mut self, window: u16) {
        self.window = window;
        self.cursor = self.base;
        self.released = self.base;
        self.release_until = self.unsent;
        let entries = self.entries.iter().flatten();
        self.open = entries
            .filter(|entry| entry.stage == Stage::Received)
            .count();
    }

    /// The connection is over: nothing goes until the next one.
    pub fn disconnect(&mut self) {
        self.window = 0;
    }

    /// Whether the window takes a message.
    pub fn has_room(&self) -> bool {
        self.open < usize::from(self.window)
    }

    /// QoS 2 messages from `number` on wait until the next call. A session that survives restarts calls
    /// this with what is durable: if the packet id of a message that was sent and forgotten went to
    /// another message, the client would take that for the one it has.
    pub fn settle(&mut self, number: u64) {
        self.settled = number;
    }

    /// What to send next. Messages that were never sent and of which `is_void` says that they are not
    /// to be sent any more (their time is over, their subscription is gone) leave; they are handed to
    /// `dropped` with their numbers.
    pub fn next_transmission(
        &mut self,
        mut is_void: impl FnMut(&M) -> bool,
        mut dropped: impl FnMut(u64, M),
    ) -> Option<Transmission<'_, M>> {
        if self.window == 0 {
            return None;
        }
        if let Some(pkid) = self.next_release() {
            return Some(Transmission::Release { pkid });
        }
        loop {
            let number = self.cursor;
            let index = self.index(number)?;
            if number - self.base >= PACKET_IDS {
                // Its packet id is that of the oldest message in flight.
                return None;
            }
            let is_new = number >= self.unsent;
            match self.entries.get(index)? {
                None => self.pass(number),
                Some(entry) if is_new && is_void(&entry.message) => {
                    if let Some(entry) = self.remove(number) {
                        dropped(number, entry.message);
                    }
                    self.cursor = self.cursor.max(number + 1);
                    self.unsent = self.unsent.max(self.cursor);
                }
                Some(entry) if entry.stage == Stage::Received => self.pass(number),
                Some(entry) if entry.qos == Qos::ExactlyOnce && number >= self.settled => {
                    return None;
                }
                Some(_) if self.open >= usize::from(self.window) => return None,
                Some(_) => {
                    self.open += 1;
                    self.pass(number);
                    let entry = self.entries.get(index)?.as_ref()?;
                    return Some(Transmission::Publish {
                        number,
                        pkid: pkid(number),
                        dup: !is_new,
                        qos: entry.qos,
                        message: &entry.message,
                    });
                }
            }
        }
    }

    /// A PUBACK came, or a PUBREC with an error: the exchange is over.
    ///
    /// # Errors
    /// [`Unexpected`].
    pub fn acknowledged(&mut self, pkid: u16, qos: Qos) -> Result<Acknowledged<M>, Unexpected> {
        let number = self.in_flight(pkid, |entry| {
            entry.qos == qos && entry.stage == Stage::Published
        })?;
        self.answered();
        self.finish(number)
    }

    /// A PUBREC came: the message is the client's. Its number; once that it is received was written
    /// down a PUBREL may go.
    ///
    /// # Errors
    /// [`Unexpected`]; an id that is waiting for its PUBCOMP already is fine.
    pub fn received(&mut self, pkid: u16) -> Result<u64, Unexpected> {
        let number = self.in_flight(pkid, |entry| entry.qos == Qos::ExactlyOnce)?;
        let index = self.index(number).ok_or(Unexpected)?;
        if let Some(Some(entry)) = self.entries.get_mut(index) {
            entry.stage = Stage::Received;
        }
        Ok(number)
    }

    /// A PUBCOMP came: the exchange is over.
    ///
    /// # Errors
    /// [`Unexpected`].
    pub fn completed(&mut self, pkid: u16) -> Result<Acknowledged<M>, Unexpected> {
        let number = self.in_flight(pkid, |entry| entry.stage == Stage::Received)?;
        self.answered();
        self.finish(number)
    }

    /// Takes a message out whose sending failed for good: it is larger than the client takes.
    pub fn discard(&mut self, number: u64) -> Option<M> {
        if number < self.cursor && self.window > 0 {
            self.answered();
        }
        self.remove(number).map(|entry| entry.message)
    }

    /// Every message, oldest first, with its number, QoS and stage.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Qos, Stage, &M)> {
        let numbered = (self.base..).zip(&self.entries);
        numbered.filter_map(|(number, entry)| {
            let entry = entry.as_ref()?;
            Some((number, entry.qos, entry.stage, &entry.message))
        })
    }

    /// The number that the next message gets.
    pub fn next_number(&self) -> u64 {
        self.base + u64::try_from(self.entries.len()).unwrap_or(u64::MAX)
    }

    /// The number of the first message that was never sent.
    pub fn unsent(&self) -> u64 {
        self.unsent
    }

    /// Messages in the queue, in flight or not.
    pub fn len(&self) -> usize {
        self.messages
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    /// Their sizes together.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages sent and not answered to the end.
    pub fn in_flight_len(&self) -> usize {
        let sent = usize::try_from(self.unsent - self.base).unwrap_or(usize::MAX);
        self.entries.iter().take(sent).flatten().count()
    }

    /// The packet id of the next PUBREL that goes again.
    fn next_release(&mut self) -> Option<u16> {
        while self.released < self.release_until {
            let number = self.released;
            self.released += 1;
            let entry = self.entries.get(self.index(number)?)?.as_ref();
            if entry.is_some_and(|entry| entry.stage == Stage::Received) {
                return Some(pkid(number));
            }
        }
        None
    }

    fn pass(&mut self, number: u64) {
        self.cursor = number + 1;
        self.unsent = self.unsent.max(self.cursor);
    }

    fn answered(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    fn index(&self, number: u64) -> Option<usize> {
        let index = usize::try_from(number.checked_sub(self.base)?).ok()?;
        (index < self.entries.len()).then_some(index)
    }

    /// The number of the message that was sent with `pkid` on this connection and fits.
    fn in_flight(&self, pkid: u16, fits: impl Fn(&Entry<M>) -> bool) -> Result<u64, Unexpected> {
        let wanted = u64::from(pkid.checked_sub(1).ok_or(Unexpected)?);
        let ahead = (wanted + PACKET_IDS - self.base % PACKET_IDS) % PACKET_IDS;
        let number = self.base + ahead;
        let index = self.index(number).ok_or(Unexpected)?;
        match self.entries.get(index) {
            Some(Some(entry))
                if self.window > 0
                    && (number < self.cursor || entry.stage == Stage::Received)
                    && fits(entry) =>
            {
                Ok(number)
            }
            _ => Err(Unexpected),
        }
    }

    fn finish(&mut self, number: u64) -> Result<Acknowledged<M>, Unexpected> {
        let entry = self.remove(number).ok_or(Unexpected)?;
        Ok(Acknowledged {
            number,
            message: entry.message,
        })
    }

    fn remove(&mut self, number: u64) -> Option<Entry<M>> {
        let index = self.index(number)?;
        let entry = self.entries.get_mut(index)?.take()?;
        self.messages -= 1;
        self.bytes -= entry.bytes;
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.base += 1;
        }
        self.unsent = self.unsent.max(self.base);
        self.cursor = self.cursor.max(self.base);
        self.released = self.released.max(self.base);
        Some(entry)
    }
}

/// The packet id of a message: messages in flight at once are less than [`PACKET_IDS`] apart.
fn pkid(number: u64) -> u16 {
    // The remainder is below 65 535.
    u16::try_from(number % PACKET_IDS + 1).unwrap_or(u16::MAX)
}
