//! What was refused: a line in the log, and the last ones kept for `portcullis status`.
//!
//! Every refusal comes here once, be it of a request that no policy allows, of a CONNECT or of a
//! handshake. Counting is the metrics' part and exact; lines are paced by [`pace`]. What is not
//! logged is counted and told by a later line, at the latest by [`Denials::run`]. Text that a
//! client chose is cut, and logged as a quoted string, so that it cannot end a line.

mod pace;

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use portcullis_core::{limits::DENIALS_KEPT_MAX, policy::StatementRef, timestamp::Timestamp};
use prometheus::IntCounter;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub(super) use self::pace::Turn;
use self::pace::{Pace, Standing};
use super::{Metrics, cut};
use crate::{clock::now, supervisor::TaskResult};

/// How often what was not logged is summed up.
const SUMMARY: Duration = Duration::from_secs(10);
/// How much of a text that a peer chose is logged and kept.
pub(super) const TEXT_BYTES_MAX: usize = 256;

/// The log of refusals; clones share it.
#[derive(Clone, Debug)]
pub struct Denials {
    log: Arc<Mutex<Log>>,
    unlogged: IntCounter,
}

#[derive(Debug)]
struct Log {
    pace: Pace,
    last: VecDeque<Kept>,
}

#[derive(Debug)]
struct Kept {
    denial: Denial,
    first: Timestamp,
    last: Timestamp,
    times: u64,
}

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denial {
    /// What was wanted: an action as metrics name it, or `handshake`.
    pub(super) action: &'static str,
    /// Why not: the label in metrics.
    pub(super) reason: &'static str,
    /// The same in words, if they say more.
    pub(super) detail: Option<String>,
    /// Client id as the client gave it.
    pub(super) client: Option<String>,
    pub(super) thing: Option<String>,
    /// Id of the certificate that was shown.
    pub(super) certificate: Option<String>,
    /// Subject and issuer of a certificate that TLS refused.
    pub(super) names: Option<(String, String)>,
    pub(super) peer: IpAddr,
    pub(super) resource: Option<String>,
    /// `EXPLICIT_DENY` or `IMPLICIT_DENY` if policies decided.
    pub(super) decision: Option<&'static str>,
    /// The statement that denies it.
    pub(super) statement: Option<StatementRef>,
}

impl Denial {
    /// A refusal of which no more is known.
    pub(super) fn new(action: &'static str, reason: &'static str, peer: IpAddr) -> Self {
        Self {
            action,
            reason,
            detail: None,
            client: None,
            thing: None,
            certificate: None,
            names: None,
            peer,
            resource: None,
            decision: None,
            statement: None,
        }
    }

    /// Whom the pace is kept for: whoever cannot become another one by choosing a client id, or by
    /// making a certificate that no CA signed.
    fn whose(&self) -> (Standing, String) {
        // Deliveries that are held back are not the client's doing; they take no line from what is.
        let class = if self.action == "receive" { "r" } else { "" };
        match (&self.thing, &self.certificate) {
            (Some(thing), _) => (Standing::Thing, format!("{class}t/{thing}")),
            (None, Some(certificate)) if self.action != "handshake" => {
                (Standing::Stranger, format!("{class}c/{certificate}"))
            }
            (None, _) => (Standing::Stranger, format!("{class}a/{}", self.peer)),
        }
    }

    fn cut(mut self) -> Self {
        let (subject, issuer) = match &mut self.names {
            Some((subject, issuer)) => (Some(subject), Some(issuer)),
            None => (None, None),
        };
        let texts = [
            self.detail.as_mut(),
            self.client.as_mut(),
            self.resource.as_mut(),
            subject,
            issuer,
        ];
        for text in texts.into_iter().flatten() {
            let kept = cut(text, TEXT_BYTES_MAX).len();
            text.truncate(kept);
        }
        self
    }

    fn log(&self, unlogged: u64) {
        let statement = self.statement.as_ref();
        let sid = statement.and_then(|statement| statement.sid.as_deref());
        warn!(
            client = self.client,
            thing = self.thing,
            certificate = self.certificate,
            subject = self.names.as_ref().map(|(subject, _)| subject),
            issuer = self.names.as_ref().map(|(_, issuer)| issuer),
            peer = %self.peer,
            action = self.action,
            resource = self.resource,
            reason = self.reason,
            decision = self.decision,
            policy = statement.map(|statement| &*statement.policy),
            statement = statement.map(StatementRef::number),
            sid,
            detail = self.detail,
            unlogged = (unlogged > 0).then_some(unlogged),
            "{}",
            self.message()
        );
    }

    fn message(&self) -> &'static str {
        match (self.action, self.decision) {
            ("handshake", _) => "Connection refused.",
            ("connect", _) => "CONNECT refused.",
            _ => "Request denied.",
        }
    }

    fn to_json(&self) -> Value {
        let statement = self.statement.as_ref();
        json!({
            "action": self.action,
            "reason": self.reason,
            "detail": self.detail,
            "client": self.client,
            "thing": self.thing,
            "certificate": self.certificate,
            "subject": self.names.as_ref().map(|(subject, _)| subject),
            "issuer": self.names.as_ref().map(|(_, issuer)| issuer),
            "peer": self.peer,
            "resource": self.resource,
            "decision": self.decision,
            "policy": statement.map(|statement| &*statement.policy),
            "statement": statement.map(StatementRef::number),
            "sid": statement.and_then(|statement| statement.sid.as_deref()),
        })
    }
}

impl Denials {
    /// An empty log that counts what it does not write on `metrics`.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            log: Arc::new(Mutex::new(Log {
                pace: Pace::new(Instant::now()),
                last: VecDeque::new(),
            })),
            unlogged: metrics.denials_unlogged.clone(),
        }
    }

    /// Logs a refusal if it is its client's turn, and keeps it.
    pub(super) fn note(&self, denial: Denial) -> Turn {
        let denial = denial.cut();
        let turn = self.with(|log| {
            let (standing, client) = denial.whose();
            let turn = log.pace.turn(standing, &client, Instant::now());
            log.keep(&denial, turn);
            turn
        });
        match turn {
            Turn::Log { unlogged } => denial.log(unlogged),
            Turn::Skip => self.unlogged.inc(),
        }
        turn
    }

    /// The last refusals, the newest first.
    pub fn last(&self) -> Value {
        self.with(|log| log.last.iter().rev().map(Kept::to_json).collect())
    }

    /// Sums up what was not logged, until `stop`.
    pub async fn run(self, stop: CancellationToken) -> TaskResult {
        loop {
            let stopping = tokio::select! {
                () = stop.cancelled() => true,
                () = sleep(SUMMARY) => false,
            };
            if let Some(unlogged) = self.with(|log| log.pace.take_unlogged()) {
                warn!(
                    unlogged = unlogged.lines,
                    clients = unlogged.clients,
                    "More was refused than is logged one by one."
                );
            }
            if stopping {
                return Ok(());
            }
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Log) -> T) -> T {
        act(&mut self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Log {
    /// The same again counts up; of a flood of different ones only what is logged is kept, so that
    /// one client does not wash out the others.
    fn keep(&mut self, denial: &Denial, turn: Turn) {
        let at = now();
        if let Some(same) = self.last.iter().position(|kept| kept.denial == *denial) {
            if let Some(mut kept) = self.last.remove(same) {
                kept.times += 1;
                kept.last = at;
                self.last.push_back(kept);
            }
        } else if turn != Turn::Skip {
            if self.last.len() >= DENIALS_KEPT_MAX {
                self.last.pop_front();
            }
            self.last.push_back(Kept {
                denial: denial.clone(),
                first: at,
                last: at,
                times: 1,
            });
        }
    }
}

impl Kept {
    fn to_json(&self) -> Value {
        let mut value = self.denial.to_json();
        value["first_at"] = json!(self.first.to_string());
        value["last_at"] = json!(self.last.to_string());
        value["times"] = json!(self.times);
        value
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use prometheus::Registry;

    use super::*;

    fn denials() -> (Denials, Metrics) {
        let metrics = Metrics::register(&Registry::new());
        (Denials::new(&metrics), metrics)
    }

    fn denial(thing: &str, resource: &str) -> Denial {
        Denial {
            thing: Some(thing.to_owned()),
            resource: Some(resource.to_owned()),
            ..Denial::new("publish", "implicit-deny", Ipv4Addr::LOCALHOST.into())
        }
    }

    #[test]
    fn the_same_denial_again_counts_up_and_is_the_newest() {
        let (denials, _) = denials();
        for resource in ["a", "b", "a"] {
            denials.note(denial("t", resource));
        }
        let last = denials.last();
        assert_eq!(last.as_array().unwrap().len(), 2);
        assert_eq!(last[0]["resource"], "a");
        assert_eq!(last[0]["times"], 2);
        assert_eq!(last[1]["resource"], "b");
    }

    #[test]
    fn a_flood_of_one_client_neither_fills_the_log_nor_washes_out_the_others() {
        let (denials, metrics) = denials();
        denials.note(denial("victim", "x"));
        for n in 0..10 * DENIALS_KEPT_MAX {
            denials.note(denial("loud", &n.to_string()));
        }
        let last = denials.last();
        let last = last.as_array().unwrap();
        assert!(last.len() <= DENIALS_KEPT_MAX);
        assert!(last.iter().any(|kept| kept["thing"] == "victim"));
        assert!(metrics.denials_unlogged.get() > 0);
    }

    #[test]
    fn what_a_client_chose_is_cut_to_a_bound() {
        let (denials, _) = denials();
        denials.note(denial("t", &"ä".repeat(5000)));
        let kept = denials.last()[0]["resource"].as_str().unwrap().len();
        assert!(kept <= TEXT_BYTES_MAX && kept > TEXT_BYTES_MAX - 4);
    }

    #[test]
    fn the_last_denials_are_bounded() {
        let (denials, _) = denials();
        for n in 0..2 * DENIALS_KEPT_MAX {
            denials.note(denial(&n.to_string(), "x"));
        }
        let last = denials.last();
        assert!(last.as_array().unwrap().len() <= DENIALS_KEPT_MAX);
    }
}
