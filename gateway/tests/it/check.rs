//! `portcullis check` on broken configurations: every mistake, with file, line and remedy.

use std::fs;

use crate::site::{Site, portcullis};

/// Breaks a fresh configuration and expects exactly one mistake: in `file`, on the line where
/// `needle` stands (the last one; "" for a mistake without a line), with `message` and `remedy`.
fn broken(breaks: impl FnOnce(&Site), file: &str, needle: &str, message: &str, remedy: &str) {
    let site = Site::init(&[]);
    breaks(&site);
    let answer = site.run(&["check"]);
    assert_eq!(answer.code, 2, "{answer:?}");
    let mut lines: Vec<&str> = answer.stderr.lines().collect();
    assert_eq!(lines.pop(), Some("1 mistake"), "{answer:?}");
    assert_eq!(lines.len(), 1, "{answer:?}");
    let path = site.path(file);
    let place = match needle {
        "" => format!("{}: ", path.display()),
        needle => format!("{}:{}:", path.display(), site.line_of(file, needle)),
    };
    assert!(lines[0].starts_with(&place), "{place} {answer:?}");
    let at = lines[0]
        .find(message)
        .unwrap_or_else(|| panic!("{answer:?}"));
    let (_, hint) = lines[0][at..].split_once("; ").unwrap();
    assert!(hint.contains(remedy), "{answer:?}");
}

const GATEWAY: &str = "gateway.toml";
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

#[test]
fn a_fresh_configuration_has_no_mistake() {
    let site = Site::init(&["--plain", "127.0.0.1:1883"]);
    assert_eq!(site.done(&["check"]), "ok\n");
    let answer = site.done(&["check", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(json["ok"], true);
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_one() {
    broken(
        |site| site.replace(GATEWAY, "connections-max", "conections-max"),
        GATEWAY,
        "conections-max",
        "unknown key `conections-max`",
        "write `connections-max`",
    );
    broken(
        |site| site.replace(GATEWAY, "[broker]", "[brokr]"),
        GATEWAY,
        "[brokr]",
        "unknown section `brokr`",
        "write `broker`",
    );
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    broken(
        |site| site.replace(GATEWAY, "linger-ms = 5", "linger-ms = \"5 ms\""),
        GATEWAY,
        "linger-ms = \"5 ms\"",
        "invalid type",
        "whole number",
    );
    broken(
        |site| site.replace(GATEWAY, "level = \"info\"", "level = \"inf\""),
        GATEWAY,
        "level = \"inf\"",
        "unknown value `inf`",
        "write `info`",
    );
}

#[test]
fn a_syntax_error_is_named() {
    broken(
        |site| site.replace(GATEWAY, "require-thing = true", "require-thing = "),
        GATEWAY,
        "require-thing = ",
        "",
        "TOML syntax",
    );
}

#[test]
fn a_missing_file_is_named_where_it_is_named() {
    broken(
        |site| fs::remove_file(site.path("pki/server.pem")).unwrap(),
        GATEWAY,
        "\"pki/server.pem\"",
        "`pki/server.pem` is no file",
        "correct the path",
    );
    broken(
        |site| site.replace(GATEWAY, "\"pki/ca.pem\"", "\"pki/ca2.pem\""),
        GATEWAY,
        "pki/ca2.pem",
        "`pki/ca2.pem` is no file",
        "correct the path",
    );
    broken(
        |site| fs::remove_file(site.path("registry.toml")).unwrap(),
        "registry.toml",
        "",
        "does not exist",
        "create it",
    );
}

#[test]
fn a_policy_that_is_not_json_is_named() {
    let policy = "policies/device.json";
    broken(
        |site| {
            site.replace(
                policy,
                "\"Sid\": \"ConnectAsItself\",",
                "\"Sid\": \"ConnectAsItself\"",
            )
        },
        policy,
        "\"Effect\": \"Allow\",\n      \"Action\": \"iot:Connect\"",
        "not JSON",
        "correct the syntax",
    );
}

#[test]
fn an_element_of_a_policy_that_does_not_exist_is_named() {
    let policy = "policies/device.json";
    broken(
        |site| site.replace(policy, "\"Sid\"", "\"Principal\": \"*\", \"Sid\""),
        policy,
        "\"Principal\"",
        "unknown element `Principal`",
        "remove it",
    );
    broken(
        |site| site.replace(policy, "\"Sid\"", "\"Condition\": [], \"Sid\""),
        policy,
        "\"Condition\"",
        "`Condition` is a JSON object",
        "write `{…}`",
    );
}

#[test]
fn a_bad_topic_filter_in_a_policy_is_named() {
    let policy = "policies/device.json";
    broken(
        |site| site.replace(policy, ":topicfilter/cmd/", ":topicfiter/cmd/"),
        policy,
        "topicfiter/cmd",
        "unknown resource type `topicfiter`",
        "write `topicfilter/…`",
    );
    broken(
        |site| site.replace(policy, "\"arn:aws:iot:*:*:topicfilter/cmd/", "\"cmd/"),
        policy,
        "\"cmd/",
        "is no ARN of AWS IoT",
        "arn:aws:iot:REGION:ACCOUNT:TYPE/NAME",
    );
}

#[test]
fn an_unknown_plugin_in_a_chain_is_named() {
    let chain = "\n[[chain]]\ngroup = \"devices\"\n[[chain.step]]\nplugin = \"treshold\"\n";
    broken(
        |site| site.append(GATEWAY, chain),
        GATEWAY,
        "plugin = \"treshold\"",
        "the plugin `treshold` does not exist",
        "write `threshold`",
    );
}

#[test]
fn a_file_that_is_no_plugin_is_named() {
    let file = "plugins/threshold.wasm";
    let line = "file = \"plugins/threshold.wasm\"";
    broken(
        |site| fs::remove_file(site.path(file)).unwrap(),
        GATEWAY,
        line,
        "does not exist",
        "correct the path",
    );
    broken(
        |site| site.write(file, "#!/bin/sh, not a component"),
        GATEWAY,
        line,
        "is no WebAssembly component",
        "wasm32-wasip2",
    );
    // A component, but for no world of ours: only the engine can tell.
    broken(
        |site| fs::write(site.path(file), COMPONENT).unwrap(),
        GATEWAY,
        line,
        "no component for the world portcullis:plugin/rule",
        "wit/plugin.wit",
    );
}

#[test]
fn settings_that_a_plugin_refuses_are_named() {
    broken(
        |site| site.replace(GATEWAY, "tags = {", "tag = {"),
        GATEWAY,
        "[chain.step.settings]",
        "`enrich` refuses its settings: unknown field `tag`",
        "the README of `enrich`",
    );
}

#[test]
fn a_bad_topic_filter_is_named() {
    broken(
        |site| {
            site.replace(
                GATEWAY,
                "file = \"plugins/threshold.wasm\"",
                "file = \"plugins/threshold.wasm\"\nemit = [\"alerts/#/x\"]",
            );
        },
        GATEWAY,
        "emit = [\"alerts/#/x\"]",
        "`alerts/#/x` is no topic filter",
        "alerts/#",
    );
}

#[test]
fn an_unknown_group_in_a_chain_is_named() {
    broken(
        |site| {
            site.append(
                GATEWAY,
                "\n[[chain]]\ngroup = \"device\"\n[[chain.step]]\nplugin = \"enrich\"\n\
                 settings.tags = { a = \"b\" }\n",
            );
        },
        GATEWAY,
        "group = \"device\"",
        "the group `device` does not exist",
        "write `devices`",
    );
}

#[test]
fn a_metric_that_no_profile_has_is_named() {
    let profile = "profiles/device.json";
    broken(
        |site| site.replace(profile, "aws:num-messages-sent", "aws:num-messages-send"),
        profile,
        "\"aws:num-messages-send\"",
        "aws:num-messages-send",
        "aws:num-messages-sent",
    );
}

#[test]
fn a_profile_of_a_group_that_does_not_exist_is_named() {
    let profile = "profiles/device.json";
    broken(
        |site| site.replace(profile, "thinggroup/devices", "thinggroup/devcies"),
        profile,
        "thinggroup/devcies",
        "the target group `devcies` does not exist",
        "write `thinggroup/devices`",
    );
}

#[test]
fn a_plain_listener_that_others_could_reach_is_refused() {
    broken(
        |site| {
            let listener = "\n[[listener]]\nkind = \"plain\"\naddress = \"0.0.0.0:1883\"\n";
            site.append(GATEWAY, listener);
        },
        GATEWAY,
        "\"0.0.0.0:1883\"",
        "a plain listener on 0.0.0.0:1883",
        "write \"127.0.0.1:1883\"",
    );
    let plain = "\n[[listener]]\nkind = \"plain\"\naddress = \"127.0.0.1:1883\"\n";
    broken(
        |site| site.append(GATEWAY, &format!("{plain}plain-thing = \"nobody\"\n")),
        GATEWAY,
        "\"nobody\"",
        "the thing `nobody` does not exist",
        "portcullis thing add",
    );
    broken(
        |site| {
            let unknown = "plain-unknown = \"allow\"\nplain-policy = \"trial\"\n";
            site.append(GATEWAY, &format!("{plain}{unknown}"));
        },
        GATEWAY,
        "\"trial\"",
        "the policy `trial` does not exist",
        "create `policies/trial.json`",
    );
}

#[test]
fn mistakes_of_listeners_for_websockets_are_named() {
    let listener = |lines: &str| format!("\n[[listener]]\n{lines}\n");
    broken(
        |site| {
            let open = listener("kind = \"ws\"\naddress = \"0.0.0.0:1884\"");
            site.append(GATEWAY, &open);
        },
        GATEWAY,
        "\"0.0.0.0:1884\"",
        "a plain listener on 0.0.0.0:1884",
        "`kind = \"wss\"`",
    );
    let wss = "kind = \"wss\"\naddress = \"0.0.0.0:8884\"\n";
    broken(
        |site| site.append(GATEWAY, &listener(&format!("{wss}plain-thing = \"t\""))),
        GATEWAY,
        "plain-thing = \"t\"",
        "`plain-thing` is for plain listeners",
        "remove it",
    );
    for wrong in [
        "dashboard.example",
        "https://*.example",
        "https://a.example/",
    ] {
        broken(
            |site| site.append(GATEWAY, &listener(&format!("{wss}origins = [\"{wrong}\"]"))),
            GATEWAY,
            "origins = [\"",
            "is no origin",
            "what a browser sends",
        );
    }
    broken(
        |site| {
            let tls = "kind = \"tls\"\naddress = \"0.0.0.0:8885\"\n";
            let text = format!("{tls}origins = [\"https://a.example\"]");
            site.append(GATEWAY, &listener(&text));
        },
        GATEWAY,
        "origins = [\"",
        "`origins` is for listeners for WebSockets",
        "remove it",
    );
    let site = Site::init(&[]);
    let ws = "kind = \"ws\"\naddress = \"127.0.0.1:1884\"\n";
    for lines in [
        format!("{wss}origins = [\"https://a.example:8443\"]"),
        ws.to_owned(),
    ] {
        site.append(GATEWAY, &listener(&lines));
    }
    assert_eq!(site.done(&["check"]), "ok\n");
}

#[test]
fn a_listener_that_stands_twice_is_named() {
    broken(
        |site| {
            let listener = "\n[[listener]]\nkind = \"tls\"\naddress = \"127.0.0.1:8883\"\n";
            site.append(GATEWAY, listener);
        },
        GATEWAY,
        "\"127.0.0.1:8883\"",
        "the address is that of the listener 0.0.0.0:8883",
        "choose another port",
    );
}

#[test]
fn mistakes_of_the_registry_are_named() {
    let registry = "registry.toml";
    broken(
        |site| {
            site.append(
                registry,
                "\n[[thing]]\nname = \"t\"\ngroups = [\"device\"]\n",
            )
        },
        registry,
        "groups = [\"device\"]",
        "the group `device` does not exist",
        "write `devices`",
    );
    broken(
        |site| site.replace(registry, "[\"device\"]", "[\"devce\"]"),
        registry,
        "\"devce\"",
        "the policy `devce` does not exist",
        "write `device`",
    );
}

#[test]
fn a_number_out_of_its_range_is_named() {
    broken(
        |site| site.replace(GATEWAY, "handshakes-max = 64", "handshakes-max = 0"),
        GATEWAY,
        "handshakes-max = 0",
        "`handshakes-max` is 0",
        "from 1 to 4096",
    );
    broken(
        |site| {
            site.replace(
                GATEWAY,
                "packet-bytes-max = 149504",
                "packet-bytes-max = 999999999",
            )
        },
        GATEWAY,
        "packet-bytes-max",
        "`packet-bytes-max` is 999999999",
        "to 149504",
    );
}

#[test]
fn a_key_of_another_certificate_is_named() {
    let (other_key, other_pem) = {
        let other = Site::init(&[]);
        (other.read("pki/server.key"), other.read("pki/server.pem"))
    };
    broken(
        |site| site.write("pki/server.key", &other_key),
        "pki/server.key",
        "",
        "does not belong to the certificate",
        "the key that was made with this certificate",
    );
    broken(
        |site| site.write("pki/server.key", &other_pem),
        "pki/server.key",
        "",
        "no private key in PEM",
        "BEGIN PRIVATE KEY",
    );
    broken(
        |site| site.write("pki/ca.pem", "hello"),
        "pki/ca.pem",
        "",
        "no certificate in PEM",
        "BEGIN CERTIFICATE",
    );
}

#[test]
fn a_profile_that_is_not_json_is_named() {
    let profile = "profiles/device.json";
    broken(
        |site| site.replace(profile, "\"behaviors\": [", "\"behaviors\" ["),
        profile,
        "\"behaviors\" [",
        "not JSON",
        "write a security profile",
    );
}

#[test]
fn a_key_that_others_can_read_is_a_warning() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::init(&[]);
    let key = site.path("pki/server.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let answer = site.run(&["check"]);
    assert_eq!((answer.code, answer.stdout.as_str()), (0, "ok\n"));
    assert!(answer.stderr.contains("warning: "), "{answer:?}");
    assert!(answer.stderr.contains("chmod 600"), "{answer:?}");
}

#[test]
fn a_configuration_that_is_not_there_is_one_mistake() {
    let answer = portcullis(&["check", "-c", "/nonexistent/gateway.toml"]);
    assert_eq!(answer.code, 2);
    assert!(
        answer
            .stderr
            .starts_with("/nonexistent/gateway.toml: the file does not exist; "),
        "{answer:?}"
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let site = Site::init(&[]);
    site.replace(GATEWAY, "connections-max", "conections-max");
    site.replace(GATEWAY, "handshakes-max = 64", "handshakes-max = 0");
    site.replace(GATEWAY, "linger-ms = 5", "linger-ms = \"x\"");
    site.replace(GATEWAY, "id = \"gw-test\"", "id = \"gw test\"");
    site.replace(GATEWAY, "[admin]", "[admn]");
    site.append(
        GATEWAY,
        "\n[[listener]]\nkind = \"plain\"\naddress = \"0.0.0.0:1883\"\n\
         [[plugin]]\nname = \"p\"\nfile = \"plugins/p.wasm\"\nmemory = 1\n\
         [[chain]]\ngroup = \"none\"\n[[chain.step]]\nplugin = \"q\"\n\
         [uplink.kinesis]\nstream = \"s\"\n",
    );
    site.replace("registry.toml", "[\"device\"]", "[\"devce\"]");
    site.append(
        "registry.toml",
        "\n[[thing]]\nname = \"t\"\ngroups = [\"none\"]\n",
    );
    site.replace("policies/device.json", "2012-10-17", "2008-10-17");
    site.replace("profiles/device.json", "{", "");
    site.write("pki/ca.pem", "");
    let answer = site.run(&["check", "--json"]);
    assert_eq!(answer.code, 2);
    let json: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(json["ok"], false);
    let found: Vec<String> = json["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| {
            assert!(!problem["remedy"].as_str().unwrap().is_empty());
            problem["message"].as_str().unwrap().to_owned()
        })
        .collect();
    let expected = [
        "`id` is `gw test`",
        "unknown key `conections-max`",
        "`handshakes-max` is 0",
        "unknown section `admn`",
        "invalid type: string \"x\"",
        "a plain listener on 0.0.0.0:1883",
        "`plugins/p.wasm` does not exist",
        "unknown key `memory`",
        "the group `none` does not exist",
        "the plugin `q` does not exist",
        "`uplink.kinesis` has no `region`",
        "the version of the policy language",
        "the policy `devce` does not exist",
        "not JSON",
        "no certificate in PEM",
    ];
    for expected in expected {
        let times = found
            .iter()
            .filter(|message| message.contains(expected))
            .count();
        let wanted = if expected.starts_with("the group") {
            2
        } else {
            1
        };
        assert_eq!(times, wanted, "{expected}: {found:#?}");
    }
    assert_eq!(found.len(), expected.len() + 1, "{found:#?}");
}

#[test]
fn limits_out_of_their_range_are_named_with_it() {
    for (key, default, wrong, range) in [
        ("topic-bytes-max", "256", "257", "1 to 256"),
        ("client-id-bytes-max", "128", "0", "1 to 128"),
        ("property-bytes-max", "8192", "8193", "0 to 8192"),
        ("subscriptions-per-client-max", "50", "10001", "1 to 10000"),
        ("handshakes-per-address-max", "16", "0", "1 to 4096"),
        ("sys-interval-ms", "10000", "99", "100 to 86400000"),
    ] {
        broken(
            |site| {
                let (from, to) = (format!("{key} = {default}\n"), format!("{key} = {wrong}\n"));
                site.replace(GATEWAY, &from, &to);
            },
            GATEWAY,
            &format!("{key} = "),
            &format!("`{key}` is {wrong}, out of its range"),
            &format!("write a number from {range}"),
        );
    }
    broken(
        |site| {
            site.replace(
                GATEWAY,
                "on-publish-rate = \"delay\"",
                "on-publish-rate = \"wait\"",
            )
        },
        GATEWAY,
        "on-publish-rate",
        "unknown value `wait`",
        "delay",
    );
}
