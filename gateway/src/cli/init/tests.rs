use super::*;
use crate::config::{self, Config};

/// The first bytes of a component are all that is looked at here.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn options<'a>(dir: &'a Path, plugins: &'a [(&'a str, &'a [u8])]) -> InitOptions<'a> {
    InitOptions {
        dir,
        name: "gw-7",
        sans: &[],
        mqtt: "127.0.0.1:0".parse().unwrap(),
        http: "127.0.0.1:0".parse().unwrap(),
        plain: "127.0.0.1:1884".parse().ok(),
        plugins,
    }
}

fn load(file: &Path) -> Config {
    let loaded = config::load(file).unwrap_or_else(|problems| panic!("{problems:#?}"));
    assert_eq!(loaded.warnings, []);
    loaded.config
}

#[test]
fn what_it_makes_has_no_mistake_with_any_choice_of_plugins() {
    let shipped: [(&str, &[u8]); 3] = [
        ("threshold", COMPONENT),
        ("other", COMPONENT),
        ("enrich", COMPONENT),
    ];
    for (plugins, steps) in [
        (&shipped[..0], 0),
        (&shipped[..1], 1),
        (&shipped[..], 2),
        (&shipped[1..2], 0),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let file = create(&options(dir.path(), plugins)).unwrap();
        let config = load(&file);
        assert_eq!(config.gateway_id, "gw-7");
        assert_eq!(config.broker.listeners.len(), 2);
        let ports: Vec<_> = config
            .broker
            .listeners
            .iter()
            .map(|l| l.address().port())
            .collect();
        assert_eq!(ports, [0, 1884]);
        assert_eq!(config.plugins.len(), plugins.len());
        assert_eq!(
            config
                .chains
                .iter()
                .map(|chain| chain.steps.len())
                .sum::<usize>(),
            steps
        );
        assert!(matches!(
            create(&options(dir.path(), plugins)),
            Err(InitError::Exists(_))
        ));
    }
}

#[test]
fn the_sample_parses_and_shows_the_defaults_of_the_code() {
    let dir = tempfile::tempdir().unwrap();
    let plugins: [(&str, &[u8]); 2] = [("threshold", COMPONENT), ("enrich", COMPONENT)];
    let file = create(&options(dir.path(), &plugins)).unwrap();
    fs::write(&file, SAMPLE).unwrap();
    let sample = load(&file);
    // Only what has no default.
    let required = r#"
[gateway]
id = "gw-1"
[[listener]]
kind = "tls"
address = "0.0.0.0:8883"
[[plugin]]
name = "threshold"
file = "plugins/threshold.wasm"
[[plugin]]
name = "enrich"
file = "plugins/enrich.wasm"
[[chain]]
group = "cold-chain"
[[chain.step]]
plugin = "threshold"
settings.rules = [{ name = "over-temperature", pointer = "/t", max = 8.0 }, { name = "under-temperature", pointer = "/t", min = -30.0 }]
[[chain.step]]
plugin = "enrich"
settings.tags = { site = "demo", zone = "b" }
"#;
    fs::write(&file, required).unwrap();
    assert_eq!(load(&file), sample);
    let rules = r#"{"rules":[{"max":8.0,"name":"over-temperature","pointer":"/t"},{"min":-30.0,"name":"under-temperature","pointer":"/t"}]}"#;
    assert_eq!(sample.chains[0].steps[0].settings, rules);
}

#[test]
fn what_the_sample_comments_out_is_right_too() {
    let dir = tempfile::tempdir().unwrap();
    let plugins: [(&str, &[u8]); 2] = [("threshold", COMPONENT), ("enrich", COMPONENT)];
    let file = create(&options(dir.path(), &plugins)).unwrap();
    let policy = dir.path().join("policies");
    fs::copy(policy.join("device.json"), policy.join("trial.json")).unwrap();
    let registry = dir.path().join("registry.toml");
    let things = "\n[[thing]]\nname = \"sensor-1\"\n";
    fs::write(&registry, fs::read_to_string(&registry).unwrap() + things).unwrap();
    let is_setting = |line: &str| line.starts_with('[') || line.contains(" = ");
    let uncommented: Vec<&str> = SAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if is_setting(rest) => rest,
            _ => line,
        })
        .map(|line| match line {
            "plain-unknown = \"refuse\"" => "plain-unknown = \"allow\"",
            line => line,
        })
        .collect();
    fs::write(&file, uncommented.join("\n")).unwrap();
    let config = load(&file);
    assert_eq!(config.broker.plain_policies(), ["trial"]);
    assert!(matches!(config.uplink, crate::uplink::Config::Kinesis(_)));
}
