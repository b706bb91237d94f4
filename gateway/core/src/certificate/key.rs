//! Whether a public key is strong enough to be registered (specification A.11), and whether TLS here
//! can verify what it signs: a certificate that is registered and cannot connect helps nobody.

use x509_parser::{
    der_parser::{oid, oid::Oid},
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use crate::limits::{RSA_BITS_MAX, RSA_BITS_MIN};

/// Why a key cannot be a device's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// RSA with a short modulus.
    #[error("its RSA key has {0} bits, fewer than {RSA_BITS_MIN}")]
    Weak(usize),
    /// RSA with a modulus that is longer than TLS here can verify.
    #[error("its RSA key has {0} bits, more than the {RSA_BITS_MAX} that TLS here can verify")]
    Long(usize),
    /// On another curve.
    #[error("its key is on the curve {0}, which TLS here cannot verify; use P-256 or P-384")]
    Curve(String),
    /// None of the kinds that TLS here can verify.
    #[error("its key is neither RSA, ECDSA on P-256 or P-384, nor Ed25519")]
    Kind,
}

/// Checks strength and kind of a public key.
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
            bits if bits > RSA_BITS_MAX => Err(KeyError::Long(bits)),
            _ => Ok(()),
        },
        Ok(PublicKey::EC(point)) => {
            let curve = key.algorithm.parameters.as_ref();
            let curve = curve.and_then(|parameters| parameters.as_oid().ok());
            let curve = curve.ok_or(KeyError::Kind)?;
            // Uncompressed points.
            match (curve, point.data().len()) {
                (curve, 65) if curve == P_256 => Ok(()),
                (curve, 97) if curve == P_384 => Ok(()),
                (curve, _) if curve == P_256 || curve == P_384 => Err(KeyError::Kind),
                (curve, _) => Err(KeyError::Curve(curve_name(&curve))),
            }
        }
        _ => Err(KeyError::Kind),
    }
}

const P_256: Oid<'static> = oid!(1.2.840.10045.3.1.7);
const P_384: Oid<'static> = oid!(1.3.132.0.34);

/// As OpenSSL calls it.
fn curve_name(curve: &Oid<'_>) -> String {
    let known = [
        (oid!(1.2.840.10045.3.1.1), "prime192v1"),
        (oid!(1.3.132.0.33), "secp224r1"),
        (oid!(1.3.132.0.10), "secp256k1"),
        (oid!(1.3.132.0.35), "secp521r1 (P-521)"),
        (oid!(1.3.36.3.3.2.8.1.1.7), "brainpoolP256r1"),
        (oid!(1.3.36.3.3.2.8.1.1.11), "brainpoolP384r1"),
        (oid!(1.3.36.3.3.2.8.1.1.13), "brainpoolP512r1"),
    ];
    let name = known.iter().find(|(oid, _)| oid == curve);
    name.map_or_else(|| curve.to_id_string(), |(_, name)| (*name).to_owned())
}

const ED25519: Oid<'static> = oid!(1.3.101.112);

/// The bits of a big-endian number: leading zeros do not make a key longer.
fn bits(number: &[u8]) -> usize {
    let digits: &[u8] = match number.iter().position(|byte| *byte != 0) {
        Some(first) => number.get(first..).unwrap_or_default(),
        None => return 0,
    };
    let leading = digits.first().map_or(0, |byte| byte.leading_zeros());
    digits.len() * 8 - usize::try_from(leading).unwrap_or(0)
}
