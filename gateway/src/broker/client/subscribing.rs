//! SUBSCRIBE and UNSUBSCRIBE.

use std::sync::Arc;

use portcullis_core::{
    limits::FILTERS_PER_SUBSCRIBE_MAX,
    topic::{Subscribed, TopicFilter},
};
use rumqttc::v5::mqttbytes::v5::{
    DisconnectReasonCode, Filter, RetainForwardRule, SubAck, Subscribe, SubscribeReasonCode,
    UnsubAck, UnsubAckReason, Unsubscribe,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Client, End};
use crate::{
    broker::{
        admission::Denied,
        codec::{Packet, because, qos, wire_qos},
        cut,
        lifecycle::Happened,
        limits::Bound,
        sessions::Options,
    },
    identity::Credential,
};

/// A subscription that a SUBSCRIBE made.
#[derive(Debug)]
struct Granted {
    subscribed: Subscribed,
    wants_retained: bool,
}

impl<S> Client<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    pub(super) async fn on_subscribe(&mut self, subscribe: Subscribe) -> Result<(), End> {
        let broke =
            |detail: &str| End::Broke(DisconnectReasonCode::ProtocolError, detail.to_owned());
        if subscribe.filters.is_empty() {
            return Err(broke("a SUBSCRIBE without a filter"));
        }
        let identifier = subscribe.properties.as_ref().and_then(|given| given.id);
        if identifier == Some(0) {
            return Err(broke("a subscription identifier of 0"));
        }
        let identifier = identifier.and_then(|id| u32::try_from(id).ok());
        let mut codes = Vec::with_capacity(subscribe.filters.len());
        let mut refused = Vec::new();
        let mut granted = Vec::new();
        for (index, filter) in subscribe.filters.iter().enumerate() {
            let code = if index >= FILTERS_PER_SUBSCRIBE_MAX {
                self.shared.count_beyond(Bound::Filters);
                SubscribeReasonCode::QuotaExceeded
            } else {
                self.subscribe(filter, identifier, &mut granted).await?
            };
            refused.extend(why_refused(code).map(|why| of_filter(&filter.path, why)));
            codes.push(code);
        }
        let ack = Packet::SubAck(SubAck {
            pkid: subscribe.pkid,
            return_codes: codes,
            properties: None,
        });
        self.noted().await?;
        self.send(with_reasons(ack, &refused)).await?;
        for granted in granted.iter().filter(|granted| granted.wants_retained) {
            self.send_retained(&granted.subscribed).await?;
        }
        let filters: Vec<_> = granted
            .iter()
            .map(|granted| granted.subscribed.as_filter())
            .collect();
        self.tell_subscriptions(&filters, |connection, filters| Happened::Subscribed {
            connection,
            filters,
        })
        .await
    }

    async fn subscribe(
        &mut self,
        filter: &Filter,
        identifier: Option<u32>,
        granted: &mut Vec<Granted>,
    ) -> Result<SubscribeReasonCode, End> {
        let subscribed = match self.shared.config.limits.filter(&filter.path) {
            Ok(subscribed) => subscribed,
            Err(bad) => {
                if let Some(bound) = bad.bound {
                    self.shared.count_beyond(bound);
                }
                return Ok(SubscribeReasonCode::TopicFilterInvalid);
            }
        };
        if subscribed.share.is_some() && filter.nolocal {
            return Err(End::Broke(
                DisconnectReasonCode::ProtocolError,
                "No Local on a shared subscription".to_owned(),
            ));
        }
        if let Err(denied) = self.admission.subscribe(&subscribed) {
            self.shared.note_denied(self.principal(), &denied);
            return Ok(self.denied_code());
        }
        let limits = &self.shared.config.limits;
        let is_new = self.held.options(&subscribed).is_none();
        if is_new && self.held.subscriptions_len() >= limits.subscriptions_per_client_max {
            self.shared.count_beyond(Bound::Subscriptions);
            return Ok(SubscribeReasonCode::QuotaExceeded);
        }
        let options = Options {
            qos: qos(filter.qos),
            no_local: filter.nolocal,
            retain_as_published: filter.preserve_retain,
            identifier,
        };
        // The tree first: what is published from this moment on is taken, and what comes by the bus from
        // before the SUBACK on.
        let sessions = &self.shared.sessions;
        sessions.subscribe(&self.held, &subscribed, options);
        let bus = &self.shared.bus;
        let on_bus = self.on_bus.subscribe(bus, &subscribed).await;
        on_bus.map_err(End::Bus)?;
        let wants_retained = match filter.retain_forward_rule {
            RetainForwardRule::OnEverySubscribe => true,
            RetainForwardRule::OnNewSubscribe => is_new,
            RetainForwardRule::Never => false,
        };
        granted.push(Granted {
            // Shares get no retained messages (MQTT 5.0, 3.8.3.1).
            wants_retained: wants_retained && subscribed.share.is_none(),
            subscribed,
        });
        Ok(SubscribeReasonCode::Success(wire_qos(options.qos)))
    }

    /// What a subscription that policy denies is answered. Who proved by a certificate who he is may
    /// know that he is not authorized (0x87). On a plain listener anybody may say any client id, and
    /// is not told what the policies of that one hold: 0x80, with which a server does not say why
    /// (MQTT 5.0, 3.9.3). MQTT 3.1.1 has 0x80 alone.
    fn denied_code(&self) -> SubscribeReasonCode {
        match self.credential {
            Credential::Certificate { .. } => SubscribeReasonCode::NotAuthorized,
            Credential::Plain { .. } => SubscribeReasonCode::Unspecified,
        }
    }

    pub(super) async fn on_unsubscribe(&mut self, unsubscribe: Unsubscribe) -> Result<(), End> {
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        let mut refused = Vec::new();
        let mut ended = Vec::new();
        for filter in &unsubscribe.filters {
            reasons.push(match Subscribed::parse(filter) {
                Err(_) => {
                    refused.push(of_filter(filter, NO_FILTER));
                    UnsubAckReason::TopicFilterInvalid
                }
                Ok(subscribed) if self.unsubscribe(&subscribed)? => {
                    ended.push(subscribed.as_filter());
                    UnsubAckReason::Success
                }
                Ok(_) => UnsubAckReason::NoSubscriptionExisted,
            });
        }
        self.noted().await?;
        let ack = Packet::UnsubAck(UnsubAck {
            pkid: unsubscribe.pkid,
            reasons,
            properties: None,
        });
        self.send(with_reasons(ack, &refused)).await?;
        self.tell_subscriptions(&ended, |connection, filters| Happened::Unsubscribed {
            connection,
            filters,
        })
        .await
    }

    /// Waits until a change of a session that is kept is durable. Nothing else is sent meanwhile: what
    /// comes for a subscription may come after its SUBACK.
    async fn noted(&mut self) -> Result<(), End> {
        let Some(durable) = self.held.durable(&self.shared.sessions.log) else {
            return Ok(());
        };
        let is_durable = self.while_it_may(durable).await?.is_ok();
        is_durable.then_some(()).ok_or(End::NotCommitted)
    }

    /// Whether there was such a subscription.
    fn unsubscribe(&mut self, subscribed: &Subscribed) -> Result<bool, End> {
        let existed = self.shared.sessions.unsubscribe(&self.held, subscribed);
        self.on_bus.unsubscribe(subscribed).map_err(End::Bus)?;
        Ok(existed)
    }

    /// Drops the subscriptions that are not allowed any more, and says which.
    pub(super) fn drop_denied(&mut self) -> Result<Vec<(TopicFilter, Denied)>, End> {
        let mut dropped = Vec::new();
        for (subscribed, _) in self.held.subscriptions() {
            if let Err(denied) = self.admission.subscribe(&subscribed) {
                self.unsubscribe(&subscribed)?;
                dropped.push((subscribed.as_filter(), denied));
            }
        }
        Ok(dropped)
    }

    /// Takes up the subscriptions that the session had before this connection, as far as they are
    /// allowed now.
    pub(super) async fn take_up(&mut self) -> Result<(), End> {
        for (filter, denied) in self.drop_denied()? {
            self.shared.note_denied(self.principal(), &denied);
            self.dropped.push(filter);
        }
        let bus = Arc::clone(&self.shared.bus);
        for (subscribed, _) in self.held.subscriptions() {
            let on_bus = self.on_bus.subscribe(&bus, &subscribed).await;
            on_bus.map_err(End::Bus)?;
        }
        self.send_queued().await
    }
}

const NO_FILTER: &str = "no topic filter that the gateway takes";
/// What of a filter goes into the reason why it is refused.
const FILTER_SHOWN_BYTES: usize = 64;

/// `None` for what is granted, and for what the client is not to know.
fn why_refused(code: SubscribeReasonCode) -> Option<&'static str> {
    match code {
        SubscribeReasonCode::TopicFilterInvalid => Some(NO_FILTER),
        SubscribeReasonCode::NotAuthorized => Some("no policy allows it"),
        SubscribeReasonCode::QuotaExceeded => Some("too many subscriptions"),
        _ => None,
    }
}

fn of_filter(filter: &str, why: &str) -> String {
    format!("`{}`: {why}", cut(filter, FILTER_SHOWN_BYTES))
}

fn with_reasons(ack: Packet, refused: &[String]) -> Packet {
    if refused.is_empty() {
        ack
    } else {
        because(ack, &refused.join("; "))
    }
}
