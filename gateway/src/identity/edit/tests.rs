use super::*;

const REGISTRY: &str = r#"# Ours.
[[group]]
name = "devices" # the root
policies = ["device"]

# The first one.
[[thing]]
name = "a"
groups = [
  "devices",
]
[thing.attributes]
zone = "b"

# The second one.
[[thing]]
name = "b"
"#;

fn registry() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.toml");
    fs::write(&path, REGISTRY).unwrap();
    (dir, path)
}

fn thing(name: &str) -> ThingName {
    ThingName::parse(name).unwrap()
}

#[test]
fn adding_and_removing_a_thing_leaves_the_text_of_others_alone() {
    let (_dir, path) = registry();
    let new = NewThing {
        name: thing("c"),
        thing_type: ThingTypeName::parse("sensor").ok(),
        attributes: [("site".to_owned(), "x=1".to_owned())].into(),
        groups: vec![GroupName::parse("cold").unwrap()],
    };
    assert_eq!(add_thing(&path, &new).unwrap(), new.groups);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(REGISTRY));
    let (parsed, problems) = Registry::parse(&path, &text, None);
    assert_eq!(problems, []);
    let added = &parsed.thing("c").unwrap().thing;
    let groups: Vec<_> = added.groups.iter().map(GroupName::as_str).collect();
    assert_eq!(groups, ["devices", "cold"]);
    assert_eq!(added.attributes["site"], "x=1");
    assert!(matches!(add_thing(&path, &new), Err(EditError::Exists(_))));

    let id = CertificateId::of_der(b"1");
    add_certificate(&path, id, &thing("a")).unwrap();
    assert_eq!(remove_thing(&path, &thing("a")).unwrap(), [id]);
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("zone"), "{text}");
    let (parsed, _) = Registry::parse(&path, &text, None);
    let kept = parsed.certificate(&id).unwrap();
    assert_eq!((kept.status, &kept.thing), (Status::Revoked, &None));
    assert_eq!(kept.reason.as_deref(), Some("its thing `a` was removed"));
    for kept in [
        "# Ours.",
        "# the root",
        "# The second one.\n[[thing]]\nname = \"b\"",
    ] {
        assert!(text.contains(kept), "{kept}: {text}");
    }
    assert!(matches!(
        remove_thing(&path, &thing("a")),
        Err(EditError::Absent(_))
    ));
}

#[test]
fn a_new_thing_is_in_devices_and_in_one_group_of_each_other_hierarchy() {
    let (_dir, path) = registry();
    let below = "[[group]]\nname = \"locks\"\nparent = \"devices\"\n[[type]]\nname = \"sensor\"\n";
    fs::write(&path, format!("{REGISTRY}\n{below}")).unwrap();
    let add = |name: &str, groups: &[&str]| {
        let groups = groups.iter().map(|group| GroupName::parse(group).unwrap());
        let new = NewThing {
            name: thing(name),
            thing_type: ThingTypeName::parse("lock").ok(),
            attributes: BTreeMap::new(),
            groups: groups.collect(),
        };
        add_thing(&path, &new)?;
        let text = fs::read_to_string(&path).unwrap();
        let (parsed, problems) = Registry::parse(&path, &text, None);
        assert_eq!(problems, []);
        let direct = &parsed.thing(name).unwrap().direct_groups;
        Ok(direct
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" "))
    };
    assert_eq!(add("c", &[]).unwrap(), "devices");
    assert_eq!(add("d", &["devices"]).unwrap(), "devices");
    assert_eq!(add("e", &["locks", "site"]).unwrap(), "locks site");
    assert_eq!(add("f", &["site", "site"]).unwrap(), "devices site");
    assert!(matches!(
        add("g", &["locks", "devices"]),
        Err(EditError::SameHierarchy { .. })
    ));
    let text = fs::read_to_string(&path).unwrap();
    let dynamic = "\n[[dynamic-group]]\nname = \"zone-b\"\nquery = 'attributes.zone:b'\n";
    fs::write(&path, text + dynamic).unwrap();
    let refused = add("h", &["zone-b"]).unwrap_err();
    assert!(matches!(refused, EditError::Dynamic(_)), "{refused:?}");
}

#[test]
fn a_revoked_certificate_says_why() {
    let (_dir, path) = registry();
    let ids = [b"1", b"2"].map(|der| CertificateId::of_der(der));
    for id in ids {
        add_certificate(&path, id, &thing("a")).unwrap();
    }
    let revoked = revoke(&path, &ids[0].to_string(), Some("lost \"it\"")).unwrap();
    assert_eq!(revoked, ids[..1]);
    assert_eq!(revoke(&path, "a", None).unwrap(), ids[1..]);
    let text = fs::read_to_string(&path).unwrap();
    let (parsed, _) = Registry::parse(&path, &text, None);
    assert!(
        parsed
            .certificates
            .iter()
            .all(|c| c.status == Status::Revoked)
    );
    assert_eq!(
        parsed.certificates[0].reason.as_deref(),
        Some("lost \"it\"")
    );
    assert!(matches!(
        revoke(&path, "a", None),
        Err(EditError::Absent(_))
    ));
}

#[test]
fn a_registry_with_mistakes_is_not_touched() {
    let (_dir, path) = registry();
    let broken = format!("{REGISTRY}\n[[thing]]\nnme = 1\n");
    fs::write(&path, &broken).unwrap();
    let id = CertificateId::of_der(b"1");
    assert!(matches!(
        add_certificate(&path, id, &thing("a")),
        Err(EditError::Mistakes(problems)) if problems.len() == 2
    ));
    assert_eq!(fs::read_to_string(&path).unwrap(), broken);
}

#[test]
fn commands_at_the_same_time_do_not_lose_each_others_edits() {
    let (_dir, path) = registry();
    std::thread::scope(|scope| {
        for n in 0..8u8 {
            let path = &path;
            scope.spawn(move || {
                add_certificate(path, CertificateId::of_der(&[n]), &thing("a")).unwrap();
            });
        }
    });
    let text = fs::read_to_string(&path).unwrap();
    let (parsed, _) = Registry::parse(&path, &text, None);
    assert_eq!(parsed.certificates.len(), 8);
}

#[test]
fn a_lock_that_cannot_be_written_is_good_enough() {
    let (dir, path) = registry();
    let lock = dir.path().join(".registry.lock");
    // Nobody, root included, opens the file of a running program for writing.
    let program = dir.path().join("program");
    fs::copy("/bin/sleep", &program).unwrap();
    std::os::unix::fs::symlink(&program, &lock).unwrap();
    let mut running = std::process::Command::new(&program)
        .arg("600")
        .spawn()
        .unwrap();
    let refused = File::options().write(true).open(&lock).is_err();
    let added = add_certificate(&path, CertificateId::of_der(b"1"), &thing("a"));
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(refused, "the lock can be written after all");
    added.unwrap();
}

#[test]
fn every_refusal_says_what_to_do() {
    let (_dir, path) = registry();
    let refusals = [
        revoke(&path, "nobody", None).unwrap_err(),
        remove_thing(&path, &thing("nobody")).unwrap_err(),
        revoke(&path.with_file_name("absent.toml"), "a", None).unwrap_err(),
        EditError::Exists(thing("a")),
        EditError::SameHierarchy {
            one: GroupName::parse("a").unwrap(),
            other: GroupName::parse("b").unwrap(),
            root: GroupName::parse("c").unwrap(),
        },
    ];
    for refusal in refusals {
        assert!(refusal.to_string().contains("; "), "{refusal}");
    }
}
