//! `cert list` and `cert show`.

use portcullis_core::{
    certificate::{Certificate, NameAttribute},
    identity::{CertificateId, ThingName},
    registry::{Origin, RegisteredCertificate},
};
use serde_json::{Value, json};

use crate::{
    cli::{
        Failure, Outcome,
        outcome::{say, say_json},
    },
    identity::{
        Config, issued,
        lifecycle::{self, Known, LifecycleError},
    },
};

pub(super) fn list(identity: &Config, as_json: bool) -> Result<Outcome, Failure> {
    let known = lifecycle::read(identity)?;
    let certificates = known.merged.certificates.iter();
    if as_json {
        say_json(&certificates.map(|found| to_json(found, &known)).collect());
        return Ok(Outcome::Done);
    }
    for found in certificates {
        let until = found
            .until
            .map_or_else(String::new, |until| format!("  until {until}"));
        say(&format!(
            "{}  {}  {}  {}{until}",
            found.id,
            found.status.as_str(),
            whose(found),
            origin(&found.origin)
        ));
    }
    Ok(Outcome::Done)
}

pub(super) fn show(
    identity: &Config,
    id: CertificateId,
    as_json: bool,
) -> Result<Outcome, Failure> {
    let known = lifecycle::read(identity)?;
    let found = known.merged.certificate(&id);
    let found = found.ok_or_else(|| LifecycleError::Absent(id.to_string()))?;
    let kept = issued::certificate(identity, id);
    if as_json {
        let mut value = to_json(found, &known);
        value["certificate"] = kept.as_ref().map_or(Value::Null, content);
        say_json(&value);
        return Ok(Outcome::Done);
    }
    let mut lines = vec![
        ("certificate", id.to_string()),
        ("status", found.status.as_str().to_owned()),
        ("decided", origin(&found.status_origin)),
        ("whose", whose(found)),
        ("from", origin(&found.origin)),
    ];
    lines.extend(found.reason.clone().map(|reason| ("reason", reason)));
    lines.extend(found.until.map(|until| ("until", until.to_string())));
    if !found.policies.is_empty() {
        lines.push(("policies", found.policies.join(", ")));
    }
    if let Some(ca) = known.state.certificate(&id).and_then(|state| state.ca) {
        lines.push(("ca", ca.to_string()));
    }
    match &kept {
        Some(kept) => {
            let names = kept.subject.get(NameAttribute::CommonName);
            lines.push(("common name", names.join(", ")));
            lines.push(("serial number", kept.serial_hex.clone()));
            lines.push(("valid from", kept.not_before.to_string()));
            lines.push(("valid to", kept.not_after.to_string()));
        }
        None => lines.push(("content", "not kept here".to_owned())),
    }
    for (name, value) in lines {
        say(&format!("{name:13}  {value}"));
    }
    Ok(Outcome::Done)
}

fn whose(found: &RegisteredCertificate) -> String {
    if let Some(claim) = &found.claim {
        return format!("claim {claim}");
    }
    let things: Vec<&str> = found.attached().map(ThingName::as_str).collect();
    match things.is_empty() {
        true => "-".to_owned(),
        false => things.join(", "),
    }
}

fn origin(origin: &Origin) -> String {
    match origin {
        Origin::File => "registry.toml".to_owned(),
        Origin::RunTime { why, at } => format!("run time, {at}: {why}"),
    }
}

fn to_json(found: &RegisteredCertificate, known: &Known) -> Value {
    let ca = known
        .state
        .certificate(&found.id)
        .and_then(|state| state.ca);
    json!({
        "certificateId": found.id.to_string(),
        "thingName": found.thing.as_ref().map(ThingName::as_str),
        "thingNames": found.things.iter().map(ThingName::as_str).collect::<Vec<_>>(),
        "claim": found.claim,
        "status": found.status.as_str(),
        "policies": found.policies,
        "reason": found.reason,
        "until": found.until.map(|until| until.to_string()),
        "caCertificateId": ca.map(|ca| ca.to_string()),
        "origin": origin(&found.origin),
        "statusOrigin": origin(&found.status_origin),
    })
}

fn content(kept: &Certificate) -> Value {
    json!({
        "commonNames": kept.subject.get(NameAttribute::CommonName),
        "serialNumber": kept.serial_hex,
        "notBefore": kept.not_before.to_string(),
        "notAfter": kept.not_after.to_string(),
    })
}
