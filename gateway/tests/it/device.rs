//! A device for a test: rumqttc as a real MQTT 3.1.1 client, on the plain listener or over mTLS.

use std::{
    fs::File,
    io::BufReader,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rumqttc::{Client, Connection, Event, MqttOptions, Packet, QoS, Transport};
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

    /// Connects with a certificate.
    pub(crate) fn tls(address: SocketAddr, client_id: &str, credentials: &Credentials) -> Self {
        let mut options = options(address, client_id);
        options.set_transport(Transport::tls_with_config(
            client_config(credentials).into(),
        ));
        Self::connect(options)
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

    fn wait(&mut self, wanted: impl Fn(&Packet) -> bool) {
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

fn options(address: SocketAddr, client_id: &str) -> MqttOptions {
    let mut options = MqttOptions::new(client_id, address.ip().to_string(), address.port());
    options.set_keep_alive(Duration::from_secs(30));
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
