//! What it comes to: which attack raised which alert, how fast, and whether anybody else was accused.

use std::{fmt::Write as _, path::PathBuf};

use serde::Serialize;

use super::{Verdict, attacks::Attack, outbox::Alert, scrape::Counters};

/// An attack that was played.
#[derive(Clone, Debug)]
pub(super) struct Played {
    pub(super) attack: Attack,
    /// When it began, in milliseconds since the epoch.
    pub(super) onset_ms: u64,
    /// Why it could not be played to its end.
    pub(super) failed: Option<String>,
    /// Every alert for its thing, and when the demo saw it.
    pub(super) alerts: Vec<(Alert, u64)>,
}

/// The `--json` document.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Summary {
    schema: &'static str,
    pub(super) passed: bool,
    seconds: f64,
    things: usize,
    attacks: Vec<Line>,
    /// Alerts for things that did nothing wrong: there must be none.
    false_alerts: Vec<Alert>,
    /// What else is not as it should be.
    faults: Vec<String>,
    counters: Counters,
    directory: PathBuf,
    outbox: PathBuf,
}

#[derive(Clone, Debug, Serialize)]
struct Line {
    attack: &'static str,
    thing: &'static str,
    /// Profile and behaviour of the alert that it has to raise.
    expected: String,
    detected: bool,
    /// From the first hostile act to the gateway's verdict.
    detect_ms: Option<u64>,
    /// From the first hostile act to the line in the outbox.
    seen_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
    alerts: Vec<Alert>,
}

/// What [`Summary::new`] takes.
#[derive(Clone, Debug)]
pub(super) struct Findings {
    pub(super) seconds: f64,
    pub(super) things: usize,
    pub(super) played: Vec<Played>,
    pub(super) false_alerts: Vec<Alert>,
    pub(super) faults: Vec<String>,
    pub(super) counters: Counters,
    pub(super) directory: PathBuf,
    pub(super) outbox: PathBuf,
}

impl Played {
    /// Whether the alert that it has to raise is among its alerts.
    pub(super) fn is_detected(&self) -> bool {
        self.expected_alert().is_some()
    }

    fn expected_alert(&self) -> Option<&(Alert, u64)> {
        let expected = self.attack.expected();
        self.alerts
            .iter()
            .find(|(alert, _)| (&*alert.profile, &*alert.behavior) == expected)
    }

    fn line(&self) -> Line {
        let (profile, behavior) = self.attack.expected();
        let found = self.expected_alert();
        Line {
            attack: self.attack.name(),
            thing: self.attack.thing(),
            expected: format!("{profile}/{behavior}"),
            detected: found.is_some(),
            detect_ms: found.map(|(alert, _)| alert.at_ms.saturating_sub(self.onset_ms)),
            seen_ms: found.map(|(_, seen_ms)| seen_ms.saturating_sub(self.onset_ms)),
            failed: self.failed.clone(),
            alerts: self.alerts.iter().map(|(alert, _)| alert.clone()).collect(),
        }
    }
}

impl Summary {
    /// Judges.
    pub(super) fn new(findings: Findings) -> Self {
        let passed = findings.faults.is_empty()
            && findings.false_alerts.is_empty()
            && findings
                .played
                .iter()
                .all(|played| played.failed.is_none() && played.is_detected());
        Self {
            schema: "portcullis.demo/1",
            passed,
            seconds: (findings.seconds * 10.0).round() / 10.0,
            things: findings.things,
            attacks: findings.played.iter().map(Played::line).collect(),
            false_alerts: findings.false_alerts,
            faults: findings.faults,
            counters: findings.counters,
            directory: findings.directory,
            outbox: findings.outbox,
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        match self.passed {
            true => Verdict::Passed,
            false => Verdict::Failed,
        }
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "\n{:<20} {:<12} {:<34} {:>11} {:>12}\n",
            "attack", "thing", "alert", "decided in", "in outbox in"
        );
        let millis =
            |millis: Option<u64>| millis.map_or("-".into(), |millis| format!("{millis} ms"));
        for line in &self.attacks {
            let alert = match (line.detected, &line.failed) {
                (true, None) => line.expected.clone(),
                (false, None) => format!("MISSING: {}", line.expected),
                (_, Some(reason)) => format!("NOT PLAYED: {reason}"),
            };
            // Writing to a String cannot fail.
            _ = writeln!(
                text,
                "{:<20} {:<12} {:<34} {:>11} {:>12}",
                line.attack,
                line.thing,
                alert,
                millis(line.detect_ms),
                millis(line.seen_ms)
            );
        }
        let normal = self.things - self.attacks.len().min(self.things);
        _ = writeln!(
            text,
            "\n{normal} normal things: {} alerts",
            self.false_alerts.len()
        );
        for alert in &self.false_alerts {
            _ = writeln!(
                text,
                "  FALSE: {} {}/{}",
                alert.thing, alert.profile, alert.behavior
            );
        }
        for fault in &self.faults {
            _ = writeln!(text, "FAULT: {fault}");
        }
        let counters = &self.counters;
        _ = writeln!(
            text,
            "{} published, {} acknowledged, {} denied, {} records delivered",
            counters.published, counters.acknowledged, counters.denied, counters.records_delivered
        );
        _ = writeln!(text, "records: {}/*.ndjson", self.outbox.display());
        _ = writeln!(
            text,
            "everything: {} (kept; remove it when you have looked)",
            self.directory.display()
        );
        let verdict = match (self.passed, self.attacks.is_empty()) {
            (true, true) => "Ended before the first attack; nobody was accused.",
            (true, false) => "Every attack raised its alert, and no normal thing did.",
            (false, _) => "NOT as it should be.",
        };
        _ = writeln!(text, "{verdict}");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(attack: Attack) -> Alert {
        let (profile, behavior) = attack.expected();
        Alert {
            thing: attack.thing().into(),
            profile: profile.into(),
            behavior: behavior.into(),
            at_ms: 1_200,
            violation_id: "v".into(),
            value: None,
        }
    }

    fn findings() -> Findings {
        let played = |attack| Played {
            attack,
            onset_ms: 1_000,
            failed: None,
            alerts: vec![(alert(attack), 1_350)],
        };
        Findings {
            seconds: 20.04,
            things: 20,
            played: Attack::ALL.map(played).into(),
            false_alerts: Vec::new(),
            faults: Vec::new(),
            counters: Counters::default(),
            directory: "/tmp/x".into(),
            outbox: "/tmp/x/data/outbox".into(),
        }
    }

    #[test]
    fn all_detected_and_nobody_else_accused_is_passed() {
        let summary = Summary::new(findings());
        assert_eq!(summary.verdict(), Verdict::Passed);
        let json = serde_json::to_value(&summary).unwrap();
        assert_eq!(json["attacks"][0]["detect_ms"], 200);
        assert_eq!(json["attacks"][0]["seen_ms"], 350);
        assert_eq!(json["seconds"], 20.0);
        let table = summary.table();
        assert!(table.contains("demo/flood") && table.contains("16 normal things: 0 alerts"));
    }

    #[test]
    fn anything_else_is_failed() {
        type Spoil = fn(&mut Findings);
        let spoilers: [(&str, Spoil); 5] = [
            ("no alert", |f| f.played[1].alerts.clear()),
            ("another alert", |f| {
                f.played[1].alerts[0].0.behavior = "else".into()
            }),
            ("not played", |f| f.played[1].failed = Some("x".into())),
            ("false alert", |f| f.false_alerts.push(alert(Attack::Flood))),
            ("fault", |f| f.faults.push("the gateway ended".into())),
        ];
        for (what, spoil) in spoilers {
            let mut findings = findings();
            spoil(&mut findings);
            assert_eq!(Summary::new(findings).verdict(), Verdict::Failed, "{what}");
        }
    }
}
