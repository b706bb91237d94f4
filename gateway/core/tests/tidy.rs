//! Style as a test: who may use whom, who alone knows which library, how long files and functions
//! may grow. A list of exceptions here can only become shorter.

#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    reason = "helpers of tests; sources are ours and in UTF-8"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A module of `gateway/src` may use only modules of a strictly lower layer.
const LAYERS: &[(&str, u8)] = &[
    ("chain", 0),
    ("clock", 0),
    ("descriptors", 0),
    ("document", 0),
    ("supervisor", 1),
    ("telemetry", 1),
    ("buffer", 2),
    ("identity", 2),
    ("plugin", 2),
    ("uplink", 2),
    ("wal", 2),
    ("defend", 3),
    ("pipeline", 3),
    ("traffic", 3),
    ("admin", 4),
    ("broker", 4),
];
/// These compose the others.
const EXEMPT: &[&str] = &["app", "cli", "config", "demo", "lib", "main"];

/// Who alone may name a library. The demo is a client of the gateway, and speaks MQTT as one.
const OWNERS: &[(&str, &[&str])] = &[
    ("aws_config", &["uplink"]),
    ("aws_credential_types", &["uplink"]),
    ("aws_sdk_", &["uplink"]),
    ("aws_sigv4", &["uplink"]),
    ("aws_smithy_", &["uplink"]),
    ("rumqttc::", &["broker", "demo"]),
    ("rumqttd::", &["broker"]),
    ("sled::", &["buffer"]),
    ("tokio_tungstenite", &["broker"]),
    ("wasmtime::", &["plugin"]),
    ("wasmtime_wasi", &["plugin"]),
];

/// What core does not do: input, output, time, threads.
const NOT_IN_CORE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "TcpStream",
    "UdpSocket",
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "tokio",
];

/// Tests that are started by another test, in a process that it kills.
const STARTED_BY_ANOTHER: &[&str] = &["gateway/tests/it/buffer.rs"];

/// Where `unsafe` may stand, and how often: asking the kernel whether the clock is synchronized.
const UNSAFE: &[(&str, usize)] = &[("gateway/src/clock.rs", 1)];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 100;
/// Entries may be removed, never added.
const LONG_FILES: &[&str] = &[];
const LONG_FUNCTIONS: &[&str] = &[];

#[test]
fn every_module_has_a_layer() {
    let src = root().join("gateway/src");
    let unknown: Vec<_> = fs::read_dir(src)
        .unwrap()
        .map(|entry| module_of(Path::new(&entry.unwrap().file_name())))
        .filter(|module| layer(module).is_none() && !EXEMPT.contains(&module.as_str()))
        .collect();
    assert!(unknown.is_empty(), "which layer do {unknown:?} belong to?");
}

#[test]
fn modules_use_only_lower_layers() {
    let mut faults = Vec::new();
    for source in sources("gateway/src") {
        let module = source.module("gateway/src");
        let Some(own) = layer(&module) else { continue };
        for used in used_modules(&source.code(), source.depth("gateway/src")) {
            if used != module && layer(&used).is_some_and(|other| own <= other) {
                faults.push(format!("{}: {module} must not use {used}", source.name));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn the_reader_of_use_lines_sees_every_form() {
    for (code, depth, used) in [
        ("use crate::buffer::Ack;", 2, vec!["buffer"]),
        (
            "use crate::{\n    broker::{Session, bus},\n    admin,\n};",
            2,
            vec!["broker", "admin"],
        ),
        ("fn f() { crate::uplink::go() }", 2, vec!["uplink"]),
        ("use super::pipeline::X;", 1, vec!["pipeline"]),
        ("use super::super::pipeline::X;", 2, vec!["pipeline"]),
        ("use super::metrics::X;", 2, vec![]),
    ] {
        assert_eq!(used_modules(code, depth), used, "{code}");
    }
}

#[test]
fn libraries_are_known_to_their_owners_alone() {
    let mut faults = Vec::new();
    for source in sources("gateway/src") {
        let (module, code) = (source.module("gateway/src"), source.code());
        for (library, owners) in OWNERS {
            if code.contains(library) && !owners.contains(&module.as_str()) {
                faults.push(format!(
                    "{}: only {owners:?} may know {library}",
                    source.name
                ));
            }
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn core_performs_no_io_and_reads_no_clock() {
    let mut faults = Vec::new();
    for source in sources("gateway/core/src") {
        let code = source.code();
        for word in NOT_IN_CORE.iter().filter(|word| code.contains(**word)) {
            faults.push(format!("{}: {word}", source.name));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<_> = all_sources()
        .into_iter()
        // A file of a line or two has nothing to explain, and `tests.rs` is told by its module.
        .filter(|source| source.text.lines().count() > 2 && !source.name.ends_with("/tests.rs"))
        .filter(|source| !source.text.starts_with("//!") && !source.text.starts_with("#![doc"))
        .map(|source| source.name)
        .collect();
    assert!(silent.is_empty(), "no `//!` at the top of {silent:#?}");
}

#[test]
fn files_stay_readable() {
    let long: Vec<_> = all_sources()
        .into_iter()
        .map(|source| (source.text.lines().count(), source.name))
        .filter(|(lines, name)| *lines > FILE_LINES_MAX && !LONG_FILES.contains(&name.as_str()))
        .collect();
    assert!(long.is_empty(), "which noun is hiding in {long:#?}?");
}

#[test]
fn functions_stay_readable() {
    let mut long = Vec::new();
    for source in all_sources() {
        for (function, lines) in functions(&source.text) {
            let name = format!("{}: {function}", source.name);
            if lines > FUNCTION_LINES_MAX && !LONG_FUNCTIONS.contains(&name.as_str()) {
                long.push((lines, name));
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn unsafe_stands_only_where_it_is_explained() {
    let mut faults = Vec::new();
    let gateway = sources("gateway").into_iter();
    for source in gateway.filter(|source| !source.name.ends_with("tests/tidy.rs")) {
        let allowed = UNSAFE
            .iter()
            .find(|(prefix, _)| source.name.starts_with(prefix))
            .map_or(0, |(_, times)| *times);
        let code = source.code();
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        let found = words.filter(|word| *word == "unsafe").count();
        if found > allowed {
            faults.push(format!("{}: {found} times, allowed {allowed}", source.name));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
fn no_test_is_switched_off() {
    let ignored: Vec<_> = all_sources()
        .into_iter()
        .filter(|source| !STARTED_BY_ANOTHER.contains(&source.name.as_str()))
        .filter(|source| {
            source
                .text
                .lines()
                .any(|l| l.trim_start().starts_with("#[ignore"))
        })
        .map(|source| source.name)
        .collect();
    assert!(ignored.is_empty(), "{ignored:#?}");
}

#[test]
fn every_metric_is_documented() {
    let page = fs::read_to_string(root().join("gateway/docs/metrics.md")).unwrap();
    let mut missing = Vec::new();
    for source in sources("gateway/src") {
        if !source.name.ends_with("metrics.rs") {
            continue;
        }
        for quoted in source.text.split('"').skip(1).step_by(2) {
            if quoted.starts_with("portcullis_") && !page.contains(&format!("`{quoted}`")) {
                missing.push(format!("{}: {quoted}", source.name));
            }
        }
    }
    assert!(missing.is_empty(), "not in metrics.md: {missing:#?}");
}

/// A Rust file.
struct Source {
    /// Path from the root.
    name: String,
    text: String,
}

impl Source {
    /// The text without comments.
    fn code(&self) -> String {
        let without = |line: &str| match line.find("//") {
            // `://` stands in addresses.
            Some(at) if !line[..at].ends_with(':') => line[..at].to_owned(),
            _ => line.to_owned(),
        };
        self.text
            .lines()
            .map(without)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn below(&self, dir: &str) -> &Path {
        Path::new(&self.name).strip_prefix(dir).unwrap()
    }

    fn module(&self, dir: &str) -> String {
        module_of(self.below(dir))
    }

    /// How many `super` lead to the root of the crate.
    fn depth(&self, dir: &str) -> usize {
        let path = self.below(dir);
        path.components().count() - usize::from(path.ends_with("mod.rs"))
    }
}

/// The first step of a path below `src`.
fn module_of(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn layer(module: &str) -> Option<u8> {
    let found = LAYERS.iter().find(|(name, _)| *name == module);
    found.map(|(_, layer)| *layer)
}

/// The modules at the root of the crate that `code` names.
fn used_modules(code: &str, depth: usize) -> Vec<String> {
    let to_root = "super::".repeat(depth);
    let ways = [("crate::", ""), (&to_root, "super::")];
    let mut used = Vec::new();
    for (way, never_after) in ways {
        for (at, _) in code.match_indices(way) {
            if !never_after.is_empty() && code[..at].ends_with(never_after) {
                continue;
            }
            let rest = &code[at + way.len()..];
            match rest.strip_prefix('{') {
                Some(group) => used.extend(first_names(group)),
                None => used.push(identifier(rest)),
            }
        }
    }
    used.retain(|name| !name.is_empty() && name != "super");
    used
}

/// The names at the top of `a, b::{c, d}, e};…`.
fn first_names(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(identifier(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(identifier(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

fn identifier(text: &str) -> String {
    let name = text.trim_start().chars();
    name.take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// Name and length of every function. rustfmt puts the closing brace below the first letter.
fn functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let starts = [
            "fn ",
            "pub fn ",
            "pub(",
            "async fn ",
            "pub async fn ",
            "const fn ",
            "unsafe fn ",
        ];
        if !starts.iter().any(|word| code.starts_with(word)) {
            continue;
        }
        let Some((_, name)) = code.split_once("fn ") else {
            continue;
        };
        let close = format!("{}}}", &line[..line.len() - code.len()]);
        let end = lines[start..].iter().position(|line| *line == close);
        found.push((identifier(name), end.map_or(0, |end| end + 1)));
    }
    found
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("../..").canonicalize().unwrap()
}

fn all_sources() -> Vec<Source> {
    ["gateway", "plugin-sdk", "plugins"]
        .into_iter()
        .flat_map(sources)
        .collect()
}

/// Every Rust file below `dir`; none if there is no such directory.
fn sources(dir: &str) -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    collect(&root.join(dir), &mut paths);
    paths.sort();
    let source = |path: PathBuf| Source {
        name: path
            .strip_prefix(&root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned(),
        text: fs::read_to_string(&path).unwrap(),
    };
    paths.into_iter().map(source).collect()
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let generated = ["target", "node_modules", "generated"];
        if path.is_dir() && !generated.iter().any(|name| path.ends_with(name)) {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
