//! `criteria` of a behaviour: what is compared with what, over which time.

use super::{Members, Reader};
use crate::{
    detect::profile::{Comparison, Criteria, Metric},
    json::Value,
    limits::{CONSECUTIVE_DATAPOINTS_MAX, DETECT_DURATIONS_SECS},
};

/// AWS's other operators.
const COMPARISONS_NOT_YET: &[&str] = &[
    "in-cidr-set",
    "not-in-cidr-set",
    "in-port-set",
    "not-in-port-set",
    "in-set",
    "not-in-set",
];

impl<'a> Reader<'a> {
    pub(super) fn criteria(&mut self, node: Value<'a>, metric: Option<Metric>) -> Option<Criteria> {
        let known = [
            "comparisonOperator",
            "value",
            "durationSeconds",
            "consecutiveDatapointsToAlarm",
            "consecutiveDatapointsToClear",
            "statisticalThreshold",
            "mlDetectionConfig",
        ];
        let members = self.object(node, "`criteria`", &known)?;
        let to_alarm = self.datapoints(&members, "consecutiveDatapointsToAlarm");
        let to_clear = self.datapoints(&members, "consecutiveDatapointsToClear");
        for kind in ["statisticalThreshold", "mlDetectionConfig"] {
            if let Some(member) = members.get(kind) {
                self.not_yet(*member, &format!("the criterion `{kind}`"));
                return None;
            }
        }
        let duration_secs = self.duration(&members, node, metric);
        let comparison = self
            .required(&members, node, "comparisonOperator")
            .and_then(|node| self.comparison(node));
        let count = self
            .required(&members, node, "value")
            .and_then(|node| self.count(node));
        Some(Criteria {
            comparison: comparison?,
            count: count?,
            duration_secs,
            datapoints_to_alarm: to_alarm,
            datapoints_to_clear: to_clear,
        })
    }

    fn comparison(&mut self, node: Value<'a>) -> Option<Comparison> {
        let name: String = node.read().unwrap_or_default();
        let comparison = Comparison::ALL.into_iter().find(|c| c.name() == name);
        if comparison.is_none() {
            let ours = Comparison::ALL.map(Comparison::name).join("`, `");
            if COMPARISONS_NOT_YET.contains(&name.as_str()) {
                self.not_yet(node, &format!("the operator `{name}`"));
            } else {
                self.report(
                    node,
                    format!("unknown operator {}", node.text()),
                    format!("use one of `{ours}`"),
                );
            }
        }
        comparison
    }

    fn count(&mut self, node: Value<'a>) -> Option<u64> {
        let known = ["count", "cidrs", "ports", "number", "numbers", "strings"];
        let members = self.object(node, "`value`", &known)?;
        let count = members.get("count").and_then(|count| count.read());
        if count.is_none() || members.len() > 1 {
            self.report(
                node,
                "the value of this metric is a count",
                "write `\"value\": {\"count\": N}` with a whole number N of 0 or more",
            );
        }
        count
    }

    fn duration(
        &mut self,
        members: &Members<'a>,
        criteria: Value<'a>,
        metric: Option<Metric>,
    ) -> Option<u32> {
        let per_message = metric?.is_judged_per_message();
        let allowed = DETECT_DURATIONS_SECS
            .map(|secs| secs.to_string())
            .join(", ");
        match members.get("durationSeconds") {
            None if per_message => None,
            None => {
                self.report(
                    criteria,
                    "`durationSeconds` is missing",
                    format!("add it: one of {allowed}"),
                );
                None
            }
            Some(node) if per_message => {
                self.report(
                    *node,
                    "`durationSeconds` for a metric that is judged message by message",
                    "remove it",
                );
                None
            }
            Some(node) => {
                let secs = node
                    .read()
                    .filter(|secs| DETECT_DURATIONS_SECS.contains(secs));
                if secs.is_none() {
                    self.report(
                        *node,
                        format!("`durationSeconds` of {}", node.text()),
                        format!("use one of {allowed}"),
                    );
                }
                secs
            }
        }
    }

    fn datapoints(&mut self, members: &Members<'a>, name: &str) -> u8 {
        let Some(node) = members.get(name) else {
            return 1;
        };
        let count: Option<u8> = node.read();
        match count {
            Some(count) if (1..=CONSECUTIVE_DATAPOINTS_MAX).contains(&count) => count,
            _ => {
                self.report(
                    *node,
                    format!("`{name}` of {}", node.text()),
                    format!("write a number from 1 to {CONSECUTIVE_DATAPOINTS_MAX}"),
                );
                1
            }
        }
    }
}
