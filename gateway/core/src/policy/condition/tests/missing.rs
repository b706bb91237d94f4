//! Keys and variables without a value.

use super::{ATTRIBUTE, holds, holds_for, holds_for_stranger, test};
use crate::policy::Rules;

/// Specification A.4, "Key absent".
#[test]
fn an_absent_key_fails_unless_the_operator_says_otherwise() {
    for (operator, value) in [
        ("StringEquals", r#""a""#),
        ("StringEqualsIgnoreCase", r#""a""#),
        ("StringLike", r#""*""#),
        ("NumericEquals", "1"),
        ("DateLessThan", "\"2026-01-01\""),
        ("Bool", "true"),
        ("IpAddress", r#""0.0.0.0/0""#),
        ("ArnLike", r#""arn:*:*:*:*:*""#),
    ] {
        let negated = match operator.strip_prefix("Arn") {
            Some(rest) => format!("ArnNot{rest}"),
            None => operator
                .replacen("String", "StringNot", 1)
                .replacen("Numeric", "NumericNot", 1)
                .replacen("IpAddress", "NotIpAddress", 1),
        };
        for key in [&format!("{ATTRIBUTE}[zone]"), &format!("{ATTRIBUTE}[none]")] {
            let stranger = |operator: &str| holds_for_stranger(&test(operator, key, value));
            assert!(!stranger(operator), "{operator}");
            assert!(stranger(&format!("{operator}IfExists")), "{operator}");
            assert!(stranger(&format!("ForAllValues:{operator}")), "{operator}");
            assert!(!stranger(&format!("ForAnyValue:{operator}")), "{operator}");
            assert!(
                stranger(&format!("ForAnyValue:{operator}IfExists")),
                "{operator}"
            );
            if negated != *operator && negated.contains("Not") {
                assert!(stranger(&negated), "{negated}");
                assert!(stranger(&format!("{negated}IfExists")), "{negated}");
                assert!(!stranger(&format!("ForAnyValue:{negated}")), "{negated}");
            }
        }
    }
}

#[test]
fn an_empty_value_is_there_for_a_condition_and_missing_as_a_variable() {
    let empty = format!("{ATTRIBUTE}[empty]");
    for (operator, value, expected) in [
        ("StringLike", r#""*""#, true),
        ("StringEquals", r#""""#, true),
        ("StringNotEquals", r#""""#, false),
        ("StringEqualsIfExists", r#""a""#, false),
        ("ForAllValues:StringEquals", r#""a""#, false),
        ("ForAnyValue:StringNotEquals", r#""a""#, true),
        ("Null", "true", false),
        ("Null", "false", true),
    ] {
        let condition = test(operator, &empty, value);
        assert_eq!(holds(&condition), expected, "{condition}");
    }
    counts_against_the_client("StringEquals", &empty, &format!("\"${{{empty}}}\""), false);
    counts_against_the_client("NumericLessThan", &empty, "5", false);
}

/// Specification A.4, `Null`.
#[test]
fn null_asks_whether_a_key_has_a_value() {
    for (key, has_value) in [
        ("iot:ClientId", true),
        ("iot:Connection.Thing.Attributes[zone]", true),
        ("iot:Connection.Thing.Attributes[none]", false),
        ("iot:Connection.Thing.Attributes[empty]", true),
        ("iot:Certificate.Subject.OrganizationalUnit.List", true),
        ("iot:Certificate.Subject.OrganizationalUnit.3", false),
        ("iot:LastWillTopic", false),
        ("iot:ConnectAttributes", false),
        ("iot:IncludeSocketInformation", false),
    ] {
        assert_eq!(holds(&test("Null", key, "true")), !has_value, "{key}");
        assert_eq!(holds(&test("Null", key, "\"false\"")), has_value, "{key}");
        assert!(holds(&test("Null", key, "[true, false]")), "{key}");
    }
}

/// Has no value.
const NONE: &str = "${iot:Connection.Thing.Attributes[none]}";

/// Its condition counts against the client; in a Deny with `deny_on_unresolved` off it is `at_aws`.
fn counts_against_the_client(operator: &str, key: &str, value: &str, at_aws: bool) {
    let condition = test(operator, key, value);
    let lenient = || Rules {
        deny_on_unresolved: false,
        ..Rules::default()
    };
    let holds = |effect, rules| holds_for(effect, &condition, rules, |_| {});
    assert!(!holds("Allow", Rules::default()), "{condition}");
    assert!(holds("Deny", Rules::default()), "{condition}");
    assert!(!holds("Allow", lenient()), "{condition}");
    assert_eq!(holds("Deny", lenient()), at_aws, "{condition}");
}

/// The module's own rule, after A.3.
#[test]
fn what_hangs_on_a_variable_without_a_value_counts_against_the_client() {
    let id = "iot:ClientId";
    counts_against_the_client("StringEquals", id, &format!("\"{NONE}\""), false);
    counts_against_the_client("StringLike", id, &format!("\"c{NONE}\""), false);
    counts_against_the_client("StringEqualsIgnoreCase", id, &format!("\"C{NONE}\""), false);
    counts_against_the_client("StringNotEquals", id, &format!("\"{NONE}\""), true);
    let arn = format!("\"arn:aws:s3:::{NONE}/a\"");
    counts_against_the_client("ArnLike", &format!("{ATTRIBUTE}[arn]"), &arn, false);
    // Values that may not be substituted are missing, too.
    let plus = format!("{ATTRIBUTE}[plus]");
    counts_against_the_client("StringEquals", &plus, &format!("\"${{{plus}}}\""), false);

    // It does not hang on it: another value decides, or the rest of the text.
    assert!(holds(&test(
        "StringEquals",
        id,
        &format!("[\"{NONE}\",\"c1\"]")
    )));
    assert!(!holds(&test("StringEquals", id, &format!("\"x{NONE}\""))));
}

/// The module's own rule.
#[test]
fn what_cannot_be_compared_counts_against_the_client() {
    let word = format!("{ATTRIBUTE}[word]");
    for (operator, value, at_aws) in [
        ("NumericLessThan", "5", false),
        ("NumericNotEquals", "5", true),
        ("IpAddress", r#""10.0.0.0/8""#, false),
        ("NotIpAddress", r#""10.0.0.0/8""#, true),
        ("Bool", "true", false),
        ("DateLessThan", r#""2026-01-01""#, false),
        ("ArnNotEquals", r#""arn:a:b:c:d:e""#, true),
    ] {
        counts_against_the_client(operator, &word, value, at_aws);
    }
    let year = format!("{ATTRIBUTE}[year]");
    counts_against_the_client("DateGreaterThan", &year, r#""2026-11-22""#, false);
    let nothing = test("ForAllValues:NumericEquals", &word, "[]");
    assert!(!holds(&nothing), "there is nothing to compare with");
}
