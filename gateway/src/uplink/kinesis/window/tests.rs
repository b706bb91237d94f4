use std::collections::{BTreeMap, BTreeSet};

use portcullis_core::{
    record::{Kind, SinkSet},
    upstream::shards::hash_key,
};
use proptest::prelude::*;

use super::*;

const BACKLOG: usize = 3;
const LIVE: usize = 2;
const URGENT: usize = 1;

fn record(place: u64, key: &str) -> Record {
    Record {
        seq: place,
        place,
        kind: Kind::Event,
        sinks: SinkSet::ALL,
        at_millis: 0,
        partition_key: key.into(),
        body: "{}".into(),
    }
}

/// One queue, no linger, everything in the backlog.
fn window(ordering: Ordering, keys: &[&str]) -> Window {
    let mut window = Window::new(ordering, 1, 0);
    for (place, key) in (1..).zip(keys) {
        window.push(BACKLOG, record(place, key), hash_key(key), 0);
    }
    window
}

fn limits(records_max: usize) -> BatchLimits {
    BatchLimits {
        records_max,
        bytes_max: 1000,
    }
}

fn pick(window: &mut Window, limits: BatchLimits) -> Option<Pick> {
    window.pick(limits, Company::Go, 0, |_, _| Admission::Take)
}

fn places(window: &Window, pick: &Pick) -> Vec<u64> {
    let place = |id: &Id| window.record(*id).unwrap().place;
    pick.ids.iter().map(place).collect()
}

/// Picks, and everything but the records at `failing` is accepted.
fn send(window: &mut Window, limits: BatchLimits, failing: &[u64]) -> Vec<u64> {
    let picked = pick(window, limits).unwrap();
    let sent = places(window, &picked);
    for (id, place) in picked.ids.iter().zip(&sent) {
        if failing.contains(place) {
            window.fail(*id);
        } else {
            window.accept(*id);
        }
    }
    window.finish(&picked.queues);
    sent
}

#[test]
fn newer_records_of_a_key_wait_for_its_failed_one() {
    let mut window = window(Ordering::Relaxed, &["a", "b", "a", "a"]);
    assert_eq!(send(&mut window, limits(3), &[1]), [1, 2, 3]);
    assert_eq!(window.take_prefix(BACKLOG).map(|(place, _)| place), None);
    assert_eq!(
        send(&mut window, limits(3), &[]),
        [1],
        "the fourth is of the same key"
    );
    let (place, tally) = window.take_prefix(BACKLOG).unwrap();
    assert_eq!((place, tally.delivered), (3, 3));
    assert_eq!(send(&mut window, limits(3), &[]), [4]);
    assert!(pick(&mut window, limits(3)).is_none());
}

#[test]
fn strict_order_has_one_record_of_a_key_in_a_request_and_none_beside_it() {
    let mut window = window(Ordering::Strict, &["a", "b", "a", "b", "c"]);
    assert_eq!(send(&mut window, limits(9), &[1]), [1, 2, 5]);
    let picked = pick(&mut window, limits(9)).unwrap();
    assert_eq!(places(&window, &picked), [1, 4]);
    assert!(
        pick(&mut window, limits(9)).is_none(),
        "its queue is under way"
    );
    window.finish(&picked.queues);
    assert_eq!(send(&mut window, limits(9), &[]), [1, 4]);
    assert_eq!(send(&mut window, limits(9), &[]), [3]);
}

#[test]
fn one_record_above_the_limit_is_still_picked_alone() {
    let mut window = window(Ordering::Relaxed, &["a", "b"]);
    let none = BatchLimits {
        records_max: 10,
        bytes_max: 1,
    };
    assert_eq!(send(&mut window, none, &[]), [1]);
    assert_eq!(send(&mut window, none, &[]), [2]);
}

#[test]
fn urgent_records_go_first_and_live_ones_before_the_backlog() {
    let mut window = window(Ordering::Relaxed, &["a", "b"]);
    window.push(LIVE, record(9, "c"), hash_key("c"), 0);
    window.push(URGENT, record(1, "d"), hash_key("d"), 0);
    let picked = pick(&mut window, limits(3)).unwrap();
    let strands: Vec<_> = picked.ids.iter().map(|id| id.strand).collect();
    assert_eq!(strands, [URGENT, LIVE, BACKLOG]);
}

#[test]
fn little_waits_for_company_and_much_does_not() {
    let mut window = Window::new(Ordering::Relaxed, 1, 200);
    let ask = |window: &mut Window, now| {
        let picked = window.pick(limits(3), Company::Wait, now, |_, _| Admission::Take);
        picked.map(|pick| pick.ids.len())
    };
    window.push(BACKLOG, record(1, "a"), hash_key("a"), 100);
    window.push(BACKLOG, record(2, "a"), hash_key("a"), 250);
    assert_eq!(window.wakes_at(), Some(300));
    assert_eq!(ask(&mut window, 299), None);
    let mut later = Window::new(Ordering::Relaxed, 1, 200);
    std::mem::swap(&mut window, &mut later);
    assert_eq!(ask(&mut later, 300), Some(2));
    for place in 1..=3 {
        window.push(BACKLOG, record(place, "a"), hash_key("a"), 100);
    }
    assert_eq!(ask(&mut window, 100), Some(3));
}

#[test]
fn what_is_held_holds_its_key_and_the_rest_goes() {
    let mut window = window(Ordering::Relaxed, &["a", "b", "a", "c"]);
    let mut first = true;
    let picked = window.pick(limits(9), Company::Go, 0, |record, _| {
        match &*record.partition_key {
            // Only the first is refused; the second must not overtake it.
            "a" if std::mem::replace(&mut first, false) => Admission::Hold,
            "c" => Admission::Drop("expired"),
            _ => Admission::Take,
        }
    });
    let picked = picked.unwrap();
    assert_eq!(places(&window, &picked), [2]);
    window.accept(picked.ids[0]);
    window.drop(picked.dropped[0].0, "expired");
    window.finish(&picked.queues);
    assert!(pick(&mut window, limits(9)).is_none(), "not at once");
    let later = millis(UPLINK_PACE_PAUSE);
    let picked = window.pick(limits(9), Company::Go, later, |_, _| Admission::Take);
    let picked = picked.unwrap();
    assert_eq!(places(&window, &picked), [1, 3]);
    picked.ids.iter().for_each(|id| window.accept(*id));
    window.finish(&picked.queues);
    let (place, tally) = window.take_prefix(BACKLOG).unwrap();
    assert_eq!((place, tally.delivered), (4, 3));
    assert_eq!(tally.dropped, [("expired", 1)]);
}

#[test]
fn the_culprit_of_a_request_is_found_by_halving() {
    let keys: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let mut window = window(Ordering::Relaxed, &keys);
    let (mut requests, mut found) = (0, None);
    while let Some(picked) = pick(&mut window, limits(50)) {
        requests += 1;
        let sent = places(&window, &picked);
        if sent.contains(&77) && sent.len() > 1 {
            window.suspect(&picked.queues, sent.len());
        } else {
            if sent == [77] {
                found = Some(requests);
            }
            picked.ids.iter().for_each(|id| window.accept(*id));
            window.trust(&picked.queues, 50);
        }
        window.finish(&picked.queues);
    }
    assert!(found.is_some_and(|requests| requests < 40), "{found:?}");
    assert_eq!(
        window.take_prefix(BACKLOG).map(|(place, _)| place),
        Some(100)
    );
}

/// What the stream has got so far.
#[derive(Default)]
struct Stream {
    arrived: BTreeMap<String, Vec<u64>>,
    /// The requests that a record was in, whatever became of it.
    tried: BTreeMap<u64, BTreeSet<usize>>,
}

proptest! {
    /// Whatever fails, and whatever is under way beside it: the prefix never passes a record that
    /// is not through, all arrive, and a record lands after a younger one of its key only if both
    /// were in one request; in strict order never.
    #[test]
    fn everything_arrives_and_disorder_stays_within_a_request(
        keys in proptest::collection::vec(0_u8..8, 1..80),
        fates in proptest::collection::vec(0_u8..4, 1..60),
        records_max in 1_usize..12,
        queues in 1_usize..4,
        strict in any::<bool>(),
    ) {
        let ordering = if strict { Ordering::Strict } else { Ordering::Relaxed };
        let mut window = Window::new(ordering, queues, 0);
        for (place, key) in (1..).zip(&keys) {
            let key = key.to_string();
            window.push(BACKLOG, record(place, &key), hash_key(&key), 0);
        }
        let mut fates = fates.into_iter();
        let mut stream = Stream::default();
        let (mut under_way, mut request, mut cursor) = (VecDeque::new(), 0, 0);
        loop {
            while let Some(picked) = pick(&mut window, limits(records_max)) {
                prop_assert!(picked.ids.len() <= records_max);
                under_way.push_back(picked);
            }
            let mut of_keys = BTreeSet::new();
            for (number, picked) in under_way.iter().enumerate() {
                for id in &picked.ids {
                    let key = window.record(*id).unwrap().partition_key.clone();
                    let new = of_keys.insert((key.clone(), number));
                    let elsewhere = (0..number).any(|other| of_keys.contains(&(key.clone(), other)));
                    prop_assert!(!elsewhere, "a key is under way once");
                    prop_assert!(new || !strict);
                }
            }
            let Some(picked) = under_way.pop_front() else { break };
            request += 1;
            for id in &picked.ids {
                let record = window.record(*id).unwrap().clone();
                stream.tried.entry(record.place).or_default().insert(request);
                match fates.next().unwrap_or(0) {
                    // Written, but nobody says so.
                    3 => stream.note(&record),
                    2 => { window.fail(*id); }
                    _ => {
                        stream.note(&record);
                        window.accept(*id);
                    }
                }
            }
            window.finish(&picked.queues);
            if let Some((upto, _)) = window.take_prefix(BACKLOG) {
                prop_assert!(upto > cursor);
                cursor = upto;
                let through = stream.arrived.values().flatten().filter(|place| **place <= upto);
                prop_assert_eq!(u64::try_from(through.count()).unwrap(), upto);
            }
        }
        prop_assert_eq!(cursor, u64::try_from(keys.len()).unwrap());
        prop_assert!(window.is_empty());
        for places in stream.arrived.values() {
            for pair in places.windows(2).filter(|pair| pair[0] > pair[1]) {
                prop_assert!(!strict, "{places:?}");
                let (a, b) = (&stream.tried[&pair[0]], &stream.tried[&pair[1]]);
                prop_assert!(!a.is_disjoint(b));
            }
        }
    }
}

impl Stream {
    /// A consumer keeps the first arrival of each.
    fn note(&mut self, record: &Record) {
        let key = record.partition_key.to_string();
        let places = self.arrived.entry(key).or_default();
        if !places.contains(&record.place) {
            places.push(record.place);
        }
    }
}
