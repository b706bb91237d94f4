//! Whether a public key is strong enough to be registered (specification A.11).

use x509_parser::{public_key::PublicKey, x509::SubjectPublicKeyInfo};

use crate::limits::RSA_BITS_MIN;

/// Why a key cannot be a device's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// RSA with a short modulus.
    #[error("its RSA key has {0} bits, fewer than {RSA_BITS_MIN}")]
    Weak(usize),
    /// Neither RSA nor on a curve of at least 256 bits.
    #[error("its key is neither RSA, ECDSA on P-256, P-384 or P-521, nor Ed25519")]
    Kind,
}

/// Checks the strength of a public key.
pub fn check_key(key: &SubjectPublicKeyInfo<'_>) -> Result<(), KeyError> {
    if key.algorithm.algorithm == ED25519 {
        return match key.subject_public_key.data.len() {
            32 => Ok(()),
            _ => Err(KeyError::Kind),
        };
    }
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => match bits(rsa.modulus) {
            bits if bits < RSA_BITS_MIN => Err(KeyError::Weak(bits)),
            _ => Ok(()),
        },
        // Uncompressed points on P-256, P-384 and P-521.
        Ok(PublicKey::EC(point)) if matches!(point.data().len(), 65 | 97 | 133) => Ok(()),
        _ => Err(KeyError::Kind),
    }
}

const ED25519: x509_parser::der_parser::oid::Oid<'static> =
    x509_parser::der_parser::oid!(1.3.101.112);

/// The bits of a big-endian number: leading zeros do not make a key longer.
fn bits(number: &[u8]) -> usize {
    let digits: &[u8] = match number.iter().position(|byte| *byte != 0) {
        Some(first) => number.get(first..).unwrap_or_default(),
        None => return 0,
    };
    let leading = digits.first().map_or(0, |byte| byte.leading_zeros());
    digits.len() * 8 - usize::try_from(leading).unwrap_or(0)
}
