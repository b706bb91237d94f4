//! The names in a certificate: one value, or several.

use super::{NAMES, holds, holds_for_stranger, test};
use crate::certificate::Certificate;

/// Specification A.3 and G.1: the bare name is the first value, `.1` the second.
#[test]
fn the_index_counts_from_the_second_value() {
    for (name, value) in [
        ("iot:Certificate.Subject.OrganizationalUnit", "Meters"),
        ("iot:Certificate.Subject.OrganizationalUnit.1", "Lab"),
        ("iot:Certificate.Subject.OrganizationalUnit.2", "Cellar"),
        ("iot:Certificate.Issuer.OrganizationalUnit.1", "Second CA"),
        ("iot:Certificate.Subject.AlternativeName.DNSName", "c1.site"),
        (
            "iot:Certificate.Subject.AlternativeName.DNSName.1",
            "meter.site",
        ),
    ] {
        assert!(
            holds(&test("StringEquals", name, &format!("\"{value}\""))),
            "{name}"
        );
    }
    assert!(!holds(&test(
        "StringLike",
        "iot:Certificate.Subject.OrganizationalUnit.3",
        r#""*""#
    )));
}

/// Specification A.3, the certificate variables.
#[test]
fn every_part_of_a_certificate_can_be_asked_for() {
    for (name, value) in [
        ("Subject.DistinguishedNameQualifier", "q1"),
        ("Subject.Country", "DE"),
        ("Subject.Organization", "Works"),
        ("Subject.State", "Bavaria"),
        ("Subject.CommonName", "c1"),
        ("Subject.SerialNumber", "SN-7"),
        ("Subject.Title", "Meter"),
        ("Subject.Surname", "Huber"),
        ("Subject.GivenName", "Anna"),
        ("Subject.Initials", "AH"),
        ("Subject.Pseudonym", "annie"),
        ("Subject.GenerationQualifier", "II"),
        ("Subject.AlternativeName.RFC822Name", "a@site"),
        ("Subject.AlternativeName.DirectoryName", "CN=Directory"),
        (
            "Subject.AlternativeName.UniformResourceIdentifier",
            "urn:site:c1",
        ),
        ("Subject.AlternativeName.IPAddress", "10.1.2.3"),
        ("Issuer.CommonName", "Site CA"),
        ("Issuer.Country", "DE"),
        ("SerialNumber", "658188"),
    ] {
        let key = format!("iot:Certificate.{name}");
        assert!(
            holds(&test("StringEquals", &key, &format!("\"{value}\""))),
            "{key}"
        );
        let itself = format!("\"${{{key}}}\"");
        assert!(holds(&test("StringEquals", &key, &itself)), "{itself}");
        assert!(
            !holds_for_stranger(&test("StringLike", &key, r#""*""#)),
            "{key}"
        );
    }
    let id = Certificate::parse(NAMES).unwrap().id;
    assert!(holds(&test(
        "StringEquals",
        "iot:CertificateId",
        &format!("\"{id}\"")
    )));
}

/// Specification A.3, `.List` and `AvailableKeys`.
#[test]
fn lists_are_compared_value_by_value() {
    let units = "iot:Certificate.Subject.OrganizationalUnit.List";
    for (operator, values, expected) in [
        (
            "ForAllValues:StringEquals",
            r#"["Meters","Lab","Cellar","Attic"]"#,
            true,
        ),
        ("ForAllValues:StringEquals", r#"["Meters","Lab"]"#, false),
        ("ForAnyValue:StringEquals", r#"["Lab","Attic"]"#, true),
        ("ForAnyValue:StringEquals", r#""Attic""#, false),
        ("ForAnyValue:StringEquals", "[]", false),
        ("ForAllValues:StringLike", r#""*e*""#, false),
        ("ForAnyValue:StringNotEquals", r#"["Meters","Lab"]"#, true),
        (
            "ForAnyValue:StringNotEquals",
            r#"["Meters","Lab","Cellar"]"#,
            false,
        ),
        ("ForAllValues:StringNotEquals", r#"["Lab"]"#, false),
        ("ForAllValues:StringNotEquals", r#"["Attic"]"#, true),
        ("ForAllValues:StringNotEquals", "[]", true),
    ] {
        let condition = test(operator, units, values);
        assert_eq!(holds(&condition), expected, "{condition}");
    }
    let available = "iot:Certificate.AvailableKeys";
    let pseudonym = r#""iot:Certificate.Subject.Pseudonym""#;
    assert!(holds(&test(
        "ForAnyValue:StringEquals",
        available,
        pseudonym
    )));
    let issuer = r#""iot:Certificate.Issuer.Pseudonym""#;
    assert!(!holds(&test("ForAnyValue:StringEquals", available, issuer)));
}
