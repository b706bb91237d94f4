use super::*;

fn message(properties: Option<v5p::PublishProperties>) -> Message {
    Message {
        topic: TopicName::parse("é/x").unwrap(),
        payload: Bytes::from_static(b"{}"),
        qos: Qos::AtLeastOnce,
        retain: true,
        publisher: 7,
        properties,
        expires_at: None,
    }
}

#[test]
fn a_message_comes_out_as_it_went_in() {
    let rich = v5p::PublishProperties {
        user_properties: vec![("k".to_owned(), "v".to_owned())],
        message_expiry_interval: Some(60),
        ..v5p::PublishProperties::default()
    };
    for properties in [None, Some(rich)] {
        let given = message(properties);
        let publish = Publish::new(Bytes::from(path(given.topic.as_str())), wrap(&given), false);
        let routed = PublishProperties {
            message_expiry_interval: given
                .properties
                .as_ref()
                .and_then(|p| p.message_expiry_interval),
            subscription_identifiers: vec![3],
            ..no_properties()
        };
        let delivery = unwrap(publish, Some(routed)).unwrap();
        assert_eq!(delivery.subscription, 3);
        let got = delivery.message;
        assert_eq!((&got.topic, &got.payload), (&given.topic, &given.payload));
        assert_eq!(
            (got.qos, got.retain, got.publisher),
            (given.qos, given.retain, given.publisher)
        );
        assert_eq!(got.properties, given.properties);
    }
}

#[tokio::test]
async fn the_router_survives_topics_that_it_cannot_slice_and_serves_reserved_ones() {
    let bus = Arc::new(Bus::start(4).unwrap());
    let mut link = bus.link().await.unwrap();
    for (number, filter) in [(1, "é/#"), (2, "$aws/#")] {
        link.subscribe(number, &TopicFilter::parse(filter).unwrap())
            .unwrap();
    }
    let policy = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:Publish","Resource":"*"}}"#;
    let policy = portcullis_core::policy::Policy::parse("all", policy).unwrap();
    let policies = portcullis_core::policy::PolicySet::new(vec![Arc::new(policy)]);
    let client_id = portcullis_core::identity::ClientId::parse("c").unwrap();
    let context = portcullis_core::policy::Context::of(&client_id);
    for (number, topic) in [(1, "é/x"), (2, "$aws/things"), (1, "é")] {
        let permit = policies.decide(&context, Action::Publish, topic).unwrap();
        let topic = TopicName::parse(topic).unwrap();
        bus.publish(
            &permit,
            &Message {
                topic: topic.clone(),
                ..message(None)
            },
        )
        .unwrap();
        let delivery = link.next().await.unwrap();
        assert_eq!(
            (delivery.subscription, delivery.message.topic.clone()),
            (number, topic)
        );
    }
    assert!(!bus.gone().is_cancelled());
}
