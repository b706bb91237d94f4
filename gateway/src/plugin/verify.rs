//! Holds what a guest returned against the contract; nothing of an answer that breaks it is used.

use bytes::Bytes;
use portcullis_core::{
    detect::Severity,
    limits::{
        NAME_BYTES_MAX, PAYLOAD_BYTES_MAX, PLUGIN_FIELDS_MAX, PLUGIN_KEY_BYTES_MAX,
        PLUGIN_LABELS_MAX, PLUGIN_MESSAGE_BYTES_MAX, PLUGIN_POINTER_BYTES_MAX,
        PLUGIN_REASON_BYTES_MAX, PLUGIN_VALUE_BYTES_MAX,
    },
    topic::{TopicFilter, TopicName},
};

use super::{
    bindings::{
        exports::portcullis::plugin::{handler as wit, lifecycle::Subscription},
        portcullis::plugin::types::{Label, Severity as WitSeverity},
    },
    outcome::{Changes, Emission, Outcome, Verdict, Violation},
};

/// A measurement that a guest reported.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Metric {
    pub(super) name: String,
    pub(super) value: MetricValue,
}

/// Its kind and value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum MetricValue {
    Count(u64),
    Gauge(f64),
}

/// Checks the answer to a batch of `events`.
pub(super) fn outcome(
    answer: wit::Outcome,
    events: usize,
    granted: &[TopicFilter],
) -> Result<(Outcome, Vec<Metric>), String> {
    let mut verdicts = vec![Verdict::Keep(Changes::default()); events];
    for edit in answer.edits {
        apply(edit, &mut verdicts)?;
    }
    let emissions = answer
        .emissions
        .into_iter()
        .map(|emission| self::emission(emission, events, granted))
        .collect::<Result<_, _>>()?;
    let violations = answer
        .violations
        .into_iter()
        .map(|violation| self::violation(violation, events))
        .collect::<Result<_, _>>()?;
    let metrics = answer
        .metrics
        .into_iter()
        .map(metric)
        .collect::<Result<_, _>>()?;
    let outcome = Outcome {
        verdicts,
        emissions,
        violations,
    };
    Ok((outcome, metrics))
}

/// Checks what a plugin subscribes to.
pub(super) fn subscription(subscription: &Subscription) -> Result<(), String> {
    let fields = &subscription.fields;
    if fields.len() > PLUGIN_FIELDS_MAX {
        return Err(format!(
            "subscription.fields: {} fields, at most {PLUGIN_FIELDS_MAX} are allowed",
            fields.len()
        ));
    }
    for field in fields {
        let pointer = &field.pointer;
        if pointer.len() > PLUGIN_POINTER_BYTES_MAX {
            return Err(format!(
                "subscription.fields: a pointer has more than {PLUGIN_POINTER_BYTES_MAX} bytes"
            ));
        }
        if !is_pointer(pointer) {
            return Err(format!(
                "subscription.fields: {pointer:?} is no JSON pointer (RFC 6901)"
            ));
        }
    }
    Ok(())
}

fn apply(edit: wit::Edit, verdicts: &mut [Verdict]) -> Result<(), String> {
    match edit {
        wit::Edit::Drop(wit::Dropping { index, reason }) => {
            let verdict = at(verdicts, "edits.drop.index", index)?;
            if !is_word(&reason, PLUGIN_REASON_BYTES_MAX) {
                return Err(format!(
                    "edits.drop.reason: {:?} is not 1 to {PLUGIN_REASON_BYTES_MAX} of `a-z0-9-`",
                    shorten(&reason)
                ));
            }
            *verdict = Verdict::Drop { reason };
        }
        wit::Edit::Replace(wit::Replacement { index, payload }) => {
            let verdict = at(verdicts, "edits.replace.index", index)?;
            let payload = self::payload("edits.replace.payload", payload)?;
            if let Verdict::Keep(changes) = verdict {
                changes.payload = Some(payload);
            }
        }
        wit::Edit::Tag(wit::Tagging { index, key, value }) => {
            let verdict = at(verdicts, "edits.tag.index", index)?;
            check_label("edits.tag", &key, &value)?;
            if let Verdict::Keep(changes) = verdict {
                changes.tags.push((key, value));
            }
        }
    }
    Ok(())
}

fn emission(
    emission: wit::Emission,
    events: usize,
    granted: &[TopicFilter],
) -> Result<Emission, String> {
    let after = in_range("emissions.after", emission.after, events)?;
    let topic = TopicName::parse(&emission.topic)
        .map_err(|error| format!("emissions.topic: {:?}: {error}", shorten(&emission.topic)))?;
    if !granted.iter().any(|filter| filter.matches(&topic)) {
        return Err(format!(
            "emissions.topic: `{topic}` is not among the topics granted by `emit`"
        ));
    }
    let payload = payload("emissions.payload", emission.payload)?;
    Ok(Emission {
        after,
        topic,
        payload,
    })
}

fn violation(violation: wit::Violation, events: usize) -> Result<Violation, String> {
    let event = in_range("violations.event", violation.event, events)?;
    let rule = violation.rule;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '_' | '-');
    if rule.is_empty() || rule.len() > NAME_BYTES_MAX || !rule.chars().all(allowed) {
        return Err(format!(
            "violations.rule: {:?} is not 1 to {NAME_BYTES_MAX} of `a-zA-Z0-9:_-`",
            shorten(&rule)
        ));
    }
    if violation.message.len() > PLUGIN_MESSAGE_BYTES_MAX {
        return Err(format!(
            "violations.message: more than {PLUGIN_MESSAGE_BYTES_MAX} bytes"
        ));
    }
    if violation.value.is_some_and(|value| !value.is_finite()) {
        return Err("violations.value: not a finite number".into());
    }
    if violation.labels.len() > PLUGIN_LABELS_MAX {
        return Err(format!(
            "violations.labels: {} labels, at most {PLUGIN_LABELS_MAX} are allowed",
            violation.labels.len()
        ));
    }
    let mut labels = Vec::with_capacity(violation.labels.len());
    for Label { key, value } in violation.labels {
        check_label("violations.labels", &key, &value)?;
        labels.push((key, value));
    }
    Ok(Violation {
        event,
        rule,
        severity: match violation.severity {
            WitSeverity::Info => Severity::Info,
            WitSeverity::Low => Severity::Low,
            WitSeverity::Medium => Severity::Medium,
            WitSeverity::High => Severity::High,
            WitSeverity::Critical => Severity::Critical,
        },
        message: violation.message,
        value: violation.value,
        labels,
    })
}

fn metric(metric: wit::Metric) -> Result<Metric, String> {
    let name = metric.name;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if name.len() > PLUGIN_KEY_BYTES_MAX
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
        || !name.chars().all(allowed)
    {
        return Err(format!(
            "metrics.name: {:?} is not 1 to {PLUGIN_KEY_BYTES_MAX} of `a-z0-9_`, a letter first",
            shorten(&name)
        ));
    }
    let value = match metric.value {
        wit::MetricValue::Count(n) => MetricValue::Count(n),
        wit::MetricValue::Gauge(value) if value.is_finite() => MetricValue::Gauge(value),
        wit::MetricValue::Gauge(_) => {
            return Err(format!("metrics.value: `{name}` is not finite"));
        }
    };
    Ok(Metric { name, value })
}

fn at<'v>(verdicts: &'v mut [Verdict], field: &str, index: u32) -> Result<&'v mut Verdict, String> {
    let index = in_range(field, index, verdicts.len())?;
    Ok(&mut verdicts[index])
}

pub(super) fn in_range(field: &str, index: u32, events: usize) -> Result<usize, String> {
    usize::try_from(index)
        .ok()
        .filter(|index| *index < events)
        .ok_or_else(|| format!("{field}: {index} in a batch of {events}"))
}

fn payload(field: &str, payload: Vec<u8>) -> Result<Bytes, String> {
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(format!(
            "{field}: {} bytes, at most {PAYLOAD_BYTES_MAX} are allowed",
            payload.len()
        ));
    }
    Ok(payload.into())
}

fn check_label(field: &str, key: &str, value: &str) -> Result<(), String> {
    if key.is_empty() || key.len() > PLUGIN_KEY_BYTES_MAX || key.chars().any(char::is_control) {
        return Err(format!(
            "{field}.key: {:?} is not 1 to {PLUGIN_KEY_BYTES_MAX} bytes without control characters",
            shorten(key)
        ));
    }
    if value.len() > PLUGIN_VALUE_BYTES_MAX {
        return Err(format!(
            "{field}.value: {} bytes, at most {PLUGIN_VALUE_BYTES_MAX} are allowed",
            value.len()
        ));
    }
    Ok(())
}

fn is_word(text: &str, bytes_max: usize) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.len() <= bytes_max && text.chars().all(allowed)
}

/// Empty, or `/`-led with `~` only as `~0` and `~1`.
fn is_pointer(text: &str) -> bool {
    let escapes_are_valid = text
        .split('~')
        .skip(1)
        .all(|after| after.starts_with(['0', '1']));
    (text.is_empty() || text.starts_with('/')) && escapes_are_valid
}

/// Enough of a guest's text to recognise it.
fn shorten(text: &str) -> &str {
    text.split_at(text.floor_char_boundary(64)).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(edits: Vec<wit::Edit>) -> Vec<Verdict> {
        let answer = wit::Outcome {
            edits,
            emissions: Vec::new(),
            violations: Vec::new(),
            metrics: Vec::new(),
        };
        outcome(answer, 2, &[]).unwrap().0.verdicts
    }

    fn replace(payload: &str) -> wit::Edit {
        wit::Edit::Replace(wit::Replacement {
            index: 1,
            payload: payload.into(),
        })
    }

    fn tag(value: &str) -> wit::Edit {
        wit::Edit::Tag(wit::Tagging {
            index: 1,
            key: "k".into(),
            value: value.into(),
        })
    }

    #[test]
    fn of_several_payloads_the_last_counts() {
        let kept = Changes {
            payload: Some("b".into()),
            tags: vec![("k".into(), "1".into()), ("k".into(), "2".into())],
        };
        assert_eq!(
            edits(vec![replace("a"), tag("1"), replace("b"), tag("2")]),
            [Verdict::Keep(Changes::default()), Verdict::Keep(kept)]
        );
    }

    #[test]
    fn a_drop_wins_over_every_other_edit() {
        let drop = || {
            wit::Edit::Drop(wit::Dropping {
                index: 1,
                reason: "stale".into(),
            })
        };
        let dropped = Verdict::Drop {
            reason: "stale".into(),
        };
        for order in [vec![drop(), replace("a")], vec![tag("1"), drop(), tag("2")]] {
            assert_eq!(edits(order)[1], dropped);
        }
    }

    #[test]
    fn pointers_are_those_of_rfc_6901() {
        for pointer in ["", "/", "/a/0", "/~0~1"] {
            assert!(is_pointer(pointer), "{pointer:?}");
        }
        for pointer in ["a", "/~", "/~2", "#/a"] {
            assert!(!is_pointer(pointer), "{pointer:?}");
        }
    }
}
