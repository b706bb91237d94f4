//! How much clients publish, by what registry and settings say.

use std::net::Ipv4Addr;

use portcullis_core::identity::ClientId;

use super::*;
use crate::identity::{Credential, testing::Bench};

/// `t1` and `t2` are in `leaf` below `root`, `t3` is in `leaf` and `other`.
struct Fleet {
    bench: Bench,
    limits: PublishLimits,
    paces: Paces,
}

impl Fleet {
    fn new(root: &str, leaf: &str, other: &str, limits: PublishLimits) -> Self {
        let fleet = Self {
            bench: Bench::new(),
            limits,
            paces: Paces::default(),
        };
        fleet.write(root, leaf, other);
        fleet
    }

    fn write(&self, root: &str, leaf: &str, other: &str) {
        let registry = format!(
            "[[group]]\nname = \"root\"\n{root}\n\
             [[group]]\nname = \"leaf\"\nparent = \"root\"\n{leaf}\n\
             [[group]]\nname = \"other\"\n{other}\n\
             [[thing]]\nname = \"t1\"\ngroups = [\"leaf\"]\n\
             [[thing]]\nname = \"t2\"\ngroups = [\"leaf\"]\n\
             [[thing]]\nname = \"t3\"\ngroups = [\"leaf\", \"other\"]\n"
        );
        self.bench.write("registry.toml", &registry);
    }

    fn pace(&self, thing: &str) -> Pace {
        let (snapshot, principal) = self.principal(thing);
        self.paces.of(&principal, &self.limits, &snapshot, 0)
    }

    fn principal(&self, thing: &str) -> (Arc<Snapshot>, Principal) {
        let snapshot = self.bench.snapshot(1);
        let plain = Credential::Plain {
            thing: None,
            unknown_policy: None,
        };
        let client_id = ClientId::parse(thing).unwrap();
        let source = Ipv4Addr::LOCALHOST.into();
        let principal = snapshot.authenticate(&plain, &client_id, source).unwrap();
        (snapshot, principal)
    }
}

fn limits(messages: u64, bytes: u64, action: OnPublishRate) -> PublishLimits {
    PublishLimits {
        messages: Allowance::new(messages, 0),
        bytes: Allowance::new(bytes, 0),
        action,
    }
}

/// How many of 1000 go at once.
fn go(pace: &mut Pace, now: u64) -> usize {
    let goes = (0..1000).filter(|_| pace.publish(10, now) == Verdict::Go);
    goes.count()
}

#[test]
fn without_a_rate_everything_goes() {
    let fleet = Fleet::new("", "", "", PublishLimits::default());
    assert_eq!(go(&mut fleet.pace("t1"), 0), 1000);
}

#[test]
fn the_gateways_rate_holds_for_each_client_and_says_what_becomes_of_the_rest() {
    for (action, beyond) in [
        (OnPublishRate::Drop, Verdict::Drop),
        (OnPublishRate::Disconnect, Verdict::Disconnect),
    ] {
        let fleet = Fleet::new("", "", "", limits(5, 0, action));
        let (mut a, mut b) = (fleet.pace("t1"), fleet.pace("t2"));
        assert_eq!(go(&mut a, 0), 5);
        assert_eq!(a.publish(10, 0), beyond);
        assert_eq!(go(&mut b, 0), 5);
        assert_eq!(go(&mut a, 1000), 5);
    }
}

#[test]
fn who_is_delayed_waits_for_its_turn_and_loses_nothing() {
    let fleet = Fleet::new("", "", "", limits(10, 0, OnPublishRate::Delay));
    let mut pace = fleet.pace("t1");
    assert_eq!(go(&mut fleet.pace("t2"), 0), 10);
    for _ in 0..10 {
        assert_eq!(pace.publish(10, 0), Verdict::Go);
    }
    let wait = |millis| Verdict::Wait(Duration::from_millis(millis));
    assert_eq!(pace.publish(10, 0), wait(100));
    // It waited, and comes with the next one.
    assert_eq!(pace.publish(10, 100), wait(100));
    assert_eq!(pace.publish(10, 1000), Verdict::Go);
}

#[test]
fn bytes_count_beside_publishes() {
    let fleet = Fleet::new("", "", "", limits(100, 1000, OnPublishRate::Drop));
    let mut pace = fleet.pace("t1");
    assert_eq!(pace.publish(900, 0), Verdict::Go);
    assert_eq!(pace.publish(200, 0), Verdict::Drop);
    assert_eq!(pace.publish(100, 0), Verdict::Go);
    // One that is larger than what a second allows goes when nothing else did for a while.
    assert_eq!(pace.publish(5000, 500), Verdict::Drop);
    assert_eq!(pace.publish(5000, 1000), Verdict::Go);
    assert_eq!(pace.publish(1, 4999), Verdict::Drop);
}

#[test]
fn the_nearest_group_counts_and_of_several_hierarchies_the_lowest() {
    let rate = |rate: u64| format!("publish-rate = {rate}");
    let goes = |root: &str, leaf: &str, other: &str, thing: &str| {
        let limits = limits(50, 0, OnPublishRate::Drop);
        go(&mut Fleet::new(root, leaf, other, limits).pace(thing), 0)
    };
    assert_eq!(goes("", "", "", "t1"), 50);
    assert_eq!(goes(&rate(7), "", "", "t1"), 7);
    assert_eq!(goes(&rate(7), &rate(100), "", "t1"), 100);
    assert_eq!(goes(&rate(7), &rate(0), "", "t1"), 1000, "no limit");
    assert_eq!(goes(&rate(7), "", &rate(3), "t3"), 3);
    assert_eq!(goes(&rate(7), "", &rate(0), "t3"), 7);
    assert_eq!(goes("", "", &rate(3), "t1"), 50);
    assert_eq!(goes("publish-bytes-per-second = 40", "", "", "t1"), 4);
}

#[test]
fn the_clients_of_a_group_share_what_it_has_for_all() {
    let all = "publish-rate-of-group = 6";
    let fleet = Fleet::new(all, "", "", limits(4, 0, OnPublishRate::Drop));
    let (mut a, mut b) = (fleet.pace("t1"), fleet.pace("t2"));
    assert_eq!(go(&mut a, 0), 4);
    assert_eq!(go(&mut b, 0), 2);
    // What the group refused was not taken from the client's own.
    assert_eq!(go(&mut b, 500), 3);
}

#[test]
fn who_comes_back_has_no_more_than_who_stayed_until_it_is_forgotten() {
    let all = "publish-rate-of-group = 6";
    let fleet = Fleet::new(all, "", "", limits(4, 0, OnPublishRate::Drop));
    assert_eq!(go(&mut fleet.pace("t1"), 0), 4);
    assert_eq!(go(&mut fleet.pace("t1"), 0), 0);
    assert_eq!(go(&mut fleet.pace("t2"), 0), 2);
    let (snapshot, t3) = fleet.principal("t3");
    let held = fleet.paces.of(&t3, &fleet.limits, &snapshot, 60_000);
    let all = lock(&fleet.paces.all);
    assert_eq!((all.clients.len(), all.groups.len()), (1, 1), "{all:?}");
    drop(all);
    drop(held);
}

#[test]
fn buckets_that_nobody_has_are_bounded() {
    let mut all = All::default();
    let allowance = Allowance::new(1, 1_000_000);
    for n in 0..PACED_CLIENTS_AWAY_MAX + 2 {
        let buckets = all.clients.entry(ClientId::parse(&n.to_string()).unwrap());
        let mut buckets = lock(buckets.or_default());
        buckets.set(allowance, None, 0);
        assert!(buckets.take(1000, 0) && buckets.take(1000, 0));
    }
    let held = all.clients.values().next().cloned();
    all.sweep(1000);
    assert_eq!(all.clients.len(), 1);
    drop(held);
}

#[test]
fn a_client_that_comes_and_goes_does_not_use_up_the_future_of_its_group() {
    let all = "publish-rate-of-group = 10";
    let fleet = Fleet::new(all, "", "", limits(0, 0, OnPublishRate::Delay));
    let mut stays = fleet.pace("t2");
    let waits = (0..1000).map(|_| fleet.pace("t1").publish(1, 0));
    let refused = waits.filter(|verdict| *verdict == Verdict::Drop).count();
    assert!(refused > 850, "{refused}");
    let debt_max = Duration::from_millis(100) + GROUP_RATE_DEBT_MAX;
    match stays.publish(1, 200) {
        Verdict::Wait(wait) => assert!(wait <= debt_max, "{wait:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_change_of_the_registry_holds_at_once_and_gives_nothing_back() {
    let fleet = Fleet::new(
        "publish-rate = 5",
        "",
        "",
        limits(0, 0, OnPublishRate::Drop),
    );
    let mut pace = fleet.pace("t1");
    assert_eq!(go(&mut pace, 0), 5);
    let renew = |pace: &mut Pace, now| {
        let (snapshot, principal) = fleet.principal("t1");
        fleet
            .paces
            .renew(pace, &principal, &fleet.limits, &snapshot, now);
    };
    fleet.write("publish-rate = 5", "", "publish-rate = 1");
    renew(&mut pace, 0);
    assert_eq!(go(&mut pace, 0), 0);
    fleet.write("publish-rate = 9", "", "");
    renew(&mut pace, 0);
    assert_eq!(go(&mut pace, 0), 9);
    fleet.write("", "", "");
    renew(&mut pace, 0);
    assert_eq!(go(&mut pace, 0), 1000);
}

#[test]
fn what_becomes_of_publishes_is_counted() {
    let paced = crate::broker::Metrics::register(&prometheus::Registry::new()).publish_paced;
    let wait = Verdict::Wait(Duration::from_millis(1));
    for verdict in [
        Verdict::Go,
        wait,
        Verdict::Drop,
        Verdict::Drop,
        Verdict::Disconnect,
    ] {
        count(&paced, verdict);
    }
    let counted =
        ["delayed", "dropped", "disconnected"].map(|fate| paced.with_label_values(&[fate]).get());
    assert_eq!(counted, [1, 2, 1]);
}
