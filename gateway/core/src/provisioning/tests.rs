use proptest::prelude::*;

use super::*;
use crate::{
    certificate::Certificate,
    identity::{GroupName, ThingName, ThingTypeName},
    limits::{
        ATTRIBUTES_WITHOUT_TYPE_MAX, GROUPS_PER_THING_MAX, PROVISION_PARAMETERS_MAX,
        TEMPLATE_BYTES_MAX, TEMPLATE_JOIN_DEPTH_MAX, TEMPLATE_POLICIES_MAX,
        TEMPLATE_VALUE_BYTES_MAX,
    },
};

/// In the shape of AWS's own example for just-in-time provisioning.
const JUST_IN_TIME: &str = r#"{
  "Parameters": {
    "AWS::IoT::Certificate::CommonName": {"Type": "String"},
    "AWS::IoT::Certificate::Country": {"Type": "String"},
    "AWS::IoT::Certificate::Id": {"Type": "String"},
    "Site": {"Type": "String", "Default": "north"}
  },
  "Resources": {
    "thing": {
      "Type": "AWS::IoT::Thing",
      "Properties": {
        "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"},
        "ThingTypeName": "logger",
        "ThingGroups": ["cold-chain", {"Fn::Join": ["-", ["site", {"Ref": "Site"}]]}],
        "AttributePayload": {"country": {"Ref": "AWS::IoT::Certificate::Country"}, "version": "v1"}
      },
      "OverrideSettings": {"AttributePayload": "MERGE", "ThingTypeName": "REPLACE", "ThingGroups": "DO_NOTHING"}
    },
    "certificate": {
      "Type": "AWS::IoT::Certificate",
      "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"},
      "OverrideSettings": {"Status": "DO_NOTHING"}
    },
    "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device"}}
  },
  "DeviceConfiguration": {
    "url": {"Fn::Join": ["", ["mqtts://", {"Ref": "AWS::IoT::Certificate::CommonName"}, ".local"]]}
  }
}"#;

/// With the thing's, the certificate's and the policy's properties, and parameters.
fn template(parameters: &str, thing: &str, certificate: &str, policy: &str) -> String {
    format!(
        r#"{{"Parameters":{{{parameters}}},"Resources":{{"t":{{"Type":"AWS::IoT::Thing","Properties":{{{thing}}}}},"c":{{"Type":"AWS::IoT::Certificate","Properties":{{{certificate}}}}},"p":{{"Type":"AWS::IoT::Policy","Properties":{{{policy}}}}}}}}}"#
    )
}

const SERIAL: &str = r#""Serial":{"Type":"String"}"#;
const NAME: &str = r#""ThingName":{"Ref":"Serial"}"#;
const POLICY: &str = r#""PolicyName":"device""#;

fn claim(thing: &str) -> Template {
    let json = template(SERIAL, &format!("{NAME}{thing}"), "", POLICY);
    Template::parse("t", &json).unwrap()
}

fn rich() -> Certificate {
    let pem = include_str!("../certificate/fixtures/rich.pem");
    let der = x509_parser::pem::parse_x509_pem(pem.as_bytes())
        .unwrap()
        .1
        .contents;
    Certificate::parse(&der).unwrap()
}

fn given<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

fn groups(names: &[&str]) -> Vec<GroupName> {
    names.iter().map(|n| GroupName::parse(n).unwrap()).collect()
}

/// The only mistake, with its place.
fn mistake(json: &str) -> String {
    let mistakes = Template::parse("t", json).unwrap_err();
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    mistakes[0].clone().in_file("f").to_string()
}

#[test]
fn a_certificate_becomes_what_the_template_says() {
    let template = Template::parse("factory", JUST_IN_TIME).unwrap();
    assert!(template.mistakes_for(Way::JustInTime).is_empty());
    let plan = template
        .fill(Way::JustInTime, &rich(), &BTreeMap::new())
        .unwrap();
    assert_eq!(plan.thing.name.as_str(), "sensor-1");
    assert_eq!(plan.thing.thing_type.as_ref().unwrap().as_str(), "logger");
    assert_eq!(plan.thing.groups, groups(&["cold-chain", "site-north"]));
    assert_eq!(
        plan.thing.attributes,
        given([("country", "DE"), ("version", "v1")])
    );
    assert_eq!(plan.policies, ["device"]);
    assert_eq!(plan.status, InitialStatus::Active);
    assert_eq!(
        plan.device_configuration,
        given([("url", "mqtts://sensor-1.local")])
    );
    let names: Vec<_> = template.policy_names().map(|(_, name)| name).collect();
    assert_eq!(names, ["device"]);
    let names: Vec<_> = template.group_names().map(|(_, name)| name).collect();
    assert_eq!(
        names,
        ["cold-chain"],
        "what is joined is known at run time alone"
    );
}

#[test]
fn what_the_certificate_lacks_fails_the_provisioning_unless_there_is_a_default() {
    let template = Template::parse("t", JUST_IN_TIME).unwrap();
    let bare = Certificate::unseen(CertificateId::of_der(b"bare"));
    let error = template
        .fill(Way::JustInTime, &bare, &BTreeMap::new())
        .unwrap_err();
    let name = "AWS::IoT::Certificate::CommonName".to_owned();
    assert_eq!(error, FillError::NotInCertificate(name));
    let json = JUST_IN_TIME.replace(
        r#"CommonName": {"Type": "String"}"#,
        r#"CommonName": {"Type": "String", "Default": "d"}"#,
    );
    let json = json.replace(
        r#"Country": {"Type": "String"}"#,
        r#"Country": {"Type": "String", "Default": ""}"#,
    );
    let template = Template::parse("t", &json).unwrap();
    let plan = template
        .fill(Way::JustInTime, &bare, &BTreeMap::new())
        .unwrap();
    assert_eq!(plan.thing.name.as_str(), "d");
}

#[test]
fn every_parameter_of_the_certificate_has_its_attribute() {
    let parameters = CERTIFICATE_PARAMETERS.map(|name| format!(r#""{name}":{{"Type":"String"}}"#));
    let values = CERTIFICATE_PARAMETERS.map(|name| format!(r#"{{"Ref":"{name}"}}"#));
    let json = template(&parameters.join(","), r#""ThingName":"x""#, "", POLICY);
    let json = json.trim_end_matches('}').to_owned()
        + &format!(
            r#"}}}}}},"DeviceConfiguration":{{"all":{{"Fn::Join":["|",[{}]]}}}}}}"#,
            values.join(",")
        );
    let template = Template::parse("t", &json).unwrap();
    let certificate = rich();
    let plan = template
        .fill(Way::JustInTime, &certificate, &BTreeMap::new())
        .unwrap();
    assert_eq!(
        plan.device_configuration["all"],
        format!(
            "DE|Example, Inc.|cold-chain|q1|Bayern|sensor-1|SN-42|{}",
            certificate.id
        )
    );
}

#[test]
fn a_device_gives_its_own_parameters_and_none_of_the_gateways() {
    let template = claim("");
    assert!(template.mistakes_for(Way::Claim).is_empty());
    let fill = |given| template.fill(Way::Claim, &rich(), &given);
    assert_eq!(
        fill(given([("Serial", "s-1")]))
            .unwrap()
            .thing
            .name
            .as_str(),
        "s-1"
    );
    // What the template does not declare changes nothing.
    assert!(fill(given([("Serial", "s-1"), ("Other", "x")])).is_ok());
    assert_eq!(
        fill(given([])),
        Err(FillError::Missing("Serial".to_owned()))
    );
    let id = "AWS::IoT::Certificate::Id";
    assert_eq!(
        fill(given([("Serial", "s"), (id, "0")])),
        Err(FillError::Reserved(id.to_owned()))
    );
    for name in ["", "a b", "../x", "+", "a/b", "ä", &"x".repeat(129)] {
        assert!(
            matches!(
                fill(given([("Serial", name)])),
                Err(FillError::NoName { .. })
            ),
            "{name}"
        );
    }
    let many: BTreeMap<_, _> = (0..=PROVISION_PARAMETERS_MAX)
        .map(|n| (n.to_string(), String::new()))
        .collect();
    assert_eq!(fill(many), Err(FillError::TooMany));
    let long = "x".repeat(TEMPLATE_VALUE_BYTES_MAX + 1);
    assert_eq!(
        fill(given([("Serial", &long)])),
        Err(FillError::TooLong("Serial".to_owned()))
    );
}

#[test]
fn a_template_that_can_never_be_filled_in_is_told_for_the_way_that_cannot() {
    let messages = |template: &Template, way| -> Vec<String> {
        template
            .mistakes_for(way)
            .into_iter()
            .map(|m| m.message)
            .collect()
    };
    assert_eq!(
        messages(&claim(""), Way::JustInTime),
        ["nobody gives the parameter `Serial` when a certificate of a CA connects"]
    );
    let just_in_time = Template::parse("t", JUST_IN_TIME).unwrap();
    assert_eq!(
        messages(&just_in_time, Way::Claim).len(),
        2,
        "the id is known, the subject is not"
    );
    assert!(matches!(
        just_in_time.fill(Way::Claim, &rich(), &BTreeMap::new()),
        Err(FillError::NotInCertificate(_))
    ));
}

#[test]
fn a_group_that_the_device_chooses_is_worth_a_warning() {
    assert!(claim("").warnings().is_empty());
    let template = claim(r#","ThingGroups":["a",{"Fn::Join":["-",["b",{"Ref":"Serial"}]]}]"#);
    let warnings = template.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].message.contains("`Serial`"));
}

#[test]
fn values_are_checked_after_they_are_filled_in() {
    let value = given([("Serial", "a b")]);
    let fill = |thing: &str| {
        let template = claim(thing);
        let mut given = value.clone();
        let json = template.fill(Way::Claim, &rich(), &given);
        assert!(json.is_err());
        given.insert("Serial".to_owned(), "ok".to_owned());
        template.fill(Way::Claim, &rich(), &given)
    };
    assert!(fill(r#","AttributePayload":{"a":{"Ref":"Serial"}}"#).is_ok());
    let fixed = |thing: &str, serial: &str| {
        let json = template(SERIAL, &format!(r#""ThingName":"x"{thing}"#), "", POLICY);
        Template::parse("t", &json)
            .unwrap()
            .fill(Way::Claim, &rich(), &given([("Serial", serial)]))
    };
    assert_eq!(
        fixed(r#","AttributePayload":{"a":{"Ref":"Serial"}}"#, "a b"),
        Err(FillError::Attribute("a".to_owned()))
    );
    assert!(matches!(
        fixed(r#","ThingGroups":[{"Ref":"Serial"}]"#, "a b"),
        Err(FillError::NoName {
            what: "group name",
            ..
        })
    ));
    assert!(matches!(
        fixed(r#","ThingTypeName":{"Ref":"Serial"}"#, ""),
        Err(FillError::NoName {
            what: "thing type name",
            ..
        })
    ));
    let twice = fixed(r#","ThingGroups":["a",{"Ref":"Serial"}]"#, "a").unwrap();
    assert_eq!(twice.thing.groups, groups(&["a"]), "each once");
    let long = "x".repeat(TEMPLATE_VALUE_BYTES_MAX);
    let join = r#","AttributePayload":{"a":{"Fn::Join":["",[{"Ref":"Serial"},{"Ref":"Serial"}]]}}"#;
    assert_eq!(fixed(join, &long), Err(FillError::TooLong("a".to_owned())));
    let attributes: Vec<_> = (0..=ATTRIBUTES_WITHOUT_TYPE_MAX)
        .map(|n| format!(r#""a{n}":"v""#))
        .collect();
    let payload = format!(r#","AttributePayload":{{{}}}"#, attributes.join(","));
    assert_eq!(fixed(&payload, "s"), Err(FillError::Attributes));
    assert!(fixed(&format!(r#"{payload},"ThingTypeName":"t""#), "s").is_ok());
}

#[test]
fn a_thing_that_is_there_changes_as_far_as_the_template_overrides() {
    let kind = |name: &str| ThingTypeName::parse(name).unwrap();
    let old_attributes = given([("a", "old"), ("kept", "1")]);
    let (old_type, old_groups) = (kind("old"), groups(&["g1", "g2"]));
    let existing = Existing {
        thing_type: Some(&old_type),
        attributes: &old_attributes,
        groups: &old_groups,
    };
    let over = |overrides: &str| {
        let json = template(
            SERIAL,
            &format!(
                r#"{NAME},"ThingTypeName":"new","ThingGroups":["g2","g3"],"AttributePayload":{{"a":"new"}}"#
            ),
            "",
            POLICY,
        );
        let json = json.replace(
            r#"},"c":"#,
            &format!(r#","OverrideSettings":{{{overrides}}}}},"c":"#),
        );
        let template = Template::parse("t", &json).unwrap();
        let plan = template.fill(Way::Claim, &rich(), &given([("Serial", "s")]));
        plan.unwrap().over(&existing)
    };
    let becomes = |thing_type: &str, attributes, names: &[&str]| {
        Ok(Outcome::Becomes(PlannedThing {
            name: ThingName::parse("s").unwrap(),
            thing_type: Some(kind(thing_type)),
            attributes,
            groups: groups(names),
        }))
    };
    let same = || old_attributes.clone();
    assert_eq!(
        over(""),
        Ok(Outcome::Unchanged),
        "nothing is changed unasked"
    );
    assert_eq!(
        over(r#""ThingTypeName":"DO_NOTHING""#),
        Ok(Outcome::Unchanged)
    );
    assert_eq!(
        over(r#""ThingTypeName":"REPLACE""#),
        becomes("new", same(), &["g1", "g2"])
    );
    assert_eq!(
        over(r#""AttributePayload":"MERGE""#),
        becomes("old", given([("a", "new"), ("kept", "1")]), &["g1", "g2"])
    );
    assert_eq!(
        over(r#""AttributePayload":"REPLACE""#),
        becomes("old", given([("a", "new")]), &["g1", "g2"])
    );
    assert_eq!(
        over(r#""ThingGroups":"MERGE""#),
        becomes("old", same(), &["g1", "g2", "g3"])
    );
    assert_eq!(
        over(r#""ThingGroups":"REPLACE""#),
        becomes("old", same(), &["g2", "g3"])
    );
    for element in ["ThingTypeName", "AttributePayload", "ThingGroups"] {
        let result = over(&format!(r#""{element}":"FAIL""#));
        assert!(
            matches!(result, Err(FillError::Conflict { .. })),
            "{element}"
        );
    }
}

#[test]
fn every_mistake_is_told_with_place_and_remedy() {
    let json = r#"{
  "Parameter": {},
  "Parameters": {
    "A": {"Type": "Number"},
    "A": {"Type": "String"},
    "AWS::IoT::Certificate::CommonNam": {"Type": "String"},
    "AWS::IoT::ClientId": {"Type": "String"},
    "B": {"Type": "String", "Default": 7}
  },
  "Resources": {
    "thing": {
      "Type": "AWS::IoT::Thing",
      "Properties": {
        "ThingName": {"Ref": "Aa"},
        "ThingGroups": ["a b", {"Fn::Sub": "x"}],
        "AttributePayload": {"a b": "ü", "c": 7}
      },
      "OverrideSettings": {"ThingTypeName": "MERGE", "ThingName": "FAIL"}
    },
    "thing2": {"Type": "AWS::IoT::Thing", "Properties": {}},
    "certificate": {
      "Type": "AWS::IoT::Certificate",
      "Properties": {"CertificateId": {"Ref": "B"}, "Status": "REVOKED", "CertificatePem": "x"}
    },
    "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": "{}"}},
    "chosen": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": {"Ref": "A"}}},
    "odd": {"Type": "AWS::IoT::Polcy", "Properties": {}}
  }
}"#;
    let mistakes = Template::parse("no template", json).unwrap_err();
    let told: Vec<_> = mistakes
        .into_iter()
        .map(|mistake| mistake.in_file("f").to_string())
        .collect();
    let expected = [
        "f:1:1: `no template` is no name of a template; name the file with 1 to 36 letters, digits, `_` and `-`",
        "f:2:3: unknown element `Parameter`; write `Parameters`",
        "f:4:19: the type of the parameter is missing or not `String`; write `\"Type\": \"String\"`",
        "f:5:5: `A` stands here a second time; keep one of them",
        "f:6:5: nothing fills in `AWS::IoT::Certificate::CommonNam`; write `AWS::IoT::Certificate::CommonName`",
        "f:7:5: nothing fills in `AWS::IoT::ClientId`; use one of AWS::IoT::Certificate::Country, ",
        "f:8:40: `Default` is no text; write a string in double quotes",
        "f:14:30: the parameter `Aa` is not declared; write `A`",
        "f:15:25: `a b` is no group name; use 1 to 128 letters, digits, `:`, `_` and `-`",
        "f:15:33: the function `Fn::Sub` is not supported; use `Ref` or `Fn::Join`",
        "f:16:30: `a b` is no attribute name; use 1 to 128 letters, digits and `_.,@/:#-`",
        "f:16:37: `ü` is no attribute value; use at most 800 letters, digits and `_.,@/:#=[]-`",
        "f:16:47: a value is a text, a `Ref` or an `Fn::Join`; write it in double quotes",
        "f:18:45: `ThingTypeName` cannot be overridden so; write REPLACE, DO_NOTHING or FAIL",
        "f:18:54: unknown element `ThingName`; remove it; ",
        "f:20:5: the template has a second `AWS::IoT::Thing`; keep one of them",
        "f:23:39: `CertificateId` is not that of the certificate that is provisioned; write `{\"Ref\": \"AWS::IoT::Certificate::Id\"}`",
        "f:23:63: `Status` is neither `ACTIVE` nor `INACTIVE`; write one of them",
        "f:23:92: `CertificatePem` belongs to bulk registration, which is not supported; write `\"CertificateId\"",
        "f:25:77: a template cannot bring its own `PolicyDocument`: policies are files here; write the document to `policies/NAME.json`",
        "f:26:73: the device would choose its policy with the parameter `A`; name the policy, or use a parameter of the certificate",
        "f:27:21: the type of the resource is missing or unknown; write `\"Type\": \"AWS::IoT::Policy\"`",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (message, expected) in told.iter().zip(expected) {
        assert!(
            message.starts_with(expected),
            "{message}\n{expected}\n{told:#?}"
        );
    }
}

#[test]
fn what_a_template_must_have_is_asked_for() {
    let with = |thing: &str, certificate: &str, policy: &str| {
        mistake(&template(SERIAL, thing, certificate, policy))
    };
    assert!(with("", "", POLICY).contains("the thing has no `ThingName`; add"));
    assert!(with(NAME, "", "").contains("the policy has no `PolicyName`; add"));
    assert!(mistake("{}").contains("the template has no `Resources`; add"));
    assert!(mistake("[]").contains("a template is a JSON object"));
    assert!(mistake(r#"{"Resources":[]}"#).contains("`Resources` is a JSON object"));
    assert!(mistake("{").contains("not JSON"));
    let none = Template::parse("t", r#"{"Resources":{}}"#).unwrap_err();
    assert_eq!(
        none.len(),
        2,
        "a thing and a certificate; a policy may come from a group"
    );
    let bare = r#"{"Resources":{"t":{"Type":"AWS::IoT::Thing"},"c":{"Type":"AWS::IoT::Certificate","Properties":{}}}}"#;
    assert!(mistake(bare).contains("the resource has no `Properties`"));
    let policy = r#""PolicyName":"a"}, "OverrideSettings": {"#;
    assert!(with(NAME, "", policy).contains("a policy has no `OverrideSettings`"));
    for join in [
        "7",
        "[]",
        r#"["-"]"#,
        r#"["-","x"]"#,
        r#"[7,["x"]]"#,
        r#"["-",[7]]"#,
    ] {
        let thing = format!(r#""ThingName":{{"Fn::Join":{join}}}"#);
        assert!(!with(&thing, "", POLICY).is_empty());
    }
    assert!(with(r#""ThingName":{}"#, "", POLICY).contains("exactly one member"));
    assert!(with(r#""ThingName":"x","ThingGroups":"g""#, "", POLICY).contains("is no list"));
}

#[test]
fn each_bound_is_kept() {
    let pad = " ".repeat(TEMPLATE_BYTES_MAX);
    assert!(mistake(&format!("{JUST_IN_TIME}{pad}")).contains("bytes; shorten it to 10240"));
    let long_name = "x".repeat(37);
    assert_eq!(
        Template::parse(&long_name, JUST_IN_TIME).unwrap_err().len(),
        1
    );

    let nested = |depth: usize| {
        let open = r#"{"Fn::Join":["",["#.repeat(depth);
        let name = format!(r#""ThingName":{open}"x"{}"#, "]]}".repeat(depth));
        template(SERIAL, &name, "", POLICY)
    };
    assert!(Template::parse("t", &nested(TEMPLATE_JOIN_DEPTH_MAX)).is_ok());
    assert!(mistake(&nested(TEMPLATE_JOIN_DEPTH_MAX + 1)).contains("nested over 8 deep"));
    assert!(mistake(&nested(100)).contains("nested over 8 deep"));

    let groups = [r#""g""#; GROUPS_PER_THING_MAX + 1].join(",");
    let json = template(
        SERIAL,
        &format!(r#"{NAME},"ThingGroups":[{groups}]"#),
        "",
        POLICY,
    );
    assert!(mistake(&json).contains("11 groups; keep at most 10"));

    let policies: Vec<_> = (0..TEMPLATE_POLICIES_MAX)
        .map(|n| {
            format!(r#""p{n}":{{"Type":"AWS::IoT::Policy","Properties":{{"PolicyName":"p{n}"}}}},"#)
        })
        .collect();
    let json = template(SERIAL, NAME, "", POLICY);
    let json = json.replace(r#""t":{"#, &format!(r#"{}"t":{{"#, policies.concat()));
    assert!(mistake(&json).contains("11 policies; keep at most 10"));

    let attributes: Vec<_> = (0..51).map(|n| format!(r#""a{n}":"v""#)).collect();
    let payload = format!(r#"{NAME},"AttributePayload":{{{}}}"#, attributes.join(","));
    assert!(mistake(&template(SERIAL, &payload, "", POLICY)).contains("51 attributes"));
}

proptest! {
    #[test]
    fn parsing_and_filling_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[\\PC{}\\[\\]\":,]"), 0..6),
        serial in "\\PC{0,200}",
    ) {
        let mut text: Vec<char> = JUST_IN_TIME.chars().collect();
        for (at, with) in changes {
            let at = at.index(text.len());
            text.splice(at..at + 1, with.chars());
        }
        let text: String = text.into_iter().collect();
        match Template::parse("t", &text) {
            Ok(template) => {
                let given = given([("Site", &serial)]);
                for way in [Way::Claim, Way::JustInTime] {
                    drop(template.fill(way, &rich(), &given));
                    drop(template.mistakes_for(way));
                }
            }
            Err(mistakes) => prop_assert!(!mistakes.is_empty()),
        }
        let parameters = given([("Serial", &serial)]);
        if let Ok(plan) = claim("").fill(Way::Claim, &rich(), &parameters) {
            prop_assert_eq!(plan.thing.name.as_str(), serial);
        }
    }
}
