//! What `thing add` and `thing remove` refuse and keep.

use crate::site::Site;

#[test]
fn an_argument_with_a_mistake_is_told_as_one_and_nothing_is_added() {
    let site = Site::init(&[]);
    let dynamic = "\n[[dynamic-group]]\nname = \"zone-b\"\nquery = 'attributes.zone:b'\n";
    site.append("registry.toml", dynamic);
    let before = site.read("registry.toml");
    let add = ["thing", "add", "sensor-1", "--group"];
    for (more, told) in [
        (
            &["cold", "--attr", "zone=ä b"][..],
            "--attr: the attribute `zone` has no valid value",
        ),
        (
            &["cold", "--attr", "a=1", "--attr", "a=2"],
            "--attr: `a` is given twice",
        ),
        (&["zone-b"], "the group `zone-b` is a dynamic one"),
    ] {
        let answer = site.run(&[&add, more].concat());
        assert_eq!(answer.code, 2, "{}", answer.stderr);
        assert!(answer.stderr.contains(told), "{}\n{told}", answer.stderr);
        assert!(
            !answer.stderr.contains("registry.toml:"),
            "{}",
            answer.stderr
        );
        assert_eq!(site.read("registry.toml"), before);
    }
}

#[test]
fn a_thing_that_is_removed_and_added_again_stays_in_quarantine_and_that_is_said() {
    let site = Site::init(&[]);
    let add = ["thing", "add", "sensor-1", "--group", "cold"];
    site.done(&add);
    site.done(&["thing", "quarantine", "sensor-1", "--reason", "stolen"]);
    let said = site.done(&["thing", "remove", "sensor-1"]);
    let remedy = "`portcullis thing quarantine sensor-1 --release`";
    assert!(
        said.contains("Its name stays in quarantine") && said.contains(remedy),
        "{said}"
    );
    let said = site.done(&add);
    assert!(
        said.contains("It is in quarantine") && said.contains("stolen"),
        "{said}"
    );
    assert!(said.contains(remedy), "{said}");
    site.done(&["thing", "quarantine", "sensor-1", "--release"]);
    site.done(&["thing", "remove", "sensor-1"]);
    assert!(!site.done(&add).contains("quarantine"));
}
