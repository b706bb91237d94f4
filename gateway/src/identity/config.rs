//! Settings of the identity module.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::document::{Section, json_files};

/// Validated settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `registry.toml`.
    pub registry: PathBuf,
    /// The run-time state; in the data directory.
    pub journal: PathBuf,
    /// `policies/`.
    pub policies: PathBuf,
    /// Certificates that may sign device certificates; PEM.
    pub ca_certificates: Vec<PathBuf>,
    /// What the TLS listener shows to devices; PEM chain.
    pub server_certificate: PathBuf,
    /// Its key; PEM.
    pub server_key: PathBuf,
    /// Refuse connections that resolve to no thing.
    pub require_thing: bool,
}

/// `[identity]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct IdentityToml {
    ca_certificates: Vec<PathBuf>,
    server_certificate: PathBuf,
    server_key: PathBuf,
    require_thing: bool,
}

impl Default for IdentityToml {
    fn default() -> Self {
        Self {
            ca_certificates: vec!["pki/ca.pem".into()],
            server_certificate: "pki/server.pem".into(),
            server_key: "pki/server.key".into(),
            require_thing: true,
        }
    }
}

impl Config {
    /// Reads `[identity]` of the settings in `dir`.
    pub(crate) fn read(section: &mut Section<'_, '_>, dir: &Path, data_dir: &Path) -> Self {
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
        Self {
            registry: dir.join("registry.toml"),
            journal: data_dir.join("registry.journal"),
            policies: dir.join("policies"),
            ca_certificates: toml.ca_certificates.iter().map(|f| dir.join(f)).collect(),
            server_certificate: dir.join(toml.server_certificate),
            server_key: dir.join(toml.server_key),
            require_thing: toml.require_thing,
        }
    }

    /// The files and directories whose change is a change of what they say.
    pub(super) fn watched(&self) -> Vec<PathBuf> {
        let mut files = vec![
            self.registry.clone(),
            self.journal.clone(),
            self.policies.clone(),
            self.server_certificate.clone(),
            self.server_key.clone(),
        ];
        files.extend(self.ca_certificates.iter().cloned());
        files.extend(json_files(&self.policies).unwrap_or_default());
        files
    }
}
