//! Wills that waited: published when their delay is over, or when the session that left them is.
//!
//! That the client may publish them was decided when its connection ended. What can still be asked
//! then is whether its thing is there, and not in quarantine.

use std::sync::Arc;

use portcullis_core::{
    event::Event,
    identity::{CertificateId, Thing},
    limits::LIFECYCLE_TIMEOUT,
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    message::{Message, is_reserved},
    sessions::DueWill,
    shared::Shared,
};
use crate::{clock::now, supervisor::TaskResult};

/// Looks after sessions that nobody is connected to; see [`super::sessions`].
#[derive(Debug)]
pub struct Keeper {
    shared: Arc<Shared>,
}

/// How often sessions and wills are looked at whether their time has come.
const SWEEP: std::time::Duration = std::time::Duration::from_secs(1);

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Ends sessions, publishes wills and keeps the log short, until the stop.
    ///
    /// # Errors
    /// None.
    pub async fn run(self, stop: CancellationToken) -> TaskResult {
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let sweeping = async {
            loop {
                let _at: Instant = sweep.tick().await;
                self.show();
                for will in self.shared.sessions.sweep(now()) {
                    self.shared.publish_left(&will).await;
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = sweeping => {}
            () = self.shared.sessions.keep_log_short() => {}
        }
        Ok(())
    }

    fn show(&self) {
        let Shared {
            metrics, sessions, ..
        } = &*self.shared;
        let (retained, retained_bytes) = sessions.retained.size();
        for (gauge, value) in [
            (&metrics.sessions, sessions.len()),
            (&metrics.subscriptions, sessions.subscriptions_len()),
            (&metrics.queued_bytes, sessions.log.queued_bytes()),
            (&metrics.retained, retained),
            (&metrics.retained_bytes, retained_bytes),
        ] {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
}

impl Shared {
    /// To the local subscribers, and to the stream as what the thing sent.
    pub(super) async fn publish_left(&self, will: &DueWill) {
        let client = will.session.client_id.as_str();
        if !self.is_in_force(will) {
            info!(
                client,
                "A delayed will is not published: its thing is gone."
            );
            return;
        }
        let message = Arc::new(Message {
            expires_at: Message::expiry(will.message.properties.as_ref(), now()),
            ..Message::clone(&will.message)
        });
        let routed = self.sessions.dispatch(&message, None);
        self.count_overflow(routed.overflowed);
        if routed.is_for_bus {
            // A bus that is gone is a fault of the process, which the listeners report.
            drop(self.bus.announce_will(&message));
        }
        let Some(event) = self.event_of(will) else {
            return;
        };
        let submit = self.neighbours.pipeline.submit(event, None);
        if !matches!(timeout(LIFECYCLE_TIMEOUT, submit).await, Ok(Ok(()))) {
            warn!(client, "The stream did not take a delayed will.");
        }
    }

    /// Whether the thing is there and not in quarantine; a certificate without a thing is not looked
    /// up.
    fn is_in_force(&self, will: &DueWill) -> bool {
        let Some(owner) = will.session.owner() else {
            return true;
        };
        match self.neighbours.identity.borrow().thing(&owner) {
            Some(thing) => !is_quarantined(thing),
            None => CertificateId::parse(&owner).is_some(),
        }
    }

    fn event_of(&self, will: &DueWill) -> Option<Event> {
        let owner = will.session.owner()?;
        let thing = Arc::clone(self.neighbours.identity.borrow().thing(&owner)?);
        if is_reserved(&will.message.topic) {
            return None;
        }
        let message = &will.message;
        Some(Event {
            thing: Some(thing.name.clone()),
            groups: self.neighbours.fleet.groups(&thing),
            client_id: will.session.client_id.clone(),
            received_at: now(),
            topic: message.topic.clone(),
            payload: message.payload.clone(),
            qos: message.qos,
            retain: message.retain,
            user_properties: message
                .properties
                .as_ref()
                .map(|given| given.user_properties.clone())
                .unwrap_or_default(),
        })
    }
}

fn is_quarantined(thing: &Thing) -> bool {
    let mut groups = thing.groups.iter();
    groups.any(|group| group.as_str() == portcullis_core::registry::QUARANTINE)
}
