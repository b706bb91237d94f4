//! A peer that speaks MQTT by hand over TLS, so that it can say what no honest client says.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind, SignatureScheme,
    StreamOwned,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::ring::default_provider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::served::PATIENCE;

/// A TLS connection.
pub(crate) struct Wire(StreamOwned<ClientConnection, TcpStream>);

/// A CONNECT, put together byte by byte.
#[derive(Clone, Debug)]
pub(crate) struct Hello<'a> {
    /// 4 or 5.
    pub(crate) version: u8,
    pub(crate) client_id: &'a str,
    /// Topic and whether it is retained.
    pub(crate) will: Option<(&'a str, bool)>,
}

impl Wire {
    /// Connects to `address` and asks for `name`; the handshake happens with the first byte.
    pub(crate) fn open(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        Self(StreamOwned::new(connection, socket))
    }

    /// Sends bytes; the gateway may have closed already.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    /// Says CONNECT; the code of the CONNACK, `None` if the gateway closes without one.
    pub(crate) fn connect(&mut self, hello: &Hello<'_>) -> Option<u8> {
        self.send(&hello.packet()).ok()?;
        let packet = self.receive().ok()?;
        // CONNACK: type, length, flags, code.
        assert_eq!(packet.first(), Some(&0x20), "{packet:?}");
        packet.get(3).copied()
    }

    /// The next packet whole.
    pub(crate) fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut packet = vec![0; 2];
        self.0.read_exact(&mut packet)?;
        let length = usize::from(packet[1]);
        assert!(length < 128, "a longer packet than these tests expect");
        let mut rest = vec![0; length];
        self.0.read_exact(&mut rest)?;
        packet.extend(rest);
        Ok(packet)
    }

    /// Whether the gateway ends the connection; waits for it.
    pub(crate) fn closes(&mut self) -> bool {
        let mut bytes = [0; 256];
        loop {
            match self.0.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
            }
        }
    }

    /// Reads on until this stands in what comes; `false` if the gateway ends the connection before.
    pub(crate) fn reads_until(&mut self, wanted: &[u8]) -> bool {
        let mut bytes = vec![0; 65_536];
        let mut tail: Vec<u8> = Vec::new();
        loop {
            match self.0.read(&mut bytes) {
                Ok(0) | Err(_) => return false,
                Ok(count) => {
                    tail.extend(&bytes[..count]);
                    if tail.windows(wanted.len()).any(|window| window == wanted) {
                        return true;
                    }
                    tail.drain(..tail.len().saturating_sub(wanted.len()));
                }
            }
        }
    }

    /// Sends a packet; the answer.
    pub(crate) fn ask(&mut self, packet: &[u8]) -> Vec<u8> {
        self.send(packet).unwrap();
        self.receive().unwrap()
    }

    /// Whether the handshake made use of an earlier one.
    pub(crate) fn resumed(&self) -> bool {
        self.0.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The certificate that the gateway showed.
    pub(crate) fn server_certificate(&self) -> Vec<u8> {
        self.0.conn.peer_certificates().unwrap()[0].to_vec()
    }
}

impl<'a> Hello<'a> {
    pub(crate) fn v4(client_id: &'a str) -> Self {
        Self {
            version: 4,
            client_id,
            will: None,
        }
    }

    pub(crate) fn v5(client_id: &'a str) -> Self {
        Self {
            version: 5,
            ..Self::v4(client_id)
        }
    }

    fn packet(&self) -> Vec<u8> {
        let mut flags = 0b10;
        if let Some((_, retain)) = self.will {
            flags |= 0b100 | u8::from(retain) << 5;
        }
        let mut body = text("MQTT");
        body.extend([self.version, flags, 0, 30]);
        let properties: &[u8] = if self.version == 5 { &[0] } else { &[] };
        body.extend(properties);
        body.extend(text(self.client_id));
        if let Some((topic, _)) = self.will {
            body.extend(properties);
            body.extend(text(topic));
            body.extend(text("gone"));
        }
        framed(0x10, &body)
    }
}

/// A packet of this first byte.
pub(crate) fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut left = body.len();
    loop {
        let low = u8::try_from(left % 128).unwrap();
        left /= 128;
        packet.push(low | if left > 0 { 0x80 } else { 0 });
        if left == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// PUBLISH of MQTT 5, with its properties as they are on the wire; QoS 0 has no packet id.
pub(crate) fn publish_v5(topic: &str, qos: u8, pkid: u8, properties: &[u8], of: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend([0, pkid]);
    }
    body.extend(&framed(0, properties)[1..]);
    body.extend(of);
    framed(0x30 | qos << 1, &body)
}

/// A packet of any length.
pub(crate) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length % 128).unwrap();
        length /= 128;
        packet.push(if length > 0 { low | 128 } else { low });
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}

/// MQTT's text: two bytes of length, then UTF-8.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// For a peer that does not care whom it talks to.
#[derive(Debug)]
pub(crate) struct Believer;

impl ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
