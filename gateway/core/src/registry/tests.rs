//! Registries as an operator writes them, well and badly.

use super::*;
use crate::identity::GroupName;

fn problems(text: &str) -> Vec<String> {
    let known = BTreeSet::from(["device".to_owned()]);
    let (_, problems) = Registry::parse(Path::new("r"), text, Some(&known));
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn a_thing_is_in_its_groups_and_their_ancestors_in_the_order_of_the_file() {
    let text = r#"
[[group]]
name = "leaf"
parent = "middle"
[[group]]
name = "root"
policies = ["device"]
[[group]]
name = "middle"
parent = "root"
[[group]]
name = "other"
[[thing]]
name = "t"
type = "sensor"
groups = ["other", "leaf"]
attributes = { zone = "b" }
"#;
    let (registry, problems) = Registry::parse(Path::new("r"), text, None);
    assert_eq!(problems, []);
    let thing = registry.thing("t").unwrap();
    let names: Vec<_> = thing.thing.groups.iter().map(GroupName::as_str).collect();
    assert_eq!(names, ["leaf", "root", "middle", "other"]);
    assert_eq!(thing.direct_groups.len(), 2);
}

#[test]
fn every_mistake_is_told_with_its_place_and_a_remedy() {
    let text = r#"[[group]]
name = "a b"
[[group]]
name = "devices"
parent = "root"
policies = ["devce"]
[[group]]
name = "devices"
[[thing]]
name = "t"
groups = ["device"]
colour = "red"
[thing.attributes]
"ä" = "x"
[[certificate]]
id = "abc"
thing = "u"
status = "active"
[[things]]
"#;
    let got = problems(text);
    let expected = [
        "r:2:8: `name` is `a b`: a name consists of",
        "r:5:10: the parent `root` does not exist; add `[[group]]`",
        "r:6:13: the policy `devce` does not exist; write `device`",
        "r:8:8: the group `devices` stands here a second time",
        "r:11:11: the group `device` does not exist; write `devices`",
        "r:12:1: unknown key `colour`; remove it",
        "r:13:1: `ä` is no attribute name",
        "r:16:6: `abc` is no certificate id; write the SHA-256",
        "r:17:9: the thing `u` does not exist",
        "r:18:10: unknown value `active`; write `ACTIVE`",
        "r:19:3: unknown section `things`; write `thing`",
    ];
    assert_eq!(got.len(), expected.len(), "{got:#?}");
    for (got, expected) in got.iter().zip(expected) {
        assert!(got.starts_with(expected), "{got}\n{expected}");
    }
}

#[test]
fn a_thing_is_put_into_no_dynamic_group() {
    let got = problems(
        "[[dynamic-group]]\nname = \"b\"\nquery = 'attributes.zone:b'\n\
         [[thing]]\nname = \"t\"\ngroups = [\"b\"]\n",
    );
    let expected = "r:6:11: the group `b` is a dynamic one: its query finds its things; remove it";
    assert_eq!(got.len(), 1);
    assert!(got[0].starts_with(expected), "{got:?}");
}

#[test]
fn hierarchies_have_seven_levels_at_most_and_no_circle() {
    let chain = |depth: usize| -> String {
        (0..depth)
            .map(|n| match n {
                0 => "[[group]]\nname = \"g0\"\n".to_owned(),
                n => format!("[[group]]\nname = \"g{n}\"\nparent = \"g{}\"\n", n - 1),
            })
            .collect()
    };
    assert_eq!(problems(&chain(7)), Vec::<String>::new());
    let got = problems(&chain(8));
    assert_eq!(got.len(), 1, "{got:?}");
    assert!(got[0].contains("more than 7 levels"), "{got:?}");
    let circle =
        "[[group]]\nname = \"a\"\nparent = \"b\"\n[[group]]\nname = \"b\"\nparent = \"a\"\n";
    assert_eq!(problems(circle).len(), 1);
}

#[test]
fn a_10_memberships_and_attributes_have_limits() {
    let thing = |n| {
        let groups: String = (0..n)
            .map(|n| format!("[[group]]\nname = \"g{n}\"\n"))
            .collect();
        let names: Vec<_> = (0..n).map(|n| format!("\"g{n}\"")).collect();
        format!(
            "{groups}[[thing]]\nname = \"t\"\ngroups = [{}]\n",
            names.join(", ")
        )
    };
    assert!(problems(&thing(10)).is_empty());
    assert!(problems(&thing(11))[0].contains("keep at most 10"));
    let attributes = |head: &str| {
        format!("[[thing]]\nname = \"t\"\n{head}attributes = {{a=\"\",b=\"\",c=\"\",d=\"\"}}\n")
    };
    assert!(problems(&attributes("type = \"x\"\n")).is_empty());
    assert!(problems(&attributes(""))[0].contains("give the thing a `type`"));
}

// Conformance vectors of the specification, sections A.10, A.11 and G.

fn many_policies(n: usize) -> String {
    vec!["\"device\""; n].join(", ")
}

#[test]
fn g_2_an_eleventh_policy_on_a_certificate_is_refused() {
    let id = "0".repeat(64);
    let certificate = |n| {
        format!(
            "[[certificate]]\nid = \"{id}\"\npolicies = [{}]\n",
            many_policies(n)
        )
    };
    assert!(problems(&certificate(10)).is_empty());
    assert!(problems(&certificate(11))[0].contains("11 policies are attached; keep at most 10"));
}

#[test]
fn g_2_a_third_policy_on_a_group_is_refused() {
    let group = |n| {
        format!(
            "[[group]]\nname = \"g\"\npolicies = [{}]\n",
            many_policies(n)
        )
    };
    assert!(problems(&group(2)).is_empty());
    assert!(problems(&group(3))[0].contains("3 policies are attached; keep at most 2"));
}

#[test]
fn g_3_a_thing_in_two_groups_of_one_hierarchy_is_refused() {
    let groups = "[[group]]\nname = \"root\"\n[[group]]\nname = \"left\"\nparent = \"root\"\n\
                  [[group]]\nname = \"right\"\nparent = \"root\"\n[[group]]\nname = \"leaf\"\n\
                  parent = \"left\"\n[[group]]\nname = \"other\"\n";
    let thing = |names: &str| format!("{groups}[[thing]]\nname = \"t\"\ngroups = [{names}]\n");
    for apart in ["", "\"leaf\"", "\"leaf\", \"other\"", "\"other\", \"root\""] {
        assert_eq!(problems(&thing(apart)), Vec::<String>::new(), "{apart}");
    }
    for (together, column) in [
        ("\"left\", \"right\"", 19),
        ("\"root\", \"leaf\"", 19),
        ("\"leaf\", \"other\", \"left\"", 28),
        ("\"root\", \"root\"", 19),
    ] {
        let got = problems(&thing(together));
        assert_eq!(got.len(), 1, "{got:?}");
        assert!(got[0].starts_with(&format!("r:16:{column}: ")), "{got:?}");
    }
    let got = problems(&thing("\"left\", \"right\""));
    assert!(
        got[0].contains("both of the hierarchy of `root`"),
        "{got:?}"
    );
}

#[test]
fn g_3_a_hierarchy_of_eight_levels_is_refused() {
    let chain: String = (0..8)
        .map(|n| match n {
            0 => "[[group]]\nname = \"g0\"\n".to_owned(),
            n => format!("[[group]]\nname = \"g{n}\"\nparent = \"g{}\"\n", n - 1),
        })
        .collect();
    let got = problems(&chain);
    assert_eq!(got.len(), 1);
    assert!(
        got[0].starts_with("r:23:10: the group is more than 7 levels deep"),
        "{got:?}"
    );
}

#[test]
fn a_10_a_group_has_a_hundred_children_at_most() {
    let below = |n: usize| -> String {
        let child = |n| format!("[[group]]\nname = \"c{n}\"\nparent = \"root\"\n");
        "[[group]]\nname = \"root\"\n".to_owned() + &(0..n).map(child).collect::<String>()
    };
    assert!(problems(&below(100)).is_empty());
    let got = problems(&below(102));
    assert_eq!(got.len(), 1);
    assert!(
        got[0].contains("`root` has more than 100 groups below it"),
        "{got:?}"
    );
}

#[test]
fn a_10_names_and_values_of_attributes_have_their_characters_and_lengths() {
    let thing = |name: &str, value: &str| {
        problems(&format!(
            "[[thing]]\nname = \"t\"\n[thing.attributes]\n\"{name}\" = \"{value}\"\n"
        ))
    };
    let (long, longer) = ("n".repeat(128), "n".repeat(129));
    let (wide, wider) = ("v".repeat(800), "v".repeat(801));
    for (name, value) in [("a_.,@/:#-1", "b_.,@/:#=[]-"), (&long, &wide), ("a", "")] {
        assert!(thing(name, value).is_empty(), "{name} {value}");
    }
    for (name, value) in [
        ("", "b"),
        ("a b", "b"),
        (&longer, "b"),
        ("a", "b c"),
        ("a", &wider),
    ] {
        assert_eq!(thing(name, value).len(), 1, "{name} {value}");
    }
}

#[test]
fn a_10_a_type_that_is_not_declared_is_refused_where_others_are() {
    let declared = "[[type]]\nname = \"sensor\"\ndescription = \"d\"\n";
    let thing = |of: &str| format!("[[thing]]\nname = \"t\"\ntype = \"{of}\"\n");
    assert!(problems(&thing("senser")).is_empty());
    assert!(problems(&format!("{declared}{}", thing("sensor"))).is_empty());
    let got = problems(&format!("{declared}{}", thing("senser")));
    assert_eq!(
        got,
        ["r:6:8: the type `senser` does not exist; write `sensor`"]
    );
    let twice = problems(&format!("{declared}{declared}"));
    assert!(twice[0].contains("stands here a second time"), "{twice:?}");
}

#[test]
fn a_10_dynamic_groups_have_a_query_and_neither_policies_nor_a_static_name() {
    let group = |name: &str, rest: &str| {
        problems(&format!(
            "[[group]]\nname = \"g\"\n[[dynamic-group]]\nname = \"{name}\"\n{rest}\n"
        ))
    };
    assert!(group("d", "query = 'thingName:a*'").is_empty());
    for (name, rest, expected) in [
        (
            "g",
            "query = 'thingName:a'",
            "r:4:8: the group `g` stands here a second time",
        ),
        ("d", "", "r:3:1: `dynamic-group` has no `query`"),
        (
            "d",
            "query = 'thingName:a'\npolicies = []",
            "r:6:1: unknown key `policies`",
        ),
        // The place in the text of the query, where that can be told.
        (
            "d",
            "query = 'thingName:a AND b'",
            "r:5:26: `b` is no field of a thing",
        ),
        (
            "d",
            "query = \"thingName:\\\"a b\\\" x:1\"",
            "r:5:9: two terms stand side by side (column 17 of it)",
        ),
    ] {
        let got = group(name, rest);
        assert_eq!(got.len(), 1, "{got:?}");
        assert!(got[0].starts_with(expected), "{got:?}");
    }
    let many: String = (0..101)
        .map(|n| format!("[[dynamic-group]]\nname = \"d{n}\"\nquery = 'thingName:*'\n"))
        .collect();
    assert!(problems(&many)[0].contains("more than 100 dynamic groups"));
}

#[test]
fn a_10_a_certificate_belongs_to_one_thing_or_shares_several_or_is_a_claim() {
    let id = "0".repeat(64);
    let certificate = |rest: &str| {
        problems(&format!(
            "[[thing]]\nname = \"t\"\n[[thing]]\nname = \"u\"\n[[certificate]]\nid = \"{id}\"\n{rest}\n"
        ))
    };
    for good in [
        "thing = \"t\"",
        "things = [\"t\", \"u\"]",
        "claim = \"fleet\"",
        "until = \"2026-11-22T10:00:00Z\"",
        "",
    ] {
        assert_eq!(certificate(good), Vec::<String>::new(), "{good}");
    }
    for (bad, expected) in [
        (
            "thing = \"t\"\nthings = [\"u\"]",
            "both `thing` and `things`",
        ),
        (
            "thing = \"t\"\nclaim = \"fleet\"",
            "a claim certificate belongs to no thing",
        ),
        ("claim = \"../fleet\"", "is no name of a template"),
        (
            "things = [\"t\", \"v\"]",
            "r:7:16: the thing `v` does not exist",
        ),
        ("until = \"tomorrow\"", "`tomorrow` is no moment"),
    ] {
        let got = certificate(bad);
        assert_eq!(got.len(), 1, "{got:?}");
        assert!(got[0].contains(expected), "{got:?}");
    }
}

#[test]
fn a_11_every_state_of_a_certificate_is_known_by_aws_s_word() {
    let id = "0".repeat(64);
    for status in Status::ALL {
        let text = format!(
            "[[certificate]]\nid = \"{id}\"\nstatus = \"{}\"\n",
            status.as_str()
        );
        let (registry, problems) = Registry::parse(Path::new("r"), &text, None);
        assert_eq!(problems, []);
        assert_eq!(registry.certificates[0].status, status);
    }
}

#[test]
fn a_11_cas_have_a_state_and_say_whether_they_register_anybody() {
    let text = "[[ca]]\ncertificate = \"pki/a.pem\"\n[[ca]]\ncertificate = \"pki/b.pem\"\n\
                status = \"INACTIVE\"\nauto-registration = \"ENABLE\"\ntemplate = \"fleet\"\n";
    let (registry, problems) = Registry::parse(Path::new("r"), text, None);
    assert_eq!(problems, []);
    let [a, b] = &registry.cas[..] else {
        panic!("{:?}", registry.cas);
    };
    assert_eq!(
        (a.status, a.auto_registration),
        (CaStatus::Active, AutoRegistration::Disable)
    );
    assert_eq!(
        (b.status, b.auto_registration),
        (CaStatus::Inactive, AutoRegistration::Enable)
    );
    assert_eq!(b.template.as_deref(), Some("fleet"));
    for (bad, expected) in [
        (text.replace("b.pem", "a.pem"), "stands here a second time"),
        (
            text.replace("ENABLE", "DISABLE"),
            "the template is never used",
        ),
        (text.replace("fleet", "a/b"), "is no name of a template"),
        (
            text.replace("INACTIVE", "REVOKED"),
            "unknown value `REVOKED`",
        ),
    ] {
        let (_, problems) = Registry::parse(Path::new("r"), &bad, None);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].to_string().contains(expected), "{problems:?}");
    }
}

#[test]
fn groups_have_attributes_and_an_answer_to_denied_publishes() {
    let group = |rest: &str| problems(&format!("[[group]]\nname = \"g\"\n{rest}\n"));
    assert!(
        group("attributes = { site = \"x\" }\non-publish-denied = \"drop-and-ack\"").is_empty()
    );
    assert_eq!(group("attributes = { site = \"x y\" }").len(), 1);
    assert!(group("on-publish-denied = \"drop\"")[0].contains("unknown value `drop`"));
}

#[test]
fn groups_say_how_much_their_things_publish() {
    let text = "[[group]]\nname = \"g\"\npublish-rate = 10\npublish-bytes-per-second = 0\n\
                publish-rate-of-group = 100\n[[group]]\nname = \"h\"\n";
    let (registry, mistakes) = Registry::parse(Path::new("r"), text, None);
    assert!(mistakes.is_empty(), "{mistakes:?}");
    let expected = PublishRates {
        messages: Some(10),
        bytes: Some(0),
        messages_of_group: Some(100),
        bytes_of_group: None,
    };
    assert_eq!(registry.groups[0].publish_rates, expected);
    assert_eq!(registry.groups[1].publish_rates, PublishRates::default());
    let negative = problems("[[group]]\nname = \"g\"\npublish-rate = -1\n");
    assert_eq!(negative.len(), 1, "{negative:?}");
}
