//! Topics that belong to the gateway: it alone speaks there, whatever a policy allows.
//!
//! Who subscribes to them trusts what they say: that a device connected, that a request was
//! accepted. `$aws/rules/NAME/…` is not among them, whatever its last level: there clients speak.

use crate::topic::TopicName;

/// Last levels of what services answer and announce.
const ANSWERS: [&str; 6] = [
    "accepted",
    "rejected",
    "delta",
    "documents",
    "notify",
    "notify-next",
];

/// Levels before which an answer's last level cannot stand: `$aws/SERVICE/WHAT/…/accepted`.
const ANSWER_LEVELS_MIN: usize = 4;

/// Whether no client may publish to `topic`.
pub fn is_reserved(topic: &TopicName) -> bool {
    let mut levels = topic.as_str().split('/');
    match (levels.next(), levels.next()) {
        (Some("$SYS"), _) | (Some("$aws"), Some("events")) => true,
        (Some("$aws"), Some("rules")) => false,
        (Some("$aws"), Some(_)) => {
            let count = topic.as_str().split('/').count();
            count >= ANSWER_LEVELS_MIN
                && levels
                    .next_back()
                    .is_some_and(|last| ANSWERS.contains(&last))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_gateway_speaks_on_its_topics() {
        for (topic, reserved) in [
            ("$SYS", true),
            ("$SYS/broker/uptime", true),
            ("$aws/events/presence/connected/c", true),
            ("$aws/events", true),
            ("$aws/certificates/create/json/accepted", true),
            ("$aws/certificates/create/json", false),
            (
                "$aws/provisioning-templates/t/provision/json/rejected",
                true,
            ),
            ("$aws/provisioning-templates/t/provision/json", false),
            ("$aws/things/t/shadow/update", false),
            ("$aws/things/t/shadow/update/delta", true),
            ("$aws/things/t/shadow/name/accepted/update", false),
            ("$aws/things/accepted", false),
            ("$aws/rules/r/accepted", false),
            ("dt/t/accepted", false),
            ("aws/events/x", false),
            ("x/$SYS", false),
        ] {
            let parsed = TopicName::parse(topic).unwrap();
            assert_eq!(is_reserved(&parsed), reserved, "{topic}");
        }
    }
}
