//! Damage: flipped bits, blocks of zeros and cut files in the data directory. The gateway starts,
//! serves, passes on nothing but what was sent, and says what it lost; the commands that read the buffer
//! say the same and do not fall over.
//!
//! `PORTCULLIS_DAMAGE_PLACES` sets how many places are tried, `PORTCULLIS_DAMAGE_SEED` repeats a run's
//! choices; `gateway/tests/damage.sh` runs it in full.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    fake_kinesis::{FakeKinesis, Step},
    peer::{Asked, Got, Peer, Publish},
    power::{check_order, message, traffic::payload},
    served::{Served, eventually},
    support::CREDENTIALS,
    tree::Tree,
};

const ANYTHING: &str =
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#;
const CLIENT: &str = "p-0";
const MESSAGES: u64 = 4000;
const LOST: &str = "portcullis_buffer_lost_records_total";

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |n| n.parse().unwrap())
}

/// A gateway whose stream refuses everything for now.
fn site() -> (Served, FakeKinesis) {
    let stream = FakeKinesis::start([]);
    stream.afterwards(Step::Refuse(503, "ServiceUnavailable"));
    let served = Served::new();
    served.ship_to(&stream.endpoint);
    served.site.write("policies/device.json", ANYTHING);
    let add = ["thing", "add", CLIENT, "--group", "damaged"];
    served.site.done(&add);
    served.site.replace(
        "gateway.toml",
        "generation-bytes-max = 8388608",
        "generation-bytes-max = 1048576",
    );
    (served, stream)
}

/// Publishes so many messages, from number `first` on, and waits until all are acknowledged.
fn publish(served: &Served, first: u64, count: u64) {
    let asked = Asked {
        version: 5,
        client_id: CLIENT,
        clean: true,
        expiry_secs: 0,
        window: 100,
    };
    let (mut peer, _) = Peer::connect(served.plain, &asked).unwrap();
    let mut acked = first;
    for n in first..first + count {
        let publish = Publish {
            qos: 1,
            id: u16::try_from(n % 60_000).unwrap() + 1,
            topic: format!("dt/{CLIENT}/t"),
            payload: payload(CLIENT, n),
            ..Publish::default()
        };
        peer.publish(&publish).unwrap();
        if n - acked >= 20 {
            assert!(matches!(peer.receive().unwrap(), Got::Ack(_)));
            acked += 1;
        }
    }
    while acked < first + count {
        assert!(matches!(peer.receive().unwrap(), Got::Ack(_)));
        acked += 1;
    }
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Flip,
    Zeros,
    Cut,
}

/// Harms a random place; which file, and how.
fn harm(data: &mut Tree, random: &mut fastrand::Rng, below: &Path) -> (PathBuf, Harm, usize) {
    let files: Vec<_> = data
        .0
        .iter_mut()
        .filter(|(name, _)| name.starts_with(below))
        .filter_map(|(name, contents)| Some((name, contents.as_mut()?)))
        .filter(|(_, contents)| !contents.is_empty())
        .collect();
    let total: usize = files.iter().map(|(_, contents)| contents.len()).sum();
    // Half of the time in any file, for most bytes are in few.
    let (mut at, by_file) = (random.usize(0..total), random.bool());
    let chosen = random.usize(0..files.len());
    for (place, (name, contents)) in files.into_iter().enumerate() {
        let is_it = if by_file {
            place == chosen
        } else {
            at < contents.len()
        };
        if !is_it {
            at = at.saturating_sub(contents.len());
            continue;
        }
        let at = if by_file {
            random.usize(0..contents.len())
        } else {
            at
        };
        let harm = *random
            .choice(&[Harm::Flip, Harm::Zeros, Harm::Cut])
            .unwrap();
        match harm {
            Harm::Flip => contents[at] ^= 1 << random.u8(0..8),
            Harm::Zeros => {
                let start = at - at % 4096;
                let end = (start + 4096).min(contents.len());
                contents[start..end].fill(0);
            }
            Harm::Cut => contents.truncate(at),
        }
        return (name.clone(), harm, at);
    }
    unreachable!("a place is in a file");
}

/// Which of the messages are in these records, each of which must be whole.
fn messages(bodies: &[Value]) -> BTreeSet<u64> {
    let found = bodies.iter().filter_map(message);
    found.map(|(_, n)| n).collect()
}

#[test]
fn damage_costs_what_it_hits_and_is_said_and_nothing_of_it_is_passed_on() {
    let seed = variable("PORTCULLIS_DAMAGE_SEED", fastrand::u64(..1 << 32));
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut served, stream) = site();
    served.start_with(CREDENTIALS);
    publish(&served, 1, MESSAGES);
    served.kill();
    let data_dir = served.site.path("data");
    let whole = Tree::read(&data_dir);
    let (mut hit, mut lost_of_all, mut slowest) = (0, 0, Duration::ZERO);
    for place in 0..variable("PORTCULLIS_DAMAGE_PLACES", 8) {
        let mut data = whole.clone();
        // The buffer most of the time, for most of the data are there.
        let below = Path::new(if place % 4 == 3 { "" } else { "buffer" });
        let (file, harm, at) = harm(&mut data, &mut random, below);
        println!("place {place}: {harm:?} at {at} of {}", file.display());
        data.write(&data_dir);
        let before = stream.taken().len();
        stream.afterwards(Step::Take);
        let started = Instant::now();
        served.start_with(CREDENTIALS);
        slowest = slowest.max(started.elapsed());
        // It serves, and once this is there all before it was read.
        let marker = MESSAGES + 1 + place;
        publish(&served, marker, 1);
        let arrived = || -> Vec<Value> {
            let taken = stream.taken().split_off(before);
            let bodies = taken.iter();
            bodies
                .map(|(_, data)| serde_json::from_slice(data).expect("only JSON goes upstream"))
                .collect()
        };
        eventually("what is there arrives", || {
            let is_there = messages(&arrived()).contains(&marker);
            is_there && served.metric("portcullis_buffer_depth_records", &[]) == 0.0
        });
        let mut bodies = arrived();
        // Without `ordering = "strict"` the order is that of the numbers, not of the requests.
        bodies.sort_by_key(|body| body["seq"].as_u64());
        check_order(&bodies);
        let there = messages(&bodies);
        let lost = (1..=MESSAGES).filter(|n| !there.contains(n)).count();
        let told = served.metric(LOST, &[]);
        assert!(
            told >= lost as f64,
            "{lost} are missing and {told} are said to be lost"
        );
        if lost > 0 {
            assert!(
                served.metric("portcullis_buffer_damaged_generations_total", &[]) > 0.0,
                "no generation is said to be damaged"
            );
            assert!(
                served.log().contains("from_place="),
                "the log names the places"
            );
            hit += 1;
            lost_of_all += lost;
        }
        stream.afterwards(Step::Refuse(503, "ServiceUnavailable"));
        served.kill();
        served.accounts();
    }
    println!(
        "{hit} of the places cost records, {lost_of_all} in all, all of them told; the slowest start \
         took {slowest:?}"
    );
}

/// The lines of an answer, each a record.
fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn commands_read_the_buffer_of_a_running_and_of_a_stopped_gateway_and_change_nothing() {
    let (mut served, _stream) = site();
    served.start_with(CREDENTIALS);
    publish(&served, 1, 3000);
    let stats = served.site.done(&["buffer", "stats", "--json"]);
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["inUse"], true);
    let lanes = stats["lanes"].as_array().unwrap();
    let events = lanes.iter().find(|lane| lane["lane"] == "events").unwrap();
    assert!(events["undelivered"].as_u64().unwrap() >= 3000, "{stats}");
    let account = &served.accounts()[0];
    assert!(account["kept"].as_u64().unwrap() >= 3000, "{account}");
    let peeked = lines(
        &served
            .site
            .done(&["buffer", "peek", "--json", "--limit", "50"]),
    );
    assert!(peeked.len() >= 50, "{}", peeked.len());
    let exported = lines(&served.site.done(&["buffer", "export"]));
    assert_eq!(messages(&exported), (1..=3000).collect());
    served.site.done(&["buffer", "verify"]);
    // It goes on as if nobody had looked.
    publish(&served, 3001, 10);
    served.kill();

    let data_dir = served.site.path("data");
    let before = Tree::read(&data_dir);
    let out = served.site.path("export.ndjson");
    let out_text = out.to_str().unwrap();
    served.site.done(&["buffer", "export", "--out", out_text]);
    let exported = lines(&std::fs::read_to_string(&out).unwrap());
    check_order(&exported);
    assert_eq!(messages(&exported), (1..=3010).collect());
    assert_eq!(
        served
            .site
            .run(&["buffer", "export", "--out", out_text])
            .code,
        2,
        "no file is overwritten"
    );
    let verified = served.site.done(&["buffer", "verify", "--json"]);
    let verified: Value = serde_json::from_str(&verified).unwrap();
    assert_eq!(verified["ok"], true, "{verified}");
    assert!(verified["generations"].as_array().unwrap().len() > 1);
    served.site.done(&["buffer", "stats"]);
    served.site.done(&["buffer", "peek"]);
    assert_eq!(before.difference(&Tree::read(&data_dir)), None);
}

#[test]
fn commands_say_what_is_damaged_and_get_the_rest() {
    let seed = variable("PORTCULLIS_DAMAGE_SEED", fastrand::u64(..1 << 32));
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut served, _stream) = site();
    served.start_with(CREDENTIALS);
    publish(&served, 1, 3000);
    served.kill();
    let data_dir = served.site.path("data");
    let whole = Tree::read(&data_dir);
    let databases: Vec<_> = whole
        .0
        .keys()
        .filter(|name| name.file_name().is_some_and(|file| file == "db"))
        .cloned()
        .collect();
    assert!(databases.len() > 1, "{databases:?}");
    let mut noticed = 0;
    for place in 0..variable("PORTCULLIS_DAMAGE_PLACES", 8) {
        let mut data = whole.clone();
        let database = random.choice(&databases).unwrap();
        let contents = data.0.get_mut(database).unwrap().as_mut().unwrap();
        let at = random.usize(0..contents.len());
        let start = at - at % 4096;
        let end = (start + 4096).min(contents.len());
        contents[start..end].fill(0xa5);
        data.write(&data_dir);
        println!("place {place}: {at} of {}", database.display());
        let verified = served.site.run(&["buffer", "verify", "--json"]);
        let answer: Value = serde_json::from_str(&verified.stdout).unwrap();
        assert_eq!(verified.code, i32::from(answer["ok"] == false));
        noticed += verified.code;
        let exported = served.site.run(&["buffer", "export"]);
        assert!(exported.code <= 1, "{}", exported.stderr);
        let exported = lines(&exported.stdout);
        check_order(&exported);
        let there = messages(&exported);
        if answer["ok"] == true {
            assert_eq!(there.len(), 3000, "good, it says");
        }
        // The same generation set aside.
        let generation = database.parent().unwrap();
        let from = data_dir.join(generation);
        let mut to = from.clone().into_os_string();
        to.push(".damaged");
        std::fs::rename(&from, &to).unwrap();
        let before = Tree::read(&data_dir);
        let salvaged = served.site.run(&["buffer", "salvage"]);
        assert_eq!(salvaged.code, 0, "{}", salvaged.stderr);
        let salvaged = lines(&salvaged.stdout);
        // What it gives beside the others is more than what reading in order gave, or the same.
        let others = messages(&lines(&served.site.run(&["buffer", "export"]).stdout));
        let both: BTreeSet<_> = others.union(&messages(&salvaged)).copied().collect();
        assert!(both.is_superset(&there), "salvage gives less than export");
        println!(
            "  verify {}, export {} of 3000, with salvage {}",
            verified.code,
            there.len(),
            both.len()
        );
        assert_eq!(served.site.run(&["buffer", "verify"]).code, 1);
        assert_eq!(before.difference(&Tree::read(&data_dir)), None);
    }
    println!("{noticed} places were damage to somebody");
}
