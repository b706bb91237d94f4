//! Claim provisioning over the reserved topics: a device with a shared claim certificate gets one of
//! its own, signed by the local CA, and becomes a thing.

use std::{collections::BTreeMap, sync::Arc};

use portcullis_core::{
    certificate::Certificate,
    identity::CertificateId,
    limits::{
        CLAIM_REQUESTS_PER_CLAIM_PER_MINUTE_MAX, CLAIM_REQUESTS_PER_MINUTE_MAX,
        PROVISION_REQUEST_BYTES_MAX,
    },
    provisioning::Way,
    registry::CaStatus,
    topic::TopicName,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Announcement, Inner, Snapshot,
    grant::{Denied, Grant},
    tokens::Given,
    topic,
};
use crate::{
    chain::chain,
    clock::now,
    identity::{
        authority::{Authority, AuthorityError, DEVICE_DAYS, Issued, Subject},
        issued,
    },
};

/// Common name of certificates that are made before anybody knows for whom. Nothing of a signing
/// request goes into them: policies may rely on the subject.
const COMMON_NAME: &str = "provisioned device";

/// What a topic asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// `$aws/certificates/create/json`
    Create,
    /// `$aws/certificates/create-from-csr/json`
    CreateFromCsr,
    /// `$aws/provisioning-templates/NAME/provision/json`
    Provision(String),
}

impl Request {
    pub(super) fn of(topic: &TopicName) -> Option<Self> {
        match topic.as_str().strip_prefix("$aws/")? {
            "certificates/create/json" => Some(Self::Create),
            "certificates/create-from-csr/json" => Some(Self::CreateFromCsr),
            other => {
                let rest = other.strip_prefix("provisioning-templates/")?;
                let name = rest.strip_suffix("/provision/json")?;
                (!name.is_empty() && !name.contains('/')).then(|| Self::Provision(name.to_owned()))
            }
        }
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub(super) claim: Option<Arc<str>>,
    pub(super) certificate: Option<CertificateId>,
}

/// What is answered.
#[derive(Debug)]
pub(super) struct Accepted {
    payload: Value,
    /// The certificate that may connect from now on.
    pub(super) provisioned: Option<CertificateId>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreateFromCsr {
    certificate_signing_request: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Provision {
    certificate_ownership_token: String,
    #[serde(default)]
    parameters: BTreeMap<String, String>,
}

/// On `…/accepted` or `…/rejected`.
pub(super) fn announcement(of: &TopicName, answer: Result<Accepted, Denied>) -> Announcement {
    let (outcome, payload) = match answer {
        Ok(accepted) => ("accepted", accepted.payload),
        Err(denied) => (
            "rejected",
            json!({
                "statusCode": denied.status,
                "errorCode": denied.code,
                "errorMessage": denied.message,
            }),
        ),
    };
    Announcement {
        topic: topic(&format!("{of}/{outcome}")),
        payload: payload.to_string().into(),
    }
}

impl Inner {
    pub(super) fn answer(
        &self,
        asking: &Asking,
        of: &TopicName,
        payload: &[u8],
    ) -> Result<Accepted, Denied> {
        let request = Request::of(of)
            .ok_or_else(|| Denied::new(404, "ResourceNotFound", "no-service", "no such service"))?;
        let (Some(template), Some(claim)) = (&asking.claim, asking.certificate) else {
            let message = "only a claim certificate may ask";
            return Err(Denied::new(403, "Forbidden", "no-claim", message));
        };
        if payload.len() > PROVISION_REQUEST_BYTES_MAX {
            let message = format!("the request has more than {PROVISION_REQUEST_BYTES_MAX} bytes");
            return Err(Denied::new(413, "RequestTooLarge", "too-large", message));
        }
        if let Request::Provision(name) = &request
            && **name != **template
        {
            let message = format!("the claim certificate is not for the template `{name}`");
            return Err(Denied::new(403, "Forbidden", "other-template", message));
        }
        self.count(claim)?;
        let snapshot = self.snapshot();
        let answer = match request {
            Request::Create => self.create(&snapshot, claim, None),
            Request::CreateFromCsr => {
                let asked: CreateFromCsr = read(payload)?;
                self.create(&snapshot, claim, Some(&asked.certificate_signing_request))
            }
            Request::Provision(_) => self.provision(&snapshot, claim, template, &read(payload)?),
        };
        let tokens = self.held().tokens.len();
        self.metrics
            .tokens
            .set(i64::try_from(tokens).unwrap_or(i64::MAX));
        answer
    }

    /// A claim that asks too often does not use up what the others may.
    fn count(&self, claim: CertificateId) -> Result<(), Denied> {
        let mut held = self.held();
        let denied = |label, max: u32, whose| {
            let message = format!("more than {max} requests a minute{whose}");
            Err(Denied::new(429, "TooManyRequests", label, message))
        };
        if !held.of_each_claim.take(claim) {
            let max = CLAIM_REQUESTS_PER_CLAIM_PER_MINUTE_MAX;
            return denied("claim-rate", max, " under this claim certificate");
        }
        if !held.claims.take() {
            return denied("rate", CLAIM_REQUESTS_PER_MINUTE_MAX, "");
        }
        Ok(())
    }

    /// A certificate, with a key unless the device has one, and the token for the next call.
    fn create(
        &self,
        snapshot: &Snapshot,
        claim: CertificateId,
        request: Option<&str>,
    ) -> Result<Accepted, Denied> {
        let full = |_| {
            let message = "too many certificates wait for their provisioning";
            Denied::new(429, "LimitExceeded", "tokens-full", message)
        };
        self.held().tokens.has_room(claim).map_err(full)?;
        let authorities = snapshot.trust().authorities.iter();
        let active = authorities.filter(|ca| ca.status == CaStatus::Active);
        let authority = Authority::open_first(active.map(|ca| &ca.file)).map_err(unsigned)?;
        let subject = Subject::named(COMMON_NAME);
        let made: Issued = match request {
            None => authority.issue_device(&subject, DEVICE_DAYS),
            Some(request) => authority.sign_request_text(request, &subject, DEVICE_DAYS),
        }
        .map_err(unsigned)?;
        let der = CertificateDer::from_pem_slice(made.certificate_pem.as_bytes());
        let der = der.map_err(|_| Denied::internal("the certificate is unreadable"))?;
        let certificate = Certificate::parse(&der);
        let certificate =
            certificate.map_err(|_| Denied::internal("the certificate is unreadable"))?;
        let given = Given {
            certificate,
            der,
            ca: authority.id(),
            claim,
        };
        let mut held = self.held();
        // Again, because others asked meanwhile.
        held.tokens.has_room(claim).map_err(full)?;
        let token = held.tokens.give(given);
        drop(held);
        let pem = format!("{}{}", made.certificate_pem, authority.intermediates_pem());
        let mut payload = json!({
            "certificateId": made.id.to_string(),
            "certificatePem": pem,
            "certificateOwnershipToken": token,
        });
        if let Some(key) = made.key_pem {
            payload["privateKey"] = key.into();
        }
        Ok(Accepted {
            payload,
            provisioned: None,
        })
    }

    /// Registers the certificate, and its thing as the template says.
    fn provision(
        &self,
        snapshot: &Snapshot,
        claim: CertificateId,
        template: &str,
        asked: &Provision,
    ) -> Result<Accepted, Denied> {
        let token = &asked.certificate_ownership_token;
        let taken = self.held().tokens.take(token, claim);
        let Some((given, until)) = taken else {
            let message = "the certificate ownership token is unknown, used or expired";
            let code = "InvalidCertificateOwnershipToken";
            return Err(Denied::new(400, code, "token", message));
        };
        let done = self.register_claimed(snapshot, claim, template, &given, &asked.parameters);
        if done.is_err() {
            self.held().tokens.put_back(token, (given, until));
        }
        done
    }

    fn register_claimed(
        &self,
        snapshot: &Snapshot,
        claim: CertificateId,
        name: &str,
        given: &Given,
        parameters: &BTreeMap<String, String>,
    ) -> Result<Accepted, Denied> {
        let template = snapshot
            .templates()
            .get(name)
            .ok_or_else(|| Denied::no_template(name))?;
        let plan = template.fill(Way::Claim, &given.certificate, parameters)?;
        let id = given.certificate.id;
        let why = format!("template {name}, claim {claim}");
        self.journal.append_for_device(|state| {
            let grant = Grant {
                way: Way::Claim,
                plan: &plan,
                certificate: id,
                ca: Some(given.ca),
                claim: Some(claim),
                room: self.config.room,
                why: &why,
                at: now(),
            };
            Ok::<_, Denied>(((), grant.changes(snapshot, state)?))
        })?;
        if let Err(error) = issued::keep(&self.config, &given.der) {
            tracing::warn!(error = %chain(&error), "A certificate could not be kept for policy tests.");
        }
        self.reload.notify_one();
        let thing = &plan.thing.name;
        tracing::info!(certificate = %id, %thing, %claim, template = name, "A device was provisioned.");
        Ok(Accepted {
            payload: json!({
                "deviceConfiguration": plan.device_configuration,
                "thingName": thing.as_str(),
            }),
            provisioned: Some(id),
        })
    }
}

fn read<T: for<'de> Deserialize<'de>>(payload: &[u8]) -> Result<T, Denied> {
    serde_json::from_slice(payload).map_err(|error| {
        let message = format!("the request is not what this topic takes: {error}");
        Denied::new(400, "InvalidPayload", "payload", message)
    })
}

/// A device learns what is wrong with its request, and no more of ours than that something is.
fn unsigned(error: AuthorityError) -> Denied {
    match error {
        AuthorityError::Request(why) => {
            let message = format!("the signing request is refused: {why}");
            Denied::new(400, "InvalidCertificateSigningRequest", "request", message)
        }
        error => {
            tracing::error!(error = %chain(&error), "The local CA cannot sign.");
            Denied::internal("the local CA cannot sign")
        }
    }
}
