//! Who the client is, and whether it may connect as it asks.

use portcullis_core::identity::ClientId;
use rumqttc::v5::mqttbytes::v5::{Connect, ConnectReturnCode, LastWill, PublishProperties};
use uuid::Uuid;

use super::{
    Peer,
    refuse::{Denied, Refusal},
};
use crate::{
    broker::{
        admission::{Admission, Asked},
        client::Will,
        codec::{Version, qos},
        cut,
        denials::TEXT_BYTES_MAX,
        limits::Limits,
        message::{is_as_indicated, property_bytes},
        shared::{Shared, denial},
    },
    defend::ActivityKind,
    identity::Provisioner,
};

/// The client id, and the one that was assigned if the client left it to the server.
pub(super) fn client_id(
    connect: &Connect,
    version: Version,
    bytes_max: usize,
) -> Result<(ClientId, Option<String>), Refusal> {
    let refusal = |detail: String| {
        Refusal::new(
            "client-id",
            ConnectReturnCode::ClientIdentifierNotValid,
            detail,
        )
    };
    if let Some(given) = &connect.properties
        && (given.receive_maximum == Some(0) || given.max_packet_size == Some(0))
    {
        return Err(Refusal::new(
            "protocol",
            ConnectReturnCode::ProtocolError,
            "a Receive Maximum or Maximum Packet Size of 0",
        ));
    }
    let assigned = connect
        .client_id
        .is_empty()
        .then(|| format!("auto-{}", Uuid::new_v4().simple()));
    if assigned.is_some() && version == Version::V311 && !connect.clean_start {
        return Err(refusal(
            "an empty client id needs a clean session".to_owned(),
        ));
    }
    if connect.client_id.len() > bytes_max {
        return Err(refusal(format!("it is longer than {bytes_max} bytes")));
    }
    let text = assigned.as_deref().unwrap_or(&connect.client_id);
    ClientId::parse(text)
        .map(|id| (id, assigned.clone()))
        .map_err(|error| refusal(error.to_string()))
}

/// Authentication and `iot:Connect`; the will must be allowed as well.
pub(super) fn admit(
    shared: &Shared,
    peer: &Peer<'_>,
    client_id: &ClientId,
    connect: &Connect,
    will: Option<LastWill>,
    version: Version,
) -> Result<(Admission, Option<Will>), Box<Refusal>> {
    let source = peer.address.ip().to_canonical();
    let snapshot = shared.neighbours.identity.borrow().clone();
    let principal = snapshot
        .authenticate(&peer.credential, client_id, source)
        .map_err(|refusal| Refusal::nobody(&refusal))?;
    shared.observe(&principal, ActivityKind::ConnectAttempt);
    let limits = &shared.config.limits;
    let will = will
        .map(|will| to_will(will, version, limits))
        .transpose()?;
    let asked = Asked {
        persistent: wants_to_persist(connect, version),
        will_topic: will.as_ref().map(|will| will.topic.clone()),
    };
    let mut admission = Admission::new(principal, asked, shared.neighbours.recorder.clone());
    let permitted = admission.connect().and_then(|permit| match &will {
        Some(will) => admission.publish(&will.topic, will.retain).map(|_| permit),
        None => Ok(permit),
    });
    match permitted {
        Ok(permit) => {
            admission.connected(&permit);
            Ok((admission, will))
        }
        Err(denied) => {
            let principal = admission.principal();
            shared.count_denied(principal, &denied);
            let denial = denial(principal, &denied);
            Err(Box::new(Refusal::denied(Denied {
                denial,
                principal: principal.clone(),
            })))
        }
    }
}

/// How long the session is to live without a connection: MQTT 3.1.1 has for ever, which is as long as
/// the gateway keeps any.
pub(super) fn expiry_secs(connect: &Connect, version: Version, secs_max: u32) -> u32 {
    let asked = match version {
        Version::V311 if connect.clean_start => 0,
        Version::V311 => u32::MAX,
        Version::V5 => connect
            .properties
            .as_ref()
            .and_then(|given| given.session_expiry_interval)
            .unwrap_or(0),
    };
    asked.min(secs_max)
}

/// `PersistentConnect`: MQTT 3.1.1 says it by a session that is not clean, MQTT 5 by an expiry.
fn wants_to_persist(connect: &Connect, version: Version) -> bool {
    match version {
        Version::V311 => !connect.clean_start,
        Version::V5 => connect
            .properties
            .as_ref()
            .and_then(|given| given.session_expiry_interval)
            .is_some_and(|secs| secs > 0),
    }
}

fn to_will(will: LastWill, version: Version, limits: &Limits) -> Result<Will, Refusal> {
    let topic = limits.topic(&will.topic).map_err(|error| {
        let topic = String::from_utf8_lossy(&will.topic);
        let detail = format!("`{}`: {error}", cut(&topic, TEXT_BYTES_MAX / 2));
        let refusal = Refusal::new("will-topic", ConnectReturnCode::TopicNameInvalid, detail);
        match version {
            Version::V5 => refusal,
            // It has no code for that, and wants no CONNACK then (MQTT 3.1.1, 3.1.4).
            Version::V311 => refusal.unanswered(),
        }
    })?;
    if Provisioner::serves(&topic) {
        // What the gateway is asked there goes nowhere else, and nobody could take the answer.
        return Err(Refusal::new(
            "will-reserved",
            ConnectReturnCode::NotAuthorized,
            format!("`{topic}` takes no will"),
        ));
    }
    let indicator = will
        .properties
        .as_ref()
        .and_then(|given| given.payload_format_indicator);
    if !is_as_indicated(indicator, &will.message) {
        return Err(Refusal::new(
            "will-payload",
            ConnectReturnCode::PayloadFormatInvalid,
            "the will is not the UTF-8 text that its format indicator says",
        ));
    }
    let delay_secs = will
        .properties
        .as_ref()
        .and_then(|given| given.delay_interval)
        .unwrap_or(0);
    let properties = will.properties.map(|given| PublishProperties {
        payload_format_indicator: given.payload_format_indicator,
        message_expiry_interval: given.message_expiry_interval,
        response_topic: given.response_topic,
        correlation_data: given.correlation_data,
        user_properties: given.user_properties,
        content_type: given.content_type,
        ..Default::default()
    });
    if properties.as_ref().map_or(0, property_bytes) > limits.property_bytes_max {
        return Err(Refusal::new(
            "will-properties",
            ConnectReturnCode::QuotaExceeded,
            "properties over the limit",
        ));
    }
    let (payload, retain) = (will.message, will.retain);
    Ok(Will {
        topic,
        payload,
        qos: qos(will.qos),
        retain,
        properties,
        delay_secs,
    })
}
