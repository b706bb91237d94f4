//! What is fuzzed: any bytes after a CONNECT, or instead of it. The ordinary tests run it for a moment as
//! well (`broker::codec::tests::fuzz`).
//!
//! The first byte says whose packets they are and how they arrive. They are read alike in one piece and in
//! many, take memory in proportion to their size, and what is read and written again reads the same.

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use super::codec::{Codec, Packet};

const CONNECT_V311: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01a";
/// Asks for problem information: to others reasons are not written.
const CONNECT_V5: &[u8] = b"\x10\x10\x00\x04MQTT\x05\x02\x00\x00\x02\x17\x01\x00\x01a";
const PACKET_BYTES_MAX: usize = 1024;
/// What a byte may take: a filter of three bytes is a structure of fifty, in a list that doubles.
const BYTES_PER_BYTE: u64 = 64;
/// What is there before the first.
const BYTES_BEFORE: u64 = 16 * 1024;

/// Packets up to the first error, and that.
type Read = (Vec<Packet>, Option<String>);

/// `measure` runs its work and says how many bytes were allocated at most at once.
pub(crate) fn run(data: &[u8], measure: impl Fn(&mut dyn FnMut()) -> u64) {
    let Some((&how, rest)) = data.split_first() else {
        return;
    };
    let connect = match how & 3 {
        0 => CONNECT_V311,
        1 => &[],
        _ => CONNECT_V5,
    };
    let bytes = [connect, rest].concat();
    let whole = read(&bytes, bytes.len());
    let piece = 1 + usize::from(how >> 2) % 40;
    assert_eq!(read(&bytes, piece), whole, "in pieces of {piece}");

    let allocated = measure(&mut || feed(&bytes, piece, |_| {}).map_or((), drop));
    let most = BYTES_BEFORE + BYTES_PER_BYTE * u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    assert!(allocated <= most, "{allocated} for {}", bytes.len());

    for packet in &whole.0 {
        if let Some(again) = written_and_read(&bytes, packet) {
            let same = std::mem::discriminant(&again) == std::mem::discriminant(packet);
            // Who says its own CONNECT may not want to hear reasons.
            let is_shortened = how & 3 == 1 && same && may_have_reason(packet);
            assert!(
                is_shortened || &again == packet,
                "{packet:?} reads {again:?}"
            );
        }
    }
}

fn read(bytes: &[u8], piece: usize) -> Read {
    let mut packets = Vec::new();
    let error = feed(bytes, piece, |packet| packets.push(packet));
    (packets, error)
}

/// Feeds the bytes in pieces; the first error.
fn feed(bytes: &[u8], piece: usize, mut take: impl FnMut(Packet)) -> Option<String> {
    let mut codec = Codec::new(PACKET_BYTES_MAX);
    let mut source = BytesMut::new();
    for piece in bytes.chunks(piece.max(1)) {
        source.extend_from_slice(piece);
        loop {
            match codec.decode(&mut source) {
                Ok(Some(packet)) => take(packet),
                Ok(None) => break,
                Err(error) => return Some(error.to_string()),
            }
        }
        assert!(
            source.len() < PACKET_BYTES_MAX,
            "it waits for no more than a packet"
        );
    }
    None
}

/// `None` if our side has no way to write it: a server sends no SUBSCRIBE to an MQTT 3.1.1 client.
fn written_and_read(bytes: &[u8], packet: &Packet) -> Option<Packet> {
    let mut codec = Codec::new(2 * PACKET_BYTES_MAX);
    let mut source = BytesMut::from(bytes);
    codec.decode(&mut source).ok()??;
    let mut written = BytesMut::new();
    codec.encode(packet.clone(), &mut written).ok()?;
    if written.is_empty() {
        return None;
    }
    if matches!(packet, Packet::Connect(..)) {
        // The codec takes one only as the first.
        codec = Codec::new(2 * PACKET_BYTES_MAX);
    }
    let again = codec.decode(&mut written);
    let again = again.unwrap_or_else(|error| panic!("{packet:?}: {error}"));
    assert!(written.is_empty(), "{packet:?} leaves {written:?}");
    again
}

fn may_have_reason(packet: &Packet) -> bool {
    matches!(
        packet,
        Packet::ConnAck(_)
            | Packet::PubAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::Disconnect(_)
    )
}
