//! `portcullis cert`: device certificates of the local authority.

use std::path::{Path, PathBuf};

use portcullis_core::identity::{CertificateId, ThingName};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{
    Failure, Outcome,
    outcome::{say, say_json},
    thing::{named, read, registry_file, say_what_is_in_the_way},
};
use crate::{
    broker::Listener,
    config::{self, Config},
    identity::{
        authority::DEVICE_DAYS,
        edit,
        enrol::{self, Enrolment},
    },
};

/// What to do with certificates.
#[derive(Debug, clap::Subcommand)]
pub(super) enum CertCommand {
    /// Make a certificate for a thing and register it.
    Issue {
        /// The thing.
        thing: String,
        /// Where `cert.pem`, `key.pem` and `ca.pem` go.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How long it is valid.
        #[arg(long, default_value_t = DEVICE_DAYS, value_parser = clap::value_parser!(u32).range(1..=7300))]
        days: u32,
        /// A PKCS #10 request in PEM: the device keeps its key.
        #[arg(long, value_name = "FILE")]
        csr: Option<PathBuf>,
    },
    /// List all certificates.
    List,
    /// Revoke a certificate, or all of a thing.
    Revoke {
        /// A certificate id, or the name of a thing.
        #[arg(value_name = "ID_OR_THING")]
        which: String,
        /// Why; kept in the registry.
        #[arg(long)]
        reason: Option<String>,
    },
}

pub(super) fn cert(
    command: &CertCommand,
    config: &Path,
    as_json: bool,
) -> Result<Outcome, Failure> {
    match command {
        CertCommand::Issue {
            thing,
            out,
            days,
            csr,
        } => {
            let settings = config::load(config).map_err(Failure::Mistakes)?.config;
            let thing = named(thing, ThingName::parse)?;
            let enrolment = enrol::enrol(&settings.identity, &thing, *days, csr.as_deref(), out)?;
            issued(&settings, &thing, &enrolment, out, as_json);
            say_what_is_in_the_way(config);
        }
        CertCommand::List => {
            let registry = read(&registry_file(config)?)?;
            let certificates = registry.certificates.iter();
            if as_json {
                let all = certificates.map(|certificate| {
                    json!({
                        "certificateId": certificate.id.to_string(),
                        "thingName": certificate.thing.as_ref().map(ThingName::as_str),
                        "status": certificate.status.as_str(),
                        "policies": certificate.policies,
                        "reason": certificate.reason,
                    })
                });
                say_json(&all.collect());
            } else {
                for certificate in certificates {
                    let thing = certificate.thing.as_ref().map_or("-", ThingName::as_str);
                    let status = certificate.status.as_str();
                    say(&format!("{}  {status}  {thing}", certificate.id));
                }
            }
        }
        CertCommand::Revoke { which, reason } => {
            let ids = edit::revoke(&registry_file(config)?, which, reason.as_deref())?;
            if as_json {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                say_json(&json!({ "revoked": ids }));
            } else {
                for id in ids {
                    say(&format!("Revoked {id}."));
                }
            }
            say_what_is_in_the_way(config);
        }
    }
    Ok(Outcome::Done)
}

fn issued(config: &Config, thing: &ThingName, enrolment: &Enrolment, out: &Path, as_json: bool) {
    let id: CertificateId = enrolment.issued.id;
    let key = match enrolment.issued.key_pem {
        Some(_) => out.join("key.pem"),
        None => PathBuf::from("KEY_OF_THE_DEVICE"),
    };
    let line = publish_line(config, thing, out, &key);
    let not_after = enrolment.issued.not_after.date();
    if as_json {
        say_json(&json!({
            "certificateId": id.to_string(),
            "thingName": thing.as_str(),
            "notAfter": not_after.to_string(),
            "directory": out.to_string_lossy(),
            "command": line,
        }));
        return;
    }
    say(&format!(
        "Issued and registered {id} for `{thing}`, valid until {not_after}."
    ));
    let key = if enrolment.issued.key_pem.is_some() {
        "cert.pem, key.pem and ca.pem"
    } else {
        "cert.pem and ca.pem"
    };
    say(&format!("Wrote {key} to {}.", out.display()));
    say("Try it while the gateway runs:");
    say("");
    say(&format!("  {line}"));
}

/// A command of Debian's mosquitto-clients that works with the certificate.
fn publish_line(config: &Config, thing: &ThingName, out: &Path, key: &Path) -> String {
    let host =
        server_host(&config.identity.server_certificate).unwrap_or_else(|| "localhost".to_owned());
    let port = config
        .broker
        .listeners
        .iter()
        .find(|listener| matches!(listener, Listener::Tls { .. }))
        .map_or(8883, |listener| listener.address().port());
    let quoted = |file: &Path| shell_quoted(&file.to_string_lossy());
    format!(
        "mosquitto_pub -h {host} -p {port} --cafile {} --cert {} --key {} -i {thing} -q 1 \
         -t dt/{thing}/temp -m '{{\"t\": 4.2}}'",
        quoted(&out.join("ca.pem")),
        quoted(&out.join("cert.pem")),
        quoted(key),
    )
}

fn shell_quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// The first name or address that the server certificate is for.
fn server_host(file: &Path) -> Option<String> {
    let der = CertificateDer::from_pem_file(file).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match bytes.len() {
                4 => <[u8; 4]>::try_from(*bytes)
                    .ok()
                    .map(|b| std::net::IpAddr::from(b).to_string()),
                16 => <[u8; 16]>::try_from(*bytes)
                    .ok()
                    .map(|b| std::net::IpAddr::from(b).to_string()),
                _ => None,
            },
            _ => None,
        })
}
