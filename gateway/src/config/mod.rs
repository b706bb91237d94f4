//! `gateway.toml` and what it names, validated as a whole. Composes the modules' settings.
//!
//! [`inspect`] finds every mistake of every file, with place and remedy; [`load`] is for those who
//! serve.
//!
//! Only [`inspect`] also compiles plugins and starts them with their settings, for which a running
//! gateway has its own turn; and to it alone the key of a CA that cannot sign is a mistake.

mod rules;

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use portcullis_core::{detect::Profiles, identity::ThingName, problem::Problem};
use serde::Deserialize;

use crate::{
    admin, broker, buffer, defend,
    document::{Document, Section, read_text},
    identity::{self, Registry, Snapshot},
    pipeline, plugin, telemetry, uplink,
};

/// The whole of a configuration directory, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The directory in which `gateway.toml` stands.
    pub dir: PathBuf,
    /// `gateway_id` of every record.
    pub gateway_id: String,
    /// The buffer and all dynamic state.
    pub data_dir: PathBuf,
    /// Logging.
    pub log: telemetry::Config,
    /// Listeners and sessions.
    pub broker: broker::Config,
    /// Registry, policies and certificates.
    pub identity: identity::Config,
    /// The admin listener.
    pub admin: admin::Config,
    /// The buffer.
    pub buffer: buffer::Config,
    /// Where records go.
    pub uplink: uplink::Config,
    /// What goes to CloudWatch.
    pub cloudwatch: uplink::cloudwatch::Config,
    /// The components.
    pub plugins: Vec<plugin::PluginConfig>,
    /// Which group runs which.
    pub chains: Vec<pipeline::ChainConfig>,
}

/// A configuration that can be served.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// The first snapshot of registry, policies and certificates.
    pub snapshot: Snapshot,
    /// The security profiles.
    pub profiles: Profiles,
    /// What works but should be looked at.
    pub warnings: Vec<Problem>,
}

/// All that can be said about a configuration.
#[derive(Debug)]
pub struct Inspection {
    /// Settings, snapshot and profiles, if there is no problem.
    pub loaded: Option<(Config, Snapshot, Profiles)>,
    /// Mistakes, in the order of files and lines.
    pub problems: Vec<Problem>,
    /// What works but should be looked at.
    pub warnings: Vec<Problem>,
}

const SECTIONS: [&str; 10] = [
    "gateway", "log", "listener", "broker", "identity", "admin", "buffer", "uplink", "plugin",
    "chain",
];

/// `[gateway]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct GatewayToml {
    id: String,
    #[serde(default = "data_dir")]
    data_dir: PathBuf,
}

fn data_dir() -> PathBuf {
    "data".into()
}

/// Loads the configuration whose settings are in `file`.
pub fn load(file: &Path) -> Result<Loaded, Vec<Problem>> {
    let inspection = examine(file, Depth::Files);
    match inspection.loaded {
        Some((config, snapshot, profiles)) => Ok(Loaded {
            config,
            snapshot,
            profiles,
            warnings: inspection.warnings,
        }),
        None => Err(inspection.problems),
    }
}

/// Finds every mistake of the configuration whose settings are in `file`; plugins are compiled and
/// started once with their settings.
pub fn inspect(file: &Path) -> Inspection {
    examine(file, Depth::Engine)
}

/// The settings of the identity module in `file`, whatever is wrong with them or elsewhere: for
/// commands that must work nevertheless.
pub fn identity(file: &Path) -> identity::Config {
    let text = read_text(file).unwrap_or_default();
    let mut document = Document::parse(file, &text);
    let dir = directory(file);
    let (_, data_dir) = gateway(&mut document.section("gateway"), dir);
    identity::Config::read(&mut document.section("identity"), dir, &data_dir)
}

/// The buffer's directory by the settings in `file`, whatever is wrong with them.
pub fn buffer_dir(file: &Path) -> PathBuf {
    let text = read_text(file).unwrap_or_default();
    let mut document = Document::parse(file, &text);
    let (_, data_dir) = gateway(&mut document.section("gateway"), directory(file));
    buffer::Config::read(&mut document.section("buffer"), &data_dir).dir
}

/// The mistakes for which a gateway that runs with the settings in `file` would refuse a change of
/// registry, policies or certificates.
pub fn inspect_change(file: &Path) -> Vec<Problem> {
    // Settings are read at start alone; mistakes that they have since are of no account here.
    let text = read_text(file).unwrap_or_default();
    let mut document = Document::parse(file, &text);
    let dir = directory(file);
    let (_, data_dir) = gateway(&mut document.section("gateway"), dir);
    let config = identity::Config::read(&mut document.section("identity"), dir, &data_dir);
    let broker = broker::Config::read(&mut document, &Registry::default(), &BTreeSet::new());
    identity::inspect_change(&config, &broker.plain_policies()).problems
}

/// The journal of the run-time state that belongs to the settings in `file`, whatever mistakes they
/// have.
pub fn journal(file: &Path) -> identity::Journal {
    identity::Journal::open(&identity(file).journal)
}

/// What a question about policies needs of the settings.
#[derive(Debug)]
pub struct PolicySettings {
    /// Registry, policies and certificates.
    pub identity: identity::Config,
    /// All dynamic state.
    pub data_dir: PathBuf,
}

/// Reads no more of the settings in `file` than [`PolicySettings`]: whatever is wrong with a plugin
/// or an uplink, policies can be asked.
pub fn policy_settings(file: &Path) -> Result<PolicySettings, Vec<Problem>> {
    let text = read_text(file).map_err(|problem| vec![problem])?;
    let dir = directory(file);
    // Of its own, because its mistakes are of no account here.
    let mut settings = Document::parse(file, &text);
    let (_, data_dir) = gateway(&mut settings.section("gateway"), dir);
    let mut document = Document::parse(file, &text);
    let identity = identity::Config::read(&mut document.section("identity"), dir, &data_dir);
    match document.into_problems() {
        problems if problems.is_empty() => Ok(PolicySettings { identity, data_dir }),
        problems => Err(problems),
    }
}

fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    }
}

/// How far plugins are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// That the files are components; who serves compiles them next anyway.
    Files,
    /// That the engine takes them, and they their settings.
    Engine,
}

fn examine(file: &Path, depth: Depth) -> Inspection {
    let text = match read_text(file) {
        Ok(text) => text,
        Err(problem) => {
            return Inspection {
                loaded: None,
                problems: vec![problem],
                warnings: Vec::new(),
            };
        }
    };
    let dir = directory(file);
    let mut document = Document::parse(file, &text);
    let (gateway_id, data_dir) = gateway(&mut document.section("gateway"), dir);
    let identity_config = identity::Config::read(&mut document.section("identity"), dir, &data_dir);
    let identity = identity::inspect(&identity_config, &[]);
    let groups = group_names(&identity_config, &identity);
    let config = read(
        &mut document,
        dir,
        (gateway_id, data_dir),
        identity_config.clone(),
        &identity,
        groups.as_deref(),
    );
    let profiles = defend::load(&dir.join("profiles"), groups.as_deref());
    if let (Some(config), Depth::Engine) = (&config, depth) {
        rules::check(&mut document, &config.plugins, &config.chains);
    }
    let mut problems = document.into_problems();
    // Files that the settings name and that are absent are told there already, with the line.
    let absent =
        |problem: &Problem| config_names(&identity_config, &problem.file) && !problem.file.exists();
    problems.extend(
        identity
            .problems
            .into_iter()
            .filter(|problem| !absent(problem)),
    );
    let mut warnings = identity.warnings;
    let unusable = identity::unusable_ca_keys(&identity_config, &identity.registry.cas);
    match depth {
        // Who serves can do without.
        Depth::Files => warnings.extend(unusable),
        Depth::Engine => problems.extend(unusable),
    }
    let profiles = profiles.map_err(|found| problems.extend(found)).ok();
    let loaded = match (config, identity.snapshot, profiles) {
        (Some(config), Some(snapshot), Some(profiles)) if problems.is_empty() => {
            let snapshot = snapshot.with_plain_policies(config.broker.plain_policies());
            Some((config, snapshot, profiles))
        }
        _ => None,
    };
    debug_assert_eq!(loaded.is_some(), problems.is_empty());
    Inspection {
        loaded,
        problems,
        warnings,
    }
}

/// The groups that exist; `None` if the registry cannot be read, which is one mistake, not one for
/// each group that it has.
fn group_names<'a>(
    config: &identity::Config,
    found: &'a identity::Inspection,
) -> Option<Vec<&'a str>> {
    let unread = found
        .problems
        .iter()
        .any(|problem| problem.file == config.registry && problem.place.is_none());
    (!unread).then(|| found.registry.group_names().collect())
}

fn config_names(config: &identity::Config, file: &Path) -> bool {
    file == config.server_certificate
        || file == config.server_key
        || config.ca_certificates.iter().any(|ca| ca == file)
}

/// Reads all sections. `None` if something is missing, which is then a problem of the document.
fn read(
    document: &mut Document<'_>,
    dir: &Path,
    (gateway_id, data_dir): (Option<String>, PathBuf),
    identity: identity::Config,
    found: &identity::Inspection,
    groups: Option<&[&str]>,
) -> Option<Config> {
    document.refuse_unknown(&SECTIONS);
    let log = telemetry::Config::read(&mut document.section("log"));
    let broker = broker::Config::read(document, &found.registry, &found.policies);
    let admin = admin::Config::read(&mut document.section("admin"));
    if let Some(admin) = &admin {
        let mut listeners = broker.listeners.iter().map(broker::Listener::address);
        if listeners.any(|address| same_port(address, admin.address)) {
            document.section("admin").problem(
                "address",
                format!("the address {} is that of a listener", admin.address),
                "choose another port",
            );
        }
    }
    let buffer = buffer::Config::read(&mut document.section("buffer"), &data_dir);
    let uplink = uplink::Config::read(&mut document.section("uplink"), &data_dir, groups);
    let cloudwatch = uplink::cloudwatch::Config::read(&mut document.section("uplink"));
    let plugins = plugin::PluginConfig::read_all(document, dir);
    let plugin_names: Vec<&str> = plugins.iter().map(|plugin| plugin.name.as_str()).collect();
    let chains = pipeline::ChainConfig::read_all(document, groups, &plugin_names);
    Some(Config {
        dir: dir.to_owned(),
        gateway_id: gateway_id?,
        data_dir,
        log,
        broker,
        identity,
        admin: admin?,
        buffer,
        uplink: uplink?,
        cloudwatch,
        plugins,
        chains,
    })
}

fn gateway(section: &mut Section<'_, '_>, dir: &Path) -> (Option<String>, PathBuf) {
    let Some(toml) = section.read::<GatewayToml>() else {
        return (None, dir.join(data_dir()));
    };
    let remedy = "use 1 to 128 letters, digits, `:`, `_` and `-`";
    let id = section.parsed("id", &toml.id, ThingName::parse, remedy);
    let id = id.map(|name| name.as_str().to_owned());
    (id, dir.join(toml.data_dir))
}

fn same_port(a: SocketAddr, b: SocketAddr) -> bool {
    let same_host = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && same_host
}
