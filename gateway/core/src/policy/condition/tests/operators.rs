//! Every operator on values that are there.

use super::{ATTRIBUTE, holds, holds_for, holds_for_stranger, test};
use crate::policy::Rules;

/// Specification A.4: values of a key OR, keys and operators AND, negated operators none of the values.
#[test]
fn values_are_or_keys_and_operators_are_and() {
    assert!(holds(&test(
        "StringEquals",
        "iot:ClientId",
        r#"["x","c1"]"#
    )));
    assert!(!holds(&test(
        "StringNotEquals",
        "iot:ClientId",
        r#"["x","c1"]"#
    )));
    assert!(holds(&test(
        "StringNotEquals",
        "iot:ClientId",
        r#"["x","y"]"#
    )));
    assert!(holds(
        r#"{"StringEquals":{"iot:ClientId":"c1","iot:DomainName":"gateway.site"}}"#
    ));
    assert!(!holds(
        r#"{"StringEquals":{"iot:ClientId":"c1","iot:DomainName":"other"}}"#
    ));
    assert!(!holds(
        r#"{"StringEquals":{"iot:ClientId":"c1"},"Bool":{"iot:Connection.Thing.IsAttached":false}}"#
    ));
}

/// Specification A.4, the operators on text.
#[test]
fn strings_are_compared_as_their_operators_say() {
    for (operator, value, expected) in [
        ("StringEquals", "Cellar", true),
        ("StringEquals", "cellar", false),
        ("StringEquals", "Cell*", false),
        ("StringNotEquals", "cellar", true),
        ("StringEqualsIgnoreCase", "cELLAR", true),
        ("StringEqualsIgnoreCase", "Cell*", false),
        ("StringNotEqualsIgnoreCase", "CELLAR", false),
        ("StringLike", "C?l*r", true),
        ("StringLike", "c*", false),
        ("StringNotLike", "C*", false),
        (
            "StringLike",
            "${iot:Certificate.Subject.OrganizationalUnit.2}",
            true,
        ),
        (
            "StringEquals",
            "${iot:Connection.Thing.ThingTypeName}",
            false,
        ),
    ] {
        let condition = test(
            operator,
            &format!("{ATTRIBUTE}[zone]"),
            &format!("\"{value}\""),
        );
        assert_eq!(holds(&condition), expected, "{condition}");
    }
    assert!(
        holds(&test(
            "StringEquals",
            &format!("{ATTRIBUTE}[star]"),
            r#""*""#
        )),
        "no wildcard here"
    );
    assert!(holds(&test(
        "StringLike",
        &format!("{ATTRIBUTE}[star]"),
        r#""${*}""#
    )));
    assert!(!holds(&test(
        "StringLike",
        &format!("{ATTRIBUTE}[zone]"),
        r#""${*}""#
    )));
}

/// Specification A.1: the values of a condition are strings, numbers or booleans.
#[test]
fn numbers_and_booleans_are_strings_as_they_are_written() {
    let key = |name: &str| format!("{ATTRIBUTE}[{name}]");
    for (operator, name, value, expected) in [
        ("StringEquals", "floor", "-2", true),
        ("StringEquals", "floor", "-2.0", false),
        ("StringEquals", "floor", "[true, -2]", true),
        ("StringEquals", "on", "true", false),
        ("StringEqualsIgnoreCase", "on", "true", true),
        ("StringNotLike", "on", "false", true),
    ] {
        let condition = test(operator, &key(name), value);
        assert_eq!(holds(&condition), expected, "{condition}");
    }
}

#[test]
fn a_condition_that_asks_for_nothing_is_none() {
    for condition in [
        "{}",
        r#"{"StringEquals":{}}"#,
        r#"{"StringEquals":{},"ForAnyValue:Bool":{}}"#,
    ] {
        assert!(holds(condition), "{condition}");
        assert!(holds_for_stranger(condition), "{condition}");
    }
    assert!(!holds(r#"{"Bool":{},"StringEquals":{"iot:ClientId":"x"}}"#));
}

/// As in IAM; the names of attributes are texts.
#[test]
fn the_case_of_a_key_does_not_matter() {
    assert!(holds(&test(
        "StringEquals",
        "IOT:clientid",
        r#""${iot:CLIENTID}""#
    )));
    let zone = "iot:connection.thing.attributes[zone]";
    assert!(holds(&test("StringEquals", zone, r#""Cellar""#)));
    let other = "iot:Connection.Thing.Attributes[Zone]";
    assert!(!holds(&test("StringEquals", other, r#""Cellar""#)));
}

/// Specification A.4, the operators on numbers.
#[test]
fn numbers_are_compared_as_numbers() {
    for (operator, value, expected) in [
        ("NumericEquals", "-2.0", true),
        ("NumericEquals", "\"-2\"", true),
        ("NumericNotEquals", "[-2, 3]", false),
        ("NumericLessThan", "-1", true),
        ("NumericLessThan", "-2", false),
        ("NumericLessThanEquals", "-2", true),
        ("NumericGreaterThan", "-10", true),
        ("NumericGreaterThan", "-2", false),
        ("NumericGreaterThanEquals", "[5, -2e0]", true),
    ] {
        let condition = test(operator, &format!("{ATTRIBUTE}[floor]"), value);
        assert_eq!(holds(&condition), expected, "{condition}");
    }
    assert!(holds(&test(
        "NumericGreaterThan",
        "aws:EpochTime",
        "1795341599"
    )));
}

#[test]
fn serial_numbers_are_compared_to_their_last_digit() {
    let serial = "iot:Certificate.SerialNumber";
    assert!(holds(&test("NumericEquals", serial, "658188")));
    let floor = format!("{ATTRIBUTE}[serial]");
    for (value, expected) in [
        ("10525622389124227206", true),
        ("10525622389124227207", false),
        ("\"10525622389124227205\"", false),
    ] {
        let condition = test("NumericEquals", &floor, value);
        assert_eq!(holds(&condition), expected, "{condition}");
    }
}

/// Specification A.4, the operators on dates; the time of a request is in whole seconds.
#[test]
fn dates_are_compared_as_moments() {
    for (operator, key, value, expected) in [
        (
            "DateEquals",
            "aws:CurrentTime",
            "\"2026-11-22T11:00:00+01:00\"",
            true,
        ),
        (
            "DateNotEquals",
            "aws:CurrentTime",
            "\"2026-11-22T10:00:00Z\"",
            false,
        ),
        ("DateLessThan", "aws:CurrentTime", "\"2026-11-23\"", true),
        ("DateLessThan", "aws:CurrentTime", "\"2026-11-22\"", false),
        ("DateLessThanEquals", "aws:EpochTime", "1795341600", true),
        (
            "DateGreaterThan",
            "aws:CurrentTime",
            "\"2026-11-22T10:00Z\"",
            false,
        ),
        (
            "DateGreaterThanEquals",
            "aws:CurrentTime",
            "\"2026-11-22T10:00Z\"",
            true,
        ),
        (
            "DateLessThan",
            "iot:Connection.Thing.Attributes[since]",
            "\"2026-01-02\"",
            true,
        ),
        (
            "StringLike",
            "aws:CurrentTime",
            "\"2026-11-22T*:00Z\"",
            true,
        ),
        ("StringEquals", "aws:EpochTime", "\"1795341600\"", true),
    ] {
        let condition = test(operator, key, value);
        assert_eq!(holds(&condition), expected, "{condition}");
    }
}

/// Specification A.4, `Bool`.
#[test]
fn booleans_are_true_or_false_however_written() {
    for (value, expected) in [
        ("true", true),
        ("\"true\"", true),
        ("[\"False\", true]", true),
        ("false", false),
    ] {
        let condition = test("Bool", "iot:Connection.Thing.IsAttached", value);
        assert_eq!(holds(&condition), expected, "{condition}");
        let condition = test("Bool", &format!("{ATTRIBUTE}[on]"), value);
        assert_eq!(holds(&condition), expected, "{condition}");
    }
    // Always there, without thing and certificate as well (specification A.3).
    assert!(holds_for_stranger(&test(
        "Bool",
        "iot:Connection.Thing.IsAttached",
        "false"
    )));
}

/// Specification A.4: CIDR or plain address, v4 or v6, v4-mapped v6 normalised.
#[test]
fn addresses_are_compared_by_block() {
    for (operator, value, expected) in [
        ("IpAddress", r#""10.0.0.0/8""#, true),
        ("IpAddress", r#"["192.168.0.0/16","10.1.2.3"]"#, true),
        ("IpAddress", r#""10.1.2.4""#, false),
        ("IpAddress", r#""::ffff:10.1.0.0/112""#, true),
        ("IpAddress", r#""::/0""#, false),
        ("NotIpAddress", r#"["10.0.0.0/8","::1"]"#, false),
        ("NotIpAddress", r#""2001:db8::/32""#, true),
    ] {
        let condition = test(operator, "aws:SourceIp", value);
        assert_eq!(holds(&condition), expected, "{condition}");
    }
    let mapped = test("IpAddress", "aws:SourceIp", r#""10.1.2.0/24""#);
    assert!(holds_for("Allow", &mapped, Rules::default(), |context| {
        context.source = Some("::ffff:10.1.2.3".parse().unwrap());
    }));
    assert!(holds(&test(
        "IpAddress",
        &format!("{ATTRIBUTE}[ip]"),
        r#""10.9.0.0/16""#
    )));
    assert!(holds(&test(
        "StringEquals",
        "aws:SourceIp",
        r#""10.1.2.3""#
    )));
}

/// Specification A.4: `ArnEquals` is `ArnLike`, six parts matched separately.
#[test]
fn arns_are_compared_part_by_part() {
    let key = format!("{ATTRIBUTE}[arn]");
    for (value, expected) in [
        ("arn:aws:s3:::bucket/a", true),
        ("arn:*:s3:*:*:b?cket/*", true),
        ("arn:aws:s3:::bucket", false),
        ("arn:aws:s3:*:bucket/a:*", false),
    ] {
        for operator in ["ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"] {
            let condition = test(operator, &key, &format!("\"{value}\""));
            assert_eq!(
                holds(&condition),
                expected != operator.contains("Not"),
                "{condition}"
            );
        }
    }
}
