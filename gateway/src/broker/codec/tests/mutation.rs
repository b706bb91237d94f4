//! Random and mutated packets, in pieces of any size: nothing panics, nothing grows.

use portcullis_core::limits::BUFFER_BYTES;
use proptest::prelude::*;

use super::*;

const PACKET_BYTES_MAX: usize = 1024;

/// Feeds `bytes` in pieces, as a socket would, to the first error.
fn feed(codec: &mut Codec, bytes: &[u8], pieces: &[usize]) -> (usize, Option<DecodeError>) {
    let mut source = BytesMut::new();
    let (mut rest, mut packets) = (bytes, 0);
    let mut sizes = pieces.iter().copied().cycle();
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(1).clamp(1, rest.len());
        let (piece, after) = rest.split_at(size);
        source.extend_from_slice(piece);
        rest = after;
        loop {
            match codec.decode(&mut source) {
                Ok(Some(_)) => packets += 1,
                Ok(None) => break,
                Err(error) => return (packets, Some(error)),
            }
        }
        // What is left is the beginning of a packet, and room for the rest of it or a read.
        assert!(source.len() < PACKET_BYTES_MAX, "{}", source.len());
        assert!(source.capacity() <= 4 * PACKET_BYTES_MAX + 2 * BUFFER_BYTES + bytes.len());
    }
    (packets, None)
}

fn connect(version: Version) -> &'static [u8] {
    match version {
        Version::V311 => CONNECT_V311,
        Version::V5 => CONNECT_V5,
    }
}

fn any_version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V311), Just(Version::V5)]
}

/// What a client sends after its CONNECT, in the version's form.
fn written(version: Version, packets: &[Packet]) -> Vec<u8> {
    let mut bytes = BytesMut::from(connect(version));
    for packet in packets {
        match version {
            Version::V5 => connected(version)
                .encode(packet.clone(), &mut bytes)
                .unwrap(),
            Version::V311 => v311(packet).into_iter().for_each(|packet| {
                packet.write(&mut bytes, usize::MAX).unwrap();
            }),
        }
    }
    bytes.to_vec()
}

/// The 3.1.1 form of what a client sends.
fn v311(packet: &Packet) -> Option<v4p::Packet> {
    match packet.clone() {
        Packet::Subscribe(subscribe) => {
            let filters = subscribe.filters.into_iter();
            let filters = filters.map(|filter| v4p::SubscribeFilter {
                path: filter.path,
                qos: versions::lower_qos(filter.qos),
            });
            let mut lowered = v4p::Subscribe::new_many(filters);
            lowered.pkid = subscribe.pkid;
            Some(v4p::Packet::Subscribe(lowered))
        }
        Packet::Unsubscribe(unsubscribe) => Some(v4p::Packet::Unsubscribe(v4p::Unsubscribe {
            pkid: unsubscribe.pkid,
            topics: unsubscribe.filters,
        })),
        Packet::Disconnect(_) => Some(v4p::Packet::Disconnect),
        other => lower(other),
    }
}

#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
}

fn any_change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (index(), 0_u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (index(), prop::collection::vec(any::<u8>(), 1..8))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (index(), 1_usize..8).prop_map(|(at, count)| Change::Remove(at, count)),
        (index(), 1_usize..64).prop_map(|(at, count)| Change::Repeat(at, count)),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: Change) {
    if bytes.is_empty() {
        return;
    }
    let end = |at: usize, count: usize, length: usize| (at + count).min(length);
    match change {
        Change::Set(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        Change::Flip(at, bit) => {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        Change::Insert(at, new) => {
            let at = at.index(bytes.len());
            bytes.splice(at..at, new);
        }
        Change::Remove(at, count) => {
            let at = at.index(bytes.len());
            bytes.drain(at..end(at, count, bytes.len()));
        }
        Change::Repeat(at, count) => {
            let at = at.index(bytes.len());
            let again = bytes[at..end(at, count, bytes.len())].to_vec();
            bytes.splice(at..at, again);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn pieces_make_no_difference(
        version in any_version(),
        packets in prop::collection::vec(prop::sample::select(client_packets()), 0..8),
        pieces in prop::collection::vec(1_usize..20, 1..8),
    ) {
        let bytes = written(version, &packets);
        let (count, error) = feed(&mut Codec::new(PACKET_BYTES_MAX), &bytes, &pieces);
        prop_assert!(error.is_none(), "{:?}", error);
        prop_assert_eq!(count, packets.len() + 1);
    }

    #[test]
    fn mutated_packets_never_panic(
        version in any_version(),
        packets in prop::collection::vec(prop::sample::select(client_packets()), 0..8),
        changes in prop::collection::vec(any_change(), 0..6),
        spares_connect in any::<bool>(),
        pieces in prop::collection::vec(1_usize..200, 1..8),
    ) {
        let mut bytes = written(version, &packets);
        let mut mutated = bytes.split_off(if spares_connect { connect(version).len() } else { 0 });
        for change in changes {
            apply(&mut mutated, change);
        }
        bytes.append(&mut mutated);
        feed(&mut Codec::new(PACKET_BYTES_MAX), &bytes, &pieces);
    }

    #[test]
    fn random_bytes_never_panic(
        version in any_version(),
        first in any::<u8>(),
        random in prop::collection::vec(any::<u8>(), 0..600),
        pieces in prop::collection::vec(1_usize..200, 1..8),
    ) {
        let mut bytes = connect(version).to_vec();
        bytes.push(first);
        bytes.extend(random);
        feed(&mut Codec::new(PACKET_BYTES_MAX), &bytes, &pieces);
    }

    /// A body of random bytes whose length is right: the deepest that randomness gets.
    #[test]
    fn random_bodies_never_panic(
        version in any_version(),
        first in any::<u8>(),
        random in prop::collection::vec(prop_oneof![any::<u8>(), 0_u8..40], 0..120),
    ) {
        let mut bytes = connect(version).to_vec();
        bytes.extend([first, u8::try_from(random.len()).unwrap()]);
        bytes.extend(random);
        feed(&mut Codec::new(PACKET_BYTES_MAX), &bytes, &[7]);
    }
}
