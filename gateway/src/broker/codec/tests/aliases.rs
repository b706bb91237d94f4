//! Topic aliases, in both directions.

use super::*;

/// A PUBLISH with QoS 0, the payload `p` and, if there is one, an alias.
fn publish(topic: &str, alias: Option<u16>) -> BytesMut {
    let properties = alias.map(|alias| v5p::PublishProperties {
        topic_alias: Some(alias),
        ..v5p::PublishProperties::default()
    });
    let publish = v5p::Publish::new(topic, QoS::AtMostOnce, b"p".to_vec(), properties);
    let mut bytes = BytesMut::new();
    publish.write(&mut bytes).unwrap();
    bytes
}

fn read(codec: &mut Codec, mut bytes: BytesMut) -> Result<v5p::Publish, DecodeError> {
    match codec.decode(&mut bytes)? {
        Some(Packet::Publish(publish)) => Ok(publish),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_alias_stands_for_the_topic_that_came_with_it_last() {
    let mut codec = connected(Version::V5);
    let max = Codec::aliases_in();
    for (topic, alias, meant) in [
        ("a/1", 1, "a/1"),
        ("", 1, "a/1"),
        ("b/1", max, "b/1"),
        ("", 1, "a/1"),
        ("", max, "b/1"),
        ("c/1", 1, "c/1"),
        ("", 1, "c/1"),
    ] {
        let publish = read(&mut codec, publish(topic, Some(alias))).unwrap();
        assert_eq!(publish.topic, meant);
        assert_eq!(publish.properties, None, "the session sees no alias");
        assert_eq!(&publish.payload[..], b"p");
    }
}

#[test]
fn other_properties_stay_when_the_alias_goes() {
    let mut codec = connected(Version::V5);
    let properties = v5p::PublishProperties {
        topic_alias: Some(3),
        content_type: Some("text".to_owned()),
        ..v5p::PublishProperties::default()
    };
    let publish = v5p::Publish::new("a/b", QoS::AtMostOnce, vec![], Some(properties));
    let mut bytes = BytesMut::new();
    publish.write(&mut bytes).unwrap();
    let given = read(&mut codec, bytes).unwrap().properties.unwrap();
    assert_eq!(
        (given.topic_alias, given.content_type.as_deref()),
        (None, Some("text"))
    );
}

#[test]
fn aliases_that_are_none_end_the_connection() {
    use v5p::DisconnectReasonCode as Code;
    let over = Codec::aliases_in() + 1;
    for (topic, alias, code) in [
        ("a", Some(0), Code::TopicAliasInvalid),
        ("", Some(0), Code::TopicAliasInvalid),
        ("a", Some(over), Code::TopicAliasInvalid),
        ("", Some(u16::MAX), Code::TopicAliasInvalid),
        ("", Some(1), Code::ProtocolError),
        ("", None, Code::ProtocolError),
    ] {
        let error = read(&mut connected(Version::V5), publish(topic, alias)).unwrap_err();
        assert_eq!(
            error.disconnect_reason(),
            Some(code),
            "{topic:?} {alias:?} {error}"
        );
    }
}

#[test]
fn what_an_alias_keeps_is_the_topic_and_not_the_packet() {
    let mut codec = Codec::new(1 << 20);
    codec
        .decode(&mut BytesMut::from(CONNECT_V5))
        .unwrap()
        .unwrap();
    let properties = v5p::PublishProperties {
        topic_alias: Some(1),
        ..v5p::PublishProperties::default()
    };
    let whole = v5p::Publish::new("a/b", QoS::AtMostOnce, vec![7; 100_000], Some(properties));
    let mut bytes = BytesMut::new();
    whole.write(&mut bytes).unwrap();
    let first = read(&mut codec, bytes).unwrap();
    let payload = first.payload.clone();
    drop(first);
    assert!(payload.is_unique(), "nothing else holds the packet");
    assert_eq!(read(&mut codec, publish("", Some(1))).unwrap().topic, "a/b");
}

/// A client that takes `aliases` aliases, and what it makes of what it is sent.
struct Client {
    codec: Codec,
    topics: std::collections::HashMap<u16, Bytes>,
    aliases: u16,
}

impl Client {
    fn new(aliases: u16) -> Self {
        let mut codec = connected(Version::V5);
        codec.alias_outgoing(aliases);
        Self {
            codec,
            topics: std::collections::HashMap::new(),
            aliases,
        }
    }

    /// Sends it a publish to `topic`; the bytes that this took.
    fn send(&mut self, topic: &str) -> usize {
        let publish = v5p::Publish {
            pkid: 9,
            retain: true,
            dup: true,
            ..v5p::Publish::new(topic, QoS::AtLeastOnce, topic.as_bytes().to_vec(), None)
        };
        let mut bytes = BytesMut::new();
        self.codec
            .encode(Packet::Publish(publish), &mut bytes)
            .unwrap();
        let sent = bytes.len();
        let packet = Packet::read(&mut bytes, None).unwrap();
        let Packet::Publish(got) = packet else {
            panic!("{packet:?}")
        };
        assert_eq!(
            (got.pkid, got.retain, got.dup, got.qos),
            (9, true, true, QoS::AtLeastOnce)
        );
        let alias = got.properties.and_then(|given| given.topic_alias);
        let meant = match (alias, got.topic.is_empty()) {
            (None, _) => got.topic,
            (Some(alias), is_empty) => {
                assert!((1..=self.aliases).contains(&alias), "{alias}");
                if !is_empty {
                    self.topics.insert(alias, got.topic);
                }
                self.topics[&alias].clone()
            }
        };
        assert_eq!(meant, topic);
        assert_eq!(got.payload, topic);
        sent
    }
}

#[test]
fn a_topic_goes_out_with_its_alias_and_then_as_it() {
    let mut client = Client::new(2);
    let topic = "dt/a-long-name-of-a-topic/temperature";
    let with_alias = client.send(topic);
    for _ in 0..3 {
        assert_eq!(client.send(topic), with_alias - topic.len());
    }
}

#[test]
fn a_client_that_takes_no_aliases_gets_none() {
    let mut client = Client::new(0);
    let whole = client.send("dt/device/temperature");
    for _ in 0..3 {
        assert_eq!(client.send("dt/device/temperature"), whole);
    }
}

#[test]
fn the_alias_of_the_topic_not_used_for_longest_goes_to_a_new_one() {
    let mut client = Client::new(2);
    for topic in ["topic/a", "topic/b", "topic/c"] {
        client.send(topic);
        client.send(topic);
    }
    let aliased = client.send("topic/c");
    assert_eq!(client.send("topic/b"), aliased);
    assert!(client.send("topic/a") > aliased, "it gave its alias away");
}

#[test]
fn whatever_is_sent_the_client_reads_the_right_topics_and_little_is_kept() {
    for aliases in [1, 3, 64, u16::MAX] {
        let mut client = Client::new(aliases);
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..5000 {
            let spread = [3, 60, 70, 1000][random.usize(..4)];
            client.send(&format!("topic/number/{}", random.usize(..spread)));
        }
        let outgoing = format!("{:?}", client.codec.outgoing_aliases);
        assert!(outgoing.len() < 20_000, "{}", outgoing.len());
        assert!(client.topics.len() <= usize::from(TOPIC_ALIASES_MAX));
    }
}

#[test]
fn a_packet_that_fits_only_without_an_alias_goes_out_without() {
    let mut client = Client::new(5);
    let topic = "topic/of/a/full/packet";
    let whole = Client::new(0).send(topic);
    client.codec.outgoing_bytes_max = u32::try_from(whole).unwrap();
    assert_eq!(client.send(topic), whole);
    assert_eq!(client.send(topic), whole);
    client.codec.outgoing_bytes_max = u32::MAX;
    assert_eq!(client.send(topic), whole + 3);
    client.codec.outgoing_bytes_max = u32::try_from(whole).unwrap();
    assert_eq!(client.send(topic), whole + 3 - topic.len());
}

#[test]
fn a_client_of_mqtt_311_has_no_aliases() {
    let mut codec = connected(Version::V311);
    codec.alias_outgoing(9);
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let mut bytes = BytesMut::new();
        let publish = v5p::Publish::new("dt/device/temperature", QoS::AtMostOnce, vec![], None);
        codec.encode(Packet::Publish(publish), &mut bytes).unwrap();
        sizes.push(bytes.len());
    }
    assert_eq!(sizes, [25, 25, 25]);
}
