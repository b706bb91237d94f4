//! The compiled policy engine against a slow one, and decisions that were remembered against fresh
//! ones, on random policies and requests.
//!
//! A failure prints its seed and size, the smallest size first: `PORTCULLIS_TEST_SEED` runs that one
//! alone.

#![expect(clippy::unwrap_used, reason = "helpers of tests; values are ours")]
#![expect(clippy::string_slice, reason = "cut at the ends of characters")]

mod generate;
#[path = "../reference/mod.rs"]
mod reference;

use std::{
    collections::BTreeMap,
    env, panic,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
};

use fastrand::Rng;
use generate::{Client, Generator};
use portcullis_core::{
    certificate::Certificate,
    policy::{Action, Decision, DecisionCache, Denial, Matching, Permit, Policy, PolicySet, Rules},
};
use reference::Asked;
use serde_json::Value;

/// Requests to each set of policies.
const REQUESTS: usize = 40;
/// Sets of policies; with [`REQUESTS`] it makes the number of cases.
const SETS: u64 = 3000;

/// Specification A.1 to A.5.
#[test]
fn the_engine_decides_as_the_specification_reads() {
    let mut seen = BTreeMap::new();
    for_each_seed(SETS, |it| {
        let (json, set) = policies(it);
        for _ in 0..REQUESTS {
            let client = Client::random(it);
            let (action, name) = match it.rng.bool() {
                true => request(it, &client),
                false => it.request_for(&json, &client.known(set.rules(), "iot:Connect")),
            };
            let decision = agree(&json, &set, &client, action, &name);
            *seen.entry(decision.name()).or_insert(0) += 1;
        }
    });
    println!("{seen:?}");
    let total: usize = seen.values().sum();
    assert!(total >= 100_000 || env::var("PORTCULLIS_TEST_SEED").is_ok());
    // The cases are worth something only if all outcomes are among them, often.
    if total >= 100_000 {
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert!(seen.values().all(|count| count * 20 > total), "{seen:?}");
    }
}

/// Both decide the same, by the same statements.
fn agree(json: &[Value], set: &PolicySet, client: &Client, action: Action, name: &str) -> Decision {
    let asked = Asked {
        action: action.name(),
        resource_type: action.resource_type(),
        name,
    };
    let known = client.known(set.rules(), action.name());
    let expected = reference::applying(json, &known, asked);
    let context = client.context();
    let explained = set.explain(&context, action, name);
    let place = |denies: bool| {
        move |matching: &Matching| {
            let policy: usize = matching.statement.policy.parse().unwrap();
            (policy, matching.statement.index, denies)
        }
    };
    let mut found: Vec<_> = explained.allows.iter().map(place(false)).collect();
    found.extend(explained.denies.iter().map(place(true)));
    found.sort_unstable();
    if found != expected {
        let only_one_says =
            |place: &&reference::Applies| found.contains(place) != expected.contains(place);
        let places = found.iter().chain(&expected).filter(only_one_says);
        let texts =
            places.map(|(policy, statement, _)| json[*policy]["Statement"][*statement].to_string());
        panic!(
            "{action} {name:?}\nstatements {:#?}\nthe engine: {found:?}\nthe reference: \
             {expected:?}\nknown {known:?}",
            texts.collect::<Vec<_>>()
        );
    }
    let decided = set.decide(&context, action, name);
    match (reference::decide(&expected), &decided, explained.decision) {
        (None, Err(Denial::Implicit), Decision::ImplicitDeny)
        | (Some(true), Ok(_), Decision::Allowed)
        | (Some(false), Err(Denial::Explicit(_)), Decision::ExplicitDeny) => {}
        other => panic!("{other:?}"),
    }
    explained.decision
}

#[test]
fn remembered_decisions_are_the_decisions() {
    for_each_seed(SETS / 4, |it| {
        let (_, set) = policies(it);
        let mut cache = DecisionCache::new(it.rng.usize(0..6));
        let mut client = Client::random(it);
        let mut generation = 0;
        // Few names, so that they come again.
        let names: Vec<_> = (0..5).map(|_| request(it, &client)).collect();
        for _ in 0..REQUESTS {
            if it.rng.u8(..8) == 0 {
                generation += 1;
                client = Client::random(it);
            }
            client.now = Client::random_now(it);
            client.connect = Client::random_connect(it);
            let (action, name) = &names[it.rng.usize(..names.len())];
            let context = client.context();
            let remembered = cache.decide(&set, generation, &context, *action, name);
            let fresh = set.decide(&context, *action, name);
            assert_eq!(
                told(&remembered),
                told(&fresh),
                "{action} {name:?} by {client:#?}"
            );
        }
    });
}

fn told(decision: &Result<Permit, Denial>) -> String {
    format!("{decision:?}")
}

/// A few policies, named by their position.
fn policies(it: &mut Generator) -> (Vec<Value>, PolicySet) {
    let count = it.rng.usize(1..=3);
    let json: Vec<Value> = (0..count).map(|_| it.policy()).collect();
    let parse = |(position, json): (usize, &Value)| {
        let parsed = Policy::parse(&position.to_string(), &json.to_string());
        Arc::new(parsed.unwrap_or_else(|mistakes| panic!("{json:#}: {mistakes:#?}")))
    };
    let rules: Rules = it.rules();
    let parsed = json.iter().enumerate().map(parse).collect();
    let set = PolicySet::with_rules(parsed, Arc::new(rules));
    (json, set)
}

fn request(it: &mut Generator, client: &Client) -> (Action, String) {
    let action = Action::ALL[it.rng.usize(..Action::ALL.len())];
    let name = match action {
        Action::Connect if it.rng.bool() => client.client_id.to_string(),
        action => it.name(action == Action::Subscribe),
    };
    (action, name)
}

/// Runs `body` with a new generator for each of `seeds` seeds, the sizes growing; says which seed
/// failed.
fn for_each_seed(seeds: u64, mut body: impl FnMut(&mut Generator)) {
    let from = match env::var("PORTCULLIS_TEST_SEED") {
        Ok(seed) => Some(seed.parse().unwrap()),
        Err(_) => None,
    };
    let first: u64 = Rng::new().u64(..1 << 40);
    for step in 0..if from.is_some() { 1 } else { seeds } {
        let seed = from.unwrap_or(first + step);
        let mut it = Generator {
            rng: Rng::with_seed(seed),
            // The same for a seed, however it is run.
            size: usize::try_from(seed % 4).unwrap() + 1,
        };
        let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| body(&mut it)));
        if let Err(cause) = outcome {
            eprintln!("run it again with PORTCULLIS_TEST_SEED={seed}");
            panic::resume_unwind(cause);
        }
    }
}

/// A certificate of `tests/certificates`.
fn certificate(name: &str) -> Arc<Certificate> {
    static READ: OnceLock<Mutex<BTreeMap<String, Arc<Certificate>>>> = OnceLock::new();
    let mut read = READ.get_or_init(Mutex::default).lock().unwrap();
    let certificate = read.entry(name.to_owned()).or_insert_with(|| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
        let der = std::fs::read(dir.join(name).with_extension("der")).unwrap();
        Arc::new(Certificate::parse(&der).unwrap())
    });
    certificate.clone()
}
