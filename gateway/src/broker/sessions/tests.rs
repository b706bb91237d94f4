use std::thread::JoinHandle;

use bytes::Bytes;
use portcullis_core::{
    event::Qos,
    limits::{
        SESSION_QUEUE_MESSAGES_MAX, SESSIONS_LOOSE_BYTES_MAX, SESSIONS_MAX,
        SESSIONS_QUEUE_BYTES_MAX,
    },
    timestamp::Timestamp,
    topic::TopicName,
};
use prometheus::Registry;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::wal::{self, WriteError};

/// Sessions with their log and its writer.
struct Kept {
    sessions: Arc<Sessions>,
    writer: JoinHandle<Result<(), WriteError>>,
}

fn open(dir: &TempDir) -> Kept {
    let metrics = wal::Metrics::register(&Registry::new());
    let bounds = crate::broker::Limits::default().of_sessions();
    let (sessions, writer) = Sessions::open(dir.path(), bounds, metrics).unwrap();
    let writer = std::thread::spawn(move || writer.run(&CancellationToken::new()));
    Kept {
        sessions: Arc::new(sessions),
        writer,
    }
}

impl Kept {
    /// As a kill would: what was written is there, nothing is said about an end.
    fn restart(self, dir: &TempDir) -> Self {
        let sessions = Arc::into_inner(self.sessions).unwrap();
        drop(sessions);
        self.writer.join().unwrap().unwrap();
        open(dir)
    }

    fn attach(&self, client: &str, clean_start: bool, expiry_secs: u32) -> Attached {
        let asked = Asked {
            clean_start,
            expiry_secs,
            window: 10,
            owner: Some("owner".to_owned()),
            connection: 1,
        };
        self.sessions
            .attach(&ClientId::parse(client).unwrap(), &asked)
            .unwrap()
    }

    fn subscribe(&self, session: &Arc<Session>, filter: &str, qos: Qos) -> bool {
        let options = Options {
            qos,
            no_local: false,
            retain_as_published: false,
            identifier: None,
        };
        self.sessions
            .subscribe(session, &Subscribed::parse(filter).unwrap(), options)
    }

    fn publish(&self, topic: &str, payload: &str, qos: Qos) -> Routed {
        self.sessions.dispatch(&message(topic, payload, qos), None)
    }

    /// What goes to the client now: payload, packet id, DUP.
    fn sent(&self, session: &Session) -> Vec<(String, u16, bool)> {
        let mut batch = Vec::new();
        session.next_batch(&self.sessions.log, 1, now(), usize::MAX, &mut batch, |_| {});
        let sent = batch.into_iter().map(|next| match next {
            Outbound::Release { pkid } => ("PUBREL".to_owned(), pkid, true),
            Outbound::Publish {
                pkid, dup, queued, ..
            } => {
                let payload = String::from_utf8(queued.message.payload.to_vec()).unwrap();
                (payload, pkid, dup)
            }
        });
        sent.collect()
    }
}

/// The next message alone.
fn next(
    session: &Session,
    kept: &Kept,
    at: Timestamp,
    dropped: impl Fn(&'static str),
) -> Option<Outbound> {
    let mut batch = Vec::new();
    session.next_batch(&kept.sessions.log, 1, at, 1, &mut batch, dropped);
    batch.pop()
}

fn message(topic: &str, payload: &str, qos: Qos) -> Arc<Message> {
    Arc::new(Message {
        topic: TopicName::parse(topic).unwrap(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos,
        retain: false,
        publisher: 0,
        properties: None,
        expires_at: None,
    })
}

fn sent(entries: &[(&str, u16, bool)]) -> Vec<(String, u16, bool)> {
    let owned = entries
        .iter()
        .map(|&(text, id, dup)| (text.to_owned(), id, dup));
    owned.collect()
}

#[tokio::test]
async fn a_kept_session_is_there_after_a_restart_with_what_waits_and_what_is_in_flight() {
    let dir = TempDir::new().unwrap();
    let mut kept = open(&dir);
    let session = kept.attach("c", false, 60).session;
    assert!(kept.subscribe(&session, "a/+", Qos::AtLeastOnce));
    for n in 0..4 {
        let routed = kept.publish("a/b", &n.to_string(), Qos::AtLeastOnce);
        assert!(!routed.is_for_bus);
        routed.durable.unwrap().await.unwrap();
    }
    assert_eq!(kept.sent(&session).len(), 4);
    session
        .acknowledged(&kept.sessions.log, 2, Qos::AtLeastOnce)
        .unwrap();
    kept.sessions.detach(&session, 1, None);
    kept.publish("a/b", "away", Qos::AtLeastOnce);
    drop(session);
    for away_was_sent in [false, true] {
        kept = kept.restart(&dir);
        let attached = kept.attach("c", false, 60);
        assert!(attached.is_present);
        let expected = [
            ("0", 1, true),
            ("2", 3, true),
            ("3", 4, true),
            ("away", 5, away_was_sent),
        ];
        assert_eq!(kept.sent(&attached.session), sent(&expected));
        kept.sessions.detach(&attached.session, 1, None);
    }
}

#[tokio::test]
async fn a_qos_2_message_goes_when_it_is_durable_and_its_pubrel_when_the_pubrec_is() {
    let dir = TempDir::new().unwrap();
    let kept = open(&dir);
    let session = kept.attach("c", false, 60).session;
    kept.subscribe(&session, "a", Qos::ExactlyOnce);
    let routed = kept.publish("a", "x", Qos::ExactlyOnce);
    routed.durable.unwrap().await.unwrap();
    let mut got = kept.sent(&session);
    while got.is_empty() {
        // It may have been woken before, for nothing.
        session.woken().await;
        got = kept.sent(&session);
    }
    assert_eq!(got, sent(&[("x", 1, false)]));
    let log = &kept.sessions.log;
    session.received(log, 1).unwrap().unwrap().await.unwrap();
    drop(session);
    let kept = kept.restart(&dir);
    let session = kept.attach("c", false, 60).session;
    assert_eq!(kept.sent(&session), sent(&[("PUBREL", 1, true)]));
    session.completed(&kept.sessions.log, 1).unwrap();
    drop(session);
    let kept = kept.restart(&dir);
    let session = kept.attach("c", false, 60).session;
    assert_eq!(kept.sent(&session), []);
}

#[tokio::test]
async fn a_publishers_packet_id_is_taken_together_with_the_delivery() {
    let dir = TempDir::new().unwrap();
    let kept = open(&dir);
    let publisher = kept.attach("p", false, 60).session;
    let receiver = kept.attach("r", false, 60).session;
    kept.subscribe(&receiver, "a", Qos::ExactlyOnce);
    let origin = Origin {
        session: &publisher,
        pkid: 7,
    };
    let message = message("a", "x", Qos::ExactlyOnce);
    let routed = kept.sessions.dispatch(&message, Some(origin));
    routed.durable.unwrap().await.unwrap();
    drop((publisher, receiver));
    let kept = kept.restart(&dir);
    let publisher = kept.attach("p", false, 60).session;
    assert!(publisher.has_incoming(7));
    // Whether the stream has it as well is not known any more.
    assert!(publisher.is_open(7));
    let released = publisher.release_incoming(&kept.sessions.log, 7);
    assert!(released.was_there);
    released.durable.unwrap().await.unwrap();
    drop(publisher);
    let kept = kept.restart(&dir);
    assert!(!kept.attach("p", false, 60).session.has_incoming(7));
    assert_eq!(
        kept.sent(&kept.attach("r", false, 60).session),
        sent(&[("x", 1, false)])
    );
}

#[tokio::test]
async fn a_session_is_not_taken_up_by_another_owner_nor_after_a_clean_start_nor_when_it_is_over() {
    let dir = TempDir::new().unwrap();
    let kept = open(&dir);
    let session = kept.attach("c", false, 60).session;
    kept.subscribe(&session, "a", Qos::AtLeastOnce);
    kept.sessions.detach(&session, 1, None);
    let asked = Asked {
        clean_start: false,
        expiry_secs: 60,
        window: 1,
        owner: Some("another".to_owned()),
        connection: 2,
    };
    let id = ClientId::parse("c").unwrap();
    assert!(!kept.sessions.attach(&id, &asked).unwrap().is_present);
    assert_eq!(kept.publish("a", "x", Qos::AtLeastOnce).matched, 0);

    let session = kept.attach("d", false, 60).session;
    kept.subscribe(&session, "d", Qos::AtLeastOnce);
    kept.sessions.detach(&session, 1, None);
    assert!(kept.attach("d", false, 60).is_present);
    assert!(!kept.attach("d", true, 60).is_present);

    let session = kept.attach("e", false, 60).session;
    kept.subscribe(&session, "e", Qos::AtLeastOnce);
    kept.sessions.detach(&session, 1, None);
    assert!(kept.sessions.sweep(now()).is_empty());
    assert_eq!(kept.publish("e", "x", Qos::AtLeastOnce).matched, 1);
    kept.sessions.sweep(now().plus_millis(61_000));
    assert_eq!(kept.publish("e", "x", Qos::AtLeastOnce).matched, 0);
    assert!(!kept.attach("e", false, 60).is_present);
    let kept = {
        drop(session);
        kept.restart(&dir)
    };
    assert!(kept.attach("e", false, 60).is_present);
}

#[tokio::test]
async fn subscriptions_that_overlap_give_one_copy_at_the_highest_quality_with_all_identifiers() {
    let dir = TempDir::new().unwrap();
    let kept = open(&dir);
    let session = kept.attach("c", false, 60).session;
    for (identifier, filter, qos) in [
        (1, "a/#", Qos::AtLeastOnce),
        (2, "a/+", Qos::ExactlyOnce),
        (3, "b", Qos::AtLeastOnce),
        (4, "$share/g/a/b", Qos::AtLeastOnce),
    ] {
        let options = Options {
            qos,
            no_local: false,
            retain_as_published: false,
            identifier: Some(identifier),
        };
        let subscribed = Subscribed::parse(filter).unwrap();
        kept.sessions.subscribe(&session, &subscribed, options);
    }
    let routed = kept.publish("a/b", "x", Qos::ExactlyOnce);
    routed.durable.unwrap().await.unwrap();
    drop(session);
    let kept = kept.restart(&dir);
    let session = kept.attach("c", false, 60).session;
    let mut copies = Vec::new();
    while let Some(Outbound::Publish { qos, queued, .. }) = next(&session, &kept, now(), |_| {}) {
        copies.push((qos, queued.identifiers));
    }
    copies.sort();
    assert_eq!(
        copies,
        [(Qos::AtLeastOnce, vec![4]), (Qos::ExactlyOnce, vec![1, 2])]
    );
    // It is wanted as long as one of them is there.
    kept.publish("a/b", "y", Qos::AtLeastOnce);
    let gone = Subscribed::parse("a/#").unwrap();
    kept.sessions.unsubscribe(&session, &gone);
    assert_eq!(kept.sent(&session).len(), 2);
}

#[tokio::test]
async fn a_subscription_at_qos_0_that_overlaps_has_its_part_in_the_copy_that_is_queued() {
    let dir = TempDir::new().unwrap();
    let kept = open(&dir);
    let session = kept.attach("c", false, 60).session;
    for (identifier, filter, qos) in [(1, "a", Qos::AtMostOnce), (2, "+", Qos::AtLeastOnce)] {
        let options = Options {
            qos,
            no_local: false,
            retain_as_published: qos == Qos::AtMostOnce,
            identifier: Some(identifier),
        };
        let subscribed = Subscribed::parse(filter).unwrap();
        kept.sessions.subscribe(&session, &subscribed, options);
    }
    let retained = Message {
        retain: true,
        ..(*message("a", "x", Qos::AtLeastOnce)).clone()
    };
    let routed = kept.sessions.dispatch(&Arc::new(retained), None);
    assert!(!routed.is_for_bus, "nobody takes it at QoS 0 alone");
    let Some(Outbound::Publish { mut queued, .. }) = next(&session, &kept, now(), |_| {}) else {
        panic!("a copy");
    };
    queued.identifiers.sort_unstable();
    assert_eq!((queued.identifiers, queued.retain), (vec![1, 2], true));
}

/// Whoever is told that its publish is over uses the packet id again.
#[test]
fn the_end_of_a_qos_2_publish_is_told_when_it_is_durable() {
    let dir = TempDir::new().unwrap();
    let metrics = wal::Metrics::register(&Registry::new());
    let (sessions, writer) = Sessions::open(
        dir.path(),
        crate::broker::Limits::default().of_sessions(),
        metrics,
    )
    .unwrap();
    let id = ClientId::parse("p").unwrap();
    let asked = Asked {
        expiry_secs: 60,
        ..asked(1)
    };
    let publisher = sessions.attach(&id, &asked).unwrap().session;
    publisher.take_incoming(&sessions.log, 7);
    // The second PUBREL is that of a client that came back before the first was durable.
    let [mut first, mut again] = [true, false].map(|was_there| {
        let released = publisher.release_incoming(&sessions.log, 7);
        assert_eq!(released.was_there, was_there);
        released.durable.unwrap()
    });
    let mut noted = publisher.durable(&sessions.log).unwrap();
    for durable in [&mut first, &mut again, &mut noted] {
        durable.try_recv().unwrap_err();
    }
    drop((publisher, sessions));
    writer.run(&CancellationToken::new()).unwrap();
    for mut durable in [first, again, noted] {
        durable.try_recv().unwrap();
    }
}

/// What a publisher has not said all about yet is forgotten by a restart, and published again.
#[test]
fn a_qos_2_message_does_not_go_because_a_later_one_is_durable() {
    let dir = TempDir::new().unwrap();
    let kept = open(&dir);
    let session = kept.attach("c", false, 60).session;
    kept.subscribe(&session, "a", Qos::ExactlyOnce);
    let offer = |payload: &str, id: u64| {
        let queued = Queued {
            message: message("a", payload, Qos::ExactlyOnce),
            id,
            retain: false,
            subscribed: smallvec::smallvec![Arc::new(Subscribed::parse("a").unwrap())],
            identifiers: Vec::new(),
        };
        let offered = session.offer(&kept.sessions.log, Qos::ExactlyOnce, queued);
        offered.unwrap().unwrap()
    };
    let (earlier, later) = (offer("earlier", 100), offer("later", 101));
    session.settle(later);
    assert_eq!(kept.sent(&session), []);
    session.settle(earlier);
    let both = [("earlier", 1, false), ("later", 2, false)];
    assert_eq!(kept.sent(&session), sent(&both));
}

#[test]
fn the_time_that_a_session_lives_does_not_begin_anew_with_every_restart() {
    let dir = TempDir::new().unwrap();
    let begin = now();
    crate::clock::stand_at(begin);
    let mut kept = open(&dir);
    drop(kept.attach("c", false, 60));
    // Its connection ends with the process.
    kept = kept.restart(&dir);
    crate::clock::stand_at(begin.plus_millis(59_000));
    kept = kept.restart(&dir);
    crate::clock::stand_at(begin.plus_millis(60_000));
    assert!(!kept.attach("c", false, 60).is_present);
}

#[tokio::test]
async fn a_session_that_ended_takes_nothing_more_from_whoever_still_holds_it() {
    let dir = TempDir::new().unwrap();
    let kept = open(&dir);
    let former = kept.attach("c", true, 60).session;
    kept.subscribe(&former, "a", Qos::AtLeastOnce);
    kept.publish("a", "x", Qos::AtLeastOnce);
    let due = now();
    kept.sessions
        .leave_will(&former, message("w", "will", Qos::AtMostOnce), due);
    let attached = kept.attach("c", true, 60);
    let will = attached.will.unwrap();
    assert_eq!(
        (will.session.number, &*will.message.payload),
        (former.number, &b"will"[..])
    );
    assert_eq!(kept.sessions.log.queued_bytes(), 0);
    assert!(!kept.subscribe(&former, "b", Qos::AtLeastOnce));
    assert_eq!(kept.sessions.subscriptions_len(), 0);
    let subscribed = Subscribed::parse("a").unwrap();
    let options = Options {
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        identifier: None,
    };
    let late = message("a", "late", Qos::AtLeastOnce);
    let sessions = &kept.sessions;
    assert!(!sessions.queue_retained(&former, &subscribed, options, Qos::AtLeastOnce, &late));
    assert_eq!(sessions.log.queued_bytes(), 0);
    // One without expiry, whose connection has not gone yet, is not taken up as one that is kept.
    kept.attach("d", false, 0);
    assert!(!kept.attach("d", false, 60).is_present);
}

#[tokio::test]
async fn a_message_whose_interval_is_over_when_its_turn_comes_is_not_sent() {
    let dir = TempDir::new().unwrap();
    let mut kept = open(&dir);
    let session = kept.attach("c", false, 60).session;
    kept.subscribe(&session, "t", Qos::ExactlyOnce);
    kept.sessions.detach(&session, 1, None);
    let published = now();
    for (payload, qos, secs) in [
        ("1", Qos::AtLeastOnce, 30),
        ("2", Qos::AtLeastOnce, 90),
        ("3", Qos::ExactlyOnce, 30),
        ("4", Qos::AtLeastOnce, u64::MAX / 1000),
    ] {
        let message = Message {
            expires_at: Some(published.plus_millis(secs * 1000)),
            ..Message::clone(&message("t", payload, qos))
        };
        let routed = kept.sessions.dispatch(&Arc::new(message), None);
        routed.durable.unwrap().await.unwrap();
    }
    drop(session);
    // The interval goes on while the gateway is off.
    kept = kept.restart(&dir);
    let session = kept.attach("c", false, 60).session;
    let dropped = std::cell::RefCell::new(Vec::new());
    let mut sent = Vec::new();
    let later = published.plus_millis(30_000);
    while let Some(next) = next(&session, &kept, later, |reason| {
        dropped.borrow_mut().push(reason);
    }) {
        let Outbound::Publish { queued, .. } = next else {
            panic!("{next:?}")
        };
        sent.push(queued.message.payload.clone());
    }
    assert_eq!(sent, ["2", "4"]);
    assert_eq!(dropped.into_inner(), ["expired", "expired"]);
}

#[tokio::test]
async fn a_session_without_expiry_ends_with_its_connection() {
    let dir = TempDir::new().unwrap();
    let kept = open(&dir);
    let session = kept.attach("c", true, 0).session;
    kept.subscribe(&session, "a", Qos::AtLeastOnce);
    assert!(kept.publish("a", "x", Qos::AtLeastOnce).durable.is_none());
    assert!(
        !kept.sessions.detach(&session, 9, None),
        "not its connection"
    );
    assert!(kept.sessions.detach(&session, 1, None));
    assert_eq!(kept.sessions.len(), 0);
    assert_eq!(kept.sessions.subscriptions_len(), 0);
}

#[tokio::test]
async fn of_a_share_a_connected_member_gets_the_message() {
    let dir = TempDir::new().unwrap();
    let kept = open(&dir);
    let (a, b) = (
        kept.attach("a", false, 60).session,
        kept.attach("b", false, 60).session,
    );
    for session in [&a, &b] {
        kept.subscribe(session, "$share/g/t", Qos::AtLeastOnce);
    }
    for n in 0..4 {
        assert_eq!(
            kept.publish("t", &n.to_string(), Qos::AtLeastOnce).matched,
            1
        );
    }
    assert_eq!((kept.sent(&a).len(), kept.sent(&b).len()), (2, 2));
    kept.sessions.detach(&a, 1, None);
    for qos in [Qos::AtLeastOnce, Qos::AtMostOnce] {
        for _ in 0..2 {
            assert!(!kept.publish("t", "x", qos).is_for_bus);
        }
    }
    assert_eq!(kept.sent(&b).len(), 4);
    kept.sessions.detach(&b, 1, None);
    // At QoS 0 what nobody is there for goes nowhere.
    assert_eq!(kept.publish("t", "x", Qos::AtMostOnce).overflowed, 0);
    kept.publish("t", "waits", Qos::AtLeastOnce);
    let waiting = a.lock().outgoing.len() + b.lock().outgoing.len();
    assert_eq!(waiting, 2 + 2 + 2 + 1);
}

#[tokio::test]
async fn a_checkpoint_keeps_all_that_counts_and_forgets_the_rest() {
    let dir = TempDir::new().unwrap();
    let kept = open(&dir);
    let session = kept.attach("c", false, 60).session;
    kept.subscribe(&session, "a/#", Qos::ExactlyOnce);
    for n in 0..3 {
        kept.publish("a/b", &n.to_string(), Qos::ExactlyOnce);
    }
    session.take_incoming(&kept.sessions.log, 3);
    let retained = Message {
        retain: true,
        ..(*message("r", "kept", Qos::AtLeastOnce)).clone()
    };
    kept.sessions.dispatch(&Arc::new(retained), None);
    kept.sessions
        .leave_will(&session, message("w", "will", Qos::AtMostOnce), now());
    let publishing = async {
        for n in 3..200 {
            kept.publish("a/b", &n.to_string(), Qos::ExactlyOnce);
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(kept.sessions.checkpoint(), publishing);
    kept.sessions.log.durable().unwrap().await.unwrap();
    drop(session);
    let kept = kept.restart(&dir);
    let attached = kept.sessions.of(&ClientId::parse("c").unwrap()).unwrap();
    assert_eq!(attached.lock().outgoing.len(), 200);
    assert!(attached.has_incoming(3));
    let due = kept.sessions.sweep(now());
    assert_eq!(due[0].message.payload, "will");
    let filter = portcullis_core::topic::TopicFilter::parse("r").unwrap();
    assert_eq!(
        kept.sessions.retained.matching(&filter, now())[0].payload,
        "kept"
    );
}

fn asked(connection: u64) -> Asked {
    Asked {
        clean_start: true,
        expiry_secs: 0,
        window: 1,
        owner: None,
        connection,
    }
}

#[test]
fn beyond_the_bound_only_who_has_a_session_gets_one() {
    let sessions = Sessions::unkept();
    let id = |n: usize| ClientId::parse(&format!("c{n}")).unwrap();
    for n in 0..SESSIONS_MAX {
        sessions.attach(&id(n), &asked(1)).unwrap();
    }
    let refused = sessions.attach(&id(SESSIONS_MAX), &asked(1));
    assert_eq!(refused.unwrap_err(), Full);
    sessions.attach(&id(0), &asked(2)).unwrap();
    assert_eq!(sessions.len(), SESSIONS_MAX);
}

/// Connected clients that are subscribed to `a`.
fn twenty(sessions: &Sessions, options: Options) -> Vec<Arc<Session>> {
    let subscribed = Subscribed::parse("a").unwrap();
    let connect = |n| {
        let id = ClientId::parse(&format!("c{n}")).unwrap();
        let session = sessions.attach(&id, &asked(1)).unwrap().session;
        sessions.subscribe(&session, &subscribed, options);
        session
    };
    (0..20).map(connect).collect()
}

#[test]
fn all_queues_together_and_what_waits_at_qos_0_are_bounded() {
    let sessions = Sessions::unkept();
    let options = Options {
        qos: Qos::AtLeastOnce,
        no_local: false,
        retain_as_published: false,
        identifier: None,
    };
    let held = twenty(&sessions, options);
    let large = message("a", &"x".repeat(100_000), Qos::AtLeastOnce);
    let mut overflowed = 0;
    for _ in 0..40 {
        overflowed += sessions.dispatch(&large, None).overflowed;
    }
    // Each queue alone would have taken forty.
    let taken = SESSIONS_QUEUE_BYTES_MAX / large.bytes();
    assert_eq!(overflowed, 20 * 40 - taken);
    assert!(sessions.log.queued_bytes() <= SESSIONS_QUEUE_BYTES_MAX);
    for session in &held {
        assert!(sessions.detach(session, 1, None));
    }
    assert_eq!(sessions.log.queued_bytes(), 0);

    let id = ClientId::parse("worker").unwrap();
    let worker = sessions.attach(&id, &asked(1)).unwrap().session;
    let share = Subscribed::parse("$share/g/b").unwrap();
    sessions.subscribe(&worker, &share, options);
    let small = message("b", "x", Qos::AtMostOnce);
    for n in 0..=SESSION_QUEUE_MESSAGES_MAX {
        let is_over = n == SESSION_QUEUE_MESSAGES_MAX;
        let routed = sessions.dispatch(&small, None);
        assert_eq!(routed.overflowed, usize::from(is_over), "{n}");
    }
}

#[test]
fn what_waits_at_qos_0_for_all_connections_is_bounded_and_given_back() {
    let sessions = Sessions::unkept();
    let options = Options {
        qos: Qos::AtMostOnce,
        no_local: false,
        retain_as_published: false,
        identifier: None,
    };
    let held = twenty(&sessions, options);
    let large = message("a", &"x".repeat(100_000), Qos::AtMostOnce);
    // Each connection alone would take forty.
    let taken = SESSIONS_LOOSE_BYTES_MAX / large.bytes();
    for _ in 0..2 {
        let lost: usize = (0..40)
            .map(|_| sessions.dispatch(&large, None).overflowed)
            .sum();
        assert_eq!(lost, 20 * 40 - taken);
        for session in &held {
            let mut batch = Vec::new();
            session.next_batch(&sessions.log, 1, now(), usize::MAX, &mut batch, |_| {});
        }
    }
}
