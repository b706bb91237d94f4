//! Things that come, go and misbehave.

use std::{fs, path::Path};

use tokio::sync::watch;

use super::*;
use crate::identity::{Config, authority::Authority, files, load};

struct Site {
    _dir: tempfile::TempDir,
    config: Config,
    sender: watch::Sender<Arc<Snapshot>>,
    fleet: Fleet,
}

impl Site {
    fn new(registry: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        fs::write(&config.registry, registry).unwrap();
        let snapshot = load(&config, &[]).unwrap();
        let (sender, snapshots) = watch::channel(Arc::new(snapshot));
        Self {
            _dir: dir,
            config,
            sender,
            fleet: Fleet::new(snapshots),
        }
    }

    fn thing(&self, name: &str) -> Arc<Thing> {
        self.sender.borrow().thing(name).unwrap().clone()
    }

    fn groups(&self, name: &str) -> String {
        let groups = self.fleet.groups(&self.thing(name));
        let names: Vec<_> = groups.iter().map(GroupName::as_str).collect();
        names.join(" ")
    }

    fn reload(&self, registry: &str) {
        fs::write(&self.config.registry, registry).unwrap();
        let mut snapshot = load(&self.config, &[]).unwrap();
        snapshot.generation = self.sender.borrow().generation() + 1;
        self.sender.send_replace(Arc::new(snapshot));
    }
}

fn config(dir: &Path) -> Config {
    let gateway = dir.join("gateway.toml");
    fs::write(&gateway, "[gateway]\nid = \"gw\"\n").unwrap();
    fs::create_dir(dir.join("pki")).unwrap();
    fs::create_dir(dir.join("policies")).unwrap();
    let authority = Authority::create(&dir.join("pki/ca.pem"), "test").unwrap();
    let server = authority.issue_server(&["localhost".to_owned()]).unwrap();
    let write = |name: &str, text: &str| files::write_private(&dir.join(name), text.as_bytes());
    write("pki/server.pem", &server.certificate_pem).unwrap();
    write("pki/server.key", server.key_pem.as_ref().unwrap()).unwrap();
    let text = String::new();
    let mut document = crate::document::Document::parse(&gateway, &text);
    Config::read(&mut document.section("identity"), dir, &dir.join("data"))
}

const REGISTRY: &str = r#"
[[group]]
name = "devices"
[[dynamic-group]]
name = "online"
query = "connectivity.connected:true"
[[dynamic-group]]
name = "suspects"
query = "deviceDefender.violationCount > 0 AND NOT deviceDefender.p.quiet.inViolation:true"
[[dynamic-group]]
name = "warm"
query = "attributes.t > 5"
[[thing]]
name = "a"
groups = ["devices"]
attributes = { t = "7" }
[[thing]]
name = "b"
"#;

#[test]
fn dynamic_groups_follow_connections_alarms_and_the_registry() {
    let site = Site::new(REGISTRY);
    let fleet = &site.fleet;
    let a = ThingName::parse("a").unwrap();
    assert_eq!(site.groups("a"), "devices warm");
    assert_eq!(site.groups("b"), "");
    fleet.connected(&a);
    fleet.connected(&a);
    fleet.disconnected(&a);
    assert_eq!(
        site.groups("a"),
        "devices online warm",
        "one of two has gone"
    );
    fleet.disconnected(&a);
    assert_eq!(site.groups("a"), "devices warm");
    fleet.alarm("b", "p", "flood", true);
    assert_eq!(site.groups("b"), "suspects");
    fleet.alarm("b", "p", "quiet", true);
    assert_eq!(site.groups("b"), "");
    fleet.alarm("b", "p", "quiet", false);
    fleet.alarm("b", "p", "flood", false);
    assert_eq!(site.groups("b"), "");
    assert!(fleet.read().live.is_empty(), "nothing is kept of the quiet");

    site.reload(&REGISTRY.replace("t = \"7\"", "t = \"3\""));
    assert_eq!(site.groups("a"), "devices");
    site.reload("[[thing]]\nname = \"a\"\n");
    assert_eq!(site.groups("a"), "");
}

#[test]
fn the_answer_is_the_same_arc_while_nothing_changed() {
    let site = Site::new(REGISTRY);
    let thing = site.thing("a");
    let first = site.fleet.groups(&thing);
    assert!(Arc::ptr_eq(&first, &site.fleet.groups(&thing)));
    site.fleet.alarm("a", "p", "quiet", true);
    assert!(
        Arc::ptr_eq(&first, &site.fleet.groups(&thing)),
        "it was of no account"
    );
    site.reload(&format!("{REGISTRY}\n[[thing]]\nname = \"c\"\n"));
    assert!(Arc::ptr_eq(&first, &site.fleet.groups(&site.thing("a"))));
    site.fleet.connected(&thing.name);
    assert!(!Arc::ptr_eq(&first, &site.fleet.groups(&site.thing("a"))));
}

#[test]
fn a_thing_is_in_ten_groups_static_ones_first_then_the_older_dynamic_ones() {
    let static_groups: Vec<String> = (0..8).map(|n| format!("s{n}")).collect();
    let mut text =
        String::from("[[group]]\nname = \"root\"\n[[group]]\nname = \"leaf\"\nparent = \"root\"\n");
    for name in &static_groups[1..] {
        text += &format!("[[group]]\nname = \"{name}\"\n");
    }
    for name in ["d0", "d1", "d2", "d3"] {
        text += &format!("[[dynamic-group]]\nname = \"{name}\"\nquery = \"thingName:*\"\n");
    }
    let named: Vec<String> = static_groups[1..]
        .iter()
        .map(|name| format!("\"{name}\""))
        .collect();
    text += &format!(
        "[[thing]]\nname = \"a\"\ngroups = [\"leaf\", {}]\n",
        named.join(", ")
    );
    let site = Site::new(&text);
    assert_eq!(site.groups("a"), "root leaf s1 s2 s3 s4 s5 s6 s7 d0 d1");
}
