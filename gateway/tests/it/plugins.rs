//! The plugin host with real components: the shipped ones, and one that misbehaves.
#![allow(clippy::unwrap_used, reason = "test code may unwrap")]

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use portcullis::plugin::{
    CallError, Changes, Host, Instance, LoadError, Metrics, Outcome, Plugin, PluginConfig,
    PluginError, PluginEvent, Reason, Severity, Verdict,
};
use portcullis_core::{
    event::{Event, Qos},
    identity::{ClientId, GroupName, ThingName},
    limits::{PLUGIN_FAILURES_MAX, PLUGIN_OUTPUT_BYTES_MAX},
    timestamp::Timestamp,
    topic::{TopicFilter, TopicName},
};
use prometheus::Registry;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_millis(1_795_341_600_000);

/// Generous: the machine may be busy with other tests. Long loops are cut at it all the same.
const DEADLINE: Duration = Duration::from_millis(500);

/// One host for all tests: compiling is what takes time.
struct Fixture {
    registry: Registry,
    host: Host,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let registry = Registry::new();
    let host = Host::new(Metrics::register(&registry)).unwrap();
    Fixture { registry, host }
});

fn config(name: &str) -> PluginConfig {
    PluginConfig {
        name: name.into(),
        file: "unused".into(),
        memory_bytes_max: 16 * 1024 * 1024,
        deadline: DEADLINE,
        emit: vec![TopicFilter::parse("alerts/#").unwrap()],
    }
}

fn shipped(name: &str) -> Plugin {
    let bytes = portcullis_plugins::shipped(name).unwrap();
    FIXTURE.host.load_bytes(&config(name), bytes).unwrap()
}

fn instantiate(plugin: &Plugin, settings: &Value) -> Result<Instance, PluginError> {
    let group = GroupName::parse("g").unwrap();
    plugin.instantiate(&group, 0, 1, &settings.to_string())
}

fn event(thing: &str, payload: impl Into<Vec<u8>>) -> PluginEvent {
    PluginEvent::new(Event {
        thing: Some(ThingName::parse(thing).unwrap()),
        groups: Arc::from([]),
        client_id: ClientId::parse(thing).unwrap(),
        received_at: NOW,
        topic: TopicName::parse("dt/x").unwrap(),
        payload: payload.into().into(),
        qos: Qos::AtLeastOnce,
        retain: false,
        user_properties: Vec::new(),
    })
}

fn handle(instance: &mut Instance, events: &[PluginEvent]) -> Result<Outcome, CallError> {
    handle_at(instance, events, NOW)
}

fn handle_at(
    instance: &mut Instance,
    events: &[PluginEvent],
    now: Timestamp,
) -> Result<Outcome, CallError> {
    let batch: Vec<&PluginEvent> = events.iter().collect();
    instance.handle(&batch, now)
}

fn tag<'o>(outcome: &'o Outcome, event: usize, key: &str) -> Option<&'o str> {
    let Verdict::Keep(Changes { tags, .. }) = &outcome.verdicts[event] else {
        return None;
    };
    tags.iter()
        .find(|tag| tag.0 == key)
        .map(|tag| tag.1.as_str())
}

mod shipped_plugins {
    use super::*;

    #[test]
    fn threshold_raises_exactly_the_expected_violations() {
        let settings = json!({"rules": [
            {"name": "over-temperature", "pointer": "/t", "max": 8.0, "severity": "high"},
            {"name": "under-temperature", "pointer": "/t", "min": -30.0},
        ]});
        let mut instance = instantiate(&shipped("threshold"), &settings).unwrap();
        assert_eq!(instance.pointers().collect::<Vec<_>>(), ["/t", "/t"]);
        let outcome = handle(
            &mut instance,
            &[
                event("a", r#"{"t": 7.9}"#),
                event("a", r#"{"t": 8.1}"#),
                event("a", r#"{"t": 9}"#),
                event("b", r#"{"t": -31}"#),
                event("b", "no json"),
                event("c", r#"{"t": "99"}"#),
            ],
        )
        .unwrap();
        let seen: Vec<_> = outcome
            .violations
            .iter()
            .map(|v| (v.event, v.rule.as_str(), v.severity, v.value))
            .collect();
        assert_eq!(
            seen,
            [
                (1, "over-temperature", Severity::High, Some(8.1)),
                (3, "under-temperature", Severity::Medium, Some(-31.0)),
            ]
        );
        assert_eq!(outcome.violations[0].message, "`/t` is 8.1, above 8");
        assert_eq!(
            outcome.verdicts,
            vec![Verdict::Keep(Changes::default()); 6],
            "a detector changes nothing"
        );
        // The state outlives the call: still outside, then back, then out again.
        let raised: Vec<usize> = [9.5, 5.0, 8.5]
            .iter()
            .map(|t| {
                let events = [event("a", format!("{{\"t\":{t}}}"))];
                handle(&mut instance, &events).unwrap().violations.len()
            })
            .collect();
        assert_eq!(raised, [0, 0, 1]);
    }

    #[test]
    fn enrich_tags_and_scales() {
        let settings = json!({
            "tags": {"site": "demo"},
            "scale": [{"pointer": "/t", "factor": 0.5}],
        });
        let mut instance = instantiate(&shipped("enrich"), &settings).unwrap();
        let mut events = [event("a", r#"{"t": 9, "u": 1}"#), event("b", "text")];
        let outcome = handle(&mut instance, &events).unwrap();
        for (event, verdict) in events.iter_mut().zip(outcome.verdicts) {
            let Verdict::Keep(changes) = verdict else {
                panic!("nothing is dropped");
            };
            assert_eq!(event.apply(changes), 0);
            assert_eq!(event.tags(), [("site".to_owned(), "demo".to_owned())]);
        }
        assert_eq!(events[0].payload(), r#"{"t":4.5,"u":1}"#);
        assert!(events[0].is_json() && !events[1].is_json());
        assert!(!events[1].is_rewritten());
    }

    #[test]
    fn bad_settings_are_refused_with_the_plugins_reason() {
        let error = instantiate(&shipped("threshold"), &json!({"rules": []})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "plugin `threshold` refuses its settings: `rules` is empty: write at least one"
        );
    }

    #[test]
    fn an_empty_batch_costs_no_call() {
        let mut instance = instantiate(&shipped("enrich"), &json!({})).unwrap();
        assert_eq!(handle(&mut instance, &[]).unwrap(), Outcome::default());
    }
}

mod hostile {
    use super::*;

    static HOSTILE: LazyLock<Plugin> = LazyLock::new(|| load("hostile"));

    fn load(name: &str) -> Plugin {
        let bytes = portcullis_test_guests::GUESTS[0].1;
        FIXTURE.host.load_bytes(&config(name), bytes).unwrap()
    }

    fn hostile(mode: &str) -> Instance {
        instantiate(&HOSTILE, &json!({"mode": mode, "when": "now"})).unwrap()
    }

    /// Lets the guest misbehave once, then behave; returns the first call's error and whether the
    /// second call met the same instance.
    fn misbehave(mode: &str) -> (CallError, bool) {
        let mut instance = hostile(mode);
        let good = [event("a", "fine")];
        let outcome = handle(&mut instance, &good).unwrap();
        assert_eq!(tag(&outcome, 0, "calls"), Some("1"));
        let error = handle(&mut instance, &[event("a", "fine"), event("a", "now")]).unwrap_err();
        let outcome = handle(&mut instance, &good).unwrap();
        let calls = tag(&outcome, 0, "calls").unwrap();
        assert!(matches!(calls, "1" | "3"), "{calls}");
        (error, calls == "3")
    }

    #[test]
    fn an_endless_loop_is_stopped_at_the_deadline() {
        let started = Instant::now();
        assert_eq!(misbehave("loop"), (CallError::Deadline, false));
        assert!(started.elapsed() >= DEADLINE);
        assert!(started.elapsed() < 20 * DEADLINE, "{:?}", started.elapsed());
    }

    #[test]
    fn an_endless_loop_at_the_start_is_stopped() {
        let error = instantiate(&HOSTILE, &json!({"mode": "loop-in-configure"})).unwrap_err();
        assert!(
            matches!(
                error,
                PluginError::Start {
                    error: CallError::Deadline,
                    ..
                }
            ),
            "{error}"
        );
    }

    #[test]
    fn a_memory_bomb_meets_the_memory_limit() {
        let (error, same) = misbehave("memory");
        assert_eq!(error.reason(), Reason::Memory, "{error}");
        assert!(!same);
    }

    #[test]
    fn a_panic_is_a_trap_with_the_guests_last_words() {
        let (error, same) = misbehave("panic");
        assert_eq!(error.reason(), Reason::Trap, "{error}");
        assert!(error.to_string().contains("as told"), "{error}");
        assert!(!same);
    }

    #[test]
    fn a_deep_recursion_is_a_trap() {
        let (error, same) = misbehave("recursion");
        assert_eq!(error.reason(), Reason::Trap, "{error}");
        assert!(!same);
    }

    #[test]
    fn an_exit_ends_the_instance_and_not_the_process() {
        let (error, same) = misbehave("exit");
        assert_eq!(error.reason(), Reason::Trap, "{error}");
        assert!(!same);
    }

    #[test]
    fn a_sleep_is_refused_at_once() {
        let started = Instant::now();
        let (error, same) = misbehave("sleep");
        assert_eq!(error.reason(), Reason::Trap, "{error}");
        assert!(error.to_string().contains("sleeping is refused"), "{error}");
        assert!(!same);
        assert!(started.elapsed() < Duration::from_secs(600), "not an hour");
    }

    #[test]
    fn more_output_than_allowed_is_thrown_away() {
        const { assert!(64 * 128 * 1024 > PLUGIN_OUTPUT_BYTES_MAX) };
        let (error, same) = misbehave("output");
        assert_eq!(error, CallError::Output);
        assert!(!same);
    }

    #[test]
    fn answers_that_break_the_contract_are_refused_with_the_fields_name() {
        for (mode, field) in [
            ("bad-index", "edits.drop.index: 1000000 in a batch of 2"),
            ("bad-topic", "emissions.topic: \"a/+\""),
            ("bad-reason", "edits.drop.reason"),
            ("bad-rule", "violations.rule"),
            ("bad-metric", "metrics.name"),
            ("not-finite", "metrics.value"),
            ("huge-payload", "edits.replace.payload"),
        ] {
            let (error, same) = misbehave(mode);
            assert_eq!(error.reason(), Reason::Contract, "{mode}: {error}");
            assert!(error.to_string().contains(field), "{mode}: {error}");
            assert!(same, "{mode}: the instance is sound");
        }
    }

    #[test]
    fn a_field_that_is_no_pointer_is_refused_at_the_start() {
        let error = instantiate(&HOSTILE, &json!({"mode": "bad-pointer"})).unwrap_err();
        assert!(error.to_string().contains("no JSON pointer"), "{error}");
    }

    #[test]
    fn messages_are_emitted_on_granted_topics_only() {
        let mut instance = instantiate(&HOSTILE, &json!({"mode": "emit"})).unwrap();
        let outcome = handle(&mut instance, &[event("a", "alerts/x")]).unwrap();
        assert_eq!(outcome.emissions[0].topic.as_str(), "alerts/x");
        assert_eq!(outcome.emissions[0].payload, "emitted");
        let error = handle(&mut instance, &[event("a", "cmd/x")]).unwrap_err();
        assert_eq!(error.reason(), Reason::Contract);
        assert!(
            error.to_string().contains("not among the topics"),
            "{error}"
        );
    }

    #[test]
    fn log_storms_are_cut_and_counted() {
        for (mode, lines) in [("log-storm", 10_000.0), ("stderr-storm", 100.0)] {
            let plugin = load(mode);
            let mut instance = instantiate(&plugin, &json!({"mode": mode})).unwrap();
            handle(&mut instance, &[event("a", "x")]).unwrap();
            let dropped = counter("portcullis_plugin_log_lines_dropped_total", mode, None);
            assert_eq!(dropped, lines - 20.0, "{mode}");
        }
    }

    #[test]
    fn a_guest_reaches_nothing_outside() {
        let mut instance = instantiate(&HOSTILE, &json!({"mode": "probe"})).unwrap();
        let outcome = handle(&mut instance, &[event("a", "x")]).unwrap();
        for what in ["file", "dir", "tcp", "udp"] {
            let got = tag(&outcome, 0, what).unwrap();
            assert!(!matches!(got, "read" | "open"), "{what}: {got}");
        }
        assert_eq!(tag(&outcome, 0, "env"), Some("0"));
        assert_eq!(tag(&outcome, 0, "args"), Some("0"));
        let now = NOW.as_millis().to_string();
        assert_eq!(
            tag(&outcome, 0, "clock"),
            Some(&*now),
            "time is the batch's"
        );
    }

    #[tokio::test]
    async fn output_needs_no_runtime_and_minds_none() {
        // A blocking wait of `wasmtime-wasi` would panic within a task.
        let error = misbehave("panic").0;
        assert_eq!(error.reason(), Reason::Trap, "{error}");
    }

    #[test]
    fn a_plugin_that_keeps_failing_is_paused_and_recovers() {
        let plugin = load("breaker");
        let settings = json!({"mode": "panic", "when": "now"});
        let mut instance = instantiate(&plugin, &settings).unwrap();
        let (bad, good) = ([event("a", "now")], [event("a", "fine")]);
        for _ in 0..PLUGIN_FAILURES_MAX {
            let error = handle(&mut instance, &bad).unwrap_err();
            assert_eq!(error.reason(), Reason::Trap);
        }
        let until = NOW.plus_millis(1000);
        assert_eq!(
            handle_at(&mut instance, &good, NOW.plus_millis(999)),
            Err(CallError::Paused { until }),
            "not even a good batch is tried"
        );
        assert!(handle_at(&mut instance, &bad, until).is_err());
        let next = until.plus_millis(2000);
        assert_eq!(
            handle_at(&mut instance, &good, until.plus_millis(1999)),
            Err(CallError::Paused { until: next })
        );
        assert!(handle_at(&mut instance, &good, next).is_ok());
        assert!(handle_at(&mut instance, &bad, next).is_err());
        assert!(
            handle_at(&mut instance, &good, next).is_ok(),
            "one failure after the recovery does not pause"
        );
        let calls = "portcullis_plugin_calls_total";
        assert_eq!(counter(calls, "breaker", Some("paused")), 2.0);
        assert_eq!(counter(calls, "breaker", Some("ok")), 2.0);
        let traps = f64::from(PLUGIN_FAILURES_MAX) + 2.0;
        assert_eq!(counter(calls, "breaker", Some("trap")), traps);
        let restarts = counter("portcullis_plugin_restarts_total", "breaker", None);
        assert_eq!(restarts, traps);
    }
}

mod loading {
    use super::*;

    #[test]
    fn what_is_no_plugin_is_refused_with_the_reason() {
        let host = &FIXTURE.host;
        for (bytes, words) in [
            (&b"not wasm"[..], "no component"),
            (b"(component)", "no component"),
            // A component without anything, and a core module.
            (b"\0asm\x0d\0\x01\0", "portcullis:plugin/lifecycle@0.1.0"),
            (b"\0asm\x01\0\0\0", "no component"),
        ] {
            let error = host.load_bytes(&config("x"), bytes).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let mut config = config("x");
        config.file = "/nonexistent/x.wasm".into();
        let error = FIXTURE.host.load(&config).unwrap_err();
        assert!(matches!(error, LoadError::Read { .. }));
        assert!(error.to_string().contains("/nonexistent/x.wasm"), "{error}");
    }
}

/// The value of a counter of one plugin, and if given of one outcome.
fn counter(name: &str, plugin: &str, outcome: Option<&str>) -> f64 {
    let families = FIXTURE.registry.gather();
    let family = families.iter().find(|family| family.name() == name);
    let metrics = family.map(|family| family.get_metric()).unwrap_or_default();
    let matching = metrics.iter().filter(|metric| {
        let has = |name: &str, value: &str| {
            metric
                .get_label()
                .iter()
                .any(|label| label.name() == name && label.value() == value)
        };
        has("plugin", plugin) && outcome.is_none_or(|outcome| has("outcome", outcome))
    });
    matching
        .map(|metric| metric.get_counter().get_value())
        .sum()
}
