//! The names in a certificate: one value, or several.

use super::{NAMES, holds, holds_for, holds_for_stranger, test};
use crate::{certificate::Certificate, policy::Rules};
use x509_parser::pem::parse_x509_pem;

const RICH: &str = include_str!("../../../certificate/fixtures/rich.pem");

/// For a client with the certificate `rich.pem`.
fn holds_for_rich(effect: &str, condition: &str) -> bool {
    let der = parse_x509_pem(RICH.as_bytes()).unwrap().1.contents;
    let certificate = Certificate::parse(&der).unwrap();
    // What borrows the certificate may not outlive it.
    let certificate = Box::leak(Box::new(certificate));
    holds_for(effect, condition, Rules::default(), |context| {
        context.certificate = Some(certificate);
    })
}

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

/// Specification A.3: special characters of a compared value are written with a backslash.
#[test]
fn a_name_is_taken_as_it_is_or_with_its_special_characters_escaped() {
    let organization = "iot:Certificate.Subject.Organization";
    let all = "iot:Certificate.Subject.Organization.List";
    for (operator, key, value, expected) in [
        ("StringEquals", organization, "Example, Inc.", true),
        ("StringEquals", organization, r"Example\\, Inc.", true),
        ("StringEquals", organization, r"Example\\, inc.", false),
        ("StringNotEquals", organization, r"Example\\, Inc.", false),
        ("StringNotEquals", organization, "Example, Inc.", false),
        ("StringNotEquals", organization, "Example Inc.", true),
        ("StringLike", organization, r"*\\, I*", true),
        (
            "StringEqualsIgnoreCase",
            organization,
            r"EXAMPLE\\, inc.",
            true,
        ),
        ("ForAnyValue:StringEquals", all, r"Example\\, Inc.", true),
        (
            "ForAllValues:StringNotEquals",
            all,
            r"Example\\, Inc.",
            false,
        ),
    ] {
        let condition = test(operator, key, &format!("\"{value}\""));
        for effect in ["Allow", "Deny"] {
            assert_eq!(
                holds_for_rich(effect, &condition),
                expected,
                "{effect} {condition}"
            );
        }
    }
    let directory = "iot:Certificate.Subject.AlternativeName.DirectoryName";
    for (value, expected) in [
        (r"CN=\\#1,O=Acme \\+ Sons,C=DE", true),
        (r"CN\\=\\\\\\#1\\,O\\=Acme \\\\\\+ Sons\\,C\\=DE", false),
    ] {
        let condition = test("StringEquals", directory, &format!("\"{value}\""));
        assert_eq!(holds_for_rich("Allow", &condition), expected, "{condition}");
    }
}

/// The module's own rule: five values are kept, and the sixth host name may be anything.
#[test]
fn values_beyond_those_that_are_kept_count_against_the_client() {
    let hosts = "iot:Certificate.Subject.AlternativeName.DNSName.List";
    for (operator, value, allow, deny) in [
        (
            "ForAnyValue:StringEquals",
            r#""f.example.org""#,
            false,
            true,
        ),
        ("ForAnyValue:StringEquals", r#""a.example.org""#, true, true),
        ("ForAllValues:StringLike", r#""*.example.org""#, false, true),
        (
            "ForAllValues:StringEquals",
            r#""a.example.org""#,
            false,
            false,
        ),
        ("ForAllValues:StringNotEquals", r#""x""#, false, true),
        ("ForAnyValue:StringEquals", "[]", false, false),
    ] {
        let condition = test(operator, hosts, value);
        let held = ["Allow", "Deny"].map(|effect| holds_for_rich(effect, &condition));
        assert_eq!(held, [allow, deny], "{condition}");
    }
}
