//! Private keys of CAs: PKCS #8, and the older forms that OpenSSL writes; and which of them cannot
//! sign.
//!
//! What signs here takes PKCS #8 alone. An older form is the inside of one, so it is put into it.

use std::path::{Path, PathBuf};

use portcullis_core::{
    problem::Problem,
    registry::{CaStatus, RegisteredCa},
};
use rcgen::KeyPair;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};

use super::{
    Config,
    authority::{Authority, AuthorityError, key_of},
    lifecycle,
};
use crate::chain::chain;

/// Why a file is not the key of a CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaKeyError {
    /// Nobody here knows the passphrase.
    #[error("it is encrypted")]
    Encrypted,
    /// No key, or of another kind.
    #[error(
        "it holds no private key of a kind that signs here (ECDSA on P-256 or P-384 with its public \
         key, Ed25519, RSA of 2048 bits and more)"
    )]
    Kind,
}

/// The key in `pem`.
pub(super) fn read(pem: &str) -> Result<KeyPair, CaKeyError> {
    // Of PKCS #8 and of the older forms.
    if pem.contains("ENCRYPTED") {
        return Err(CaKeyError::Encrypted);
    }
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| CaKeyError::Kind)?;
    let forms = match &key {
        PrivateKeyDer::Pkcs8(key) => vec![key.clone_key()],
        PrivateKeyDer::Sec1(key) => {
            let key = key.secret_sec1_der();
            [&P_256[..], &P_384].map(|curve| pkcs8(curve, key)).into()
        }
        PrivateKeyDer::Pkcs1(key) => vec![pkcs8(&RSA, key.secret_pkcs1_der())],
        _ => Vec::new(),
    };
    let mut usable = forms
        .into_iter()
        .filter_map(|key| KeyPair::try_from(&PrivateKeyDer::Pkcs8(key)).ok());
    usable.next().ok_or(CaKeyError::Kind)
}

/// Object identifiers and parameters, in DER: `id-ecPublicKey` and a curve, or `rsaEncryption`.
const P_256: [u8; 19] = [
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d,
    0x03, 0x01, 0x07,
];
const P_384: [u8; 16] = [
    0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
];
const RSA: [u8; 13] = [
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];

fn pkcs8(algorithm: &[u8], key: &[u8]) -> PrivatePkcs8KeyDer<'static> {
    const INTEGER: [u8; 3] = [0x02, 0x01, 0x00];
    let inside = [
        INTEGER.to_vec(),
        element(0x30, algorithm),
        element(0x04, key),
    ];
    element(0x30, &inside.concat()).into()
}

/// Tag, length and content.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let bytes = content.len().to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let length = bytes.get(zeros..).unwrap_or_default();
    let mut element = vec![tag];
    match (content.len(), u8::try_from(length.len())) {
        (0..=0x7f, _) | (_, Err(_)) => element.push(length.first().copied().unwrap_or(0)),
        (_, Ok(count)) => {
            element.push(0x80 | count);
            element.extend(length);
        }
    }
    element.extend(content);
    element
}

/// The CAs that have a key beside them and cannot sign with it.
pub fn unusable(config: &Config, registered: &[RegisteredCa]) -> Vec<Problem> {
    let of_registry = |ca: &RegisteredCa| config.of_registry(&ca.certificate);
    let is_inactive = |file: &PathBuf| {
        let mut inactive = registered
            .iter()
            .filter(|ca| ca.status == CaStatus::Inactive);
        inactive.any(|ca| lifecycle::is_same(&of_registry(ca), file))
    };
    let mut files = config.ca_certificates.clone();
    files.extend(registered.iter().map(of_registry));
    files.dedup();
    files
        .iter()
        .filter(|file| key_of(file).exists() && !is_inactive(file))
        .filter_map(|file| mistake(file, &Authority::open(file).err()?))
        .collect()
}

fn mistake(certificate: &Path, error: &AuthorityError) -> Option<Problem> {
    let remedy = match error {
        // The certificate has that mistake, and it is told of it.
        AuthorityError::Expired(_)
        | AuthorityError::Key { .. }
        | AuthorityError::Content { .. } => return None,
        AuthorityError::Read { .. } => "make it readable for the gateway's user",
        AuthorityError::OtherKey { .. } => "put the key there that was made with the certificate",
        _ => "put its key there in PKCS #8, or move the file away if it is to sign nothing",
    };
    Some(Problem {
        file: key_of(certificate),
        place: None,
        message: format!("the CA cannot sign: {}", chain(error)),
        remedy: remedy.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustls::pki_types::CertificateDer;

    use super::*;
    use crate::identity::{TrustedCa, authority::Subject, testing::Bench, trust};

    #[test]
    fn keys_of_openssl_sign_and_others_are_told_with_a_remedy() {
        let bench = Bench::new();
        let told = |certificate: &str, key: &str| {
            bench.write("pki/ca.pem", certificate);
            bench.write("pki/ca.key", key);
            let told = unusable(&bench.config, &[]);
            told.first().map(ToString::to_string)
        };
        let ec = include_str!("fixtures/ec-ca.pem");
        let ec_key = include_str!("fixtures/ec-ca.key");
        assert!(ec_key.contains("BEGIN EC PRIVATE KEY"));
        assert_eq!(told(ec, ec_key), None);
        let rsa = include_str!("fixtures/rsa-ca.pem");
        assert_eq!(told(rsa, include_str!("fixtures/rsa-ca.key")), None);
        assert_eq!(told(rsa, include_str!("fixtures/rsa-ca-pkcs1.key")), None);

        let other = told(rsa, ec_key).unwrap();
        assert!(other.contains("is not the key of"), "{other}");
        for (key, cause) in [
            ("nothing", "no private key of a kind"),
            (
                &ec_key.replace("MHcCAQ", "MHcCAg"),
                "no private key of a kind",
            ),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "it is encrypted"),
        ] {
            let told = told(ec, key).unwrap();
            assert!(told.contains(cause), "{told}");
            assert!(told.contains("openssl pkcs8 -topk8 -nocrypt"), "{told}");
        }
        fs::remove_file(bench.path("pki/ca.key")).unwrap();
        assert_eq!(unusable(&bench.config, &[]).len(), 0, "without a key");
    }

    #[test]
    fn an_authority_with_a_key_of_openssl_signs_what_leads_to_it() {
        let bench = Bench::new();
        for (name, pem_of_ca, key) in [
            (
                "ec",
                include_str!("fixtures/ec-ca.pem"),
                include_str!("fixtures/ec-ca.key"),
            ),
            (
                "rsa",
                include_str!("fixtures/rsa-ca.pem"),
                include_str!("fixtures/rsa-ca-pkcs1.key"),
            ),
        ] {
            bench.write(&format!("pki/{name}.pem"), pem_of_ca);
            bench.write(&format!("pki/{name}.key"), key);
            let file = bench.path(&format!("pki/{name}.pem"));
            let authority = Authority::open(&file).unwrap();
            let issued = authority.issue_device(&Subject::named("t1"), 1).unwrap();
            let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
            let ca = TrustedCa::new(&file, pem(pem_of_ca));
            let leaf = pem(&issued.certificate_pem);
            assert!(trust::check(&[ca], &leaf, &[]).is_ok(), "{name}");
        }
    }
}
