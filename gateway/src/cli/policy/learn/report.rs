//! What a proposal is based on, for people and for scripts.

use portcullis_core::{
    identity::GroupName,
    learn::{Basis, Ground, Proposal, Unused, Wider},
    limits::POLICY_CHARACTERS_MAX,
    policy::Action,
    timestamp::Timestamp,
};
use serde_json::{Value, json};

use super::super::{super::outcome::escaped, describe, short};

/// Names in a list that people read; then their number.
const NAMES_MAX: usize = 20;

/// All that is to be said about a proposal.
pub(super) struct Report<'a> {
    pub(super) group: &'a GroupName,
    pub(super) hours: u64,
    /// How fresh the record is.
    pub(super) written: Option<Timestamp>,
    pub(super) proposal: &'a Proposal<'a>,
    /// What present policies allow and nobody did.
    pub(super) unused: Vec<Unused>,
    /// Names of the present policies.
    pub(super) present: Vec<&'a str>,
}

impl Report<'_> {
    /// A page of text.
    pub(super) fn text(&self) -> String {
        let mut page = Page::default();
        let Proposal {
            policies,
            basis,
            silent,
            things,
            ..
        } = self.proposal;
        page.line(&format!(
            "Proposed for the group `{}`, from what {} of its {things} things did in the last {} hours.",
            self.group,
            things - silent.len(),
            self.hours
        ));
        if let Some(written) = self.written {
            page.line(&format!(
                "The record was written last at {written}; a running gateway adds what is new within \
                 a second, and how often within a minute."
            ));
        }
        for (index, policy) in policies.iter().enumerate() {
            page.line("");
            page.line(&format!(
                "Policy {} of {}, {} of {POLICY_CHARACTERS_MAX} characters:",
                index + 1,
                policies.len(),
                policy.characters
            ));
            for line in basis.iter().filter(|line| line.policy == index) {
                self.basis(&mut page, line);
            }
        }
        if policies.len() > 1 {
            page.line("");
            page.line("One policy is too small for all of it; attach both to the group.");
        }
        self.left_out(&mut page);
        self.silent(&mut page);
        self.unused(&mut page);
        if self.proposal.lost > 0 {
            page.section("Not complete");
            page.line(&format!(
                "  {} actions were not noted, because a bound was reached (of all groups).",
                self.proposal.lost
            ));
        }
        page.0
    }

    fn basis(&self, page: &mut Page, line: &Basis) {
        let resource = line.grant.resource();
        page.line(&format!("  {:<12} {}", line.sid, short(&resource)));
        let times = match line.times {
            0 => "held since before".to_owned(),
            1 => "once".to_owned(),
            n => format!("{n} times"),
        };
        let more = if line.more_things { " or more" } else { "" };
        page.line(&format!(
            "               {}{more} of {} things, {times}, {} to {}",
            line.things,
            self.proposal.things,
            minute(line.first),
            minute(line.last)
        ));
        page.line(&format!(
            "               such as {}",
            line.examples.join(", ")
        ));
        self.conditions(page, line);
        match line.wider {
            None => {}
            Some(Wider::Unbounded) => page.line(
                "               wider than what was seen: `*` stands for values that nobody could list",
            ),
            Some(Wider::Size(lines)) => page.line(&format!(
                "               wider than what was seen: it stands for {lines} lines that did not fit"
            )),
        }
    }

    /// Under which conditions it was allowed.
    fn conditions(&self, page: &mut Page, line: &Basis) {
        for ground in &line.grounds.known {
            let Some(condition) = &ground.condition else {
                continue;
            };
            let statement = describe(&ground.statement());
            page.line(&match line.grant.condition {
                Some(_) => format!(
                    "               allowed under a condition, which goes over: that of {statement}"
                ),
                None => format!(
                    "               some of it was allowed under a condition, which is not in the \
                     proposal: {condition} of {statement}"
                ),
            });
        }
        if let Some(condition) = &line.grant.condition {
            page.line(&format!("               if {condition}"));
        }
    }

    fn left_out(&self, page: &mut Page) {
        if self.proposal.left_out.is_empty() {
            return;
        }
        page.section("Seen and not proposed");
        for left in &self.proposal.left_out {
            page.line(&format!("  {} on {}", left.action, left.shape));
            page.line(&format!("    {}", left.why));
            if left.action == Action::Connect {
                page.line("    give devices fixed client ids: their names, or names and a suffix");
            }
        }
    }

    fn silent(&self, page: &mut Page) {
        let silent = &self.proposal.silent;
        if silent.is_empty() {
            return;
        }
        page.section("Silent: nothing was seen of these, the proposal may be too narrow for them");
        let names: Vec<&str> = silent.iter().map(|name| name.as_str()).collect();
        let shown = names.iter().take(NAMES_MAX).copied().collect::<Vec<_>>();
        let more = match names.len() - shown.len() {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        page.line(&format!("  {}{more}", shown.join(", ")));
    }

    fn unused(&self, page: &mut Page) {
        if self.present.is_empty() {
            return;
        }
        if self.unused.is_empty() {
            page.section("Present policies allow nothing that was not used");
        } else {
            page.section("Allowed by present policies, and used by nobody");
        }
        for unused in &self.unused {
            let resource = unused.resource.as_deref().map_or("everything in it", short);
            let statement = describe(&unused.statement);
            page.line(&format!("  {} on {resource}: {statement}", unused.action));
        }
        page.line(&format!(
            "A proposal narrows nothing while these stay attached: {}",
            self.present.join(", ")
        ));
    }

    /// The same as one document.
    pub(super) fn to_json(&self) -> Value {
        let proposal = self.proposal;
        let policies: Vec<Value> = proposal
            .policies
            .iter()
            .map(|policy| {
                json!({
                    "characters": policy.characters,
                    "document": serde_json::from_str::<Value>(&policy.json).unwrap_or_default(),
                })
            })
            .collect();
        let left_out = proposal.left_out.iter().map(|left| {
            json!({
                "action": left.action.name(),
                "resource": left.shape.to_string(),
                "why": left.why,
            })
        });
        let unused = self.unused.iter().map(|unused| {
            json!({
                "policy": &*unused.statement.policy,
                "statement": unused.statement.number(),
                "sid": unused.statement.sid.as_deref(),
                "action": unused.action.name(),
                "resource": unused.resource,
            })
        });
        let silent = proposal.silent.iter().map(|name| name.as_str());
        json!({
            "group": self.group.as_str(),
            "hours": self.hours,
            "recordWritten": self.written.map(|written| written.to_string()),
            "things": proposal.things,
            "policies": policies,
            "basis": proposal.basis.iter().map(basis_to_json).collect::<Vec<_>>(),
            "leftOut": left_out.collect::<Vec<_>>(),
            "silent": silent.collect::<Vec<_>>(),
            "presentPolicies": self.present,
            "unused": unused.collect::<Vec<_>>(),
            "lost": proposal.lost,
        })
    }
}

fn ground_to_json(ground: &Ground) -> Value {
    let condition = ground.condition.as_deref();
    json!({
        "policy": &*ground.policy,
        "statement": ground.statement().number(),
        "sid": ground.sid.as_deref(),
        "condition": condition.and_then(|text| serde_json::from_str::<Value>(text).ok()),
    })
}

fn basis_to_json(line: &Basis) -> Value {
    let condition = line.grant.condition.as_deref();
    let grounds = line.grounds.known.iter();
    let actions: Vec<&str> = line.grant.actions.iter().map(|a| a.name()).collect();
    json!({
        "policy": line.policy,
        "sid": line.sid,
        "actions": actions,
        "resource": line.grant.resource(),
        "things": line.things,
        "moreThings": line.more_things,
        "times": line.times,
        "first": line.first.to_string(),
        "last": line.last.to_string(),
        "examples": line.examples,
        "condition": condition.and_then(|text| serde_json::from_str::<Value>(text).ok()),
        "allowedBy": grounds.map(|ground| ground_to_json(ground)).collect::<Vec<_>>(),
        "allowedByOthers": line.grounds.more,
        "wider": match line.wider {
            None => Value::Null,
            Some(Wider::Unbounded) => json!("unbounded"),
            Some(Wider::Size(lines)) => json!({ "size": lines }),
        },
    })
}

/// `2026-11-22T10:00Z`.
fn minute(at: Timestamp) -> String {
    let text = at.to_string();
    text.get(..16)
        .map_or(text.clone(), |minute| format!("{minute}Z"))
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        self.0.push_str(&escaped(text));
        self.0.push('\n');
    }

    fn section(&mut self, title: &str) {
        self.line("");
        self.line(&format!("{title}:"));
    }
}
