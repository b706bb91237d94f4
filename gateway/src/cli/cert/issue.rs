//! What `cert issue` and `cert renew` say, and a command to try it with.

use std::path::{Path, PathBuf};

use portcullis_core::{
    identity::{CertificateId, ThingName},
    timestamp::Timestamp,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::ClaimArgs;
use crate::{
    broker::Listener,
    cli::outcome::{say, say_json},
    config::Config,
    identity::enrol::Enrolment,
};

/// `ending` are certificates of the thing that end now that this one is there.
pub(super) fn issued(
    config: &Config,
    thing: &ThingName,
    enrolment: &Enrolment,
    out: &Path,
    ending: &[(CertificateId, Timestamp)],
    as_json: bool,
) {
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
            "ending": ending.iter().map(|(id, until)| json!({
                "certificateId": id.to_string(), "until": until.to_string(),
            })).collect::<Vec<_>>(),
        }));
        return;
    }
    say(&format!(
        "Issued and registered {id} for `{thing}`, valid until {not_after}."
    ));
    say(&format!(
        "Wrote {} to {}.",
        written(enrolment),
        out.display()
    ));
    for (id, until) in ending {
        say(&format!("{id} ends at {until}."));
    }
    say("Try it while the gateway runs:");
    say("");
    say(&format!("  {line}"));
}

/// What `cert issue --claim` says.
pub(super) fn issued_claim(claim: &ClaimArgs, enrolment: &Enrolment, out: &Path, as_json: bool) {
    let issued = &enrolment.issued;
    let template = claim.claim.as_deref().unwrap_or_default();
    let not_after = issued.not_after.date();
    if as_json {
        say_json(&json!({
            "certificateId": issued.id.to_string(),
            "claim": template,
            "policies": claim.policies,
            "notAfter": not_after.to_string(),
            "directory": out.to_string_lossy(),
        }));
        return;
    }
    say(&format!(
        "Issued and registered {} as a claim for the template `{template}`, valid until {not_after}.{}",
        issued.id,
        claim.hint()
    ));
    say(&format!(
        "Wrote {} to {}.",
        written(enrolment),
        out.display()
    ));
    say("Put them into the devices that are to ask for certificates of their own.");
}

fn written(enrolment: &Enrolment) -> &'static str {
    match enrolment.issued.key_pem {
        Some(_) => "cert.pem, key.pem and ca.pem",
        None => "cert.pem and ca.pem",
    }
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
