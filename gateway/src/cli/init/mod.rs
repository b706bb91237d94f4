//! `portcullis init`: a complete configuration, commented, that passes `check`.
//!
//! The settings are `deploy/gateway.toml`, the one place where the keys are explained, with the
//! lines changed that the arguments name.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use portcullis_core::identity::ThingName;
use serde_json::json;

use super::{
    Failure, Outcome,
    outcome::{lines, say, say_json},
};
use crate::identity::{
    authority::{Authority, AuthorityError, is_san},
    files::{self, WriteError},
};

const SAMPLE: &str = include_str!("../../../../deploy/gateway.toml");
const REGISTRY: &str = include_str!("../template/registry.toml");
const POLICY: &str = include_str!("../template/policy.json");
const QUARANTINE: &str = include_str!("../template/quarantine.json");
const PROFILE: &str = include_str!("../template/profile.json");
/// Where the sample starts to speak of plugins.
const PLUGINS: &str = "# Plugins: ";

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The directory to make.
    dir: PathBuf,
    /// Name of the gateway in every record; the host's name unless said otherwise.
    #[arg(long)]
    name: Option<String>,
    /// A host name or address under which devices reach the gateway.
    #[arg(long = "san", value_name = "HOST_OR_IP", value_parser = san)]
    sans: Vec<String>,
    /// Where devices connect with TLS.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8883")]
    mqtt: SocketAddr,
    /// Where metrics and health are.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9090")]
    http: SocketAddr,
    /// Also listen without TLS, for trials.
    #[arg(long, value_name = "LOOPBACK_ADDR", value_parser = loopback)]
    plain: Option<SocketAddr>,
}

fn san(text: &str) -> Result<String, String> {
    if is_san(text) {
        Ok(text.to_owned())
    } else {
        Err("write a host name or an IP address".to_owned())
    }
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(_) => Err("a plain listener takes loopback addresses only".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What to make.
#[derive(Clone, Debug)]
pub struct InitOptions<'a> {
    /// The directory; made if it does not exist.
    pub dir: &'a Path,
    /// Name of the gateway.
    pub name: &'a str,
    /// Names and addresses in the server certificate; the first one is what clients are told.
    pub sans: &'a [String],
    /// The TLS listener.
    pub mqtt: SocketAddr,
    /// The admin listener.
    pub http: SocketAddr,
    /// A plain listener, on a loopback address.
    pub plain: Option<SocketAddr>,
    /// Name and bytes of the components to write to `plugins/`; those that the sample speaks of are
    /// put into its chain.
    pub plugins: &'a [(&'a str, &'a [u8])],
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one already.
    #[error("`{0}` exists already; remove it, or choose another directory")]
    Exists(PathBuf),
    /// A directory could not be made.
    #[error("failed to make `{path}`")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A certificate could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
}

/// Makes a configuration. Returns the path of its `gateway.toml`, which is written last, so that a
/// directory with one is complete.
pub fn create(options: &InitOptions<'_>) -> Result<PathBuf, InitError> {
    let dir = options.dir;
    let settings = dir.join("gateway.toml");
    for file in [
        &settings,
        &dir.join("registry.toml"),
        &dir.join("pki/ca.key"),
    ] {
        if file.exists() {
            return Err(InitError::Exists(file.clone()));
        }
    }
    directory(dir, 0o755)?;
    for name in ["policies", "profiles", "plugins"] {
        directory(&dir.join(name), 0o755)?;
    }
    for name in ["pki", "pki/crl", "data"] {
        directory(&dir.join(name), 0o700)?;
    }

    let authority = Authority::create(&dir.join("pki/ca.pem"), options.name)?;
    let server = authority.issue_server(options.sans)?;
    let certificate = server.certificate_pem.as_bytes();
    files::write(&dir.join("pki/server.pem"), certificate)?;
    if let Some(key) = &server.key_pem {
        files::write_private(&dir.join("pki/server.key"), key.as_bytes())?;
    }

    for (name, component) in options.plugins {
        let file = dir.join("plugins").join(format!("{name}.wasm"));
        files::write(&file, component)?;
    }
    let names: Vec<&str> = options.plugins.iter().map(|(name, _)| *name).collect();
    let text = |path: &str, text: &str| files::write(&dir.join(path), text.as_bytes());
    text("policies/device.json", POLICY)?;
    text("policies/quarantine.json", QUARANTINE)?;
    text("profiles/device.json", PROFILE)?;
    text("registry.toml", &registry(!names.is_empty()))?;
    text("gateway.toml", &settings_text(options, &names))?;
    Ok(settings)
}

fn directory(path: &Path, mode: u32) -> Result<(), InitError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| InitError::Directory {
            path: path.to_owned(),
            source,
        })
}

/// The registry; with the group of the sample's chain if there is a chain.
fn registry(has_chain: bool) -> String {
    if !has_chain {
        return REGISTRY.to_owned();
    }
    let commented = "# [[group]]\n# name = \"cold-chain\"\n";
    REGISTRY.replace(commented, &commented.replace("# ", ""))
}

/// The sample with what `options` say.
fn settings_text(options: &InitOptions<'_>, plugins: &[&str]) -> String {
    let (settings, rules) = SAMPLE
        .split_once(PLUGINS)
        .expect("the sample speaks of plugins");
    let mut text = settings
        .replace("id = \"gw-1\"", &format!("id = \"{}\"", options.name))
        .replace(
            "address = \"0.0.0.0:8883\"",
            &format!("address = \"{}\"", options.mqtt),
        )
        .replace(
            "address = \"127.0.0.1:9090\"",
            &format!("address = \"{}\"", options.http),
        );
    if let Some(plain) = options.plain {
        for (commented, written) in [
            (
                "# [[listener]]\n# kind = \"plain\"",
                "[[listener]]\nkind = \"plain\"".to_owned(),
            ),
            (
                "# address = \"127.0.0.1:1883\"",
                format!("address = \"{plain}\""),
            ),
            (
                "# plain-unknown = \"refuse\"",
                "plain-unknown = \"refuse\"".to_owned(),
            ),
        ] {
            text = text.replace(commented, &written);
        }
    }
    if !plugins.is_empty() {
        text += PLUGINS;
        text += &rules_text(rules, plugins);
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

/// The sample's paragraphs about plugins and chains, without those of plugins that are not there,
/// and with those that the sample does not speak of.
fn rules_text(rules: &str, plugins: &[&str]) -> String {
    let mut paragraphs: Vec<String> = Vec::new();
    let mut spoken_of = Vec::new();
    for paragraph in rules.split("\n\n") {
        let table = match paragraph {
            p if p.contains("[[plugin]]\n") => "name",
            p if p.contains("[[chain.step]]\n") => "plugin",
            p => {
                paragraphs.push(p.to_owned());
                continue;
            }
        };
        let name = plugins
            .iter()
            .find(|name| paragraph.contains(&format!("{table} = \"{name}\"\n")));
        if let Some(name) = name {
            spoken_of.push(*name);
            paragraphs.push(paragraph.to_owned());
        } else {
            // Keep what explains the whole.
            let comments: Vec<&str> = paragraph
                .lines()
                .take_while(|l| !l.starts_with('['))
                .collect();
            if !comments.is_empty() {
                paragraphs.push(comments.join("\n"));
            }
        }
    }
    let chain = paragraphs
        .iter()
        .position(|paragraph| paragraph.contains("[[chain]]\n"))
        .unwrap_or(paragraphs.len());
    for name in plugins.iter().filter(|name| !spoken_of.contains(name)) {
        let block = format!("[[plugin]]\nname = \"{name}\"\nfile = \"plugins/{name}.wasm\"");
        paragraphs.insert(chain, block);
    }
    if spoken_of.is_empty() {
        // A chain without a step is a mistake.
        paragraphs.retain(|paragraph| !paragraph.contains("[[chain]]\n"));
    }
    paragraphs.join("\n\n")
}

pub(super) fn init(args: &InitArgs, as_json: bool) -> Result<Outcome, Failure> {
    let host = host_name();
    let name = match &args.name {
        Some(name) => name.as_str(),
        None => host.as_deref().unwrap_or("gw-1"),
    };
    if let Err(error) = ThingName::parse(name) {
        let text = format!("`{name}` is no name of a gateway: {error}");
        return Err(Failure::BadInput(text));
    }
    let mut sans = args.sans.clone();
    sans.extend(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    sans.extend(host.clone().filter(|host| is_san(host)));
    let mut seen = Vec::new();
    sans.retain(|san| {
        !seen.contains(san) && {
            seen.push(san.clone());
            true
        }
    });
    let settings = create(&InitOptions {
        dir: &args.dir,
        name,
        sans: &sans,
        mqtt: args.mqtt,
        http: args.http,
        plain: args.plain,
        plugins: portcullis_plugins::SHIPPED,
    })
    .map_err(|error| match error {
        InitError::Exists(_) => Failure::BadInput(error.to_string()),
        InitError::Write(error) => error.into(),
        InitError::Authority(error) => error.into(),
        InitError::Directory { .. } => Failure::other("no configuration was made", error),
    })?;
    let config = settings.display();
    if as_json {
        say_json(&json!({ "config": settings.to_string_lossy(), "name": name, "sans": sans }));
        return Ok(Outcome::Done);
    }
    let text = format!(
        "Made a configuration for the gateway `{name}` in {}:

  gateway.toml           settings, each explained
  registry.toml          things, groups and certificates
  policies/              what a device may do (its own topics only), and one in quarantine
  profiles/device.json   what is normal for a device
  pki/                   the local CA and a server certificate for {}
  data/                  everything that changes while the gateway runs

Next:

  portcullis thing add sensor-1 --group sensors -c {config}
  portcullis cert issue sensor-1 --out sensor-1 -c {config}
  portcullis check -c {config}
  portcullis run -c {config}",
        args.dir.display(),
        sans.join(", "),
    );
    lines(&text).for_each(say);
    Ok(Outcome::Done)
}

/// The name of this machine, where it can be a gateway's.
fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    ThingName::parse(name).ok().map(|_| name.to_owned())
}

#[cfg(test)]
mod tests;
