//! A registry of 10 000 things and as many certificates: how long a load takes, and a change.
//!
//! Medians of several runs beside the plain parsing of the same text as TOML, which is the part that
//! cannot be saved: on another machine compare the ratios. `cargo bench -p portcullis-core --bench
//! registry`; it fails if a load takes a second, or a change 100 ms.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a bench measures time and prints it"
)]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    hint::black_box,
    path::Path,
    time::{Duration, Instant},
};

use portcullis_core::{
    identity::{CertificateId, GroupName, ThingName},
    registry::{
        Cache, Change, Registry, State, StateCertificate, Status,
        line::{Reading, encode},
    },
    timestamp::Timestamp,
};

const THINGS: usize = 10_000;
const GROUPS: usize = 100;
const RUNS: usize = 11;
const LOAD_MAX: Duration = Duration::from_secs(1);
const CHANGE_MAX: Duration = Duration::from_millis(100);

fn main() {
    let text = registry();
    let policies = BTreeSet::from(["device".to_owned(), "extra".to_owned()]);
    let file = Path::new("registry.toml");
    println!(
        "{THINGS} things and certificates, {} KiB of registry.toml",
        text.len() / 1024
    );
    let plain = median(|| toml::de::DeTable::parse(&text).unwrap());
    show("TOML alone", plain, plain);
    let parse = median(|| Registry::parse(file, &text, Some(&policies)));
    show("registry.toml, read whole", parse, plain);
    let load = median(|| {
        let mut cache = Cache::default();
        cache.parse(file, &text, Some(&policies));
        cache
    });
    show("registry.toml, a load", load, plain);
    let mut cache = Cache::default();
    cache.parse(file, &text, Some(&policies));
    let mut revisions = (0..).map(|n| {
        let changed = format!("name = \"sensor-5000\"\ntype = \"kind-{n}\"");
        text.replacen("name = \"sensor-5000\"\ntype = \"sensor\"", &changed, 1)
    });
    let change = median_of(
        || revisions.next().unwrap(),
        |text| {
            let (registry, problems) = cache.parse(file, &text, Some(&policies));
            assert!(problems.is_empty());
            registry
        },
    );
    show("registry.toml, a change of a thing", change, plain);

    let (registry, problems) = Registry::parse(file, &text, Some(&policies));
    assert!(problems.is_empty(), "{problems:?}");
    let journal = journal();
    let read = median(|| {
        let mut reading = Reading::default();
        reading.read_on(&journal);
        reading
    });
    show("journal of as many certificates", read, plain);
    let mut reading = Reading::default();
    reading.read_on(&journal);
    assert_eq!(reading.state.len(), THINGS);
    let merge = median(|| reading.state.merge_into(&registry, Some(&policies)));
    show("merging both", merge, plain);
    let one = one_change();
    let one = median(|| one.merge_into(&registry, Some(&policies)));
    show("merging one change of run time", one, plain);
    let broken = text.replace("thing = \"sensor-", "thing = \"senzor-");
    let broken = median(|| {
        let (_, problems) = Registry::parse(file, &broken, Some(&policies));
        assert_eq!(problems.len(), THINGS);
    });
    show("as many mistakes", broken, plain);
    assert!(broken < LOAD_MAX, "mistakes take too long to tell");
    assert!(load + read + merge < LOAD_MAX, "a load takes too long");
    assert!(change + merge < CHANGE_MAX, "a change takes too long");
}

fn median<T>(mut work: impl FnMut() -> T) -> Duration {
    median_of(|| (), |()| work())
}

/// Making what the work is about does not count.
fn median_of<P, T>(mut prepare: impl FnMut() -> P, mut work: impl FnMut(P) -> T) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let prepared = prepare();
            let start = Instant::now();
            let done = black_box(work(prepared));
            let took = start.elapsed();
            drop(done);
            took
        })
        .collect();
    times.sort();
    times[RUNS / 2]
}

fn show(what: &str, took: Duration, reference: Duration) {
    let ratio = took.as_secs_f64() / reference.as_secs_f64();
    let millis = took.as_secs_f64() * 1e3;
    println!("{what:<36} {millis:8.2} ms  {ratio:5.2} x TOML alone");
}

fn registry() -> String {
    let mut text = String::from("[[group]]\nname = \"devices\"\npolicies = [\"device\"]\n");
    for group in 0..GROUPS {
        _ = write!(
            text,
            "[[group]]\nname = \"site-{group}\"\npolicies = [\"extra\"]\n"
        );
    }
    for thing in 0..THINGS {
        let group = thing % GROUPS;
        _ = write!(
            text,
            "[[thing]]\nname = \"sensor-{thing}\"\ntype = \"sensor\"\n\
             groups = [\"devices\", \"site-{group}\"]\nattributes = {{ floor = \"{group}\", model = \"x\" }}\n"
        );
    }
    for thing in 0..THINGS {
        let id = CertificateId::of_der(&thing.to_be_bytes());
        _ = write!(
            text,
            "[[certificate]]\nid = \"{id}\"\nthing = \"sensor-{thing}\"\nstatus = \"ACTIVE\"\n"
        );
    }
    text
}

/// Half of the certificates are those of the file.
fn journal() -> Vec<u8> {
    let mut lines = String::new();
    for n in THINGS / 2..THINGS * 3 / 2 {
        let id = CertificateId::of_der(&n.to_be_bytes());
        let at = Timestamp::from_millis(1_795_341_600_123);
        let mut certificate = StateCertificate::new(id, Status::Inactive, at, "JITR");
        certificate.things = ThingName::parse(&format!("sensor-{n}"))
            .into_iter()
            .collect();
        lines += &encode(&Change::Certificate(certificate)).unwrap();
    }
    lines.into_bytes()
}

fn one_change() -> State {
    let mut state = State::default();
    state.apply(Change::Member {
        thing: ThingName::parse("sensor-1").unwrap(),
        group: GroupName::parse("site-2").unwrap(),
        why: "bench".to_owned(),
        at: Timestamp::default(),
    });
    state
}
