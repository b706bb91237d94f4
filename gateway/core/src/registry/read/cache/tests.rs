//! A text read in pieces is the text read whole.

use proptest::prelude::*;

use super::*;

const TEXT: &str = r#"# Ours.

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
zone = "[[b"

[[thing]]
name = "b"
[[certificate]]
id = "ab00000000000000000000000000000000000000000000000000000000000000"
thing = "a"
"#;

fn whole(text: &str) -> (Registry, Vec<Problem>) {
    Registry::parse(Path::new("r"), text, None)
}

fn same(one: &Registry, other: &Registry) -> bool {
    format!("{one:?}") == format!("{other:?}")
}

#[test]
fn a_change_of_one_table_reads_that_table_and_gives_the_same_as_the_whole() {
    let mut cache = Cache::default();
    let first = cache.parse(Path::new("r"), TEXT, None);
    assert!(same(&first.0, &whole(TEXT).0) && first.1.is_empty());
    assert_eq!(cache.pieces.len(), 4);
    let again = cache.parse(Path::new("r"), TEXT, None);
    assert!(Arc::ptr_eq(&first.0, &again.0));
    let changed = TEXT.replace("name = \"b\"", "name = \"c\"");
    let (registry, problems) = cache.parse(Path::new("r"), &changed, None);
    assert!(same(&registry, &whole(&changed).0) && problems.is_empty());
    assert!(registry.thing("c").is_some() && registry.thing("b").is_none());
    assert_eq!(cache.pieces.len(), 4);
}

#[test]
fn what_holds_between_tables_is_checked_with_known_tables_too() {
    let mut cache = Cache::default();
    cache.parse(Path::new("r"), TEXT, None);
    for broken in [
        TEXT.replace("name = \"a\"", "name = \"d\""),
        TEXT.replace("name = \"devices\"", "name = \"other\""),
        format!("{TEXT}[[thing]]\nname = \"b\"\n"),
        format!("{TEXT}[[thing]]\nnme = \"e\"\n"),
        format!("{TEXT}[[things]]\nname = \"e\"\n"),
    ] {
        let (registry, problems) = cache.parse(Path::new("r"), &broken, None);
        let (expected, told) = whole(&broken);
        assert!(!problems.is_empty());
        assert_eq!(problems, told, "with their places");
        assert!(same(&registry, &expected));
    }
    let known = BTreeSet::from(["other".to_owned()]);
    let (_, problems) = cache.parse(Path::new("r"), TEXT, Some(&known));
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn a_text_that_cannot_be_cut_is_read_whole() {
    for text in [
        // What looks like a table stands in a string, in a list, or belongs to the table before.
        "[[type]]\nname = \"a\"\ndescription = '''\n[[thing]]\nname = \"b\"\n'''\n",
        "[[thing]]\nname = \"a\"\ngroups = [\n[[\"b\"]]\n]\n",
        "[[thing]]\nname = \"a\"\n[[group]]\nname = \"g\"\n[thing.attributes]\nx = \"y\"\n",
        "thing = [{ name = \"a\" }]\n",
        "x = 1\n[[thing]]\nname = \"a\"\n",
        "",
        "[[thing]]",
    ] {
        let mut cache = Cache::default();
        let (registry, problems) = cache.parse(Path::new("r"), text, None);
        let (expected, told) = whole(text);
        assert!(same(&registry, &expected), "{text}");
        assert_eq!(problems, told, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_text_in_any_order_and_disorder_is_what_it_is_when_read_whole(
        lines in proptest::collection::vec(0..16usize, 0..12),
        more in proptest::collection::vec(0..16usize, 0..4),
    ) {
        const LINES: [&str; 16] = [
            "[[thing]]", "[[group]]", "[[certificate]]", "[thing.attributes]", "name = \"a\"",
            "name = \"b\"", "groups = [", "]", "[[\"a\"]]", "groups = [\"a\"]", "# [[thing]]", "x = \"\"\"",
            "\"\"\"", "'''", "parent = \"b\"", "",
        ];
        let mut cache = Cache::default();
        let mut text = String::new();
        for part in [lines, more] {
            for at in part {
                text += LINES[at];
                text.push('\n');
            }
            let (registry, problems) = cache.parse(Path::new("r"), &text, None);
            let (expected, told) = whole(&text);
            prop_assert_eq!(problems, told, "{}", text);
            prop_assert!(same(&registry, &expected), "{}", text);
        }
    }
}
