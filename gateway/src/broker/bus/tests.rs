use std::{fs, thread, time::Duration};

use portcullis_core::{
    event::Qos,
    identity::ClientId,
    limits::Rate,
    policy::{Context, Policy, PolicySet},
    timestamp::Timestamp,
    topic::TopicName,
};
use prometheus::Registry;
use rumqttc::v5::mqttbytes::v5 as v5p;
use tokio::time::{Instant, timeout};

use super::*;

/// As good as no limit.
const OFTEN: Rate = Rate {
    burst: 1_000_000,
    per_second: 1000.0,
};
const NEVER: Rate = Rate {
    burst: 0,
    per_second: 0.0,
};
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn message(topic: &str, payload: Bytes) -> Arc<Message> {
    Arc::new(Message {
        topic: TopicName::parse(topic).unwrap(),
        payload,
        qos: Qos::AtLeastOnce,
        retain: true,
        publisher: 7,
        properties: None,
        expires_at: None,
    })
}

fn numbered(topic: &str, number: u64) -> Arc<Message> {
    message(topic, Bytes::copy_from_slice(&number.to_be_bytes()))
}

fn number_of(delivery: &Delivery) -> u64 {
    u64::from_be_bytes(delivery.message.payload.as_ref().try_into().unwrap())
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).unwrap()
}

/// A bus and somebody who may publish everything.
struct Site {
    bus: Arc<Bus>,
    permit: Permit,
}

impl Site {
    fn new(bounds: Bounds) -> Self {
        let policy = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Publish","Resource":"*"}}"#;
        let policy = Policy::parse("all", policy).unwrap();
        let policies = PolicySet::new(vec![Arc::new(policy)]);
        let client_id = ClientId::parse("c").unwrap();
        let context = Context::of(&client_id);
        let bus = Bus::with_bounds(16, bounds)
            .unwrap()
            .counting(Metrics::register(&Registry::new()));
        Self {
            bus: Arc::new(bus),
            permit: policies.decide(&context, Action::Publish, "t").unwrap(),
        }
    }

    fn publish(&self, message: &Arc<Message>) {
        self.bus.publish(&self.permit, message).unwrap();
    }

    async fn link(&self, filters: &[&str]) -> Link {
        let mut link = self.bus.link().await.unwrap();
        for (text, number) in filters.iter().zip(1..) {
            link.subscribe(number, &filter(text)).unwrap();
        }
        link
    }

    /// The link is at the router and idle.
    async fn settle(&self, link: &mut Link) {
        link.subscribe(99, &filter("settle/me")).unwrap();
        self.publish(&numbered("settle/me", 0));
        while next(link).await.subscription != 99 {}
        link.unsubscribe(&filter("settle/me")).unwrap();
    }

    /// As if the router had panicked.
    fn end_router(&self) -> Arc<Generation> {
        let mut front = self.bus.front();
        let generation = Arc::clone(&front.generation);
        front.publisher.end(generation.number);
        generation
    }

    fn rebuilds(&self, reason: Rebuild) -> u64 {
        self.bus.metrics.rebuilt(reason).get()
    }

    fn lost(&self, reason: Loss) -> u64 {
        self.bus.metrics.lost(reason).get()
    }
}

async fn next(link: &mut Link) -> Delivery {
    timeout(PATIENCE, link.next()).await.unwrap().unwrap()
}

/// What is there already.
async fn drain(link: &mut Link) -> Vec<Delivery> {
    let mut drained = Vec::new();
    while let Ok(delivery) = timeout(Duration::from_millis(500), link.next()).await {
        drained.push(delivery.unwrap());
    }
    drained
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::yield_now();
    }
}

#[tokio::test]
async fn a_message_comes_out_as_it_went_in() {
    let site = Site::new(Bounds::default());
    let mut link = site.link(&["#"]).await;
    let rich = v5p::PublishProperties {
        user_properties: vec![("k".to_owned(), "v".to_owned())],
        message_expiry_interval: Some(60),
        ..v5p::PublishProperties::default()
    };
    for (properties, expires_at) in [
        (None, None),
        (Some(rich), Some(Timestamp::from_millis(60_000))),
    ] {
        let plain = Arc::unwrap_or_clone(message("é/x", Bytes::new()));
        let given = Arc::new(Message {
            properties,
            expires_at,
            ..plain
        });
        site.publish(&given);
        let delivery = next(&mut link).await;
        assert_eq!(delivery.subscription, 1);
        assert!(Arc::ptr_eq(&delivery.message, &given));
    }
}

#[tokio::test]
async fn the_router_survives_topics_that_it_cannot_slice_and_serves_reserved_ones() {
    let site = Site::new(Bounds::default());
    let mut link = site.link(&["é/#", "$aws/#"]).await;
    for (number, topic) in [(1, "é/x"), (2, "$aws/things"), (1, "é")] {
        if topic.starts_with('$') {
            site.bus.announce(&numbered(topic, 0)).unwrap();
        } else {
            site.publish(&numbered(topic, 0));
        }
        let delivery = next(&mut link).await;
        assert_eq!(
            (delivery.subscription, delivery.message.topic.as_str()),
            (number, topic)
        );
    }
    assert!(!site.bus.gone().is_cancelled());
}

#[tokio::test]
async fn what_is_published_after_a_subscription_is_delivered_however_busy_the_router_is() {
    let site = Arc::new(Site::new(Bounds::default()));
    let _noisy = site.link(&["noise"]).await;
    let stop = CancellationToken::new();
    let round = Arc::new(AtomicUsize::new(1));
    let (loud, stopped, rounds) = (Arc::clone(&site), stop.clone(), Arc::clone(&round));
    let noise = thread::spawn(move || {
        let mut said = 0;
        while !stopped.is_cancelled() {
            // Not so much that it overwrites what the link is slow to take.
            if said < rounds.load(Ordering::Acquire) * 5000 {
                loud.publish(&numbered("noise", 0));
                said += 1;
            } else {
                thread::yield_now();
            }
        }
    });
    let mut link = site.link(&[]).await;
    for n in 1..200 {
        let topic = format!("t/{n}");
        let known = usize::try_from(n).unwrap();
        link.subscribe(known, &filter(&topic)).unwrap();
        site.publish(&numbered(&topic, n));
        let delivery = next(&mut link).await;
        assert_eq!((delivery.subscription, number_of(&delivery)), (known, n));
        link.unsubscribe(&filter(&topic)).unwrap();
        round.fetch_add(1, Ordering::AcqRel);
    }
    stop.cancel();
    noise.join().unwrap();
    assert_eq!(site.lost(Loss::Slow), 0);
}

#[tokio::test]
async fn a_router_that_panics_is_replaced_and_every_link_goes_on() {
    let site = Site::new(Bounds::default());
    let mut links = Vec::new();
    for _ in 0..8 {
        let mut link = site.link(&["a/+", "$aws/#"]).await;
        site.settle(&mut link).await;
        links.push(link);
    }
    for round in 1..=3 {
        let former = site.end_router();
        wait_until("the router ends", || former.is_gone());
        site.publish(&numbered("a/b", round));
        site.bus.announce(&numbered("$aws/x", round)).unwrap();
        for link in &mut links {
            let mut got = [next(link).await, next(link).await]
                .map(|delivery| (delivery.subscription, number_of(&delivery)));
            got.sort_unstable();
            assert_eq!(got, [(1, round), (2, round)]);
        }
        assert_eq!(site.rebuilds(Rebuild::Panic), round);
    }
    assert!(!site.bus.gone().is_cancelled());
}

#[tokio::test]
async fn a_link_that_only_waits_notices_that_the_router_is_gone() {
    let site = Site::new(Bounds::default());
    let mut link = site.link(&["a"]).await;
    site.settle(&mut link).await;
    let former = site.end_router();
    let waited = timeout(Duration::from_millis(500), link.next()).await;
    assert!(waited.is_err() && former.is_gone());
    assert_eq!(site.rebuilds(Rebuild::Panic), 1);
    site.publish(&numbered("a", 1));
    assert_eq!(number_of(&next(&mut link).await), 1);
}

#[tokio::test]
async fn what_a_router_owed_at_its_end_is_delivered_once_and_in_order() {
    let site = Site::new(Bounds::default());
    let mut link = site.link(&["a/#", "b"]).await;
    site.settle(&mut link).await;
    let mut expected = Vec::new();
    for n in 0..3000 {
        if n % 700 == 699 {
            let former = site.end_router();
            wait_until("the router ends", || former.is_gone());
        }
        let topic = if n % 3 == 0 { "b" } else { "a/x" };
        site.publish(&numbered(topic, n));
        expected.push((if n % 3 == 0 { 2 } else { 1 }, n));
        if n % 100 == 50 {
            // Some of it comes while routers go.
            link.subscribe(3, &filter("none")).unwrap();
            link.unsubscribe(&filter("none")).unwrap();
        }
    }
    let mut got: Vec<_> = drain(&mut link)
        .await
        .iter()
        .map(|delivery| (delivery.subscription, number_of(delivery)))
        .collect();
    for number in [1, 2] {
        let of = |all: &[(usize, u64)]| {
            let mine = all.iter().filter(|(sub, _)| *sub == number);
            mine.map(|(_, n)| *n).collect::<Vec<_>>()
        };
        assert_eq!(of(&got), of(&expected), "subscription {number}");
    }
    got.sort_unstable_by_key(|(_, n)| *n);
    assert_eq!(got, expected);
}

#[tokio::test]
async fn routers_that_panic_again_and_again_are_a_fault() {
    let site = Site::new(Bounds {
        panics: Rate {
            burst: 2,
            per_second: 0.0,
        },
        ..Bounds::default()
    });
    let mut link = site.link(&["a"]).await;
    for _ in 0..2 {
        site.settle(&mut link).await;
        site.end_router();
    }
    site.settle(&mut link).await;
    assert!(!site.bus.gone().is_cancelled());
    site.end_router();
    let end = timeout(PATIENCE, link.next()).await.unwrap();
    assert!(matches!(end, Err(BusError::Gone)));
    assert!(site.bus.gone().is_cancelled());
}

#[tokio::test]
async fn a_slow_subscriber_learns_how_much_it_lost() {
    let site = Site::new(Bounds {
        log_entries: 1024,
        ..Bounds::default()
    });
    let mut link = site.link(&["a"]).await;
    site.settle(&mut link).await;
    let mut got = 0;
    for _ in 0..3 {
        for n in 0..5000 {
            site.publish(&numbered("a", n));
        }
        got += drain(&mut link).await.len();
        // The gap shows with the next message.
        site.publish(&numbered("a", 0));
        next(&mut link).await;
        got += 1;
        let lost = usize::try_from(site.lost(Loss::Slow)).unwrap();
        assert!(lost > 1000, "{lost}");
    }
    let lost = usize::try_from(site.lost(Loss::Slow)).unwrap();
    assert_eq!(got + lost, 3 * 5001);
    assert_eq!(site.rebuilds(Rebuild::Growth), 0);
}

#[tokio::test]
async fn any_number_of_topics_leaves_the_memory_bounded() {
    const TOPICS: u64 = 300_000;
    let site = Site::new(Bounds {
        topics: 20_000,
        log_entries: 4096,
        rebuilds: OFTEN,
        ..Bounds::default()
    });
    let mut link = site.link(&["many/#"]).await;
    let reader = async {
        let mut got = 0;
        loop {
            let last = number_of(&next(&mut link).await);
            got += 1;
            if last == TOPICS - 1 {
                return got;
            }
        }
    };
    let mut early = 0;
    let publisher = async {
        for n in 0..TOPICS {
            site.publish(&numbered(&format!("many/{n:0>64}"), n));
            if n == 60_000 {
                early = resident_bytes();
            }
            if n % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
    };
    let (got, ()) = tokio::join!(reader, publisher);
    let rebuilds = site.rebuilds(Rebuild::Growth);
    // A router does not see what is published before the link is there.
    assert!((8..=15).contains(&rebuilds), "{rebuilds} rebuilds");
    assert!(got > TOPICS / 10, "{got} delivered");
    assert_eq!(site.rebuilds(Rebuild::Panic), 0);
    wait_until("former routers end", || router_threads() == 1);
    let late = resident_bytes();
    println!("resident: {early} after 60 000 topics, {late} after {TOPICS}; {got} delivered");
    assert!(late < early * 3 / 2, "{early} -> {late}");
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kib = line.split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() * 1024
}

/// Of this process: every test has one of its own.
fn router_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("router-")).count()
}

#[tokio::test]
async fn a_router_that_may_not_be_replaced_takes_no_more_topics_than_it_can_hold() {
    let bounds = Bounds {
        topics: 100,
        rebuilds: NEVER,
        ..Bounds::default()
    };
    let site = Site::new(bounds);
    let mut link = site.link(&["#"]).await;
    site.settle(&mut link).await;
    let most = u64::try_from(100 * bounds::HARD).unwrap();
    for n in 0..1000 {
        site.publish(&numbered(&format!("t/{n}"), n));
    }
    // The message of `settle` came before the router had the subscription.
    assert_eq!(drain(&mut link).await.len(), 100 * bounds::HARD);
    assert_eq!(site.lost(Loss::Full), 1000 - most);
    site.publish(&numbered("t/7", 7));
    assert_eq!(number_of(&next(&mut link).await), 7);
    assert_eq!(site.rebuilds(Rebuild::Growth), 0);
}

#[tokio::test]
async fn filters_that_nobody_uses_any_more_are_forgotten() {
    let site = Site::new(Bounds {
        idle_filters: 10,
        rebuilds: OFTEN,
        ..Bounds::default()
    });
    let mut link = site.link(&["stays"]).await;
    for n in 0..130 {
        let text = format!("comes/{n}");
        link.subscribe(2, &filter(&text)).unwrap();
        for topic in [&text, "stays"] {
            site.publish(&numbered(topic, n));
            assert_eq!(number_of(&next(&mut link).await), n);
        }
        link.unsubscribe(&filter(&text)).unwrap();
        assert!(site.bus.front().index.filters() <= 2 + 11);
    }
    let rebuilds = site.rebuilds(Rebuild::Growth);
    assert!((10..=13).contains(&rebuilds), "{rebuilds} rebuilds");
}

#[tokio::test]
async fn a_filter_that_finds_no_room_gets_its_messages_from_the_next_router() {
    let site = Site::new(Bounds {
        idle_filters: 10,
        rebuilds: NEVER,
        ..Bounds::default()
    });
    let mut link = site.link(&["stays"]).await;
    site.settle(&mut link).await;
    for n in 0..1000 {
        let text = format!("comes/{n}");
        link.subscribe(2, &filter(&text)).unwrap();
        link.unsubscribe(&filter(&text)).unwrap();
    }
    assert!(site.bus.front().index.filters() <= 2 + 10 * bounds::HARD);
    link.subscribe(3, &filter("late")).unwrap();
    site.publish(&numbered("late", 1));
    site.publish(&numbered("stays", 2));
    assert_eq!(number_of(&next(&mut link).await), 2);
    site.end_router();
    assert_eq!(number_of(&next(&mut link).await), 1);
    assert_eq!(site.rebuilds(Rebuild::Growth), 0);
}

#[tokio::test]
async fn logs_of_many_busy_filters_become_shorter() {
    let site = Site::new(Bounds {
        entries: 16 * 1024,
        rebuilds: OFTEN,
        ..Bounds::default()
    });
    let filters: Vec<_> = (0..8).map(|n| format!("{}x/#", "+/".repeat(n))).collect();
    let mut links = Vec::new();
    for text in &filters {
        let mut link = site.link(&[text, "+/+/+/x/y"]).await;
        site.settle(&mut link).await;
        links.push(link);
    }
    for n in 0..20_000 {
        site.publish(&numbered("x/x/x/x/x/x/x/x", n));
        if n % 500 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert!(site.bus.front().log_entries < Bounds::default().log_entries);
    assert!(site.rebuilds(Rebuild::Growth) > 0);
    for link in &mut links {
        site.settle(link).await;
    }
}
