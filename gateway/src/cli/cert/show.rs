//! `cert list` and `cert show`: what registry and journal say of certificates, and what the gateway
//! would make of them.

use portcullis_core::{
    certificate::NameAttribute,
    identity::{CertificateId, ThingName},
    registry::{Origin, RegisteredCertificate, Registry, Status},
};
use serde_json::{Value, json};

use super::which::{self, Named};
use crate::{
    cli::{
        Failure, Outcome,
        outcome::{say, say_json},
    },
    identity::{
        Config,
        effective::{Examined, Examiner},
        issued::Kept,
        lifecycle::{self, LifecycleError},
    },
};

pub(super) fn list(identity: &Config, ca: Option<&str>, as_json: bool) -> Result<Outcome, Failure> {
    let known = lifecycle::read(identity)?;
    let examiner = Examiner::new(identity, &known.merged, &known.state);
    let certificates = known.merged.certificates.iter();
    let mut found: Vec<_> = certificates
        .map(|listed| (listed, examiner.examine(listed)))
        .collect();
    if let Some(ca) = ca {
        let wanted = of_ca(&examiner, &found, ca)?;
        found.retain(|(_, examined)| examined.ca == Some(wanted));
    }
    if as_json {
        let found = found.iter();
        say_json(
            &found
                .map(|(listed, examined)| to_json(listed, examined))
                .collect(),
        );
        return Ok(Outcome::Done);
    }
    for (listed, examined) in &found {
        say(&line(listed, examined));
    }
    Ok(Outcome::Done)
}

/// The CA that `text` means: its id, the beginning of it, or a file with it.
fn of_ca(
    examiner: &Examiner<'_>,
    found: &[(&RegisteredCertificate, Examined<'_>)],
    text: &str,
) -> Result<CertificateId, Failure> {
    if let Some(id) = CertificateId::parse(text) {
        return Ok(id);
    }
    if let Some(id) = which::in_file(text)? {
        return Ok(id);
    }
    let named = examiner.authorities().iter().map(|ca| ca.id);
    let mut ids: Vec<CertificateId> = named
        .chain(found.iter().filter_map(|(_, examined)| examined.ca))
        .filter(|id| which::begins_an_id(text) && which::begins(*id, text))
        .collect();
    ids.sort_by_key(ToString::to_string);
    ids.dedup();
    match ids[..] {
        [id] => Ok(id),
        [] => Err(Failure::BadInput(format!(
            "no CA here begins with `{text}`; write its id as `portcullis cert list --json` does, or a file with it"
        ))),
        _ => Err(Failure::BadInput(format!(
            "{} CAs begin with `{text}`; write more of its digits",
            ids.len()
        ))),
    }
}

fn line(listed: &RegisteredCertificate, examined: &Examined<'_>) -> String {
    let mut line = format!("{}  {}  {}", listed.id, examined.effective, whose(listed));
    if let Some(kept) = &examined.kept {
        line += &format!("  to {}", kept.certificate.not_after);
    }
    if let Some(until) = listed.until {
        line += &format!("  until {until}");
    }
    match issuer(examined) {
        Some(issuer) => line += &format!("  by {issuer}"),
        None => line += "  by ?",
    }
    line + &format!("  {}", origin(&listed.origin))
}

/// Who signed it, as far as that is known.
fn issuer(examined: &Examined<'_>) -> Option<String> {
    let kept = examined.kept.as_ref().map(Kept::issuer);
    kept.or_else(|| examined.authority.map(|ca| ca.subject.clone()))
        .or_else(|| examined.ca.map(|ca| ca.to_string()))
}

/// The certificate that `text` means to whoever wants to see it.
fn meant(registry: &Registry, text: &str) -> Result<CertificateId, Failure> {
    let named = Named {
        belongs: &which::of_thing,
        is_meant: &|listed| listed.status == Status::Active,
    };
    which::one(registry, text, &named)
}

pub(super) fn show(identity: &Config, text: &str, as_json: bool) -> Result<Outcome, Failure> {
    let known = lifecycle::read(identity)?;
    let id = meant(&known.merged, text)?;
    let found = known.merged.certificate(&id);
    let found = found.ok_or_else(|| LifecycleError::Absent(id.to_string()))?;
    let examiner = Examiner::new(identity, &known.merged, &known.state);
    let examined = examiner.examine(found);
    if as_json {
        let mut value = to_json(found, &examined);
        value["certificate"] = examined.kept.as_ref().map_or(Value::Null, content);
        say_json(&value);
        return Ok(Outcome::Done);
    }
    for (name, value) in lines(found, &examined) {
        say(&format!("{name:13}  {value}"));
    }
    Ok(Outcome::Done)
}

fn lines(found: &RegisteredCertificate, examined: &Examined<'_>) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("certificate", found.id.to_string()),
        ("status", examined.effective.to_string()),
    ];
    if examined.effective.outcome.as_str() != found.status.as_str() {
        lines.push(("registered as", found.status.as_str().to_owned()));
    }
    lines.extend([
        ("decided", origin(&found.status_origin)),
        ("whose", whose(found)),
        ("from", origin(&found.origin)),
    ]);
    lines.extend(found.reason.clone().map(|reason| ("reason", reason)));
    lines.extend(found.until.map(|until| ("until", until.to_string())));
    if !found.policies.is_empty() {
        lines.push(("policies", found.policies.join(", ")));
    }
    if let Some(ca) = examined.ca {
        let subject = examined.authority.map(|ca| format!("  {}", ca.subject));
        lines.push(("ca", format!("{ca}{}", subject.unwrap_or_default())));
    }
    let Some(kept) = &examined.kept else {
        let text = "not kept here: its own time and its issuer are not known";
        lines.push(("content", text.to_owned()));
        return lines;
    };
    for (name, attribute) in [
        ("common name", NameAttribute::CommonName),
        ("organization", NameAttribute::Organization),
        ("unit", NameAttribute::OrganizationalUnit),
    ] {
        let values = kept.certificate.subject.get(attribute);
        if !values.is_empty() || attribute == NameAttribute::CommonName {
            lines.push((name, values.join(", ")));
        }
    }
    let alternatives = alternatives(kept);
    if !alternatives.is_empty() {
        let texts = alternatives
            .iter()
            .map(|(kind, name)| format!("{kind}:{name}"));
        lines.push(("also", texts.collect::<Vec<_>>().join(", ")));
    }
    lines.push(("issuer", kept.issuer()));
    lines.push(("serial number", kept.certificate.serial_hex.clone()));
    lines.push(("valid from", kept.certificate.not_before.to_string()));
    lines.push(("valid to", kept.certificate.not_after.to_string()));
    lines
}

/// Alternative names of the subject, each with its kind.
fn alternatives(kept: &Kept) -> Vec<(&'static str, &str)> {
    let kinds = [
        ("dns", NameAttribute::DnsName),
        ("ip", NameAttribute::IpAddress),
        ("uri", NameAttribute::UniformResourceIdentifier),
        ("email", NameAttribute::Rfc822Name),
        ("directory", NameAttribute::DirectoryName),
    ];
    let subject = &kept.certificate.subject;
    let of_kind = |(kind, attribute)| {
        let names = subject.get(attribute).iter();
        names.map(move |name| (kind, name.as_str()))
    };
    kinds.into_iter().flat_map(of_kind).collect()
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

fn to_json(found: &RegisteredCertificate, examined: &Examined<'_>) -> Value {
    let kept = examined.kept.as_ref();
    json!({
        "certificateId": found.id.to_string(),
        "thingName": found.thing.as_ref().map(ThingName::as_str),
        "thingNames": found.things.iter().map(ThingName::as_str).collect::<Vec<_>>(),
        "claim": found.claim,
        "status": found.status.as_str(),
        "effectiveStatus": examined.effective.outcome.as_str(),
        "why": examined.effective.why,
        "policies": found.policies,
        "reason": found.reason,
        "until": found.until.map(|until| until.to_string()),
        "notAfter": kept.map(|kept| kept.certificate.not_after.to_string()),
        "issuer": issuer(examined),
        "caCertificateId": examined.ca.map(|ca| ca.to_string()),
        "origin": origin(&found.origin),
        "statusOrigin": origin(&found.status_origin),
    })
}

fn content(kept: &Kept) -> Value {
    let subject = &kept.certificate.subject;
    let alternatives = alternatives(kept);
    let alternatives = alternatives
        .iter()
        .map(|(kind, name)| json!({ "kind": kind, "name": name }));
    json!({
        "commonNames": subject.get(NameAttribute::CommonName),
        "organizations": subject.get(NameAttribute::Organization),
        "organizationalUnits": subject.get(NameAttribute::OrganizationalUnit),
        "subjectAlternativeNames": alternatives.collect::<Vec<_>>(),
        "issuer": kept.issuer(),
        "serialNumber": kept.certificate.serial_hex,
        "notBefore": kept.certificate.not_before.to_string(),
        "notAfter": kept.certificate.not_after.to_string(),
    })
}
