//! Whether the client may still be here, and have what it has: asked when the configuration changes
//! and when its time is up (invariant 9).
//!
//! A change wakes every session. Most find that nothing changed for them, which costs a look-up and
//! a few pointer comparisons, and keeps what was decided; the others decide anew.

use std::sync::Arc;

use portcullis_core::{
    identity::{Principal, Thing},
    limits::VALIDITY_CHECK,
    timestamp::Timestamp,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Client, End};
use crate::{
    broker::denials::Denial,
    clock::{now, ticks},
    identity::Refusal,
};

impl<S> Client<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// The registry or a policy changed: who may not connect any more goes, and subscriptions that
    /// are not allowed any more are dropped. So does the session of one who is another thing now: the
    /// device comes again as that. Who is shut out leaves no will: it would be published
    /// with rights that are gone.
    pub(super) fn reauthorize(&mut self) -> Result<(), End> {
        let outcome = self.decide_anew();
        let label = match &outcome {
            Ok(label) => *label,
            Err(_) => "shut-out",
        };
        let reauthorized = &self.shared.metrics.reauthorized;
        reauthorized.with_label_values(&[label]).inc();
        outcome.map(drop)
    }

    fn decide_anew(&mut self) -> Result<&'static str, End> {
        let snapshot = self.identity.borrow_and_update().clone();
        let former = self.admission.principal();
        let renewed = snapshot.authenticate(&self.credential, &former.client_id, former.source);
        let principal = renewed.map_err(|refusal| self.shut_out(&refusal))?;
        let (shared, limits) = (&self.shared, &self.shared.config.limits.publish);
        let pace = &mut self.pace;
        shared
            .paces
            .renew(pace, &principal, limits, &snapshot, ticks());
        if is_same(former, &principal) {
            return Ok("unchanged");
        }
        let name = |principal: &Principal| principal.thing.as_ref().map(|t| t.name.clone());
        if name(former) != name(&principal) {
            // Whose session is it? What was told of it was told of the former one.
            return Err(End::ShutOut("thing-changed"));
        }
        self.validity_check = next_check(principal.valid_until);
        self.admission.renew(principal);
        if let Err(denied) = self.admission.connect() {
            self.shared.note_denied(self.principal(), &denied);
            return Err(End::ShutOut("policy"));
        }
        for (filter, denied) in self.drop_denied()? {
            self.shared.note_denied(self.principal(), &denied);
            self.dropped.push(filter);
        }
        Ok("renewed")
    }

    /// Whether the client could stay, were it not for what ended the session.
    pub(super) fn may_stay(&mut self) -> Result<(), End> {
        self.look()?;
        self.check_validity()
    }

    fn shut_out(&self, refusal: &Refusal) -> End {
        let former = self.principal();
        self.shared.neighbours.denials.note(Denial {
            client: Some(former.client_id.to_string()),
            thing: former.thing.as_ref().map(|thing| thing.name.to_string()),
            certificate: former.certificate_id().map(|id| id.to_string()),
            detail: Some(format!("it would not be let in now: {refusal}")),
            ..Denial::new("connect", refusal.reason(), former.source)
        });
        End::ShutOut(refusal.reason())
    }

    /// Its time may be up; what it still has is noted.
    pub(super) fn check_validity(&mut self) -> Result<(), End> {
        let valid_until = self.principal().valid_until;
        if valid_until.is_some_and(|end| end <= now()) {
            return Err(End::Expired);
        }
        self.validity_check = next_check(valid_until);
        let filters = self.filters();
        self.admission.note_what_stands(filters.iter());
        Ok(())
    }
}

/// When to look at the time: at the end of the validity if that is soon, else after a while, because
/// the clock may be set meanwhile.
pub(super) fn next_check(valid_until: Option<Timestamp>) -> Instant {
    let left = valid_until.map(|end| std::time::Duration::from_millis(end.millis_since(now())));
    Instant::now() + left.map_or(VALIDITY_CHECK, |left| left.min(VALIDITY_CHECK))
}

/// Whether what was decided for `former` holds for `renewed`.
fn is_same(former: &Principal, renewed: &Principal) -> bool {
    let same_policies = || {
        let (former, renewed) = (former.policies.policies(), renewed.policies.policies());
        let mut pairs = former.iter().zip(renewed);
        former.len() == renewed.len() && pairs.all(|(a, b)| Arc::ptr_eq(a, b))
    };
    is_same_thing(former.thing.as_ref(), renewed.thing.as_ref())
        && former.valid_until == renewed.valid_until
        && former.claim == renewed.claim
        && former.on_publish_denied == renewed.on_publish_denied
        && same_policies()
}

fn is_same_thing(former: Option<&Arc<Thing>>, renewed: Option<&Arc<Thing>>) -> bool {
    match (former, renewed) {
        (Some(former), Some(renewed)) => Arc::ptr_eq(former, renewed) || former == renewed,
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use portcullis_core::{
        identity::{ClientId, ThingName},
        policy::{Policy, PolicySet},
    };

    use super::*;

    fn policy() -> Arc<Policy> {
        let json = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Publish","Resource":"*"}}"#;
        Arc::new(Policy::parse("all", json).unwrap())
    }

    fn thing(groups: &[&str]) -> Arc<Thing> {
        let name = |name: &&str| portcullis_core::identity::GroupName::parse(name).unwrap();
        Arc::new(Thing {
            name: ThingName::parse("t").unwrap(),
            thing_type: None,
            attributes: Default::default(),
            groups: groups.iter().map(name).collect(),
        })
    }

    fn principal(policies: Vec<Arc<Policy>>) -> Principal {
        Principal {
            thing: Some(thing(&["a"])),
            client_id: ClientId::parse("c").unwrap(),
            certificate: None,
            source: Ipv4Addr::LOCALHOST.into(),
            domain: None,
            policies: PolicySet::new(policies),
            valid_until: None,
            claim: None,
            on_publish_denied: None,
        }
    }

    #[test]
    fn only_what_changed_for_the_client_is_decided_anew() {
        let policy = policy();
        let former = principal(vec![policy.clone()]);
        assert!(is_same(&former, &principal(vec![policy.clone()])));
        assert!(!is_same(&former, &principal(Vec::new())));
        assert!(!is_same(&former, &principal(vec![self::policy()])));
        let mut moved = principal(vec![policy.clone()]);
        moved.thing = Some(thing(&["b"]));
        assert!(!is_same(&former, &moved));
        let mut ending = principal(vec![policy]);
        ending.valid_until = Some(Timestamp::from_millis(1));
        assert!(!is_same(&former, &ending));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_is_looked_at_at_the_end_of_the_validity_and_at_least_every_minute() {
        let soon = next_check(Some(now().plus_millis(5000)));
        let seconds = (soon - Instant::now()).as_secs_f64();
        assert!((4.0..=5.0).contains(&seconds), "{seconds}");
        let far = next_check(Some(now().plus_millis(u64::MAX / 2)));
        assert_eq!(far - Instant::now(), VALIDITY_CHECK);
        let past = next_check(Some(Timestamp::from_millis(0)));
        assert_eq!(past, Instant::now());
    }
}
