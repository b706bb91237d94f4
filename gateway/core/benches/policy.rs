//! How long a policy decision takes: remembered, and made afresh from 10 policies of 20 statements,
//! beside a look-up in a `HashMap<String, _>` of the same run, which is what to compare with on
//! another machine. Medians of many rounds, taken in turns; allocations are counted.
//!
//! `cargo bench -p portcullis-core --bench policy`

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench reads the clock and prints; its values are its own"
)]

use std::{
    collections::{BTreeMap, HashMap},
    env,
    hint::black_box,
    sync::Arc,
    time::Instant,
};

use portcullis_core::{
    certificate::Certificate,
    identity::{CertificateId, ClientId, Thing, ThingName, ThingTypeName},
    limits::DECISIONS_PER_CONNECTION_MAX,
    policy::{Action, Context, DecisionCache, Policy, PolicySet},
    timestamp::Timestamp,
};

const ROUNDS: usize = 201;
const POLICIES: usize = 10;
const STATEMENTS: usize = 20;
/// Topics that a connection uses, half of what it may remember.
const TOPICS: usize = DECISIONS_PER_CONNECTION_MAX / 2;

const CACHED_NS_MAX: f64 = 200.0;
const UNCACHED_NS_MAX: f64 = 10_000.0;

fn main() {
    let client_id = ClientId::parse("sensor-0042").unwrap();
    let thing = Thing {
        name: ThingName::parse("sensor-0042").unwrap(),
        thing_type: Some(ThingTypeName::parse("sensor").unwrap()),
        attributes: BTreeMap::from([("zone".to_owned(), "cellar".to_owned())]),
        groups: Arc::from([]),
    };
    let certificate = Certificate::unseen(CertificateId::of_der(b"certificate"));
    let context = Context {
        thing: Some(&thing),
        certificate: Some(&certificate),
        source: Some([10, 1, 2, 3].into()),
        domain: Some("gateway.site"),
        now: Timestamp::from_millis(1_795_341_600_000),
        ..Context::of(&client_id)
    };
    let topics: Vec<String> = (0..TOPICS)
        .map(|n| format!("dt/sensor-0042/line-{n:03}/temperature"))
        .collect();
    let usual = set(usual_statement);
    let adverse = set(adverse_statement);
    let decide =
        |set: &PolicySet, topic: &str| set.decide(&context, Action::Publish, topic).is_ok();
    assert!(decide(&usual, &topics[0]) && !decide(&adverse, &topics[0]));

    let table: HashMap<String, u64> = topics.iter().cloned().zip(0..).collect();
    let mut cache = DecisionCache::new(DECISIONS_PER_CONNECTION_MAX);
    let mut cached = |topic: &str| {
        let decision = cache.decide(&usual, 1, &context, Action::Publish, topic);
        black_box(decision).is_ok()
    };
    topics.iter().for_each(|topic| assert!(cached(topic)));

    let mut tasks: [Task<'_>; 4] = [
        Task::new("HashMap<String, _> look-up", |topic: &str| {
            black_box(table.get(topic)).is_some()
        }),
        Task::new("cached decision", cached),
        Task::new("uncached, usual policies", |topic: &str| {
            decide(&usual, topic)
        }),
        Task::new("uncached, adverse policies", |topic: &str| {
            decide(&adverse, topic)
        }),
    ];
    // `cargo test --benches` wants to see that it runs, `cargo bench` how long it takes.
    let rounds = if env::args().any(|argument| argument == "--bench") {
        ROUNDS
    } else {
        1
    };
    for _ in 0..rounds {
        tasks.iter_mut().for_each(|task| task.round(&topics));
    }
    let reference = tasks[0].median();
    println!("{POLICIES} policies of {STATEMENTS} statements, {TOPICS} topics, {rounds} rounds");
    println!(
        "{:28} {:>10} {:>8} {:>12}",
        "", "median ns", "ratio", "allocations"
    );
    for task in &mut tasks {
        let (median, allocations) = (task.median(), task.allocations(&topics));
        let ratio = median / reference;
        println!(
            "{:28} {median:>10.1} {ratio:>8.2} {allocations:>12}",
            task.name
        );
    }
    let (cached, uncached) = (tasks[1].median(), tasks[2].median().max(tasks[3].median()));
    let verdict = |value, max| if value < max { "within" } else { "MISSED" };
    println!(
        "cached < {CACHED_NS_MAX} ns: {}",
        verdict(cached, CACHED_NS_MAX)
    );
    println!(
        "uncached < {UNCACHED_NS_MAX} ns: {}",
        verdict(uncached, UNCACHED_NS_MAX)
    );
}

/// What is measured, topic by topic.
struct Task<'t> {
    name: &'static str,
    run: Box<dyn FnMut(&str) -> bool + 't>,
    /// Nanoseconds for one topic, a value a round.
    rounds: Vec<f64>,
}

impl<'t> Task<'t> {
    fn new(name: &'static str, run: impl FnMut(&str) -> bool + 't) -> Self {
        Self {
            name,
            run: Box::new(run),
            rounds: Vec::new(),
        }
    }

    fn round(&mut self, topics: &[String]) {
        // What the others left in the processor's caches is not the matter here.
        for topic in topics {
            black_box((self.run)(black_box(topic)));
        }
        let start = Instant::now();
        for topic in topics {
            black_box((self.run)(black_box(topic)));
        }
        let nanos = start.elapsed().as_secs_f64() * 1e9;
        let count = u32::try_from(topics.len()).unwrap();
        self.rounds.push(nanos / f64::from(count));
    }

    fn median(&self) -> f64 {
        let mut rounds = self.rounds.clone();
        rounds.sort_by(f64::total_cmp);
        rounds[rounds.len() / 2]
    }

    /// For all topics together.
    fn allocations(&mut self, topics: &[String]) -> u64 {
        let all = || {
            topics.iter().for_each(|topic| {
                black_box((self.run)(topic));
            })
        };
        allocation_counter::measure(all).count_total
    }
}

fn set(statement: fn(usize, usize) -> String) -> PolicySet {
    let policy = |p: usize| {
        let statements: Vec<_> = (0..STATEMENTS).map(|s| statement(p, s)).collect();
        let json = format!(
            r#"{{"Version":"2012-10-17","Statement":[{}]}}"#,
            statements.join(",")
        );
        Arc::new(Policy::parse(&format!("p{p}"), &json).unwrap())
    };
    PolicySet::new((0..POLICIES).map(policy).collect())
}

/// What sites write: all actions, names by variables, a few denies and conditions. The last statement
/// of the last policy is the one that allows.
fn usual_statement(policy: usize, statement: usize) -> String {
    let last = (policy, statement) == (POLICIES - 1, STATEMENTS - 1);
    let n = policy * STATEMENTS + statement;
    let (effect, action, resource, rest) = match statement % 7 {
        _ if last => (
            "Allow",
            "Publish",
            "topic/dt/${iot:ClientId}/*".to_owned(),
            "",
        ),
        0 => ("Allow", "Connect", "client/${iot:ClientId}".to_owned(), ""),
        1 => (
            "Allow",
            "Publish",
            format!("topic/up{n}/${{iot:ClientId}}"),
            "",
        ),
        2 => ("Allow", "Subscribe", format!("topicfilter/cmd{n}/*"), ""),
        3 => ("Allow", "Receive", format!("topic/cmd{n}/*"), ""),
        4 => ("Deny", "*", format!("topic/*/secret{n}"), ""),
        5 => ("Allow", "Publish", format!("topic/dt/*/l{n}"), ""),
        _ => (
            "Deny",
            "Publish",
            "topic/dt/*".to_owned(),
            r#","Condition":{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}}"#,
        ),
    };
    format!(
        r#"{{"Effect":"{effect}","Action":"iot:{action}","Resource":"arn:aws:iot:*:*:{resource}"{rest}}}"#
    )
}

/// Every statement is about the action, and nothing but its middle, with stars to be tried everywhere,
/// tells that it does not match.
fn adverse_statement(policy: usize, statement: usize) -> String {
    let n = policy * STATEMENTS + statement;
    format!(
        r#"{{"Effect":"Deny","Action":"*","Resource":"arn:aws:iot:*:*:topic/*/*e*${{iot:ClientId}}{n}*"}}"#
    )
}
