//! Settings of the identity module.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use portcullis_core::{
    limits::{DEVICES_HARD_MAX, DEVICES_MAX, DEVICES_PER_CLAIM_MAX},
    policy::{ArnIdentity, Rules},
};
use serde::Deserialize;

use super::trust::crl_files;
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
    /// How policies are read.
    pub rules: Arc<Rules>,
    /// How many certificates devices may get by themselves.
    pub room: Room,
}

/// How many certificates devices may get by themselves; revoked ones do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// In all.
    pub devices_max: usize,
    /// Under one claim certificate.
    pub devices_per_claim_max: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            devices_max: DEVICES_MAX,
            devices_per_claim_max: DEVICES_PER_CLAIM_MAX,
        }
    }
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
    arn_identity: ArnIdentityToml,
    strict_arn_identity: bool,
    deny_on_unresolved: bool,
    devices_max: usize,
    devices_per_claim_max: usize,
}

/// `arn-identity` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct ArnIdentityToml {
    partition: String,
    region: String,
    account: String,
}

impl Default for ArnIdentityToml {
    fn default() -> Self {
        let ArnIdentity {
            partition,
            region,
            account,
        } = ArnIdentity::default();
        Self {
            partition,
            region,
            account,
        }
    }
}

impl Default for IdentityToml {
    fn default() -> Self {
        Self {
            ca_certificates: vec!["pki/ca.pem".into()],
            server_certificate: "pki/server.pem".into(),
            server_key: "pki/server.key".into(),
            crls: vec![CRL_DIR.into()],
            require_thing: true,
            arn_identity: ArnIdentityToml::default(),
            strict_arn_identity: false,
            deny_on_unresolved: true,
            devices_max: DEVICES_MAX,
            devices_per_claim_max: DEVICES_PER_CLAIM_MAX,
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
        for (index, path) in toml.crls.iter().enumerate() {
            if path != Path::new(CRL_DIR) && !dir.join(path).exists() {
                let message = format!("`{}` does not exist", path.display());
                let remedy = "correct the path, or create it";
                section.problem_at("crls", index, message, remedy);
            }
        }
        let rules = Rules {
            arn: arn_identity(section, toml.arn_identity),
            strict_arn: toml.strict_arn_identity,
            deny_on_unresolved: toml.deny_on_unresolved,
        };
        let (of_all, of_claim) = (toml.devices_max, toml.devices_per_claim_max);
        let room = Room {
            devices_max: section.within("devices-max", of_all, 0, DEVICES_HARD_MAX),
            devices_per_claim_max: section.within(
                "devices-per-claim-max",
                of_claim,
                0,
                DEVICES_HARD_MAX,
            ),
        };
        Self {
            room,
            rules: Arc::new(rules),
            templates: dir.join("templates"),
            pki: dir.join("pki"),
            crls: toml.crls.iter().map(|path| dir.join(path)).collect(),
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
        files.push(self.templates.clone());
        files.extend(json_files(&self.templates).unwrap_or_default());
        files.extend(self.crls.iter().cloned());
        files.extend(crl_files(&self.crls));
        files
    }

    /// A path as the registry writes it: relative to the registry's directory.
    pub fn of_registry(&self, path: &Path) -> PathBuf {
        let dir = self.registry.parent().unwrap_or(Path::new(""));
        dir.join(path)
    }
}

fn arn_identity(section: &mut Section<'_, '_>, toml: ArnIdentityToml) -> ArnIdentity {
    const PARTITIONS: [&str; 3] = ["aws", "aws-cn", "aws-us-gov"];
    let mut section = section.section("arn-identity");
    if !PARTITIONS.contains(&toml.partition.as_str()) {
        let message = format!("`{}` is no partition", toml.partition);
        section.problem(
            "partition",
            message,
            "write `aws`, `aws-cn` or `aws-us-gov`",
        );
    }
    let is_of_region = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if toml.region.is_empty() || !toml.region.chars().all(is_of_region) {
        let message = format!("`{}` is no region", toml.region);
        section.problem("region", message, "write one such as `eu-central-1`");
    }
    if toml.account.len() != 12 || !toml.account.chars().all(|c| c.is_ascii_digit()) {
        let message = format!("`{}` is no account", toml.account);
        section.problem("account", message, "write the twelve digits of the account");
    }
    ArnIdentity {
        partition: toml.partition,
        region: toml.region,
        account: toml.account,
    }
}
