//! Every reason for which a connection or a request is refused stands in the operator's table, and
//! nothing else does.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Where reasons are made; in folders all files.
const SOURCES: &[&str] = &[
    "src/broker/admission.rs",
    "src/broker/connect",
    "src/broker/listener.rs",
    "src/broker/pace/mod.rs",
    "src/broker/client/end.rs",
    "src/broker/client/standing.rs",
    "src/broker/tls.rs",
    "src/identity/snapshot/authenticate.rs",
];

/// What stands there in quotes and is no reason: actions, kinds of listeners, other labels.
const NO_REASONS: &[&str] = &[
    "certificate",
    "connect",
    "delayed",
    "disconnected",
    "dropped",
    "handshake",
    "no",
    "plain",
    "publish",
    "receive",
    "renewed",
    "retain-publish",
    "subscribe",
    "tls",
    "unchanged",
    "ws",
    "wss",
    "yes",
];

/// The tables that tell them, by their first column's title.
const TABLES: &[&str] = &["| `reason` |", "| end (`reason`) |"];

#[test]
fn the_operators_tables_have_every_reason_and_no_other() {
    let gateway = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut made = BTreeSet::new();
    for source in SOURCES {
        for file in files(&gateway.join(source)) {
            let text = fs::read_to_string(&file).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            let lines = code.lines().filter(|line| !line.trim().starts_with("//"));
            made.extend(lines.flat_map(|line| words(line, '"')));
        }
    }
    made.retain(|word| !NO_REASONS.contains(&word.as_str()));

    let operating = fs::read_to_string(gateway.join("docs/operating.md")).unwrap();
    let mut told = BTreeSet::new();
    for title in TABLES {
        let table = operating.split(title).nth(1).unwrap();
        for row in table.lines().skip(1).take_while(|row| row.starts_with('|')) {
            told.extend(words(row.split('|').nth(1).unwrap(), '`'));
        }
    }
    // Told in the words beside `shut-out`, of which it is the detail.
    told.insert("thing-changed".to_owned());
    assert!(operating.contains("`thing-changed`"));

    let missing: Vec<_> = made.difference(&told).collect();
    assert!(missing.is_empty(), "not in docs/operating.md: {missing:?}");
    let stale: Vec<_> = told.difference(&made).collect();
    assert!(
        stale.is_empty(),
        "in docs/operating.md, but nowhere made: {stale:?}"
    );
}

/// Labels between two `quote`s.
fn words(text: &str, quote: char) -> Vec<String> {
    let is_label = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    let quoted = text.split(quote).skip(1).step_by(2);
    quoted.filter(is_label).map(str::to_owned).collect()
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}
