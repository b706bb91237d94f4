//! The data types of MQTT (MQTT 5.0, 1.5), to the letter.

use super::super::DecodeError;

/// Reads fields off the front of a packet.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

pub(super) fn malformed(detail: &'static str) -> DecodeError {
    DecodeError::Malformed(detail.into())
}

pub(super) fn protocol(detail: &'static str) -> DecodeError {
    DecodeError::Protocol(detail.into())
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| malformed("it ends in the middle of a field"))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        let bytes = self.take(4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A variable byte integer of at most four bytes, in as few as there can be.
    pub(super) fn variable(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0;
        for index in 0..4 {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return if byte == 0 && index > 0 {
                    Err(malformed("a variable byte integer longer than it need be"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(malformed("a variable byte integer of over four bytes"))
    }

    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// UTF-8 without surrogates, overlong forms (which `str` knows) and U+0000.
    pub(super) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let text = std::str::from_utf8(self.binary()?)
            .map_err(|_| malformed("a text that is not UTF-8"))?;
        if text.contains('\0') {
            return Err(malformed("a text with U+0000"));
        }
        Ok(text)
    }

    /// A packet identifier, which is never 0.
    pub(super) fn packet_id(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            0 => Err(protocol("a packet identifier of 0")),
            id => Ok(id),
        }
    }

    /// The packet must be over.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(malformed("it goes on after its end"))
        }
    }
}
