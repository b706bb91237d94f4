//! The buffer's reader as the uplink wants it: the two do not know each other.

use portcullis_core::record::{Lane, Part, Record, Tally};

use crate::{buffer, uplink};

/// A sink's end of the buffer.
#[derive(Debug)]
pub(super) struct Source(pub(super) buffer::Reader);

impl uplink::RecordSource for Source {
    async fn read(
        &mut self,
        lane: Lane,
        part: Part,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, uplink::SourceError> {
        let read = self.0.read(lane, part, records_max, bytes_max).await;
        read.map_err(unread)
    }

    async fn settle(&mut self, lane: Lane, part: Part, upto_place: u64, tally: Tally) {
        self.0.settle(lane, part, upto_place, tally).await;
    }

    async fn changed(&mut self) -> Result<(), uplink::SourceError> {
        self.0.changed().await.map_err(unread)
    }

    fn unread(&self, lane: Lane, part: Part) -> u64 {
        self.0.unread(lane, part)
    }

    async fn split(&mut self, lane: Lane) {
        self.0.split(lane).await;
    }
}

fn unread(error: buffer::ReadError) -> uplink::SourceError {
    match error {
        buffer::ReadError::Closed => uplink::SourceError::Closed,
        error @ buffer::ReadError::Unavailable(_) => {
            uplink::SourceError::Unavailable(Box::new(error))
        }
    }
}
