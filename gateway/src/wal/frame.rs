//! A record on disk: length, CRC-32 of the record, record; the numbers are little-endian.

use std::io::{self, Read};

use portcullis_core::limits::WAL_RECORD_BYTES_MAX;

/// Length and CRC.
const HEADER_BYTES: usize = 8;

/// The frame of a record.
pub(super) fn frame(record: &[u8]) -> Vec<u8> {
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    let mut framed = Vec::with_capacity(HEADER_BYTES + record.len());
    framed.extend_from_slice(&length.to_le_bytes());
    framed.extend_from_slice(&crc32fast::hash(record).to_le_bytes());
    framed.extend_from_slice(record);
    framed
}

/// What comes next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A whole record, and how many bytes its frame takes.
    Record(Vec<u8>, u64),
    /// The end of the file.
    End,
    /// No whole frame.
    Broken,
}

/// Reads one frame.
pub(super) fn read(source: &mut impl Read) -> io::Result<Next> {
    let mut header = [0; HEADER_BYTES];
    match fill(source, &mut header)? {
        0 => return Ok(Next::End),
        HEADER_BYTES => {}
        _ => return Ok(Next::Broken),
    }
    let [l0, l1, l2, l3, c0, c1, c2, c3] = header;
    let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
    // Zeros, as a file system leaves them at the end, are no record.
    if length == 0 || length > WAL_RECORD_BYTES_MAX {
        return Ok(Next::Broken);
    }
    let mut record = vec![0; length];
    if fill(source, &mut record)? < length {
        return Ok(Next::Broken);
    }
    if crc32fast::hash(&record) != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Ok(Next::Broken);
    }
    let bytes = u64::try_from(HEADER_BYTES + length).unwrap_or(u64::MAX);
    Ok(Next::Record(record, bytes))
}

/// Reads until `target` is full or the source ends; how much there was.
fn fill(source: &mut impl Read, target: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = target.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
