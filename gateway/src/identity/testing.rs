//! A configuration in a directory of its own, with CAs that a test makes.

use std::{fs, path::PathBuf, sync::Arc};

use portcullis_core::{certificate::Certificate, identity::CertificateId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use time::{Duration, OffsetDateTime};

use super::{Config, Snapshot, authority::Authority, config::Room, files, load};

const REGISTRY: &str = r#"
[[group]]
name = "devices"
policies = ["device"]
[[group]]
name = "loggers"
[[group]]
name = "north"
parent = "loggers"
[[thing]]
name = "t1"
groups = ["devices"]
"#;

pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: Config,
}

/// A CA of a test, with its key.
pub(crate) struct TestCa {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
    pub(crate) key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A device's certificate.
pub(crate) struct Leaf {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
    pub(crate) certificate: Arc<Certificate>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let config = Config {
            registry: path("registry.toml"),
            journal: path("data/registry.journal"),
            policies: path("policies"),
            templates: path("templates"),
            pki: path("pki"),
            crls: vec![path("pki/crl")],
            ca_certificates: vec![path("pki/ca.pem")],
            server_certificate: path("pki/server.pem"),
            server_key: path("pki/server.key"),
            require_thing: true,
            rules: Arc::default(),
            room: Room::default(),
        };
        for name in ["policies", "templates", "pki", "pki/crl", "data"] {
            fs::create_dir(path(name)).unwrap();
        }
        let authority = Authority::create(&config.ca_certificates[0], "test").unwrap();
        let server = authority.issue_server(&["localhost".to_owned()]).unwrap();
        let bench = Self { dir, config };
        bench.write("pki/server.pem", &server.certificate_pem);
        bench.write("pki/server.key", &server.key_pem.unwrap());
        bench.write("registry.toml", REGISTRY);
        bench.policy("device");
        bench.policy("extra");
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        files::write(&self.path(name), text.as_bytes()).unwrap();
    }

    pub(crate) fn append(&self, text: &str) {
        let before = fs::read_to_string(&self.config.registry).unwrap();
        self.write("registry.toml", &format!("{before}\n{text}"));
    }

    pub(crate) fn policy(&self, name: &str) {
        let text = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"*"}}"#;
        self.write(&format!("policies/{name}.json"), text);
    }

    /// What the files say now, as the `generation`th snapshot.
    pub(crate) fn snapshot(&self, generation: u64) -> Arc<Snapshot> {
        let mut snapshot = load(&self.config, &[]).unwrap();
        snapshot.generation = generation;
        Arc::new(snapshot)
    }

    /// Puts a CA beside the others and into the registry.
    pub(crate) fn register(&self, name: &str, ca: &TestCa, keys: &str) {
        self.write(&format!("pki/{name}.pem"), &ca.pem);
        self.append(&format!(
            "[[ca]]\ncertificate = \"pki/{name}.pem\"\n{keys}\n"
        ));
    }

    /// The mistakes of the configuration.
    pub(crate) fn problems(&self) -> Vec<String> {
        let problems = load(&self.config, &[]).err().unwrap_or_default();
        problems.iter().map(ToString::to_string).collect()
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = OffsetDateTime::now_utc() - Duration::days(1);
    params.not_after = OffsetDateTime::now_utc() + Duration::days(30);
    params.use_authority_key_identifier_extension = true;
    params
}

impl TestCa {
    pub(crate) fn root(name: &str) -> Self {
        Self::make(name, None)
    }

    /// One below this one.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        Self::make(name, Some(self))
    }

    fn make(name: &str, above: Option<&Self>) -> Self {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().unwrap();
        let certificate = match above {
            Some(above) => params.signed_by(&key, &above.issuer),
            None => params.self_signed(&key),
        }
        .unwrap();
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn id(&self) -> CertificateId {
        CertificateId::of_der(&self.der)
    }

    pub(crate) fn leaf(&self, name: &str) -> Leaf {
        self.leaf_with(name, |_| {})
    }

    pub(crate) fn leaf_with(&self, name: &str, f: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = params(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        f(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            certificate: Arc::new(Certificate::parse(certificate.der()).unwrap()),
            der: certificate.der().clone(),
            pem: certificate.pem(),
        }
    }

    /// The `number`th revocation list, due in `days`.
    pub(crate) fn crl(&self, number: u64, days: i64, revoked: &[&Leaf]) -> String {
        let now = OffsetDateTime::now_utc();
        let entry = |leaf: &&Leaf| {
            let hex = &leaf.certificate.serial_hex;
            let bytes: Vec<u8> = (0..hex.len() / 2)
                .map(|at| u8::from_str_radix(hex.get(at * 2..at * 2 + 2).unwrap(), 16).unwrap())
                .collect();
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(&bytes),
                revocation_time: now,
                reason_code: None,
                invalidity_date: None,
            }
        };
        let made = i64::try_from(number).unwrap();
        CertificateRevocationListParams {
            this_update: now - Duration::days(20) + Duration::hours(made),
            next_update: now + Duration::days(days),
            crl_number: SerialNumber::from(number),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .unwrap()
        .pem()
        .unwrap()
    }
}
