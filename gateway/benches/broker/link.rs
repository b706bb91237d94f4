//! One connection to a broker, plain or TLS: blocking until the client is connected, then not.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use mio::{Interest, Poll, Token, net::TcpStream};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::wire::{self, CONNACK, Frame, SUBACK};

/// A broker that has not answered by then does not.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection whose client is connected and subscribed.
pub(crate) struct Link {
    stream: TcpStream,
    tls: Option<ClientConnection>,
}

/// What a certificate's holder connects with.
pub(crate) fn tls_config(dir: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(dir.join("ca.pem"))? {
        roots.add(certificate?)?;
    }
    let chain: Vec<_> = CertificateDer::pem_file_iter(dir.join("cert.pem"))?
        .collect::<std::result::Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(Arc::new(config))
}

impl Link {
    /// Connects as `client_id`, and subscribes if there is a filter.
    pub(crate) fn establish(
        address: SocketAddr,
        tls: Option<Arc<ClientConfig>>,
        client_id: &str,
        filter: Option<(&str, u8)>,
    ) -> Result<Self> {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut tls = match tls {
            Some(config) => Some(ClientConnection::new(
                config,
                ServerName::try_from("localhost")?,
            )?),
            None => None,
        };
        let greet = |link: &mut dyn ReadWrite| -> Result<()> {
            link.write_all(&wire::connect(client_id)?)?;
            expect(link, CONNACK, 1)?;
            if let Some((filter, qos)) = filter {
                link.write_all(&wire::subscribe(filter, qos)?)?;
                expect(link, SUBACK, 2)?;
            }
            Ok(())
        };
        match &mut tls {
            Some(tls) => greet(&mut rustls::Stream::new(tls, &mut stream)),
            None => greet(&mut stream),
        }
        .with_context(|| format!("{client_id} cannot connect to {address}"))?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream: TcpStream::from_std(stream),
            tls,
        })
    }

    pub(crate) fn register(&mut self, poll: &Poll, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut self.stream, token, both)
    }

    /// `None`: nothing is there now.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<Option<usize>> {
        let Some(tls) = &mut self.tls else {
            let read = now(self.stream.read(into))?;
            ensure!(read != Some(0), "the broker closed a connection");
            return Ok(read);
        };
        loop {
            match now(tls.reader().read(into))? {
                Some(0) => bail!("the broker closed a connection"),
                Some(count) => return Ok(Some(count)),
                None => {}
            }
            match now(tls.read_tls(&mut self.stream))? {
                None => return Ok(None),
                Some(0) => bail!("the broker closed a connection"),
                Some(_) => tls.process_new_packets()?,
            };
        }
    }

    /// How many bytes were taken; `None`: the socket takes nothing now.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        let Some(tls) = &mut self.tls else {
            return Ok(now(self.stream.write(bytes))?);
        };
        while tls.wants_write() {
            if now(tls.write_tls(&mut self.stream))?.is_none() {
                return Ok(None);
            }
        }
        let taken = tls.writer().write(bytes)?;
        while tls.wants_write() && now(tls.write_tls(&mut self.stream))?.is_some() {}
        Ok(Some(taken))
    }

    /// Whether TLS holds bytes that the socket did not take.
    pub(crate) fn holds_bytes(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// Reads the one packet that must come, whose byte `at` of the body says 0 or a granted QoS.
fn expect(link: &mut dyn ReadWrite, kind: u8, at: usize) -> Result<()> {
    let mut bytes = Vec::new();
    loop {
        if let Some(frame) = Frame::first(&bytes) {
            ensure!(frame.kind == kind, "a packet of type {}", frame.kind);
            let code = frame.body.get(at).context("a packet is too short")?;
            ensure!(*code < 3, "refused with code {code}");
            return Ok(());
        }
        let mut byte = [0];
        link.read_exact(&mut byte)?;
        bytes.extend(byte);
    }
}

fn now<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(done) => Ok(Some(done)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
