//! One function a target. Each takes any bytes; a panic is a finding.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use portcullis_core::{
    certificate::Certificate,
    event::Qos,
    identity::{CertificateId, ClientId, Thing, ThingName},
    policy::{Action, ConnectRequest, Context, Decision, Denial, Effect, Policy, PolicySet, Rules},
    problem::Mistake,
    provisioning::{Template, Way},
    registry::{Query, Registry, line},
    session::{Incoming, Outgoing, OutgoingBounds, Restored, Stage, Transmission},
    timestamp::Timestamp,
    topic::TopicName,
};
use serde_json::{Value, json};

use super::reference;

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("policy_parse", policy_parse),
    ("policy_decide", policy_decide),
    ("registry_parse", registry_parse),
    ("journal_read", journal_read),
    ("query_parse", query_parse),
    ("certificate_parse", certificate_parse),
    ("template_parse", template_parse),
    ("session_run", session_run),
];

/// A document is refused with places and remedies, or can be shown and asked.
pub fn policy_parse(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let policy = match Policy::parse("p", text) {
        Ok(policy) => policy,
        Err(mistakes) => return check_mistakes(text, &mistakes),
    };
    let client_id = ClientId::parse("c1").expect("a valid id");
    let context = Context::of(&client_id);
    let mut effects = Vec::new();
    for statement in policy.statements() {
        effects.push(statement.effect());
        assert!(statement.action_names().len() > 0);
        let read = statement.resources_in(&context);
        for (resource, reading) in statement.resources().zip(read) {
            let same = !resource.contains("${") && reading.text != resource;
            assert!(!same, "{resource} reads {}", reading.text);
        }
        if let Some(condition) = statement.condition() {
            let value: Result<Value, _> = serde_json::from_str(condition);
            assert!(value.is_ok(), "{condition}");
        }
    }
    let set = PolicySet::new(vec![Arc::new(policy)]);
    for action in Action::ALL {
        let decision = set.decide(&context, action, "a/b");
        let explanation = set.explain(&context, action, "a/b");
        match (decision, explanation.decision) {
            (Ok(permit), Decision::Allowed) => {
                assert_eq!(effects[permit.statement().index], Effect::Allow);
            }
            (Err(Denial::Explicit(statement)), Decision::ExplicitDeny) => {
                assert_eq!(effects[statement.index], Effect::Deny);
            }
            (Err(Denial::Implicit), Decision::ImplicitDeny) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn check_mistakes(text: &str, mistakes: &[Mistake]) {
    assert!(!mistakes.is_empty());
    for mistake in mistakes {
        let place = mistake
            .place
            .expect("every mistake of a document has a place");
        assert!(place.line <= text.lines().count() + 1, "{mistake:?}");
        assert!(!mistake.message.is_empty() && !mistake.remedy.is_empty());
    }
}

/// Lines: the name part of a resource, an operand, a client id, a thing's name, an attribute's value,
/// and what is asked for. The engine and the reference agree on them.
pub fn policy_decide(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(6, '\n');
    let [pattern, operand, client_id, thing, attribute, name] =
        [(); 6].map(|()| lines.next().unwrap_or_default());
    let Ok(client_id) = ClientId::parse(client_id) else {
        return;
    };
    let thing = ThingName::parse(thing).ok().map(|name| Thing {
        name,
        thing_type: None,
        attributes: BTreeMap::from([("x".to_owned(), attribute.to_owned())]),
        groups: Arc::from([]),
    });
    let will = TopicName::parse(name).ok();
    let context = Context {
        thing: thing.as_ref(),
        now: Timestamp::from_millis(5000),
        connect: Some(ConnectRequest {
            persistent: true,
            will_topic: will.as_ref(),
        }),
        ..Context::of(&client_id)
    };
    // Most texts are no patterns; that is told fastest by the smallest policy.
    let smallest = json!({"Version": "2012-10-17", "Statement": {
        "Effect": "Allow", "Action": "*", "Resource": format!("arn:aws:iot:*:*:topic/{pattern}"),
        "Condition": {"StringLike": {"iot:ClientId": operand}},
    }});
    if Policy::parse("p", &smallest.to_string()).is_err() {
        return;
    }
    let policy = policy_of(pattern, operand);
    let Ok(parsed) = Policy::parse("p", &policy.to_string()) else {
        return;
    };
    let parsed = Arc::new(parsed);
    let mut turn = data.len();
    for (strict_arn, deny_on_unresolved) in [(false, true), (true, false)] {
        let rules = Rules {
            strict_arn,
            deny_on_unresolved,
            ..Rules::default()
        };
        let set = PolicySet::with_rules(vec![parsed.clone()], Arc::new(rules));
        for action in Action::ALL {
            let decision = set.decide(&context, action, name).is_ok();
            let explained = set.explain(&context, action, name);
            assert_eq!(decision, explained.decision == Decision::Allowed);
            // One of the ten ways to ask is held against the reference, which takes its time.
            turn = turn.wrapping_add(1);
            let is_cheap = is_cheap(&[pattern, operand], &[name, attribute, client_id.as_str()]);
            if !turn.is_multiple_of(10) || !is_cheap || !reads_alike(attribute) {
                continue;
            }
            let asked = reference::Asked {
                action: action.name(),
                resource_type: action.resource_type(),
                name,
            };
            let known = known(&context, action, &set);
            let expected = reference::applying(std::slice::from_ref(&policy), &known, asked);
            let applying = explained.allows.iter().map(|matching| (matching, false));
            let applying = applying.chain(explained.denies.iter().map(|m| (m, true)));
            let mut applying: Vec<_> = applying
                .map(|(matching, denies)| (0, matching.statement.index, denies))
                .collect();
            applying.sort_unstable();
            assert_eq!(applying, expected, "{action} {name:?}: {policy} {known:?}");
        }
    }
}

/// A policy in which both texts stand wherever a text may stand.
fn policy_of(pattern: &str, operand: &str) -> Value {
    let arn = |start: &str| format!("arn:aws:iot:*:*:{start}{pattern}");
    json!({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": "*", "Resource": [arn("topic/"), arn("topicfilter/"), arn("*")]},
        {"Effect": "Deny", "Action": "*", "Resource": arn("topic*")},
        {"Effect": "Allow", "Action": "*", "NotResource": arn("topic/")},
        {"Effect": "Deny", "Action": "*", "NotResource": arn("topic?ilter/")},
        {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {
            "StringLike": {"iot:Connection.Thing.Attributes[x]": operand},
            "StringNotEquals": {"iot:ClientId": operand},
        }},
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {
            "StringEqualsIgnoreCase": {"iot:Connection.Thing.Attributes[x]": [operand, "b"]},
            "ArnLikeIfExists": {"iot:LastWillTopic": format!("arn:aws:iot:*:*:topic/{operand}")},
        }},
        {"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {
            "ForAllValues:StringNotLike": {"iot:Connection.Thing.ThingName": operand},
            "Null": {"iot:Connection.Thing.Attributes[x]": "false"},
        }},
        {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {
            "NumericLessThanEquals": {"iot:Connection.Thing.Attributes[x]": 5},
        }},
        {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {
            "NotIpAddress": {"iot:Connection.Thing.Attributes[x]": "10.0.0.0/8"},
        }},
    ]})
}

/// Whether the reference, which is exponential in the stars, gets done.
fn is_cheap(patterns: &[&str], texts: &[&str]) -> bool {
    let stars = |pattern: &&str| pattern.matches(['*', '$']).count() < 3;
    let short = |text: &&str| text.chars().count() <= 24;
    patterns.iter().all(stars) && patterns.iter().chain(texts).all(short)
}

/// The reference reads no numbers with fractions or exponents; it is not asked about what may be one.
fn reads_alike(number: &str) -> bool {
    !number.contains(['.', 'e', 'E'])
}

fn known(context: &Context<'_>, action: Action, set: &PolicySet) -> reference::Known {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut has = |name: &str, value: &str| {
        let values = values.entry(name.to_owned()).or_default();
        values.push(value.to_owned());
    };
    has("iot:ClientId", context.client_id.as_str());
    has("iot:Connection.Thing.IsAttached", "false");
    has("aws:EpochTime", "5");
    has("aws:CurrentTime", "1970-01-01T00:00:05Z");
    if let Some(thing) = context.thing {
        has("iot:Connection.Thing.ThingName", thing.name.as_str());
        for (name, value) in &thing.attributes {
            has(&format!("iot:Connection.Thing.Attributes[{name}]"), value);
        }
    }
    let arn = set.rules().arn.clone();
    if let (Action::Connect, Some(connect)) = (action, context.connect) {
        has("iot:ConnectAttributes", "PersistentConnect");
        if let Some(topic) = connect.will_topic {
            let (partition, region, account) = (&arn.partition, &arn.region, &arn.account);
            let will = format!("arn:{partition}:iot:{region}:{account}:topic/{topic}");
            has("iot:LastWillTopic", &will);
        }
    }
    reference::Known {
        values,
        more: BTreeSet::new(),
        strict: set
            .rules()
            .strict_arn
            .then_some([arn.partition, arn.region, arn.account]),
        deny_on_unresolved: set.rules().deny_on_unresolved,
    }
}

/// A registry is read, with what is in order in it, and its problems can be told.
pub fn registry_parse(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let policies = BTreeSet::from(["device".to_owned()]);
    for policies in [None, Some(&policies)] {
        let (registry, problems) = Registry::parse(Path::new("registry.toml"), text, policies);
        for problem in problems {
            assert!(!problem.to_string().is_empty() && !problem.remedy.is_empty());
        }
        for thing in &registry.things {
            assert!(registry.thing(thing.thing.name.as_str()).is_some());
        }
    }
}

/// Lines are read as they come, and those that are made out of the same bytes with a right checksum.
pub fn journal_read(data: &[u8]) {
    let mut reading = line::Reading::default();
    reading.read_on(data);
    assert!(reading.bytes <= data.len());
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    for body in text.lines() {
        let crc = crc32fast::hash(body.as_bytes());
        if let Ok(change) = line::decode(format!("{body},\"crc\":\"{crc:08x}\"}}").as_bytes()) {
            let Ok(written) = line::encode(&change) else {
                continue;
            };
            let again = line::decode(written.trim_end().as_bytes());
            assert_eq!(again.as_ref(), Ok(&change), "{written}");
        }
    }
}

/// A query is refused with a place, or keeps its text.
pub fn query_parse(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    match Query::parse(text) {
        Ok(query) => {
            assert_eq!(query.text(), text);
            let _is_live = query.is_live();
        }
        Err(mistake) => assert!(!mistake.message.is_empty() && !mistake.remedy.is_empty()),
    }
}

/// A certificate is none, or a policy can ask for whatever is in it.
pub fn certificate_parse(data: &[u8]) {
    let Ok(certificate) = Certificate::parse(data) else {
        return;
    };
    assert_eq!(certificate.id, CertificateId::of_der(data));
    let client_id = ClientId::parse("c1").expect("a valid id");
    let context = Context {
        certificate: Some(&certificate),
        ..Context::of(&client_id)
    };
    let json = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":[
        "arn:aws:iot:*:*:topic/${iot:Certificate.Subject.CommonName}",
        "arn:aws:iot:*:*:topic/${iot:Certificate.Issuer.OrganizationalUnit.1}/${iot:CertificateId}"]},
        {"Effect":"Deny","Action":"*","Resource":"*","Condition":{
        "ForAnyValue:StringLike":{"iot:Certificate.AvailableKeys":"iot:Certificate.Issuer.*",
        "iot:Certificate.Subject.AlternativeName.DNSName.List":"*${iot:Certificate.SerialNumber}*"}}}]}"#;
    let policy = Policy::parse("p", json).expect("a valid policy");
    let set = PolicySet::new(vec![Arc::new(policy)]);
    let _decision = set.explain(&context, Action::Publish, "a");
}

/// A template is refused with places, or can be filled in by a certificate and a device.
pub fn template_parse(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let template = match Template::parse("t", text) {
        Ok(template) => template,
        Err(mistakes) => return check_mistakes(text, &mistakes),
    };
    let _warnings = template.warnings();
    let der = include_bytes!("../../tests/certificates/names.der");
    let certificate = Certificate::parse(der).expect("a valid certificate");
    let given = ["Serial", "Site", "a"].map(|name| (name.to_owned(), "x1".to_owned()));
    for way in [Way::JustInTime, Way::Claim] {
        if template.mistakes_for(way).is_empty() {
            let _plan = template.fill(way, &certificate, &BTreeMap::from(given.clone()));
        }
    }
}

const SESSION_BOUNDS: OutgoingBounds = OutgoingBounds {
    messages_max: 12,
    bytes_max: 200,
};
/// Packet ids that there are.
const PACKET_IDS: u64 = 65_535;

/// The life of a session: two bytes a step, the first of all for where its packet ids begin. It stays
/// within its bounds, sends nothing twice without saying so, nothing with a packet id that is taken, and
/// nothing beyond the window.
pub fn session_run(data: &[u8]) {
    let (start, steps) = data.split_at(data.len().min(2));
    let start = start.iter().fold(0, |n, &byte| n << 8 | u64::from(byte));
    let mut life = Life {
        queue: Outgoing::restore(SESSION_BOUNDS, [], start, start),
        incoming: Incoming::default(),
        unreleased: BTreeSet::new(),
        sent: BTreeMap::new(),
        open: BTreeSet::new(),
        window: 0,
        settled: u64::MAX,
    };
    for step in steps.chunks_exact(2) {
        life.act(step[0], step[1]);
        life.check();
    }
}

/// A session, and what a client and a naive reader know of it.
struct Life {
    queue: Outgoing<u8>,
    incoming: Incoming,
    unreleased: BTreeSet<u16>,
    /// Numbers of the messages that were sent, by packet id.
    sent: BTreeMap<u16, u64>,
    /// Packet ids of exchanges on this connection.
    open: BTreeSet<u16>,
    window: u16,
    settled: u64,
}

impl Life {
    fn act(&mut self, step: u8, value: u8) {
        let id = self.pick(value);
        match step % 13 {
            0 | 1 => {
                let qos = [Qos::AtLeastOnce, Qos::ExactlyOnce][usize::from(step % 2)];
                let taken = self.queue.len() < SESSION_BOUNDS.messages_max
                    && self.queue.bytes() + usize::from(value) <= SESSION_BOUNDS.bytes_max;
                let next = self.queue.next_number();
                let offered = self.queue.offer(qos, value.into(), value);
                assert_eq!(offered.ok(), taken.then_some(next));
            }
            2 => {
                self.window = u16::from(value % 8);
                self.queue.connect(self.window);
                self.reopen();
            }
            3 => {
                self.window = 0;
                self.queue.disconnect();
                self.open.clear();
            }
            4 | 5 => self.send(value),
            6 => self.over(id, |queue| {
                queue
                    .acknowledged(id, Qos::AtLeastOnce)
                    .ok()
                    .map(|a| a.number)
            }),
            7 => self.over(id, |queue| {
                queue
                    .acknowledged(id, Qos::ExactlyOnce)
                    .ok()
                    .map(|a| a.number)
            }),
            8 => {
                if let Ok(number) = self.queue.received(id) {
                    assert_eq!(self.sent.get(&id), Some(&number));
                }
            }
            9 => self.over(id, |queue| queue.completed(id).ok().map(|a| a.number)),
            10 => {
                // Only ever forward, as the disk does it.
                let settled = self.queue.unsent() + u64::from(value % 16);
                if self.settled == u64::MAX || settled > self.settled {
                    self.settled = settled;
                }
                self.queue.settle(self.settled);
            }
            11 => self.restart(),
            _ => {
                let id = u16::from(value % 16);
                if value < 128 {
                    assert_eq!(self.incoming.publish(id), self.unreleased.insert(id));
                } else {
                    assert_eq!(self.incoming.release(id), self.unreleased.remove(&id));
                }
            }
        }
    }

    /// A packet id that was sent, or any.
    fn pick(&self, value: u8) -> u16 {
        let at = usize::from(value) % (self.sent.len() + 1);
        let sent = self.sent.keys().nth(at).copied();
        sent.unwrap_or(u16::from(value).wrapping_mul(257))
    }

    fn over(&mut self, id: u16, end: impl FnOnce(&mut Outgoing<u8>) -> Option<u64>) {
        if let Some(number) = end(&mut self.queue) {
            assert_eq!(self.sent.remove(&id), Some(number), "it was sent with {id}");
            self.open.remove(&id);
        }
    }

    /// Exchanges whose PUBREC came are open on the new connection from its beginning.
    fn reopen(&mut self) {
        let received: BTreeSet<_> = self
            .queue
            .iter()
            .filter(|(_, _, stage, _)| *stage == Stage::Received)
            .map(|(number, ..)| number)
            .collect();
        let open = self
            .sent
            .iter()
            .filter(|(_, number)| received.contains(number));
        self.open = open.map(|(&id, _)| id).collect();
    }

    fn send(&mut self, value: u8) {
        let mut gone = Vec::new();
        let unsent = self.queue.unsent();
        loop {
            // One in sixteen messages is not wanted any more.
            let next = self.queue.next_transmission(
                |&message| message % 16 == value % 16,
                |number, _| gone.push(number),
            );
            match next {
                None => break,
                Some(Transmission::Release { pkid }) => {
                    assert!(self.open.contains(&pkid), "a PUBREL of what is open");
                }
                Some(Transmission::Publish {
                    number,
                    pkid,
                    dup,
                    qos,
                    ..
                }) => {
                    assert!(pkid > 0);
                    assert!(
                        self.open.len() < usize::from(self.window),
                        "over the window"
                    );
                    assert!(
                        qos == Qos::AtLeastOnce || number < self.settled,
                        "unsettled"
                    );
                    assert_eq!(dup, self.sent.contains_key(&pkid), "DUP of {number}");
                    let known = *self.sent.entry(pkid).or_insert(number);
                    assert_eq!(known, number, "the packet id {pkid} is taken");
                    assert!(self.open.insert(pkid), "{number} twice on a connection");
                }
            }
        }
        assert!(gone.iter().all(|&number| number >= unsent), "it was sent");
    }

    fn restart(&mut self) {
        let written = self.queue.iter();
        let written = written.map(|(number, qos, stage, &message)| Restored {
            number,
            qos,
            bytes: message.into(),
            stage,
            message,
        });
        let (next, unsent) = (self.queue.next_number(), self.queue.unsent());
        let written: Vec<_> = written.collect();
        self.queue = Outgoing::restore(SESSION_BOUNDS, written, next, unsent);
        self.queue.settle(self.settled);
        self.window = 0;
        self.open.clear();
    }

    fn check(&self) {
        let queue = &self.queue;
        assert!(queue.len() <= SESSION_BOUNDS.messages_max);
        assert!(queue.bytes() <= SESSION_BOUNDS.bytes_max);
        assert_eq!(queue.iter().count(), queue.len());
        let sizes = queue.iter().map(|(.., &message)| usize::from(message));
        assert_eq!(sizes.sum::<usize>(), queue.bytes());
        assert_eq!(queue.in_flight_len(), self.sent.len());
        let first = queue.iter().next().map_or(queue.next_number(), |(n, ..)| n);
        let most = u64::try_from(SESSION_BOUNDS.messages_max).unwrap_or(0) + PACKET_IDS;
        assert!(queue.next_number() - first <= most, "places that are kept");
        assert!(self.incoming.iter().eq(self.unreleased.iter().copied()));
    }
}
