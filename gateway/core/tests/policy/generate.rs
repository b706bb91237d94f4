//! Random policies and requests that are likely to meet: few words, used everywhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use fastrand::Rng;
use portcullis_core::{
    certificate::Certificate,
    identity::{CertificateId, ClientId, Thing, ThingName, ThingTypeName},
    policy::{Action, ArnIdentity, ConnectRequest, Context, Rules},
    timestamp::Timestamp,
    topic::TopicName,
};
use serde_json::{Value, json};

use super::reference::Known;

/// Makes things up; `size` bounds how much.
pub(crate) struct Generator {
    pub(crate) rng: Rng,
    pub(crate) size: usize,
}

const LEVELS: [&str; 8] = ["a", "b", "c1", "ab", "A", "é", "10.1.2.3", "5"];
const FILTER_LEVELS: [&str; 4] = ["+", "#", "$share", "*"];
const VARIABLES: [&str; 14] = [
    "iot:ClientId",
    "iot:ClientId",
    "iot:Connection.Thing.ThingName",
    "iot:Connection.Thing.ThingName",
    "iot:Connection.Thing.ThingTypeName",
    "iot:Connection.Thing.Attributes[x]",
    "iot:Connection.Thing.Attributes[a:b]",
    "iot:Connection.Thing.IsAttached",
    "iot:DomainName",
    "aws:SourceIp",
    "aws:EpochTime",
    "iot:Certificate.Subject.CommonName",
    "iot:Certificate.Subject.OrganizationalUnit.1",
    "iot:Certificate.Issuer.OrganizationalUnit.2",
];
const TEXT_KEYS: [&str; 9] = [
    "iot:Certificate.Subject.Organization",
    "iot:ClientId",
    "iot:Connection.Thing.ThingName",
    "iot:Connection.Thing.ThingTypeName",
    "iot:Connection.Thing.Attributes[x]",
    "iot:Connection.Thing.Attributes[x]",
    "iot:DomainName",
    "iot:Certificate.Subject.OrganizationalUnit",
    "iot:Certificate.Subject.AlternativeName.IPAddress",
];
const LIST_KEYS: [&str; 5] = [
    HOSTS,
    "iot:Certificate.Subject.OrganizationalUnit.List",
    "iot:Certificate.AvailableKeys",
    "iot:ConnectAttributes",
    "iot:ConnectAttributes",
];
/// What attributes are, and what conditions compare with.
const NUMBERS: [&str; 8] = [
    "5",
    "5.0",
    "-1",
    "12.5",
    "7",
    "10525622389124227206",
    "10525622389124227207",
    "1795305600000",
];
const MOMENTS: [&str; 5] = [
    "2026-11-22",
    "2026-11-22T00:00Z",
    "2026-11-22T00:00:01.5Z",
    "1795305600",
    "2027-01-01T00:00:00Z",
];
const ADDRESSES: [&str; 6] = [
    "10.1.2.3",
    "10.1.0.9",
    "::ffff:10.1.2.3",
    "2001:db8::1",
    "::1",
    "11.0.0.1",
];
const BLOCKS: [&str; 7] = [
    "10.0.0.0/8",
    "10.1.2.3",
    "::ffff:10.1.0.0/112",
    "2001:db8::/32",
    "0.0.0.0/0",
    "::/0",
    "10.1.2.0/31",
];
const ARNS: [&str; 6] = [
    "arn:aws:iot:eu:1:topic/a",
    "arn:aws:iot:*:*:topic/a*",
    "arn:*:iot:e?:1:topic/${iot:ClientId}",
    "arn:aws:iot:us:1:topic/${iot:Connection.Thing.ThingName}/*",
    "arn:aws:iot:eu:1:*/b",
    "arn:aws:s3:::a",
];

impl Generator {
    fn pick<'t>(&mut self, from: &[&'t str]) -> &'t str {
        from[self.rng.usize(..from.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.rng.usize(..n) == 0
    }

    fn up_to(&mut self, most: usize) -> usize {
        self.rng.usize(1..=most.min(self.size).max(1))
    }

    /// A topic name or filter.
    pub(crate) fn name(&mut self, is_filter: bool) -> String {
        let mut levels = Vec::new();
        if is_filter && self.one_in(5) {
            levels.extend(["$share", "a"]);
        }
        for _ in 0..self.up_to(3) {
            let rare = is_filter && self.one_in(4);
            let level = if rare {
                self.pick(&FILTER_LEVELS)
            } else {
                self.pick(&LEVELS)
            };
            levels.push(level);
        }
        levels.join("/")
    }

    /// A name with wildcards, escapes and variables.
    fn pattern(&mut self) -> String {
        let mut pattern = String::new();
        for _ in 0..self.up_to(4) {
            match self.rng.u8(..12) {
                0..=3 => pattern.push_str(self.pick(&LEVELS)),
                4 => pattern.push_str(self.pick(&FILTER_LEVELS)),
                5..=6 => pattern.push('*'),
                7 => pattern.push('?'),
                8 => pattern.push_str(self.pick(&["${*}", "${?}", "${$}", "$"])),
                _ => pattern.push_str(&format!("${{{}}}", self.pick(&VARIABLES))),
            }
            if self.one_in(2) {
                pattern.push('/');
            }
        }
        pattern
    }

    fn resource(&mut self) -> String {
        if self.one_in(12) {
            return "*".to_owned();
        }
        let partition = self.pick(&["aws", "aws", "*", "aws-cn"]);
        let region = self.pick(&["eu", "*", "e?", "us"]);
        let account = self.pick(&["1", "*", "1*", ""]);
        let start = self.pick(&[
            "topic/",
            "topic/",
            "topic/",
            "topicfilter/",
            "topicfilter/",
            "client/",
            "*",
            "topic*",
            "?opic/",
            "topic?",
            "*/",
            "thing/",
        ]);
        let mut pattern = self.pattern();
        // The type without a name, or with a variable, is refused.
        if start.ends_with('?') {
            pattern.insert(0, 'a');
        }
        if !start.contains('/') && (pattern.contains("${i") || pattern.contains("${a")) {
            pattern.insert(0, '/');
        }
        format!("arn:{partition}:iot:{region}:{account}:{start}{pattern}")
    }

    /// A request that one of the resources in `policies` probably takes.
    pub(crate) fn request_for(&mut self, policies: &[Value], known: &Known) -> (Action, String) {
        let policy = &policies[self.rng.usize(..policies.len())];
        let statements = policy["Statement"].as_array().unwrap();
        let statement = &statements[self.rng.usize(..statements.len())];
        let resource = statement.get("Resource").or(statement.get("NotResource"));
        let resource = match resource.unwrap() {
            Value::Array(several) => several[self.rng.usize(..several.len())].as_str(),
            one => one.as_str(),
        };
        let written = self.instance_of(resource.unwrap(), known);
        let name = written.splitn(6, ':').last().unwrap();
        let (start, name) = name.split_once('/').unwrap_or(("topic", name));
        let fitting = Action::ALL
            .into_iter()
            .filter(|action| action.resource_type() == start);
        let fitting: Vec<_> = fitting.collect();
        let action = match fitting.len() {
            0 => Action::ALL[self.rng.usize(..Action::ALL.len())],
            n => fitting[self.rng.usize(..n)],
        };
        let name = match action {
            Action::Subscribe if self.one_in(2) => format!("$share/a/{name}"),
            _ => name.to_owned(),
        };
        (action, name)
    }

    /// A text that `pattern` takes, if its variables have values.
    fn instance_of(&mut self, pattern: &str, known: &Known) -> String {
        let mut text = String::new();
        let mut rest = pattern;
        while let Some(c) = rest.chars().next() {
            rest = &rest[c.len_utf8()..];
            let variable = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
            match (c, variable) {
                ('$', Some((name, after))) => {
                    let value = known.values.get(name).and_then(|values| values.first());
                    text.push_str(value.map_or(name, String::as_str));
                    rest = after;
                }
                ('*', _) if self.one_in(2) => text.push_str(&self.name(true)),
                ('*', _) => {}
                ('?', _) => text.push_str(self.pick(&["a", "/", "é"])),
                (c, _) => text.push(c),
            }
        }
        text
    }

    fn action(&mut self) -> &'static str {
        self.pick(&[
            "iot:*",
            "*",
            "iot:Publish",
            "iot:publish",
            "IOT:*PUBLISH",
            "iot:Subscribe",
            "iot:Receive",
            "iot:Connect",
            "iot:Con?ect",
            "iot:GetThingShadow",
        ])
    }

    fn several<T>(&mut self, mut one: impl FnMut(&mut Self) -> T) -> Value
    where
        Value: From<T>,
    {
        if self.one_in(2) {
            return one(self).into();
        }
        (0..self.up_to(3)).map(|_| Value::from(one(self))).collect()
    }

    pub(crate) fn policy(&mut self) -> Value {
        let statements = (0..self.up_to(3)).map(|_| self.statement());
        json!({"Version": "2012-10-17", "Statement": statements.collect::<Vec<_>>()})
    }

    fn statement(&mut self) -> Value {
        let effect = if self.one_in(3) { "Deny" } else { "Allow" };
        let action = if self.one_in(6) {
            "NotAction"
        } else {
            "Action"
        };
        let resource = if self.one_in(5) {
            "NotResource"
        } else {
            "Resource"
        };
        let mut statement = json!({
            "Effect": effect,
            action: self.several(Self::action),
            resource: self.several(Self::resource),
        });
        if self.one_in(2) {
            let mut condition = json!({});
            for _ in 0..self.up_to(2) {
                let (operator, tests) = self.operator();
                condition[operator] = tests;
            }
            statement["Condition"] = condition;
        }
        statement
    }

    /// An operator with its keys.
    fn operator(&mut self) -> (String, Value) {
        let order = [
            "LessThan",
            "LessThanEquals",
            "GreaterThan",
            "GreaterThanEquals",
            "Equals",
            "NotEquals",
        ];
        let (base, keys): (String, &[&str]) = match self.rng.u8(..9) {
            0..=3 => (
                self.pick(&[
                    "StringEquals",
                    "StringNotEquals",
                    "StringEqualsIgnoreCase",
                    "StringNotEqualsIgnoreCase",
                    "StringLike",
                    "StringNotLike",
                ])
                .to_owned(),
                &[
                    "aws:SourceIp",
                    "aws:EpochTime",
                    "iot:Connection.Thing.IsAttached",
                ],
            ),
            4 => (format!("Numeric{}", self.pick(&order)), &["aws:EpochTime"]),
            5 => (
                format!("Date{}", self.pick(&order)),
                &["aws:CurrentTime", "aws:EpochTime"],
            ),
            6 => (
                "Bool".to_owned(),
                &[
                    "iot:Connection.Thing.IsAttached",
                    "iot:IncludeSocketInformation",
                ],
            ),
            7 => (
                self.pick(&["IpAddress", "NotIpAddress"]).to_owned(),
                &["aws:SourceIp"],
            ),
            _ => (
                self.pick(&["ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"])
                    .to_owned(),
                &["iot:LastWillTopic"],
            ),
        };
        let is_null = self.one_in(12);
        let quantifier = if is_null {
            ""
        } else {
            self.pick(&["", "", "ForAllValues:", "ForAnyValue:"])
        };
        let key = match self.rng.u8(..6) {
            0..=1 if !quantifier.is_empty() || is_null => self.pick(&LIST_KEYS),
            0..=2 => self.pick(keys),
            _ => self.pick(&TEXT_KEYS),
        };
        let key = &self.recased(key);
        if is_null {
            let expected = self.several(|it| it.rng.bool());
            return ("Null".to_owned(), json!({ key: expected }));
        }
        let mut operands = self.several(|it| it.operand(&base));
        if !quantifier.is_empty() && self.one_in(8) {
            operands = json!([]);
        }
        let if_exists = if self.one_in(4) { "IfExists" } else { "" };
        (
            format!("{quantifier}{base}{if_exists}"),
            json!({ key: operands }),
        )
    }

    /// In other letters, now and then; in brackets they count.
    fn recased(&mut self, name: &str) -> String {
        match name.contains('[') || !self.one_in(6) {
            true => name.to_owned(),
            false => name.to_uppercase(),
        }
    }

    fn operand(&mut self, operator: &str) -> String {
        match operator.get(..3) {
            Some("Str") => match self.rng.u8(..5) {
                0 => self.pattern(),
                1 => self
                    .pick(&[
                        "PersistentConnect",
                        "LastWill",
                        "Lab",
                        "*b",
                        "m?t*",
                        "a\\+b",
                        "Example, Inc.",
                        "Example\\, Inc.",
                        "a.example.org",
                        "*.example.org",
                        "\\#",
                        "",
                    ])
                    .to_owned(),
                2 => self
                    .pick(&[
                        "iot:Certificate.Subject.Country",
                        "iot:Certificate.*",
                        "iot:Certificate.SerialNumber",
                    ])
                    .to_owned(),
                3 => self.attribute(),
                _ => self.pick(&LEVELS).to_owned(),
            },
            Some("Num") => self.pick(&NUMBERS).to_owned(),
            Some("Dat") => self.pick(&MOMENTS).to_owned(),
            Some("Boo") => self.pick(&["true", "false", "TRUE"]).to_owned(),
            Some("Arn") => self.pick(&ARNS).to_owned(),
            _ => self.pick(&BLOCKS).to_owned(),
        }
    }

    /// The value of an attribute.
    fn attribute(&mut self) -> String {
        let kinds: [&[&str]; 6] = [
            &LEVELS,
            &NUMBERS,
            &MOMENTS,
            &ADDRESSES,
            &["true", "False", "", "a*", "+", "a?", "${iot:ClientId}"],
            &[
                "arn:aws:iot:eu:1:topic/a",
                "arn:aws:iot:us:1:topic/a/b",
                "arn:aws:s3:::a",
            ],
        ];
        let kind = kinds[self.rng.usize(..kinds.len())];
        self.pick(kind).to_owned()
    }

    fn attributes(&mut self) -> BTreeMap<String, String> {
        let mut attributes = BTreeMap::new();
        for name in ["x", "a:b"] {
            if !self.one_in(4) {
                attributes.insert(name.to_owned(), self.attribute());
            }
        }
        attributes
    }

    pub(crate) fn rules(&mut self) -> Rules {
        let [partition, region, account] = ["aws", "eu", "1"].map(str::to_owned);
        Rules {
            arn: ArnIdentity {
                partition,
                region,
                account,
            },
            strict_arn: self.one_in(3),
            deny_on_unresolved: !self.one_in(3),
        }
    }
}

/// The values in a certificate, by key.
type Content = &'static [(&'static str, &'static [&'static str])];

/// A client, in the engine's terms; [`Self::known`] says the same in the reference's.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) client_id: ClientId,
    pub(crate) thing: Option<Thing>,
    pub(crate) certificate: Option<(Arc<Certificate>, Content)>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) domain: Option<&'static str>,
    pub(crate) now: Timestamp,
    pub(crate) connect: Option<(bool, Option<TopicName>)>,
}

impl Client {
    pub(crate) fn random(it: &mut Generator) -> Self {
        let thing = (!it.one_in(4)).then(|| Thing {
            name: ThingName::parse(it.pick(&["a", "b", "c1", "AB"])).unwrap(),
            thing_type: (!it.one_in(2))
                .then(|| ThingTypeName::parse(it.pick(&["a", "ab"])).unwrap()),
            attributes: it.attributes(),
            groups: Arc::from([]),
        });
        let certificate = match it.rng.u8(..5) {
            0 => None,
            1 => {
                let unseen = Certificate::unseen(CertificateId::of_der(b"a"));
                Some((Arc::new(unseen), UNSEEN))
            }
            2 => Some((super::certificate("names"), NAMES)),
            3 => Some((super::certificate("rich"), RICH)),
            _ => Some((super::certificate("hostile"), HOSTILE)),
        };
        Self {
            client_id: ClientId::parse(it.pick(&["a", "c1", "b", "A"])).unwrap(),
            thing,
            certificate,
            source: (!it.one_in(5)).then(|| it.pick(&ADDRESSES).parse().unwrap()),
            domain: (!it.one_in(3)).then(|| it.pick(&["a", "ab"])),
            now: Self::random_now(it),
            connect: Self::random_connect(it),
        }
    }

    pub(crate) fn random_now(it: &mut Generator) -> Timestamp {
        Timestamp::from_millis(
            [
                1_795_305_600_000,
                1_795_305_600_999,
                1_795_305_599_999,
                5000,
            ][it.rng.usize(..4)],
        )
    }

    pub(crate) fn random_connect(it: &mut Generator) -> Option<(bool, Option<TopicName>)> {
        let will = it
            .rng
            .bool()
            .then(|| TopicName::parse(&it.name(false)).unwrap());
        (!it.one_in(4)).then(|| (it.rng.bool(), will))
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context {
            client_id: &self.client_id,
            thing: self.thing.as_ref(),
            certificate: self
                .certificate
                .as_ref()
                .map(|(certificate, _)| &**certificate),
            source: self.source,
            domain: self.domain,
            now: self.now,
            connect: self
                .connect
                .as_ref()
                .map(|(persistent, will)| ConnectRequest {
                    persistent: *persistent,
                    will_topic: will.as_ref(),
                }),
        }
    }

    pub(crate) fn known(&self, rules: &Rules, action: &str) -> Known {
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut has = |name: &str, value: String| {
            values.entry(name.to_owned()).or_default().push(value);
        };
        has("iot:ClientId", self.client_id.to_string());
        if let Some(thing) = &self.thing {
            has("iot:Connection.Thing.ThingName", thing.name.to_string());
            if let Some(name) = &thing.thing_type {
                has("iot:Connection.Thing.ThingTypeName", name.to_string());
            }
            for (name, value) in &thing.attributes {
                has(
                    &format!("iot:Connection.Thing.Attributes[{name}]"),
                    value.clone(),
                );
            }
        }
        let attached = self.thing.is_some() && self.certificate.is_some();
        has("iot:Connection.Thing.IsAttached", attached.to_string());
        match self.source {
            Some(IpAddr::V6(six)) if six.to_ipv4_mapped().is_some() => {
                has("aws:SourceIp", "10.1.2.3".to_owned())
            }
            Some(source) => has("aws:SourceIp", source.to_string()),
            None => {}
        }
        if let Some(domain) = self.domain {
            has("iot:DomainName", domain.to_owned());
        }
        let (secs, text) = match self.now.as_millis() {
            1_795_305_600_000..=1_795_305_600_999 => ("1795305600", "2026-11-22T00:00:00Z"),
            1_795_305_599_999 => ("1795305599", "2026-11-21T23:59:59Z"),
            _ => ("5", "1970-01-01T00:00:05Z"),
        };
        has("aws:EpochTime", secs.to_owned());
        has("aws:CurrentTime", text.to_owned());
        for (name, all) in self.certificate.iter().flat_map(|(_, known)| *known) {
            all.iter().for_each(|value| has(name, (*value).to_owned()));
        }
        if let (Some((persistent, will)), "iot:Connect") = (&self.connect, action) {
            if *persistent {
                has("iot:ConnectAttributes", "PersistentConnect".to_owned());
            }
            if let Some(topic) = will {
                has("iot:ConnectAttributes", "LastWill".to_owned());
                has(
                    "iot:LastWillTopic",
                    format!("arn:aws:iot:eu:1:topic/{topic}"),
                );
            }
        }
        let ArnIdentity {
            partition,
            region,
            account,
        } = rules.arn.clone();
        let has_more = values.get(HOSTS).is_some_and(|hosts| hosts.len() == 5);
        let more = BTreeSet::from_iter(has_more.then(|| HOSTS.to_owned()));
        Known {
            values,
            more,
            strict: rules.strict_arn.then_some([partition, region, account]),
            deny_on_unresolved: rules.deny_on_unresolved,
        }
    }
}

/// What is in a certificate of which only the id is known.
const UNSEEN: Content = &[];

/// What is in `names.der`, as far as policies here ask.
const NAMES: Content = &[
    ("iot:Certificate.Subject.CommonName", &["c1"]),
    ("iot:Certificate.Subject.Organization", &["Works"]),
    (HOSTS, &["c1.site", "meter.site"]),
    ("iot:Certificate.Subject.OrganizationalUnit", &["Meters"]),
    ("iot:Certificate.Subject.OrganizationalUnit.1", &["Lab"]),
    (
        "iot:Certificate.Subject.OrganizationalUnit.List",
        &["Meters", "Lab", "Cellar"],
    ),
    (
        "iot:Certificate.Subject.AlternativeName.IPAddress",
        &["10.1.2.3"],
    ),
    (
        "iot:Certificate.AvailableKeys",
        &[
            "iot:Certificate.SerialNumber",
            "iot:Certificate.Subject.DistinguishedNameQualifier",
            "iot:Certificate.Subject.Country",
            "iot:Certificate.Subject.Organization",
            "iot:Certificate.Subject.OrganizationalUnit",
            "iot:Certificate.Subject.State",
            "iot:Certificate.Subject.CommonName",
            "iot:Certificate.Subject.SerialNumber",
            "iot:Certificate.Subject.Title",
            "iot:Certificate.Subject.Surname",
            "iot:Certificate.Subject.GivenName",
            "iot:Certificate.Subject.Initials",
            "iot:Certificate.Subject.Pseudonym",
            "iot:Certificate.Subject.GenerationQualifier",
            "iot:Certificate.Subject.AlternativeName.RFC822Name",
            "iot:Certificate.Subject.AlternativeName.DNSName",
            "iot:Certificate.Subject.AlternativeName.DirectoryName",
            "iot:Certificate.Subject.AlternativeName.UniformResourceIdentifier",
            "iot:Certificate.Subject.AlternativeName.IPAddress",
            "iot:Certificate.Issuer.Country",
            "iot:Certificate.Issuer.Organization",
            "iot:Certificate.Issuer.OrganizationalUnit",
            "iot:Certificate.Issuer.CommonName",
        ],
    ),
];

/// What is in `hostile.der`, likewise.
const HOSTILE: Content = &[
    ("iot:Certificate.Subject.CommonName", &["*"]),
    ("iot:Certificate.Subject.Organization", &["$ENV::HOSTILE_O"]),
    (HOSTS, &["a*b"]),
    ("iot:Certificate.Subject.OrganizationalUnit", &["a+b"]),
    ("iot:Certificate.Subject.OrganizationalUnit.1", &["#"]),
    (
        "iot:Certificate.Subject.OrganizationalUnit.List",
        &["a+b", "#", "Lab"],
    ),
    (
        "iot:Certificate.AvailableKeys",
        &[
            "iot:Certificate.SerialNumber",
            "iot:Certificate.Subject.Organization",
            "iot:Certificate.Subject.OrganizationalUnit",
            "iot:Certificate.Subject.State",
            "iot:Certificate.Subject.CommonName",
            "iot:Certificate.Subject.AlternativeName.DNSName",
            "iot:Certificate.Subject.AlternativeName.UniformResourceIdentifier",
            "iot:Certificate.Issuer.Country",
            "iot:Certificate.Issuer.Organization",
            "iot:Certificate.Issuer.OrganizationalUnit",
            "iot:Certificate.Issuer.CommonName",
        ],
    ),
];

/// What is in `rich.der`, likewise.
const RICH: Content = &[
    ("iot:Certificate.Subject.CommonName", &["sensor-1"]),
    ("iot:Certificate.Subject.Organization", &["Example, Inc."]),
    (
        "iot:Certificate.Subject.OrganizationalUnit",
        &["cold-chain"],
    ),
    (
        "iot:Certificate.Subject.OrganizationalUnit.1",
        &["building 7"],
    ),
    (
        "iot:Certificate.Subject.OrganizationalUnit.List",
        &["cold-chain", "building 7"],
    ),
    (
        "iot:Certificate.Subject.AlternativeName.IPAddress",
        &["192.0.2.7"],
    ),
    (
        HOSTS,
        &[
            "a.example.org",
            "b.example.org",
            "c.example.org",
            "d.example.org",
            "e.example.org",
        ],
    ),
    (
        "iot:Certificate.AvailableKeys",
        &[
            "iot:Certificate.SerialNumber",
            "iot:Certificate.Subject.DistinguishedNameQualifier",
            "iot:Certificate.Subject.Country",
            "iot:Certificate.Subject.Organization",
            "iot:Certificate.Subject.OrganizationalUnit",
            "iot:Certificate.Subject.State",
            "iot:Certificate.Subject.CommonName",
            "iot:Certificate.Subject.SerialNumber",
            "iot:Certificate.Subject.Title",
            "iot:Certificate.Subject.Surname",
            "iot:Certificate.Subject.GivenName",
            "iot:Certificate.Subject.Initials",
            "iot:Certificate.Subject.Pseudonym",
            "iot:Certificate.Subject.GenerationQualifier",
            "iot:Certificate.Subject.AlternativeName.RFC822Name",
            "iot:Certificate.Subject.AlternativeName.DNSName",
            "iot:Certificate.Subject.AlternativeName.DirectoryName",
            "iot:Certificate.Subject.AlternativeName.UniformResourceIdentifier",
            "iot:Certificate.Subject.AlternativeName.IPAddress",
            "iot:Certificate.Issuer.DistinguishedNameQualifier",
            "iot:Certificate.Issuer.Country",
            "iot:Certificate.Issuer.Organization",
            "iot:Certificate.Issuer.OrganizationalUnit",
            "iot:Certificate.Issuer.State",
            "iot:Certificate.Issuer.CommonName",
            "iot:Certificate.Issuer.SerialNumber",
            "iot:Certificate.Issuer.Title",
            "iot:Certificate.Issuer.Surname",
            "iot:Certificate.Issuer.GivenName",
            "iot:Certificate.Issuer.Initials",
            "iot:Certificate.Issuer.Pseudonym",
            "iot:Certificate.Issuer.GenerationQualifier",
            "iot:Certificate.Issuer.AlternativeName.RFC822Name",
            "iot:Certificate.Issuer.AlternativeName.UniformResourceIdentifier",
        ],
    ),
];

/// Of `rich.der`, more than are kept.
const HOSTS: &str = "iot:Certificate.Subject.AlternativeName.DNSName.List";
