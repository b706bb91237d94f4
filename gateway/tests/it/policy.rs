//! `policy test` and `policy explain`: a decision with its reasons, before any device meets it.

use serde_json::{Value, json};

use crate::site::{Answer, Site};

/// A site with the thing `sensor-1`, which has a certificate.
fn site() -> Site {
    let site = Site::init(&[]);
    let thing = ["thing", "add", "sensor-1", "--group", "cold-chain"];
    site.done(&[&thing[..], &["--attr", "zone=b"]].concat());
    let out = site.path("issued-sensor-1");
    site.done(&["cert", "issue", "sensor-1", "--out", out.to_str().unwrap()]);
    site
}

fn test(site: &Site, action: &str, more: &[&str]) -> Answer {
    let arguments = ["policy", "test", "--thing", "sensor-1", "--action", action];
    site.run(&[&arguments[..], more].concat())
}

fn test_json(site: &Site, action: &str, more: &[&str]) -> (i32, Value) {
    let answer = test(site, action, &[more, &["--json"]].concat());
    let json = serde_json::from_str(&answer.stdout).unwrap_or_else(|_| panic!("{answer:?}"));
    (answer.code, json)
}

fn set_policy(site: &Site, statements: &Value) {
    let policy = json!({ "Version": "2012-10-17", "Statement": statements });
    site.write("policies/device.json", &policy.to_string());
}

#[test]
fn a_policy_test_answers_as_test_authorization_does() {
    let site = site();
    let (code, answer) = test_json(&site, "publish", &["--topic", "dt/sensor-1/t"]);
    let policies = json!([{
        "policyName": "device",
        "policyArn": "arn:aws:iot:local:000000000000:policy/device",
    }]);
    let expected = json!({
        "authInfo": {
            "actionType": "PUBLISH",
            "resources": ["arn:aws:iot:local:000000000000:topic/dt/sensor-1/t"],
        },
        "allowed": { "policies": policies },
        "denied": {
            "implicitDeny": { "policies": [] },
            "explicitDeny": { "policies": [] },
        },
        "authDecision": "ALLOWED",
        "missingContextValues": [],
        "policy": "device",
        "statement": 2,
        "sid": "PublishItsOwnData",
        "reason": null,
        "will": [],
    });
    assert_eq!((code, answer), (0, expected));
    let (code, answer) = test_json(&site, "subscribe", &["--topic", "#"]);
    assert_eq!(
        (code, &answer["authDecision"]),
        (3, &json!("IMPLICIT_DENY"))
    );
    assert_eq!(answer["denied"]["implicitDeny"]["policies"], policies);
    assert_eq!(answer["statement"], Value::Null);
}

#[test]
fn a_value_that_a_policy_asks_for_in_vain_is_named() {
    let site = site();
    let allow = |condition: Value| {
        set_policy(
            &site,
            &json!([{ "Effect": "Allow", "Action": "iot:*", "Resource": "*", "Condition": condition }]),
        );
    };
    let publish = |more: &[&str]| {
        let (code, answer) = test_json(&site, "publish", &[&["--topic", "a"], more].concat());
        (code, answer["missingContextValues"].clone())
    };
    allow(json!({ "IpAddress": { "aws:SourceIp": "10.0.0.0/8" } }));
    assert_eq!(publish(&[]), (3, json!(["aws:SourceIp"])));
    assert_eq!(publish(&["--source-ip", "10.1.2.3"]), (0, json!([])));
    assert_eq!(publish(&["--source-ip", "11.1.2.3"]).0, 3);
    allow(json!({ "StringEquals": { "iot:DomainName": "gw.example" } }));
    assert_eq!(publish(&[]), (3, json!(["iot:DomainName"])));
    assert_eq!(publish(&["--domain", "gw.example"]), (0, json!([])));
    allow(json!({ "DateLessThan": { "aws:CurrentTime": "2030-01-01T00:00:00Z" } }));
    assert_eq!(publish(&["--at", "2029-12-31T23:59:59Z"]).0, 0);
    assert_eq!(publish(&["--at", "2030-01-01T00:00:00Z"]).0, 3);
    assert_eq!(
        test(&site, "publish", &["--topic", "a", "--at", "soon"]).code,
        2
    );
    let answer = test(&site, "publish", &["--topic", "a"]);
    assert_eq!(answer.code, 0, "{answer:?}");
}

#[test]
fn a_connect_is_tested_with_session_and_will() {
    let site = site();
    set_policy(
        &site,
        &json!([{ "Effect": "Allow", "Action": "iot:Connect", "Resource": "*", "Condition": {
            "ForAllValues:StringEquals": { "iot:ConnectAttributes": ["PersistentConnect"] } } }]),
    );
    let connect = |more: &[&str]| test(&site, "connect", more).code;
    assert_eq!(connect(&[]), 0);
    assert_eq!(connect(&["--persistent"]), 0);
    assert_eq!(connect(&["--will-topic", "gone"]), 3);
    assert_eq!(connect(&["--persistent", "--will-topic", "gone"]), 3);
    assert_eq!(connect(&["--will-topic", "gone/#"]), 2, "no topic");
    let publish = test(&site, "publish", &["--topic", "a", "--persistent"]);
    assert_eq!(publish.code, 2, "{publish:?}");
}

#[test]
fn a_connect_is_denied_if_its_will_is() {
    let site = site();
    let allow = |actions: &[&str]| {
        set_policy(
            &site,
            &json!([{ "Effect": "Allow", "Action": actions, "Resource": "*" }]),
        );
    };
    let connect = |more: &[&str]| test(&site, "connect", more).code;
    let (will, retain) = (["--will-topic", "gone"], ["--will-retain"]);
    let retained = [&will[..], &retain].concat();
    allow(&["iot:Connect"]);
    assert_eq!((connect(&[]), connect(&will)), (0, 3));
    let (code, answer) = test_json(&site, "connect", &will);
    assert_eq!(
        (code, &answer["authInfo"]["actionType"]),
        (3, &json!("PUBLISH"))
    );
    let text = test(&site, "connect", &will).stdout;
    assert!(
        text.contains("IMPLICIT_DENY: iot:Publish on topic/gone")
            && text.contains("cannot connect with this will"),
        "{text}"
    );
    allow(&["iot:Connect", "iot:Publish"]);
    assert_eq!((connect(&will), connect(&retained)), (0, 3));
    allow(&["iot:Connect", "iot:Publish", "iot:RetainPublish"]);
    let (code, answer) = test_json(&site, "connect", &retained);
    assert_eq!(
        (code, &answer["authInfo"]["actionType"]),
        (0, &json!("CONNECT"))
    );
    assert_eq!(answer["will"].as_array().map(Vec::len), Some(2));
    assert_eq!(connect(&retain), 2, "a will without a topic");
    assert_eq!(connect(&["--will-topic", "$SYS/gone"]), 3);
}

#[test]
fn nobody_may_publish_where_only_the_gateway_speaks() {
    let site = site();
    set_policy(
        &site,
        &json!([{ "Effect": "Allow", "Action": "iot:*", "Resource": "*" }]),
    );
    for topic in [
        "$aws/events/presence/connected/sensor-1",
        "$SYS/uptime",
        "$aws/certificates/create/json/accepted",
    ] {
        for (action, code) in [("publish", 3), ("retain-publish", 3), ("receive", 0)] {
            let answer = test(&site, action, &["--topic", topic]);
            assert_eq!(answer.code, code, "{action} {topic}: {answer:?}");
            let is_refused = answer.stdout.contains("only the gateway itself speaks");
            assert_eq!(is_refused, code == 3, "{answer:?}");
        }
    }
    let own = ["--topic", "$aws/things/sensor-1/shadow/update"];
    assert_eq!(test(&site, "publish", &own).code, 0);
}

#[test]
fn an_answer_has_one_shape_whoever_decides() {
    let site = site();
    let members = |json: &Value| {
        let object = json.as_object().expect("an object");
        object.keys().cloned().collect::<Vec<_>>()
    };
    let (_, decided) = test_json(&site, "publish", &["--topic", "dt/sensor-1/t"]);
    let (_, reserved) = test_json(&site, "publish", &["--topic", "$SYS/x"]);
    site.done(&["cert", "revoke", "sensor-1"]);
    let (_, nobody) = test_json(&site, "publish", &["--topic", "a"]);
    assert_eq!(members(&reserved), members(&decided));
    assert_eq!(members(&nobody), members(&decided));
    assert_eq!(
        nobody["authInfo"]["resources"],
        json!(["arn:aws:iot:local:000000000000:topic/a"])
    );
}

#[test]
fn a_certificate_is_given_by_id_or_as_a_file() {
    let site = site();
    set_policy(
        &site,
        &json!([{ "Effect": "Allow", "Action": "iot:Publish",
            "Resource": "arn:aws:iot:*:*:topic/${iot:Certificate.Subject.CommonName}" }]),
    );
    let topic = ["--topic", "sensor-1"];
    // What the thing's own certificate says is known, because it was issued here.
    assert_eq!(test(&site, "publish", &topic).code, 0);
    let file = site.path("issued-sensor-1/cert.pem");
    let (code, answer) = test_json(
        &site,
        "publish",
        &[&topic[..], &["--certificate", file.to_str().unwrap()]].concat(),
    );
    assert_eq!(code, 0, "{answer}");
    let unknown = "0".repeat(64);
    let (code, answer) = test_json(
        &site,
        "publish",
        &[&topic[..], &["--certificate", &unknown]].concat(),
    );
    assert_eq!(code, 3);
    let reason = answer["reason"].as_str().unwrap();
    assert!(reason.contains("does not list the certificate"), "{reason}");
    let answer = test(
        &site,
        "publish",
        &[&topic[..], &["--certificate", "x.pem"]].concat(),
    );
    assert_eq!(answer.code, 2, "{answer:?}");
    assert!(
        answer.stderr.contains("`x.pem` is no certificate id"),
        "{answer:?}"
    );
}

#[test]
fn a_broken_part_elsewhere_stops_no_question_and_a_broken_policy_does() {
    let site = site();
    site.append("gateway.toml", "\n[[plugin]]\nname = 7\n\n[uplinks]\n");
    assert_eq!(site.run(&["check"]).code, 2);
    assert_eq!(
        test(&site, "publish", &["--topic", "dt/sensor-1/t"]).code,
        0
    );
    assert_eq!(site.run(&["policy", "explain", "sensor-1"]).code, 0);
    site.write("policies/device.json", "{\"Version\": \"2012-10-17\"}");
    let answer = test(&site, "publish", &["--topic", "dt/sensor-1/t"]);
    assert_eq!(answer.code, 2);
    assert!(
        answer
            .stderr
            .contains("device.json:1:1: the policy has no `Statement`"),
        "{answer:?}"
    );
}

#[test]
fn an_explanation_shows_what_holds_and_from_where_deny_first() {
    let site = site();
    set_policy(
        &site,
        &json!([
            { "Sid": "Own", "Effect": "Allow", "Action": ["iot:Publish", "iot:Connect"], "Resource": [
                "arn:aws:iot:*:*:client/${iot:ClientId}",
                "arn:aws:iot:*:*:topic/dt/${iot:Connection.Thing.ThingName}/*",
                "arn:aws:iot:*:*:topic/zone/${iot:Connection.Thing.Attributes[zone]}",
                "arn:aws:iot:*:*:topic/floor/${iot:Connection.Thing.Attributes[floor]}"] },
            { "Sid": "Never", "Effect": "Deny", "Action": "iot:Publish",
              "Resource": "arn:aws:iot:*:*:topic/dt/+/secret" },
        ]),
    );
    let text = site.done(&["policy", "explain", "sensor-1", "--client-id", "sensor-1:x"]);
    let line = |text: &str| text.to_owned();
    let lines: Vec<String> = text.lines().map(line).collect();
    let at = |wanted: &str| {
        let found = lines.iter().position(|line| line.contains(wanted));
        found.unwrap_or_else(|| panic!("no {wanted:?} in\n{text}"))
    };
    at("policies/device.json, attached to the group `devices`");
    at("may   client/sensor-1:x");
    assert!(at("never topic/dt/+/secret") < at("may   topic/dt/sensor-1/*"));
    at("may   topic/zone/b");
    at("[iot:Connection.Thing.Attributes[floor] has no value, so this allows nothing]");
    at("statement 1 (`Own`) of policies/device.json");
    assert_eq!(
        lines[at("iot:Receive") + 1],
        "  nothing: no statement allows it"
    );

    let json = site.done(&["policy", "explain", "sensor-1", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["policies"][0]["policyName"], "device");
    let publish = &json["actions"][1];
    assert_eq!(publish["action"], "iot:Publish");
    let first = &publish["statements"][0];
    assert_eq!(
        (&first["effect"], &first["sid"]),
        (&json!("Deny"), &json!("Never"))
    );
    assert_eq!(first["statement"], 2, "counted from 1, as in the text");
    let second = &publish["statements"][1]["resources"];
    assert_eq!(second[0]["resource"], "arn:aws:iot:*:*:topic/dt/sensor-1/*");
    assert_eq!(
        second[2]["missingContextValues"],
        json!(["iot:Connection.Thing.Attributes[floor]"])
    );
}

#[test]
fn an_explanation_of_everything_but_some_is_one_line() {
    let site = site();
    set_policy(
        &site,
        &json!([{ "Effect": "Allow", "Action": "iot:Publish", "NotResource": [
            "arn:aws:iot:*:*:topic/a", "arn:aws:iot:*:*:topic/b"] }]),
    );
    let text = site.done(&["policy", "explain", "sensor-1"]);
    assert_eq!(text.matches("everything but").count(), 1, "{text}");
    assert!(
        text.contains("may   everything but topic/a and topic/b\n"),
        "{text}"
    );
}

#[test]
fn an_explanation_says_what_a_deny_without_its_value_does_here() {
    let site = site();
    set_policy(
        &site,
        &json!([{ "Effect": "Deny", "Action": "iot:Publish",
            "Resource": "arn:aws:iot:*:*:topic/${iot:Connection.Thing.Attributes[floor]}" }]),
    );
    let explain = || site.done(&["policy", "explain", "sensor-1"]);
    let text = explain();
    assert!(text.contains("so this denies as if it were `*`"), "{text}");
    site.replace(
        "gateway.toml",
        "deny-on-unresolved = true",
        "deny-on-unresolved = false",
    );
    let text = explain();
    assert!(text.contains("so this denies nothing"), "{text}");
}

#[test]
fn a_thing_that_cannot_connect_may_do_nothing() {
    let site = site();
    site.done(&["cert", "revoke", "sensor-1"]);
    let text = site.done(&["policy", "explain", "sensor-1"]);
    assert!(
        text.contains("may do nothing: no certificate of `sensor-1` is active"),
        "{text}"
    );
    let answer = site.run(&["policy", "explain", "sensor-l"]);
    assert_eq!(answer.code, 2);
    assert!(
        answer.stderr.contains("did you mean `sensor-1`?"),
        "{answer:?}"
    );
}

#[test]
fn learning_without_traffic_says_what_is_missing() {
    let site = site();
    let answer = site.run(&["policy", "learn", "--group", "cold-chain"]);
    assert_eq!((answer.code, answer.stdout.as_str()), (1, ""), "{answer:?}");
    assert!(
        answer
            .stderr
            .contains("nothing was observed of the 1 things of the group `cold-chain`")
            && answer.stderr.contains("no traffic is recorded"),
        "{answer:?}"
    );
    let answer = site.run(&["policy", "learn", "--group", "cold-chian"]);
    assert_eq!(answer.code, 2);
    assert!(
        answer.stderr.contains("did you mean `cold-chain`?"),
        "{answer:?}"
    );
    let hours = ["policy", "learn", "--group", "cold-chain", "--hours", "169"];
    assert_eq!(site.run(&hours).code, 2);
}

#[test]
fn a_failure_is_a_json_document_too() {
    let site = site();
    let commands: [(&[&str], i32); 5] = [
        (&["thing", "show", "nosuch"], 2),
        (&["thing", "add", "sensor-1", "--group", "g"], 2),
        (&["thing", "remove", "nosuch"], 2),
        (&["cert", "revoke", "nosuch"], 2),
        (&["policy", "learn", "--group", "cold-chain"], 1),
    ];
    for (command, code) in commands {
        let answer = site.run(&[command, &["--json"]].concat());
        assert_eq!(answer.code, code, "{answer:?}");
        let json: Value =
            serde_json::from_str(&answer.stdout).unwrap_or_else(|_| panic!("{answer:?}"));
        assert_eq!(json["exitCode"], json!(code));
        let error = json["error"].as_str().unwrap();
        assert_eq!(answer.stderr, format!("portcullis: {error}\n"));
        assert_eq!(site.run(command).stdout, "", "nothing without `--json`");
    }
    site.write("policies/device.json", "{}");
    let answer = test(&site, "publish", &["--topic", "a", "--json"]);
    let json: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!((answer.code, &json["exitCode"]), (2, &json!(2)));
    assert!(json["error"].as_str().unwrap().contains("device.json:1:1"));
}

#[test]
fn a_learned_policy_that_the_gateway_would_not_read_is_refused() {
    let site = site();
    let learn = |out: &str| {
        let out = site.path(out);
        let out = out.to_str().unwrap();
        site.run(&["policy", "learn", "--group", "cold-chain", "--out", out])
    };
    let answer = learn("policies/learned");
    assert_eq!(answer.code, 2, "{answer:?}");
    assert!(
        answer.stderr.contains("policies/learned.json`"),
        "{answer:?}"
    );
    // These are stopped by what comes after: there is no traffic.
    assert_eq!(learn("policies/learned.json").code, 1);
    assert_eq!(learn("learned").code, 1, "elsewhere any name will do");
}
