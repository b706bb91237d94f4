//! Certificates that register themselves (specification A.11): just-in-time registration,
//! just-in-time provisioning, and claims over the reserved topics.
//!
//! The broker asks. [`Provisioner::introduce`]: somebody connected whose certificate TLS accepted and
//! nobody has listed; whatever comes of it, that connection is refused, and the device comes again.
//! [`Provisioner::answer`]: a device under a claim certificate published to a reserved topic.
//!
//! What is decided goes into the journal, all changes of one device in one append, and the watcher is
//! woken. Decisions are made under the journal's lock, on what it says then, so that two devices that
//! ask for one thing do not both get it.
//!
//! Stricter than AWS, where a hook of the operator would decide: nobody takes over a thing of
//! `registry.toml` that is not marked `provisionable`, a claim no thing that has or had a
//! certificate, and a CA only one whose certificates are its own and not shut out. Bounds:
//! registrations and requests a minute, in all and of each claim, devices in all and of each claim,
//! pending certificates, tokens; beyond them devices are refused and come again. One that could not be
//! registered is looked at less and less often. Absent on purpose: pre-provisioning hooks, CBOR,
//! temporary claims.

mod claim;
mod grant;
mod metrics;
mod quota;
mod retries;
mod tokens;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use portcullis_core::{
    certificate::Certificate,
    identity::{CertificateId, Principal},
    limits::{
        ANNOUNCE_INTERVAL, CLAIM_REQUESTS_PER_CLAIM_PER_MINUTE_MAX, CLAIM_REQUESTS_PER_MINUTE_MAX,
        PENDING_CERTIFICATES_MAX, REGISTRATIONS_PER_MINUTE_MAX,
    },
    provisioning::{Way, registered_topic},
    registry::{AutoRegistration, Change, StateCertificate, Status},
    timestamp::Timestamp,
    topic::TopicName,
};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{Instant, timeout},
};

pub use metrics::Metrics;

use super::{Config, Journal, Snapshot, SnapshotWatch, TrustedCa, issued, trust};
use crate::{chain::chain, clock::now};
use grant::Denied;
use quota::{Quota, Quotas};
use retries::Retries;
use tokens::Tokens;

/// How long an answer waits until the new certificate may connect; the watcher needs a fraction.
const APPLY_TIMEOUT: Duration = Duration::from_secs(3);

/// Registers certificates on behalf of devices. Cheap to clone; clones share bounds and tokens.
#[derive(Clone)]
pub struct Provisioner(Arc<Inner>);

struct Inner {
    config: Config,
    /// `awsAccountId` in announcements.
    account: String,
    snapshots: SnapshotWatch,
    journal: Journal,
    reload: Arc<Notify>,
    metrics: Metrics,
    held: Mutex<Held>,
}

/// What is not on disk: a restart forgets it, and devices ask again.
struct Held {
    introductions: Quota,
    retries: Retries,
    claims: Quota,
    of_each_claim: Quotas,
    tokens: Tokens,
    announced: HashMap<CertificateId, Instant>,
}

impl fmt::Debug for Provisioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provisioner").finish_non_exhaustive()
    }
}

/// Something to publish on a reserved topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Where.
    pub topic: TopicName,
    /// What: JSON.
    pub payload: Bytes,
}

/// What came of a certificate that nobody had listed. The connection is refused in any case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Introduction {
    /// Its CA registers nobody by itself, or it was decided otherwise before.
    NotRegistered,
    /// It waits for `portcullis cert approve`.
    Pending(Vec<Announcement>),
    /// It may connect now, as what the template says.
    Provisioned(Vec<Announcement>),
    /// It would have been registered.
    Failed {
        /// The metric label.
        reason: &'static str,
        /// For the log.
        error: String,
    },
}

impl Provisioner {
    /// Writes to `journal`, wakes the watcher of `snapshots` through `reload`.
    pub fn new(
        config: Config,
        account: impl Into<String>,
        snapshots: SnapshotWatch,
        journal: Journal,
        reload: Arc<Notify>,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Inner {
            config,
            account: account.into(),
            snapshots,
            journal,
            reload,
            metrics,
            held: Mutex::new(Held {
                introductions: Quota::new(REGISTRATIONS_PER_MINUTE_MAX),
                retries: Retries::default(),
                claims: Quota::new(CLAIM_REQUESTS_PER_MINUTE_MAX),
                of_each_claim: Quotas::new(CLAIM_REQUESTS_PER_CLAIM_PER_MINUTE_MAX),
                tokens: Tokens::default(),
                announced: HashMap::new(),
            }),
        }))
    }

    /// A certificate that TLS accepted was refused with
    /// [`Refusal::CertificateUnknown`](super::Refusal::CertificateUnknown) or
    /// [`Refusal::CertificatePending`](super::Refusal::CertificatePending): registers it if its
    /// CA says so. `chain` is what the client sent, its own certificate first.
    pub async fn introduce(
        &self,
        shown: &Arc<Certificate>,
        chain: &[CertificateDer<'static>],
    ) -> Introduction {
        let this = Arc::clone(&self.0);
        let (shown, chain) = (Arc::clone(shown), chain.to_vec());
        let done = spawn_blocking(move || this.introduce(&shown, &chain)).await;
        let introduction = done.unwrap_or_else(|error| Introduction::Failed {
            reason: "internal",
            error: error.to_string(),
        });
        let outcome = match &introduction {
            Introduction::NotRegistered => "not-registered",
            Introduction::Pending(_) => "pending",
            Introduction::Provisioned(_) => "provisioned",
            Introduction::Failed { reason, .. } => reason,
        };
        let introductions = &self.0.metrics.introductions;
        introductions.with_label_values(&[outcome]).inc();
        introduction
    }

    /// Whether `topic` is one that [`Self::answer`] answers.
    pub fn serves(topic: &TopicName) -> bool {
        claim::Request::of(topic).is_some()
    }

    /// The answer to what `principal` published on `topic`, for that session alone. What a principal
    /// without claim asks is rejected, whatever its policies.
    pub async fn answer(
        &self,
        principal: &Principal,
        topic: &TopicName,
        payload: &[u8],
    ) -> Announcement {
        let this = Arc::clone(&self.0);
        let asking = claim::Asking {
            claim: principal.claim.clone(),
            certificate: principal.certificate_id(),
        };
        let (of, bytes) = (topic.clone(), payload.to_vec());
        let answered = spawn_blocking(move || this.answer(&asking, &of, &bytes)).await;
        let answer = answered.unwrap_or_else(|_| Err(Denied::internal("the request was lost")));
        if let Ok(claim::Accepted {
            provisioned: Some(id),
            ..
        }) = &answer
        {
            self.0.until_in_force(*id).await;
        }
        let outcome = answer
            .as_ref()
            .map_or_else(|denied| denied.label, |_| "accepted");
        self.0.metrics.requests.with_label_values(&[outcome]).inc();
        claim::announcement(topic, answer)
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    fn introduce(&self, shown: &Certificate, chain: &[CertificateDer<'static>]) -> Introduction {
        let snapshot = self.snapshot();
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Introduction::NotRegistered;
        };
        if CertificateId::of_der(leaf) != shown.id || snapshot.trust().revokes(shown) {
            return Introduction::NotRegistered;
        }
        let cas = &snapshot.trust().authorities;
        let ca = match trust::check(cas, leaf, intermediates) {
            Ok(ca) => ca,
            Err(error) => {
                return Introduction::Failed {
                    reason: "unfit",
                    error: error.to_string(),
                };
            }
        };
        let known = snapshot.certificate(&shown.id);
        if let Some(known) = known {
            self.held().retries.forget(shown.id);
            return match known.status {
                Status::PendingActivation => self.pending(ca, shown.id, now()),
                _ => Introduction::NotRegistered,
            };
        }
        if !ca.registers() {
            return Introduction::NotRegistered;
        }
        if let Err((reason, error)) = self.may_introduce(shown.id) {
            return Introduction::Failed { reason, error };
        }
        let done = match &ca.template {
            Some(template) => self.provision_just_in_time(&snapshot, ca, template, shown),
            None => self.register(ca, shown.id),
        };
        match done {
            Ok(introduction) => {
                if let Err(error) = issued::keep_chain(&self.config, leaf, intermediates) {
                    tracing::warn!(error = %chain_of(&error), "A certificate could not be kept for policy tests.");
                }
                self.reload.notify_one();
                introduction
            }
            Err(denied) => Introduction::Failed {
                reason: denied.label,
                error: denied.message,
            },
        }
    }

    /// Whether `id` may be looked at now; else the metric label, and why.
    fn may_introduce(&self, id: CertificateId) -> Result<(), (&'static str, String)> {
        let mut held = self.held();
        if let Some(wait) = held.retries.wait(id) {
            let seconds = wait.as_secs() + 1;
            let error = format!("it was looked at before; the next look is in {seconds} s");
            return Err(("retry", error));
        }
        if !held.introductions.take() {
            let error = format!("more than {REGISTRATIONS_PER_MINUTE_MAX} registrations a minute");
            return Err(("rate", error));
        }
        // Whatever comes of it: until it is in force, each look counts.
        held.retries.looked_at(id);
        Ok(())
    }

    /// Just-in-time registration.
    fn register(&self, ca: &TrustedCa, id: CertificateId) -> Result<Introduction, Denied> {
        debug_assert_eq!(ca.auto_registration, AutoRegistration::Enable);
        let at = now();
        let announced_at = self.journal.append_for_device(|state| {
            if let Some(known) = state.certificate(&id) {
                // It came twice at once, or was decided on a moment ago.
                let at = (known.status == Status::PendingActivation).then_some(known.at);
                return Ok((at, Vec::new()));
            }
            let pending = state.certificates();
            let pending = pending.filter(|known| known.status == Status::PendingActivation);
            if pending.count() >= PENDING_CERTIFICATES_MAX {
                return Err(Denied::pending_full());
            }
            let why = format!("just-in-time registration, CA {}", ca.subject);
            let mut certificate = StateCertificate::new(id, Status::PendingActivation, at, why);
            certificate.ca = Some(ca.id);
            Ok((Some(at), vec![Change::Certificate(certificate)]))
        })?;
        Ok(match announced_at {
            Some(at) => self.pending(ca, id, at),
            None => Introduction::NotRegistered,
        })
    }

    /// Just-in-time provisioning.
    fn provision_just_in_time(
        &self,
        snapshot: &Snapshot,
        ca: &TrustedCa,
        template: &str,
        shown: &Certificate,
    ) -> Result<Introduction, Denied> {
        let template = snapshot
            .templates()
            .get(template)
            .ok_or_else(|| Denied::no_template(template))?;
        let plan = template.fill(Way::JustInTime, shown, &BTreeMap::new())?;
        let at = now();
        let why = format!("template {}, CA {}", template.name(), ca.subject);
        let granted = self.journal.append_for_device(|state| {
            if state.certificate(&shown.id).is_some() {
                return Ok((false, Vec::new()));
            }
            let grant = grant::Grant {
                way: Way::JustInTime,
                plan: &plan,
                certificate: shown.id,
                ca: Some(ca.id),
                claim: None,
                room: self.config.room,
                why: &why,
                at,
            };
            Ok::<_, Denied>((true, grant.changes(snapshot, state)?))
        })?;
        if !granted {
            return Ok(Introduction::NotRegistered);
        }
        let thing = &plan.thing.name;
        tracing::info!(certificate = %shown.id, %thing, template = %template.name(), "A certificate was provisioned.");
        let status = grant::status(plan.status);
        Ok(Introduction::Provisioned(vec![
            self.registered(ca, shown.id, status, at),
        ]))
    }

    /// Announced at most once a second, however often the device tries.
    fn pending(&self, ca: &TrustedCa, id: CertificateId, at: Timestamp) -> Introduction {
        let moment = Instant::now();
        let mut held = self.held();
        let is_due = held
            .announced
            .get(&id)
            .is_none_or(|last| moment.duration_since(*last) >= ANNOUNCE_INTERVAL);
        if !is_due {
            return Introduction::Pending(Vec::new());
        }
        held.announced
            .retain(|_, last| moment.duration_since(*last) < ANNOUNCE_INTERVAL);
        held.announced.insert(id, moment);
        drop(held);
        tracing::warn!(
            certificate = %id, ca = %ca.subject,
            "A certificate waits for approval: `portcullis cert approve {id}`."
        );
        let registered = self.registered(ca, id, Status::PendingActivation, at);
        Introduction::Pending(vec![registered])
    }

    /// In AWS's words.
    fn registered(
        &self,
        ca: &TrustedCa,
        id: CertificateId,
        status: Status,
        at: Timestamp,
    ) -> Announcement {
        let payload = json!({
            "certificateId": id.to_string(),
            "caCertificateId": ca.id.to_string(),
            "timestamp": now().as_millis(),
            "certificateStatus": status.as_str(),
            "awsAccountId": self.account,
            "certificateRegistrationTimestamp": at.as_millis().to_string(),
        });
        Announcement {
            topic: topic(&registered_topic(ca.id)),
            payload: payload.to_string().into(),
        }
    }

    /// Until the certificate is in a snapshot, so that who has its answer may connect at once.
    async fn until_in_force(&self, id: CertificateId) {
        let mut snapshots = self.snapshots.clone();
        let listed = snapshots.wait_for(|snapshot| snapshot.certificate(&id).is_some());
        if timeout(APPLY_TIMEOUT, listed).await.is_err() {
            tracing::warn!(certificate = %id, "A provisioned certificate is not in force yet: is a change refused?");
        }
    }
}

fn chain_of(error: &dyn std::error::Error) -> String {
    chain(error)
}

/// Of a text that is made of our own words, ids and names of templates.
fn topic(text: &str) -> TopicName {
    TopicName::parse(text).expect("reserved topics are valid and short")
}
