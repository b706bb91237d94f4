//! TLS 1.2 and 1.3 with mandatory client certificates.
//!
//! A handshake has two parts: the peer's ClientHello, which costs a buffer, and all that follows,
//! which costs a signature. Between them the listener lets each wait for its turn.
//!
//! All handshakes share one verifier. So that a refusal can name the certificate that was shown, the
//! verifier leaves it with its thread, where the handshake that was just polled takes it: verification
//! neither waits nor changes threads.
//!
//! Sessions are never resumed: every connection proves its certificate anew, and a revoked one
//! cannot come back on an old ticket.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use portcullis_core::{certificate::Certificate, identity::CertificateId, limits::HELLO_BYTES_MAX};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{danger::HandshakeSignatureValid, verify_server_name},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        Acceptor, NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, server::TlsStream};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::Trust;

/// Everything that handshakes share; made anew when CA or server certificate change.
#[derive(Debug)]
pub(super) struct Tls {
    config: Arc<ServerConfig>,
    /// What clients may ask for by name.
    server: Option<CertificateDer<'static>>,
    sni: Sni,
}

/// What becomes of a client that asks for a host that the server certificate does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sni {
    /// It is refused.
    Checked,
    /// It is served.
    Ignored,
}

/// The trust material cannot serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("failed to use a CA certificate")]
    Ca(#[source] Error),
    #[error("failed to make the client verifier")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    #[error("failed to use the server's key")]
    Key(#[source] Error),
    #[error("failed to make the settings of handshakes")]
    Config(#[source] Error),
}

/// A peer that has said its ClientHello and hears nothing yet.
#[derive(Debug)]
pub(super) struct Greeted(StartHandshake<TcpStream>);

/// A handshake that succeeded.
#[derive(Debug)]
pub(super) struct Shaken {
    /// On the heap: it is large, and is handed on often.
    pub(super) stream: Box<TlsStream<TcpStream>>,
    /// What the client proved to hold.
    pub(super) certificate: Arc<Certificate>,
    /// The same as it came, and what the client sent to link it to a CA.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The host name that it asked for (SNI).
    pub(super) domain: Option<Arc<str>>,
}

/// A handshake that came to nothing.
#[derive(Debug)]
pub(super) struct HandshakeRefusal {
    /// The metric label.
    pub(super) reason: &'static str,
    /// What to log.
    pub(super) error: io::Error,
    /// The certificate that was shown, if it came that far.
    pub(super) shown: Option<ShownCertificate>,
}

/// Who a refused certificate said it was.
#[derive(Clone, Debug)]
pub(super) struct ShownCertificate {
    pub(super) id: CertificateId,
    pub(super) subject: String,
    pub(super) issuer: String,
}

thread_local! {
    /// What was refused in the present poll on this thread.
    static REFUSED: RefCell<Option<ShownCertificate>> = const { RefCell::new(None) };
}

impl ShownCertificate {
    /// `None` if it is none.
    fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(Self {
            id: CertificateId::of_der(der),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
        })
    }
}

impl Tls {
    pub(super) fn new(trust: &Trust, sni: Sni) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in &trust.ca {
            roots.add(certificate.clone()).map_err(TlsError::Ca)?;
        }
        // A CA without a list has revoked nothing here; that a list is out of date is a warning
        // where it is read, not a reason to shut everybody out.
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .with_crls(trust.crls.iter().cloned())
                .allow_unknown_revocation_status()
                .build()
                .map_err(TlsError::Verifier)?;
        let server = trust.server_chain.first().cloned();
        let key = CertifiedKey::from_der(
            trust.server_chain.clone(),
            trust.server_key.clone_key(),
            &provider,
        )
        .map_err(TlsError::Key)?;
        let config = config(provider, verifier, key).map_err(TlsError::Config)?;
        Ok(Self {
            config: Arc::new(config),
            server,
            sni,
        })
    }

    /// Reads the ClientHello; the caller sets the time limit.
    pub(super) async fn greet(stream: TcpStream) -> Result<Greeted, HandshakeRefusal> {
        let door = Door {
            stream,
            left: HELLO_BYTES_MAX,
        };
        match LazyConfigAcceptor::new(Acceptor::default(), door).await {
            Ok(start) => {
                let stream = start.io.stream;
                let start = StartHandshake::from_parts(start.accepted, stream);
                Ok(Greeted(start))
            }
            Err(error) => Err(HandshakeRefusal::of(error, None)),
        }
    }

    /// Shakes hands; the caller sets the time limit.
    pub(super) async fn accept(&self, greeted: Greeted) -> Result<Shaken, HandshakeRefusal> {
        let mut accept = pin!(greeted.0.into_stream(Arc::clone(&self.config)));
        let mut shown = None;
        let shaken = poll_fn(|cx| {
            // Another handshake's, if that was dropped in its poll.
            REFUSED.take();
            let polled = accept.as_mut().poll(cx);
            // The alert may have to wait, and the refusal with it.
            shown = REFUSED.take().or(shown.take());
            polled
        });
        match shaken.await {
            Ok(stream) => self.know(Box::new(stream)),
            Err(error) => Err(HandshakeRefusal::of(error, shown)),
        }
    }

    /// Who has shaken hands, and whether it asked for this gateway.
    fn know(&self, stream: Box<TlsStream<TcpStream>>) -> Result<Shaken, HandshakeRefusal> {
        let refusal = |reason, error: &str, shown| HandshakeRefusal {
            reason,
            error: io::Error::other(error.to_owned()),
            shown,
        };
        let connection = stream.get_ref().1;
        let leaf = connection.peer_certificates().and_then(|c| c.first());
        let leaf = leaf.ok_or_else(|| {
            refusal(
                "tls-no-certificate",
                "the client showed no certificate",
                None,
            )
        })?;
        let Ok(certificate) = Certificate::parse(leaf) else {
            let error = "the certificate cannot be read";
            return Err(refusal("tls-certificate-invalid", error, None));
        };
        let domain = connection.server_name();
        if let Some(domain) = domain
            && self.sni == Sni::Checked
            && !self.is_named(domain)
        {
            let error = format!("the server certificate does not name `{domain}`");
            let shown = ShownCertificate::of(leaf);
            return Err(refusal("tls-sni-mismatch", &error, shown));
        }
        Ok(Shaken {
            certificate: Arc::new(certificate),
            chain: connection.peer_certificates().unwrap_or_default().to_vec(),
            domain: domain.map(Arc::from),
            stream,
        })
    }

    fn is_named(&self, domain: &str) -> bool {
        let (Some(server), Ok(name)) = (&self.server, ServerName::try_from(domain)) else {
            return false;
        };
        ParsedCertificate::try_from(server)
            .is_ok_and(|parsed| verify_server_name(&parsed, &name).is_ok())
    }
}

fn config(
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    key: CertifiedKey,
) -> Result<ServerConfig, Error> {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(Witness { inner: verifier }))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

impl HandshakeRefusal {
    fn of(error: io::Error, shown: Option<ShownCertificate>) -> Self {
        Self {
            reason: reason(&error),
            error,
            shown,
        }
    }
}

/// A connection from which no more is read than a ClientHello has.
#[derive(Debug)]
struct Door {
    stream: TcpStream,
    left: usize,
}

impl AsyncRead for Door {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            let error = io::Error::new(io::ErrorKind::InvalidData, Error::PeerSentOversizedRecord);
            return Poll::Ready(Err(error));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len().saturating_sub(before);
        self.left = self.left.saturating_sub(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Door {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The metric label of a failed handshake.
fn reason(error: &io::Error) -> &'static str {
    match error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>())
    {
        Some(Error::NoCertificatesPresented) => "tls-no-certificate",
        Some(Error::InvalidCertificate(error)) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "tls-certificate-expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "tls-certificate-not-yet-valid"
            }
            CertificateError::Revoked => "tls-certificate-revoked",
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "tls-certificate-unknown-issuer"
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                "tls-certificate-wrong-purpose"
            }
            _ => "tls-certificate-invalid",
        },
        Some(_) => "tls-protocol",
        None => "tls-connection",
    }
}

/// Checks as the inner verifier does and leaves whom it refused in `REFUSED`.
#[derive(Debug)]
struct Witness {
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Witness {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.inner
            .verify_client_cert(end_entity, intermediates, now)
            .inspect_err(|_| REFUSED.set(ShownCertificate::of(end_entity)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
