//! `policy learn` against a running gateway with real clients: what they did becomes the policy
//! under which they go on.

use std::fs;

use serde_json::Value;

use crate::{
    mosquitto::{Subscriber, clients_installed, publish, tls},
    served::{Credentials, Served, eventually},
};

const VERSION: &str = "mqttv311";

fn send(served: &Served, own: &Credentials, client_id: &str, topic: &str) -> bool {
    let command = tls("mosquitto_pub", served, own, Some(own), VERSION);
    publish(command, client_id, topic, "1").status.success()
}

fn subscribe(served: &Served, own: &Credentials, client_id: &str, filter: &str) -> Subscriber {
    let command = tls("mosquitto_sub", served, own, Some(own), VERSION);
    Subscriber::start(command, client_id, filter)
}

/// The proposal for `cold-chain`; `None` if there is none yet.
fn learned(served: &Served) -> Option<Value> {
    let arguments = ["policy", "learn", "--group", "cold-chain", "--json"];
    let answer = served.site.run(&arguments);
    (answer.code == 0).then(|| serde_json::from_str(&answer.stdout).unwrap())
}

/// `ACTIONS RESOURCE THINGS` of each line.
fn lines(proposal: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let line = |line: &Value| {
        let actions: Vec<_> = line["actions"]
            .as_array()
            .unwrap()
            .iter()
            .map(text)
            .collect();
        let resource = text(&line["resource"]).replace("arn:aws:iot:*:*:", "");
        format!("{} {resource} {}", actions.join("+"), line["things"])
    };
    proposal["basis"]
        .as_array()
        .unwrap()
        .iter()
        .map(line)
        .collect()
}

const NAME: &str = "${iot:Connection.Thing.ThingName}";

fn expected() -> Vec<String> {
    [
        "iot:Connect client/NAME 2",
        "iot:Connect client/NAME:sub 1",
        "iot:Publish+iot:Receive topic/dt/NAME/t 2",
        "iot:Subscribe topicfilter/dt/NAME/# 1",
    ]
    .map(|line| line.replace("NAME", NAME))
    .to_vec()
}

#[test]
fn devices_go_on_under_what_was_learned_from_them_and_may_do_nothing_else() {
    if !clients_installed() {
        return;
    }
    let mut served = Served::new();
    let [first, second] = ["sensor-1", "sensor-2"].map(|name| served.enrol(name, "cold-chain"));
    served.enrol("sensor-3", "cold-chain");
    served.start();
    let listening = subscribe(&served, &first, "sensor-1:sub", "dt/sensor-1/#");
    assert!(send(&served, &first, "sensor-1", "dt/sensor-1/t"));
    listening.wait_for("RECEIVED dt/sensor-1/t");
    assert!(send(&served, &second, "sensor-2", "dt/sensor-2/t"));
    // Denied: no basis for anything.
    send(&served, &second, "sensor-2", "dt/sensor-1/t");
    eventually("all of it is learned", || {
        learned(&served).is_some_and(|proposal| lines(&proposal) == expected())
    });
    let proposal = learned(&served).unwrap();
    assert_eq!(proposal["silent"], serde_json::json!(["sensor-3"]));
    let unused = proposal["unused"].as_array().unwrap();
    assert!(
        unused
            .iter()
            .any(|unused| unused["action"] == "iot:RetainPublish"),
        "{proposal:#}"
    );

    let out = served.site.path("policies/learned.json");
    let learn = [
        "policy",
        "learn",
        "--group",
        "cold-chain",
        "--out",
        out.to_str().unwrap(),
    ];
    let table = served.site.done(&learn);
    assert!(table.contains("2 of 3 things"), "{table}");
    assert_eq!(
        fs::read_to_string(out.with_extension("basis.txt")).unwrap(),
        table
    );
    let again = served.site.run(&learn);
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.stderr.contains("learned.basis.txt") || again.stderr.contains("learned.json"));

    // Allowed now, and never done.
    assert!(send(&served, &first, "sensor-1", "dt/sensor-1/other"));
    let before = served.metric("portcullis_identity_generation", &[]);
    let registry = served.site.read("registry.toml");
    let attached = registry.replace("policies = [\"device\"]", "policies = [\"learned\"]");
    served.site.write("registry.toml", &attached);
    eventually("the learned policy is in force", || {
        served.metric("portcullis_identity_generation", &[]) > before
    });
    assert!(send(&served, &first, "sensor-1", "dt/sensor-1/t"));
    listening.wait_for("RECEIVED dt/sensor-1/t");
    drop(listening);
    let again = subscribe(&served, &first, "sensor-1:sub", "dt/sensor-1/#");
    assert!(send(&served, &second, "sensor-2", "dt/sensor-2/t"));
    drop(again);
    for (topic, action) in [
        ("dt/sensor-1/other", "publish"),
        ("dt/sensor-2/t", "publish"),
    ] {
        let test = [
            "policy", "test", "--thing", "sensor-1", "--action", action, "--topic", topic,
        ];
        assert_eq!(served.site.run(&test).code, 3, "{topic}");
    }
    let denied = || served.metric("portcullis_broker_denied_total", &["publish"]);
    let before = denied();
    send(&served, &first, "sensor-1", "dt/sensor-1/other");
    eventually("it is denied", || denied() > before);
    served.stop();
}

#[test]
fn what_was_seen_survives_a_restart_and_goes_to_standard_output() {
    if !clients_installed() {
        return;
    }
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    let dir = served.site.path("policies");
    let policies = || fs::read_dir(&dir).unwrap().count();
    let before = policies();
    served.start();
    assert!(send(&served, &own, "sensor-1", "dt/sensor-1/t"));
    served.stop();
    let times = |proposal: &Value| proposal["basis"][1]["times"].as_u64().unwrap();
    let first = learned(&served).unwrap();
    assert_eq!(times(&first), 1, "{first:#}");
    served.start();
    assert!(send(&served, &own, "sensor-1", "dt/sensor-1/t"));
    served.stop();
    let second = learned(&served).unwrap();
    assert_eq!((lines(&second), times(&second)), (lines(&first), 2));

    let answer = served
        .site
        .run(&["policy", "learn", "--group", "cold-chain", "--hours", "168"]);
    let policy: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(policy, second["policies"][0]["document"]);
    assert!(answer.stderr.contains("2 times"), "{answer:?}");
    assert_eq!(policies(), before, "nothing is written unless asked for");
}
