//! Packing and unpacking: what comes back, what damage costs, what a value may claim.

use portcullis_core::record::{Kind, SinkSet};
use proptest::prelude::*;

use super::*;

fn records(bodies: impl IntoIterator<Item = Vec<u8>>) -> Vec<Record> {
    (7..)
        .zip(bodies)
        .map(|(place, body)| Record {
            seq: 1000 + place,
            place,
            kind: Kind::Event,
            sinks: SinkSet::ALL,
            at_millis: 1_795_341_600_123,
            partition_key: "thing".into(),
            body: body.into(),
        })
        .collect()
}

fn same(sizes: &[usize]) -> Vec<Record> {
    records(sizes.iter().map(|bytes| vec![b'x'; *bytes]))
}

/// What no compression makes smaller.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..))
        .take(bytes)
        .collect()
}

fn noisy(sizes: &[usize]) -> Vec<Record> {
    records((0..).zip(sizes).map(|(seed, bytes)| noise(*bytes, seed)))
}

fn pack(records: &[Record]) -> Vec<Vec<u8>> {
    Packer::default().pack(records)
}

fn unpack<'a>(values: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Record> {
    let mut unpacker = Unpacker::default();
    let mut out = Vec::new();
    for value in values {
        unpacker.unpack(&[], value, |record| out.push(record));
    }
    out
}

#[test]
fn several_times_the_bound_of_a_value_fits_into_one() {
    let bodies = (0..400).map(|n| {
        format!("{{\"schema\":\"portcullis.event/1\",\"seq\":{n},\"payload\":{{\"t\":{n}.5}}}}")
    });
    let records = records(bodies.map(String::into_bytes));
    let raw: usize = records.iter().map(Record::encoded_bytes).sum();
    let values = pack(&records);
    assert!(raw > 3 * CHUNK_BYTES_MAX, "{raw}");
    assert!(values.len() <= 2, "{}", values.len());
    assert_eq!(unpack(&values), records);
}

#[test]
fn a_record_larger_than_a_chunk_may_be_in_memory_comes_back_however_small_it_gets() {
    for bytes in [
        CHUNK_RAW_BYTES_MAX - 100,
        CHUNK_RAW_BYTES_MAX,
        300_000,
        3 << 20,
    ] {
        let records = same(&[5, bytes, 5]);
        assert_eq!(unpack(&pack(&records)), records, "{bytes}");
    }
}

#[test]
fn noise_stays_raw_and_costs_a_frame() {
    let records = noisy(&[500; 100]);
    let raw: usize = records.iter().map(Record::encoded_bytes).sum();
    let values = pack(&records);
    assert!(values.iter().all(|value| value[0] == WHOLE));
    let stored: usize = values.iter().map(Vec::len).sum();
    assert_eq!(stored, raw + values.len() * FRAME_BYTES);
    assert!(values.len() <= raw / (CHUNK_BYTES_MAX - 600) + 1);
    assert_eq!(unpack(&values), records);
}

#[test]
fn a_missing_part_costs_its_record_alone() {
    let records = noisy(&[10, 20_000, 10]);
    let mut values = pack(&records);
    assert_eq!(values.len(), 5);
    values.remove(2);
    assert_eq!(unpack(&values), [records[0].clone(), records[2].clone()]);
}

#[test]
fn damage_in_a_chunk_never_shows_a_record() {
    let with_large: Vec<_> = records([vec![b'x'; 100_000], noise(9_000, 1), vec![b'y'; 9]]);
    for records in [same(&[300; 5]), noisy(&[300; 5]), with_large] {
        let values = pack(&records);
        for (n, whole) in values.iter().enumerate() {
            for at in 0..whole.len() {
                let mut damaged = values.clone();
                damaged[n][at] ^= 0x10;
                let seen = unpack(&damaged);
                assert!(seen.len() < records.len());
                assert!(seen.iter().all(|record| records.contains(record)));
            }
        }
    }
}

#[test]
fn a_length_is_not_believed() {
    let mut block = vec![0; compress_bound(1 << 20)];
    let mut compressor = Compressor::new(LEVEL).unwrap();
    let zeros = vec![0; 1 << 20];
    let bytes = compressor
        .compress_to_buffer(&zeros, &mut block[..])
        .unwrap();
    for raw_bytes in [0, 10, u32::MAX, 1 << 20, 1 << 16, (1 << 16) + 1] {
        let mut value = framed(COMPRESSED, 7, 0);
        value.extend_from_slice(&raw_bytes.to_le_bytes());
        value.extend_from_slice(&block[..bytes]);
        let value = sealed(value);
        assert!(unpack([&value]).is_empty());
        let content = &value[PLACE_BYTES..value.len() - CRC_BYTES];
        let raw = Unpacker::default().decompressed(content, CHUNK_RAW_BYTES_MAX);
        assert_eq!(raw, None, "{raw_bytes}");
    }
}

#[test]
fn chunks_of_the_first_release_are_read() {
    let records = same(&[10, 30, 20_000]);
    let mut whole = vec![OLD_WHOLE];
    records[0].encode(&mut whole);
    records[1].encode(&mut whole);
    let mut large = Vec::new();
    records[2].encode(&mut large);
    let mut entries = vec![(old_key(7, 0), whole)];
    let shares: Vec<_> = large.chunks(7_000).collect();
    for (part, share) in (0..).zip(&shares) {
        let parts = u32::try_from(shares.len()).unwrap().to_le_bytes();
        entries.push((old_key(9, part), [&[OLD_SHARE], &parts[..], share].concat()));
    }
    let mut unpacker = Unpacker::default();
    let mut seen = Vec::new();
    for (key, value) in &entries {
        unpacker.unpack(key, value, |record| seen.push(record));
    }
    assert_eq!(seen, records);
}

proptest! {
    #[test]
    fn records_survive_packing(sizes in proptest::collection::vec(
        (prop_oneof![0_usize..1000, 7000_usize..7500, 0_usize..40_000, 60_000_usize..200_000],
         any::<bool>()), 0..20)
    ) {
        let records = records((0..).zip(&sizes).map(|(seed, (bytes, is_noise))| {
            if *is_noise { noise(*bytes, seed) } else { vec![b'x'; *bytes] }
        }));
        let mut packer = Packer::default();
        for part in records.chunks(7) {
            let values = packer.pack(part);
            prop_assert!(values.iter().all(|value| value.len() <= CHUNK_BYTES_MAX));
            let positions: Vec<_> = values.iter().map(|value| position(value).unwrap()).collect();
            prop_assert!(positions.is_sorted());
            prop_assert_eq!(unpack(&values), part);
        }
    }

    #[test]
    fn unpacking_garbage_never_panics(values in proptest::collection::vec(
        (0_u8..7, proptest::collection::vec(any::<u8>(), 0..200)), 0..5)
    ) {
        let mut unpacker = Unpacker::default();
        for (form, bytes) in values {
            let value = sealed([&[form], bytes.as_slice()].concat());
            unpacker.unpack(&old_key(1, 0), &value, |_| {});
        }
    }
}
