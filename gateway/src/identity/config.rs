//! Settings of the identity module.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::document::Section;

/// Validated settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `registry.toml`.
    pub registry: PathBuf,
    /// `policies/`.
    pub policies: PathBuf,
    /// What changes while the gateway runs: `data/registry.journal`.
    pub journal: PathBuf,
    /// `templates/`: provisioning templates.
    pub templates: PathBuf,
    /// `pki/`: certificates that were issued or imported.
    pub pki: PathBuf,
    /// Revocation lists: files, or directories of files; PEM or DER.
    pub crls: Vec<PathBuf>,
    /// Certificates that may sign device certificates; PEM.
    pub ca_certificates: Vec<PathBuf>,
    /// What the TLS listener shows to devices; PEM chain.
    pub server_certificate: PathBuf,
    /// Its key; PEM.
    pub server_key: PathBuf,
    /// Refuse connections that resolve to no thing.
    pub require_thing: bool,
}

/// Where `cert import` puts revocation lists; it need not be there.
const CRL_DIR: &str = "pki/crl";

/// `[identity]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct IdentityToml {
    ca_certificates: Vec<PathBuf>,
    server_certificate: PathBuf,
    server_key: PathBuf,
    crls: Vec<PathBuf>,
    require_thing: bool,
}

impl Default for IdentityToml {
    fn default() -> Self {
        Self {
            ca_certificates: vec!["pki/ca.pem".into()],
            server_certificate: "pki/server.pem".into(),
            server_key: "pki/server.key".into(),
            crls: vec![CRL_DIR.into()],
            require_thing: true,
        }
    }
}

impl Config {
    /// Reads `[identity]` of the settings in `dir`.
    pub(crate) fn read(section: &mut Section<'_, '_>, dir: &Path) -> Self {
        let toml: IdentityToml = section.read().unwrap_or_default();
        if toml.ca_certificates.is_empty() {
            section.problem(
                "ca-certificates",
                "`ca-certificates` is empty, so no device could connect",
                "name at least one file, such as \"pki/ca.pem\"",
            );
        }
        for (index, file) in toml.ca_certificates.iter().enumerate() {
            if !dir.join(file).is_file() {
                let message = format!("`{}` is no file", file.display());
                section.problem_at("ca-certificates", index, message, "correct the path");
            }
        }
        for (key, file) in [
            ("server-certificate", &toml.server_certificate),
            ("server-key", &toml.server_key),
        ] {
            if !dir.join(file).is_file() {
                let message = format!("`{}` is no file", file.display());
                section.problem(
                    key,
                    message,
                    "correct the path, or create it with `portcullis init`",
                );
            }
        }
        for (index, path) in toml.crls.iter().enumerate() {
            if path != Path::new(CRL_DIR) && !dir.join(path).exists() {
                let message = format!("`{}` does not exist", path.display());
                let remedy = "correct the path, or create it";
                section.problem_at("crls", index, message, remedy);
            }
        }
        Self {
            journal: dir.join("data/registry.journal"),
            templates: dir.join("templates"),
            pki: dir.join("pki"),
            crls: toml.crls.iter().map(|path| dir.join(path)).collect(),
            registry: dir.join("registry.toml"),
            policies: dir.join("policies"),
            ca_certificates: toml.ca_certificates.iter().map(|f| dir.join(f)).collect(),
            server_certificate: dir.join(toml.server_certificate),
            server_key: dir.join(toml.server_key),
            require_thing: toml.require_thing,
        }
    }
}
