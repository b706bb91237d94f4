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
fn attachments_and_memberships_have_limits() {
    let many = |n: usize| vec!["\"device\""; n].join(", ");
    let group = |n| format!("[[group]]\nname = \"g\"\npolicies = [{}]\n", many(n));
    assert!(problems(&group(2)).is_empty());
    assert!(problems(&group(3))[0].contains("keep at most 2"));
    let id = "0".repeat(64);
    let certificate = |n| format!("[[certificate]]\nid = \"{id}\"\npolicies = [{}]\n", many(n));
    assert!(problems(&certificate(10)).is_empty());
    assert!(problems(&certificate(11))[0].contains("keep at most 10"));
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
