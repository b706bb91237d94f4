//! A device for a test: rumqttc as a real MQTT 3.1.1 client, on the plain listener or over mTLS.

use std::{
    fs::File,
    io::BufReader,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rumqttc::{Client, Connection, Event, LastWill, MqttOptions, Packet, Publish, QoS, Transport};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::served::{Credentials, PATIENCE};

/// A connected client that is driven by hand.
pub(crate) struct Device {
    client: Client,
    connection: Connection,
}

impl Device {
    /// Connects to a plain listener.
    pub(crate) fn plain(address: SocketAddr, client_id: &str) -> Self {
        Self::connect(options(address, client_id))
    }

    /// Connects to a plain listener as one that keeps its session; whether the gateway had it.
    pub(crate) fn persistent(address: SocketAddr, client_id: &str) -> (Self, bool) {
        let mut options = options(address, client_id);
        options.set_clean_session(false);
        let (client, connection) = Client::new(options, 100);
        let mut device = Self { client, connection };
        let mut had_it = false;
        device.wait(|packet| match packet {
            Packet::ConnAck(ack) => {
                had_it = ack.session_present;
                true
            }
            _ => false,
        });
        (device, had_it)
    }

    /// Subscribes with this quality of service.
    pub(crate) fn subscribe_at(&mut self, filter: &str, qos: QoS) {
        self.client.subscribe(filter, qos).unwrap();
        self.wait(|packet| matches!(packet, Packet::SubAck(_)));
    }

    /// Publishes with QoS 2 and waits for the PUBCOMP.
    pub(crate) fn publish_exactly_once(&mut self, topic: &str, payload: &str) {
        self.client
            .publish(topic, QoS::ExactlyOnce, false, payload)
            .unwrap();
        self.wait(|packet| matches!(packet, Packet::PubComp(_)));
    }

    /// Connects with a certificate.
    pub(crate) fn tls(address: SocketAddr, client_id: &str, credentials: &Credentials) -> Self {
        Self::connect(tls_options(address, client_id, credentials))
    }

    /// The same, with a last will on `topic`.
    pub(crate) fn tls_with_will(
        address: SocketAddr,
        client_id: &str,
        credentials: &Credentials,
        topic: &str,
    ) -> Self {
        let mut options = tls_options(address, client_id, credentials);
        options.set_last_will(LastWill::new(topic, "gone", QoS::AtLeastOnce, false));
        Self::connect(options)
    }

    /// Publishes a retained message with QoS 1 and waits for the PUBACK.
    pub(crate) fn publish_retained(&mut self, topic: &str, payload: &str) {
        self.client
            .publish(topic, QoS::AtLeastOnce, true, payload)
            .unwrap();
        self.wait(|packet| matches!(packet, Packet::PubAck(_)));
    }

    /// Whether a retained publish with QoS 1 ends the connection.
    pub(crate) fn is_refused_retained(&mut self, topic: &str) -> bool {
        self.client
            .publish(topic, QoS::AtLeastOnce, true, "x")
            .unwrap();
        self.ends_instead_of_acknowledging()
    }

    /// Whether a subscription is granted.
    pub(crate) fn may_subscribe(&mut self, filter: &str) -> bool {
        self.client.subscribe(filter, QoS::AtLeastOnce).unwrap();
        let mut granted = false;
        self.wait(|packet| match packet {
            Packet::SubAck(ack) => {
                granted = ack
                    .return_codes
                    .iter()
                    .all(|code| matches!(code, rumqttc::SubscribeReasonCode::Success(_)));
                true
            }
            _ => false,
        });
        granted
    }

    /// Topic and payload of the next delivery.
    pub(crate) fn next_message(&mut self) -> (String, String) {
        let got = self.receive();
        let payload = String::from_utf8_lossy(&got.payload).into_owned();
        (got.topic, payload)
    }

    /// The deliveries up to the one on `topic`.
    pub(crate) fn messages_until(&mut self, topic: &str) -> Vec<(String, String)> {
        let mut messages = Vec::new();
        while messages
            .last()
            .is_none_or(|(got, _): &(String, String)| got != topic)
        {
            messages.push(self.next_message());
        }
        messages
    }

    /// Whether a CONNECT with such a last will is refused.
    pub(crate) fn is_refused_with_will(
        address: SocketAddr,
        client_id: &str,
        credentials: &Credentials,
        topic: &str,
    ) -> bool {
        let mut options = tls_options(address, client_id, credentials);
        options.set_last_will(LastWill::new(topic, "gone", QoS::AtLeastOnce, false));
        is_refused(options)
    }

    /// Whether a CONNECT is refused.
    pub(crate) fn is_refused_at_connect(
        address: SocketAddr,
        client_id: &str,
        credentials: &Credentials,
    ) -> bool {
        is_refused(tls_options(address, client_id, credentials))
    }

    /// Whether a CONNECT to a plain listener is refused.
    pub(crate) fn is_refused_plain(address: SocketAddr, client_id: &str) -> bool {
        is_refused(options(address, client_id))
    }

    /// Publishes with QoS 0; the answer, if any, is to be received.
    pub(crate) fn send(&mut self, topic: &str, payload: &str) {
        self.client
            .publish(topic, QoS::AtMostOnce, false, payload)
            .unwrap();
    }

    /// The next message; acknowledgements and the like are passed over.
    pub(crate) fn receive(&mut self) -> Publish {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let next = self.connection.recv_timeout(left);
            let event = next.expect("a message in time").unwrap();
            if let Event::Incoming(Packet::Publish(publish)) = event {
                return publish;
            }
        }
    }

    /// Takes leave.
    pub(crate) fn disconnect(mut self) {
        self.client.disconnect().unwrap();
        self.closes();
    }

    /// Ends a subscription.
    pub(crate) fn unsubscribe(&mut self, filter: &str) {
        self.client.unsubscribe(filter).unwrap();
        self.wait(|packet| matches!(packet, Packet::UnsubAck(_)));
    }

    /// Subscribes with QoS 1.
    pub(crate) fn subscribe(&mut self, filter: &str) {
        self.client.subscribe(filter, QoS::AtLeastOnce).unwrap();
        self.wait(|packet| matches!(packet, Packet::SubAck(_)));
    }

    /// Subscribes with QoS 0.
    pub(crate) fn subscribe_loosely(&mut self, filter: &str) {
        self.client.subscribe(filter, QoS::AtMostOnce).unwrap();
        self.wait(|packet| matches!(packet, Packet::SubAck(_)));
    }

    /// Whether the gateway ends the connection; waits for it.
    pub(crate) fn closes(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            match self.connection.recv_timeout(left) {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return true,
                Err(_) => return false,
            }
        }
        false
    }

    /// Whether a publish with QoS 1 ends the connection instead of being acknowledged.
    pub(crate) fn is_refused(&mut self, topic: &str) -> bool {
        self.client
            .publish(topic, QoS::AtLeastOnce, false, "x")
            .unwrap();
        self.ends_instead_of_acknowledging()
    }

    fn ends_instead_of_acknowledging(&mut self) -> bool {
        loop {
            match self
                .connection
                .recv_timeout(PATIENCE)
                .expect("an answer in time")
            {
                Ok(Event::Incoming(Packet::PubAck(_))) => return false,
                Ok(_) => {}
                Err(_) => return true,
            }
        }
    }

    fn connect(options: MqttOptions) -> Self {
        let (client, connection) = Client::new(options, 100);
        let mut device = Self { client, connection };
        device.wait(|packet| matches!(packet, Packet::ConnAck(_)));
        device
    }

    /// Publishes with QoS 1; how long the PUBACK took.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str) -> Duration {
        let started = Instant::now();
        self.client
            .publish(topic, QoS::AtLeastOnce, false, payload)
            .unwrap();
        self.wait(|packet| matches!(packet, Packet::PubAck(_)));
        started.elapsed()
    }

    /// Waits for a packet from the gateway.
    pub(crate) fn wait(&mut self, mut wanted: impl FnMut(&Packet) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self
                .connection
                .recv_timeout(left)
                .expect("an answer in time")
            {
                Ok(Event::Incoming(packet)) if wanted(&packet) => return,
                Ok(_) => {}
                Err(error) => panic!("the connection failed: {error}"),
            }
        }
    }
}

fn is_refused(options: MqttOptions) -> bool {
    let (_client, mut connection) = Client::new(options, 100);
    let answer = connection
        .recv_timeout(PATIENCE)
        .expect("an answer in time");
    !matches!(answer, Ok(Event::Incoming(Packet::ConnAck(_))))
}

fn tls_options(address: SocketAddr, client_id: &str, credentials: &Credentials) -> MqttOptions {
    let mut options = options(address, client_id);
    options.set_transport(Transport::tls_with_config(
        client_config(credentials).into(),
    ));
    options
}

fn options(address: SocketAddr, client_id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, address.ip().to_string(), address.port());
    options.set_keep_alive(Duration::from_secs(30));
    // What the gateway takes, not the 10 KiB of the client library.
    options.set_max_packet_size(146 * 1024, 146 * 1024);
    options
}

/// A TLS client that trusts the site's CA and shows the thing's certificate.
pub(crate) fn client_config(credentials: &Credentials) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&credentials.ca) {
        roots.add(certificate).unwrap();
    }
    let key = PrivateKeyDer::from_pem_file(&credentials.key).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&credentials.certificate), key)
        .unwrap()
}

fn certificates(path: &std::path::Path) -> Vec<CertificateDer<'static>> {
    let reader = BufReader::new(File::open(path).unwrap());
    CertificateDer::pem_reader_iter(reader)
        .map(Result::unwrap)
        .collect()
}
