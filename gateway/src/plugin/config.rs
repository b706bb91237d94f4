//! Settings of plugins.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use portcullis_core::{
    identity::GroupName,
    limits::{PLUGIN_DEADLINE, PLUGIN_MEMORY_BYTES_MAX},
    topic::TopicFilter,
};
use serde::Deserialize;

use crate::document::Document;

/// One plugin file with its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginConfig {
    /// The name by which chains refer to it.
    pub name: String,
    /// The component.
    pub file: PathBuf,
    /// Linear memory of one instance.
    pub memory_bytes_max: usize,
    /// Time that one call may take.
    pub deadline: Duration,
    /// Topics on which it may emit further messages; none by default.
    pub emit: Vec<TopicFilter>,
}

/// `[[plugin]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct PluginToml {
    name: String,
    file: PathBuf,
    #[serde(default = "memory_bytes_max")]
    memory_bytes_max: usize,
    #[serde(default = "deadline_ms")]
    deadline_ms: u64,
    #[serde(default)]
    emit: Vec<String>,
}

fn memory_bytes_max() -> usize {
    PLUGIN_MEMORY_BYTES_MAX
}

fn deadline_ms() -> u64 {
    u64::try_from(PLUGIN_DEADLINE.as_millis()).unwrap_or(u64::MAX)
}

/// How a component starts: `\0asm`, version 13, layer 1.
const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";
/// How a core module starts.
const MODULE: [u8; 8] = *b"\0asm\x01\0\0\0";

impl PluginConfig {
    /// Reads every `[[plugin]]`. That a file is a valid component of our world is found by the
    /// engine; here it is looked at just enough to catch a wrong path.
    pub(crate) fn read_all(document: &mut Document<'_>, dir: &Path) -> Vec<Self> {
        let mut plugins: Vec<Self> = Vec::new();
        for index in 0..document.section_count("plugin") {
            let mut section = document.section_at("plugin", index);
            let Some(toml) = section.read::<PluginToml>() else {
                continue;
            };
            let remedy = "use 1 to 128 letters, digits, `:`, `_` and `-`";
            section.parsed("name", &toml.name, GroupName::parse, remedy);
            if plugins.iter().any(|earlier| earlier.name == toml.name) {
                let message = format!("the plugin `{}` stands here a second time", toml.name);
                section.problem("name", message, "remove it, or give it another name");
            }
            let file = dir.join(&toml.file);
            if let Err((message, remedy)) = check_file(&file) {
                let message = format!("`{}` {message}", toml.file.display());
                section.problem("file", message, remedy);
            }
            const MIB: usize = 1024 * 1024;
            let memory_bytes_max =
                section.within("memory-bytes-max", toml.memory_bytes_max, MIB, 1024 * MIB);
            let deadline_ms = section.within("deadline-ms", toml.deadline_ms, 1, 10_000);
            let mut emit = Vec::new();
            for (at, filter) in toml.emit.iter().enumerate() {
                match TopicFilter::parse(filter) {
                    Ok(filter) => emit.push(filter),
                    Err(error) => {
                        let message = format!("`{filter}` is no topic filter: {error}");
                        section.problem_at(
                            "emit",
                            at,
                            message,
                            "write a filter such as `alerts/#`",
                        );
                    }
                }
            }
            plugins.push(Self {
                name: toml.name,
                file,
                memory_bytes_max,
                deadline: Duration::from_millis(deadline_ms),
                emit,
            });
        }
        plugins
    }
}

impl PluginConfig {
    /// Whether the file starts as a component does; if not, that is a problem already.
    pub(crate) fn names_a_component(&self) -> bool {
        check_file(&self.file).is_ok()
    }
}

fn check_file(file: &Path) -> Result<(), (String, &'static str)> {
    let start = || -> io::Result<[u8; 8]> {
        let mut start = [0; 8];
        File::open(file)?.read_exact(&mut start)?;
        Ok(start)
    };
    match start() {
        Ok(COMPONENT) => Ok(()),
        Ok(MODULE) => Err((
            "is a core module, not a component".to_owned(),
            "build it for wasm32-wasip2",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(("does not exist".to_owned(), "correct the path"))
        }
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err((
            format!("cannot be read: {error}"),
            "make it readable for the gateway's user",
        )),
        _ => Err((
            "is no WebAssembly component".to_owned(),
            "name a `.wasm` file that was built for wasm32-wasip2",
        )),
    }
}
