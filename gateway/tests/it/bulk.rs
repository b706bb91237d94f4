//! The lane `bulk` of the buffer in memory, for one sink.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
};

use portcullis::uplink::{Part, RecordSource, SourceError, Tally};
use portcullis_core::record::{Draft, Lane, Record};
use tokio::sync::Notify;

/// The bulk lane in memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bulk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    more: Notify,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    unread: VecDeque<Record>,
    settled: u64,
    delivered: u64,
    dropped: BTreeMap<&'static str, u64>,
}

impl Bulk {
    pub(crate) fn append(&self, drafts: impl IntoIterator<Item = Draft>) {
        let mut state = self.0.state.lock().unwrap();
        for draft in drafts {
            state.last += 1;
            let record = Record::new(&draft, state.last, "gw-1", "boot-1");
            assert_eq!(record.kind.lane(), Lane::Bulk);
            state.unread.push_back(record);
        }
        drop(state);
        self.0.more.notify_one();
    }

    /// Whether everything is settled; what was delivered and dropped is all that there was.
    pub(crate) fn is_settled(&self) -> bool {
        let state = self.0.state.lock().unwrap();
        let accounted = state.delivered + state.dropped.values().sum::<u64>();
        assert_eq!(accounted, state.settled, "every record has one fate");
        state.settled == state.last
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.0.state.lock().unwrap().delivered
    }

    pub(crate) fn dropped(&self) -> BTreeMap<&'static str, u64> {
        self.0.state.lock().unwrap().dropped.clone()
    }
}

impl RecordSource for Bulk {
    async fn read(
        &mut self,
        lane: Lane,
        part: Part,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Record>, SourceError> {
        assert_eq!((lane, part), (Lane::Bulk, Part::Backlog));
        let mut state = self.0.state.lock().unwrap();
        let (mut taken, mut bytes) = (Vec::<Record>::new(), 0);
        while taken.len() < records_max
            && let Some(record) = state.unread.front()
        {
            bytes += record.wire_bytes();
            if bytes > bytes_max && !taken.is_empty() {
                break;
            }
            taken.extend(state.unread.pop_front());
        }
        Ok(taken)
    }

    async fn settle(&mut self, lane: Lane, part: Part, upto_place: u64, tally: Tally) {
        assert_eq!((lane, part), (Lane::Bulk, Part::Backlog));
        let mut state = self.0.state.lock().unwrap();
        assert!(state.settled < upto_place, "the cursor only moves forward");
        state.settled = upto_place;
        state.delivered += tally.delivered;
        for (reason, records) in tally.dropped {
            assert!(records > 0);
            *state.dropped.entry(reason).or_default() += records;
        }
    }

    async fn changed(&mut self) -> Result<(), SourceError> {
        self.0.more.notified().await;
        Ok(())
    }

    fn unread(&self, _: Lane, _: Part) -> u64 {
        self.0.state.lock().unwrap().unread.len() as u64
    }

    async fn split(&mut self, _: Lane) {
        panic!("no sink for CloudWatch divides its lane");
    }
}
