//! TLS 1.2 and 1.3 with mandatory client certificates.
//!
//! A handshake gets its own verifier, so that a refusal can name the certificate that was shown.
//! Sessions are never resumed: every connection proves its certificate anew, and a revoked one
//! cannot come back on an old ticket.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use portcullis_core::{certificate::Certificate, identity::CertificateId};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{danger::HandshakeSignatureValid, verify_server_name},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        NoServerSessionStorage, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::Trust;

/// Everything that handshakes share; made anew when CA or server certificate change.
#[derive(Debug)]
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ClientCertVerifier>,
    resolver: Arc<dyn ResolvesServerCert>,
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
}

/// A handshake that succeeded.
#[derive(Debug)]
pub(super) struct Shaken {
    pub(super) stream: TlsStream<TcpStream>,
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
        Ok(Self {
            provider,
            verifier,
            resolver: Arc::new(SingleCertAndKey::from(key)),
            server,
            sni,
        })
    }

    /// Shakes hands; the caller sets the time limit.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<Shaken, HandshakeRefusal> {
        let shown = Arc::new(Mutex::new(None));
        let config = self
            .config(Arc::clone(&shown))
            .map_err(|error| HandshakeRefusal {
                reason: "tls-config",
                error: io::Error::other(error),
                shown: None,
            })?;
        match TlsAcceptor::from(Arc::new(config)).accept(stream).await {
            Ok(stream) => self.know(stream),
            Err(error) => {
                let shown = shown.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(HandshakeRefusal {
                    reason: reason(&error),
                    error,
                    shown,
                })
            }
        }
    }

    /// Who has shaken hands, and whether it asked for this gateway.
    fn know(&self, stream: TlsStream<TcpStream>) -> Result<Shaken, HandshakeRefusal> {
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

    fn config(&self, shown: Arc<Mutex<Option<ShownCertificate>>>) -> Result<ServerConfig, Error> {
        let verifier = Witness {
            inner: Arc::clone(&self.verifier),
            shown,
        };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::clone(&self.resolver));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
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

/// Checks as the inner verifier does and remembers whom it refused.
#[derive(Debug)]
struct Witness {
    inner: Arc<dyn ClientCertVerifier>,
    shown: Arc<Mutex<Option<ShownCertificate>>>,
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
            .inspect_err(|_| {
                let shown = ShownCertificate::of(end_entity);
                *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
            })
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
