use proptest::prelude::*;
use x509_parser::pem::parse_x509_pem;

use super::*;

/// Made with OpenSSL: every attribute that has a variable, two organizational units, alternative
/// names of every kind, six host names.
const RICH: &str = include_str!("fixtures/rich.pem");

fn der(pem: &str) -> Vec<u8> {
    parse_x509_pem(pem.as_bytes()).unwrap().1.contents
}

#[test]
fn every_variable_of_a_rich_certificate_has_its_values_in_their_order() {
    let der = der(RICH);
    let certificate = Certificate::parse(&der).unwrap();
    assert_eq!(certificate.id, CertificateId::of_der(&der));
    assert_eq!(certificate.serial_number, "41394");
    assert_eq!(
        certificate.serial_hex, "00a1b2",
        "a leading zero keeps it positive"
    );
    for (attribute, values) in [
        (NameAttribute::Country, vec!["DE"]),
        (NameAttribute::State, vec!["Bayern"]),
        (NameAttribute::Organization, vec!["Example, Inc."]),
        (
            NameAttribute::OrganizationalUnit,
            vec!["cold-chain", "building 7"],
        ),
        (NameAttribute::CommonName, vec!["sensor-1"]),
        (NameAttribute::SerialNumber, vec!["SN-42"]),
        (NameAttribute::Title, vec!["Logger"]),
        (NameAttribute::Surname, vec!["Muster"]),
        (NameAttribute::GivenName, vec!["Erika"]),
        (NameAttribute::Initials, vec!["E.M."]),
        (NameAttribute::Pseudonym, vec!["ice"]),
        (NameAttribute::GenerationQualifier, vec!["III"]),
        (NameAttribute::DistinguishedNameQualifier, vec!["q1"]),
        (
            NameAttribute::Rfc822Name,
            vec!["one@example.org", "two@example.org"],
        ),
        (
            NameAttribute::DnsName,
            vec![
                "a.example.org",
                "b.example.org",
                "c.example.org",
                "d.example.org",
                "e.example.org",
            ],
        ),
        (
            NameAttribute::UniformResourceIdentifier,
            vec!["urn:device:1"],
        ),
        (NameAttribute::IpAddress, vec!["192.0.2.7", "2001:db8::7"]),
        (
            NameAttribute::DirectoryName,
            vec![r"CN=\#1,O=Acme \+ Sons,C=DE"],
        ),
    ] {
        assert_eq!(certificate.subject.get(attribute), values, "{attribute:?}");
    }
    let escaped = |attribute| certificate.subject.escaped(attribute, 0);
    assert_eq!(
        escaped(NameAttribute::Organization),
        Some(r"Example\, Inc.")
    );
    assert_eq!(escaped(NameAttribute::CommonName), None);
    assert_eq!(escaped(NameAttribute::DirectoryName), None, "not twice");
    assert!(certificate.subject.has_more(NameAttribute::DnsName));
    assert!(!certificate.subject.has_more(NameAttribute::Rfc822Name));
    let issuer = |attribute| certificate.issuer.get(attribute);
    assert_eq!(issuer(NameAttribute::CommonName), ["sensor-1"]);
    assert_eq!(issuer(NameAttribute::Rfc822Name), ["ca@example.org"]);
    assert_eq!(
        issuer(NameAttribute::UniformResourceIdentifier),
        ["https://ca.example.org"]
    );
    assert!(issuer(NameAttribute::DnsName).is_empty());
    assert!(certificate.not_before < certificate.not_after);
}

/// The first is AWS's own example.
#[test]
fn a_serial_number_is_an_unsigned_decimal_number() {
    for (bytes, written) in [
        (
            &[0x92, 0x12, 0x85, 0xcb, 0xb7, 0xa5, 0xe0, 0x86][..],
            "10525622389124227206",
        ),
        (
            &[0x00, 0x92, 0x12, 0x85, 0xcb, 0xb7, 0xa5, 0xe0, 0x86],
            "10525622389124227206",
        ),
        (&[], "0"),
        (&[0, 0], "0"),
        (&[9], "9"),
        (&[10], "10"),
        (&[0xff; 16], "340282366920938463463374607431768211455"),
    ] {
        assert_eq!(decimal(bytes), written, "{bytes:?}");
    }
    assert_eq!(decimal(&[1; SERIAL_BYTES_MAX + 1]), "", "no value");
}

#[test]
fn special_characters_are_written_with_a_backslash() {
    for (value, written) in [
        ("plain", "plain"),
        ("Example, Inc.", r"Example\, Inc."),
        ("a+b=c", r"a\+b\=c"),
        (r#"<"\;>"#, r#"\<\"\\\;\>"#),
        ("#1", r"\#1"),
        ("a#1", "a#1"),
        (" a b ", r"\ a b\ "),
        (" ", r"\ "),
        ("", ""),
        ("a\0,", "a\\00\\,"),
        ("ü, ß ", r"ü\, ß\ "),
    ] {
        assert_eq!(escaped(value), written);
    }
}

#[test]
fn keys_are_strong_enough_or_named() {
    for (pem, strength) in [
        (RICH, Ok(())),
        (include_str!("fixtures/rsa-2048.pem"), Ok(())),
        (include_str!("fixtures/ed25519.pem"), Ok(())),
        (
            include_str!("fixtures/rsa-1024.pem"),
            Err(KeyError::Weak(1024)),
        ),
        (
            include_str!("fixtures/p192.pem"),
            Err(KeyError::Curve("prime192v1".to_owned())),
        ),
        (
            include_str!("fixtures/secp256k1.pem"),
            Err(KeyError::Curve("secp256k1".to_owned())),
        ),
        (
            include_str!("fixtures/p521.pem"),
            Err(KeyError::Curve("secp521r1 (P-521)".to_owned())),
        ),
    ] {
        let der = der(pem);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(
            check_key(certificate.public_key()),
            strength,
            "{}",
            certificate.subject()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn parsing_never_panics(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<Option<prop::sample::Index>>(),
    ) {
        let mut bytes = der(RICH);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(certificate) = Certificate::parse(&bytes) {
            prop_assert_eq!(certificate.id, CertificateId::of_der(&bytes));
        }
        if let Ok((_, certificate)) = X509Certificate::from_der(&bytes) {
            // Any answer will do.
            drop(check_key(certificate.public_key()));
        }
    }
}
