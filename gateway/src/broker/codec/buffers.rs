//! How large the buffers of a connection are: small at rest, larger while much goes through, and
//! small again.
//!
//! A `BytesMut` keeps the room that it once had, however little of it shows, so that it is noted here
//! when it grows. What a large packet took is given back with the packet; what a busy client has, it
//! keeps until it is quiet, which a PINGREQ says.

use bytes::BytesMut;
use portcullis_core::limits::{BUFFER_BYTES, BUFFER_BYTES_MIN, READ_AHEAD_BYTES};

use super::strict;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// The most that was asked for since the read buffer was made.
    reading: usize,
    /// The last packet that came says that there is no other to say.
    is_quiet: bool,
    /// The most that was in the write buffer since it was made.
    writing: usize,
}

impl Buffers {
    /// A packet was taken, with this first byte.
    pub(super) fn took(&mut self, first: u8) {
        self.is_quiet = first >> 4 == strict::PINGREQ;
    }

    /// Nothing is left in the buffer but the beginning of a header.
    pub(super) fn make_room(&mut self, buffer: &mut BytesMut) {
        let has_grown = self.reading > READ_AHEAD_BYTES || (self.reading > 0 && self.is_quiet);
        if buffer.is_empty() && has_grown {
            *buffer = BytesMut::with_capacity(BUFFER_BYTES_MIN);
            self.reading = 0;
        } else {
            self.make_room_for(buffer, 0);
        }
    }

    /// A packet of so many bytes is not all there; its room grows as it comes.
    pub(super) fn make_room_for(&mut self, buffer: &mut BytesMut, bytes: usize) {
        let missing = bytes.saturating_sub(buffer.len()).min(READ_AHEAD_BYTES);
        // The last read filled it: there is more where that came from.
        let is_full = buffer.len() == buffer.capacity();
        let more = if is_full {
            missing.max(BUFFER_BYTES)
        } else {
            missing
        };
        if more > buffer.capacity() - buffer.len() {
            buffer.reserve(more);
            self.reading = self.reading.max(buffer.capacity());
        }
    }

    /// A packet was put into the write buffer.
    pub(super) fn wrote(&mut self, buffer: &BytesMut) {
        self.writing = self.writing.max(buffer.len());
    }

    /// All of it was written; whether a new buffer is to take its place.
    pub(super) fn has_outgrown(&mut self) -> bool {
        let is_large = self.writing > 8 * BUFFER_BYTES;
        let has_outgrown = is_large || (self.is_quiet && self.writing > BUFFER_BYTES);
        if has_outgrown {
            self.writing = 0;
        }
        has_outgrown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISH: u8 = 0x30;
    const PINGREQ: u8 = 0xc0;

    /// As much as there is room for is read, and all of it taken.
    fn read(buffers: &mut Buffers, buffer: &mut BytesMut, first: u8, bytes: usize) {
        while buffer.len() < bytes {
            buffer.resize(buffer.capacity().min(bytes), first);
            if buffer.len() < bytes {
                buffers.make_room_for(buffer, bytes);
            }
        }
        drop(buffer.split_to(bytes));
        buffers.took(first);
        buffers.make_room(buffer);
    }

    #[test]
    fn what_a_large_packet_took_goes_with_it() {
        let mut buffers = Buffers::default();
        let mut buffer = BytesMut::with_capacity(BUFFER_BYTES_MIN);
        read(&mut buffers, &mut buffer, PUBLISH, 128 * 1024);
        assert_eq!(buffer.capacity(), BUFFER_BYTES_MIN);
        assert!(buffer.try_reclaim(BUFFER_BYTES_MIN));
        assert!(!buffer.try_reclaim(BUFFER_BYTES));
    }

    #[test]
    fn a_busy_client_reads_much_at_once_until_it_is_quiet() {
        let mut buffers = Buffers::default();
        let mut buffer = BytesMut::with_capacity(BUFFER_BYTES_MIN);
        read(&mut buffers, &mut buffer, PINGREQ, 2);
        assert_eq!(buffer.capacity(), BUFFER_BYTES_MIN - 2);
        read(&mut buffers, &mut buffer, PUBLISH, 1000);
        assert!(buffer.try_reclaim(BUFFER_BYTES));
        read(&mut buffers, &mut buffer, PUBLISH, 1000);
        assert!(buffer.try_reclaim(BUFFER_BYTES));
        read(&mut buffers, &mut buffer, PINGREQ, 2);
        assert_eq!(buffer.capacity(), BUFFER_BYTES_MIN);
    }

    #[test]
    fn what_a_large_packet_took_to_be_written_goes_when_it_is() {
        let mut buffers = Buffers::default();
        buffers.wrote(&BytesMut::zeroed(BUFFER_BYTES));
        assert!(!buffers.has_outgrown());
        buffers.wrote(&BytesMut::zeroed(128 * 1024));
        buffers.wrote(&BytesMut::zeroed(2));
        assert!(buffers.has_outgrown());
        assert!(!buffers.has_outgrown());
    }
}
