//! The journal's lines: one [`Change`] each, as JSON with a checksum.
//!
//! ```text
//! {"change":"member","thing":"t1","group":"quarantine","why":"stolen","at":"2026-11-22T10:00:00.000Z","crc":"c3a1f00d"}
//! ```
//!
//! A line that is not understood (a damaged disk, a newer version) never opens access: certificates
//! and things whose names can be made out in it are shut out until a later line says otherwise, and
//! the lines around it count as ever. Whom a damaged line named is not known for sure, and it may have
//! shut them out: such a reading [is doubtful](Reading::is_doubtful), and good for taking access away
//! alone, until somebody writes `#` before the line and so accepts its loss. A last line without its
//! end was never acknowledged, and counts as not written.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};

use super::state::{Change, State, StateCertificate, StateThing};
use super::{QUARANTINE, Status};
use crate::{
    identity::{CertificateId, GroupName, ThingName, ThingTypeName},
    limits::JOURNAL_LINE_BYTES_MAX,
    timestamp::Timestamp,
};

/// What lines lead to.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// The state.
    pub state: State,
    /// Complete lines.
    pub lines: usize,
    /// Their bytes; what is behind them is an unfinished line.
    pub bytes: usize,
    /// The lines that were not understood.
    pub faults: Vec<Fault>,
    last: Timestamp,
}

/// A line that was not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: usize,
    /// A lower-case fragment.
    pub why: String,
    /// The line.
    pub text: Vec<u8>,
    /// Who is shut out for it.
    pub whom: Whom,
}

/// Who is shut out because of a line that is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// Whom it names: it is as it was written, by another version.
    Named,
    /// Whom it names now, which may be others than it named when it was written, or nobody.
    Unsure,
    /// Whom it names, and somebody accepted that it may have named others.
    Accepted,
}

/// What a line begins with that is accepted as lost.
const ACCEPTED: u8 = b'#';

/// Why a line is no change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecoded {
    /// A lower-case fragment.
    pub why: String,
    /// Whether it is as it was written: then a newer version wrote it.
    pub is_intact: bool,
}

/// Why a change cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the change takes more than {JOURNAL_LINE_BYTES_MAX} bytes")]
pub struct TooLong;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case", deny_unknown_fields)]
enum Wire<'a> {
    Certificate {
        id: Cow<'a, str>,
        status: Cow<'a, str>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        things: Vec<Cow<'a, str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        claim: Option<Cow<'a, str>>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        policies: Vec<Cow<'a, str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ca: Option<Cow<'a, str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        under: Option<Cow<'a, str>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Cow<'a, str>>,
        why: Cow<'a, str>,
        at: Cow<'a, str>,
    },
    Thing {
        thing: Cow<'a, str>,
        #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
        thing_type: Option<Cow<'a, str>>,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        attributes: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
        groups: Vec<Cow<'a, str>>,
        why: Cow<'a, str>,
        at: Cow<'a, str>,
    },
    Member {
        thing: Cow<'a, str>,
        group: Cow<'a, str>,
        why: Cow<'a, str>,
        at: Cow<'a, str>,
    },
    NotMember {
        thing: Cow<'a, str>,
        group: Cow<'a, str>,
        at: Cow<'a, str>,
    },
    ForgetThing {
        thing: Cow<'a, str>,
    },
    ForgetCertificate {
        id: Cow<'a, str>,
    },
}

/// `change` as a line with its end.
pub fn encode(change: &Change) -> Result<String, TooLong> {
    let json = serde_json::to_string(&wire(change)).map_err(|_| TooLong)?;
    let mut line = json;
    // The brace comes back behind the checksum.
    line.pop();
    let crc = crc32fast::hash(line.as_bytes());
    // Writing to a String cannot fail.
    _ = writeln!(line, ",\"crc\":\"{crc:08x}\"}}");
    if line.len() > JOURNAL_LINE_BYTES_MAX {
        return Err(TooLong);
    }
    Ok(line)
}

/// The change in a line without its end; else why it is none.
pub fn decode(line: &[u8]) -> Result<Change, Undecoded> {
    let damaged = |why: &str| Undecoded {
        why: why.to_owned(),
        is_intact: false,
    };
    let intact = |why: String| Undecoded {
        why,
        is_intact: true,
    };
    if line.len() > JOURNAL_LINE_BYTES_MAX {
        return Err(damaged("the line is too long"));
    }
    let text = str::from_utf8(line).map_err(|_| damaged("the line is not UTF-8 text"))?;
    let (body, crc) = text
        .strip_suffix("\"}")
        .and_then(|text| text.rsplit_once(",\"crc\":\""))
        .ok_or_else(|| damaged("the line has no checksum"))?;
    if u32::from_str_radix(crc, 16) != Ok(crc32fast::hash(body.as_bytes())) {
        return Err(damaged("the checksum of the line is wrong"));
    }
    let wire: Wire<'_> = serde_json::from_str(&format!("{body}}}")).map_err(|error| {
        let message = error.to_string();
        let short = message.split(" at line ").next().unwrap_or_default();
        intact(format!("the line is of another version: {short}"))
    })?;
    change(wire).map_err(|what| intact(format!("the line has no valid {what}")))
}

impl Reading {
    /// Reads on in `bytes`, which come right behind those that were read; an unfinished line is left
    /// for the next time.
    pub fn read_on(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (line, behind) = rest.split_at(end);
            self.line(line);
            self.bytes += end + 1;
            rest = behind.get(1..).unwrap_or_default();
        }
    }

    fn line(&mut self, line: &[u8]) {
        self.lines += 1;
        match decode(line) {
            Ok(change) => {
                self.last = self.last.max(at(&change));
                self.state.apply(change);
            }
            Err(Undecoded { why, is_intact }) => {
                let named = self.shut_out(line);
                let whom = match line.first() {
                    Some(&ACCEPTED) => Whom::Accepted,
                    _ if is_intact && named > 0 => Whom::Named,
                    _ => Whom::Unsure,
                };
                self.faults.push(Fault {
                    line: self.lines,
                    why,
                    text: line.to_owned(),
                    whom,
                });
            }
        }
    }

    /// Whether somebody may have been shut out of whom the state does not know it.
    pub fn is_doubtful(&self) -> bool {
        self.faults.iter().any(|fault| fault.whom == Whom::Unsure)
    }

    /// Whoever can be made out in a line that is not understood is let in no longer. Returns how many
    /// that are.
    fn shut_out(&mut self, line: &[u8]) -> usize {
        let mut named = 0;
        let text = String::from_utf8_lossy(line);
        let why = format!("line {} of the journal is not understood", self.lines);
        let words = text.split(|c: char| !c.is_ascii_hexdigit());
        for id in words.filter_map(CertificateId::parse) {
            let known = self.state.certificate(&id).cloned();
            let mut certificate = known
                .unwrap_or_else(|| StateCertificate::new(id, Status::Inactive, self.last, &*why));
            if certificate.status < Status::Inactive {
                certificate.status = Status::Inactive;
                certificate.why.clone_from(&why);
            }
            self.state.apply(Change::Certificate(certificate));
            named += 1;
        }
        let group = GroupName::parse(QUARANTINE).expect("the name of the group is one");
        let things = text.split("\"thing\":\"").skip(1);
        let names = things.filter_map(|text| text.split('"').next());
        for thing in names.filter_map(|name| ThingName::parse(name).ok()) {
            self.state.apply(Change::Member {
                thing,
                group: group.clone(),
                why: why.clone(),
                at: self.last,
            });
            named += 1;
        }
        named
    }
}

fn at(change: &Change) -> Timestamp {
    match change {
        Change::Certificate(certificate) => certificate.at,
        Change::Thing(thing) => thing.at,
        Change::Member { at, .. } | Change::NotMember { at, .. } => *at,
        Change::ForgetThing(_) | Change::ForgetCertificate(_) => Timestamp::default(),
    }
}

fn wire(change: &Change) -> Wire<'_> {
    fn owned(value: impl ToString) -> Cow<'static, str> {
        Cow::Owned(value.to_string())
    }
    fn all<'a, T: 'a>(names: &'a [T], text: fn(&'a T) -> &'a str) -> Vec<Cow<'a, str>> {
        names.iter().map(|name| text(name).into()).collect()
    }
    match change {
        Change::Certificate(certificate) => Wire::Certificate {
            id: owned(certificate.id),
            status: certificate.status.as_str().into(),
            things: all(&certificate.things, ThingName::as_str),
            claim: certificate.claim.as_deref().map(Cow::from),
            policies: all(&certificate.policies, String::as_str),
            ca: certificate.ca.map(owned),
            under: certificate.under.map(owned),
            until: certificate.until.map(owned),
            why: certificate.why.as_str().into(),
            at: owned(certificate.at),
        },
        Change::Thing(thing) => Wire::Thing {
            thing: thing.name.as_str().into(),
            thing_type: thing.thing_type.as_ref().map(|name| name.as_str().into()),
            attributes: thing
                .attributes
                .iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            groups: all(&thing.groups, GroupName::as_str),
            why: thing.why.as_str().into(),
            at: owned(thing.at),
        },
        Change::Member {
            thing,
            group,
            why,
            at,
        } => Wire::Member {
            thing: thing.as_str().into(),
            group: group.as_str().into(),
            why: why.into(),
            at: owned(at),
        },
        Change::NotMember { thing, group, at } => Wire::NotMember {
            thing: thing.as_str().into(),
            group: group.as_str().into(),
            at: owned(at),
        },
        Change::ForgetThing(thing) => Wire::ForgetThing {
            thing: thing.as_str().into(),
        },
        Change::ForgetCertificate(id) => Wire::ForgetCertificate { id: owned(id) },
    }
}

/// The change; else what of it is not valid.
fn change(wire: Wire<'_>) -> Result<Change, &'static str> {
    let thing_name = |name: &str| ThingName::parse(name).map_err(|_| "thing");
    let group_name = |name: &str| GroupName::parse(name).map_err(|_| "group");
    let id = |id: &str| CertificateId::parse(id).ok_or("certificate id");
    let time = |at: &str| Timestamp::parse_rfc3339(at).ok_or("time");
    Ok(match wire {
        Wire::Certificate {
            id: own,
            status,
            things,
            claim,
            policies,
            ca,
            under,
            until,
            why,
            at,
        } => Change::Certificate(StateCertificate {
            id: id(&own)?,
            status: Status::parse(&status).ok_or("status")?,
            things: things
                .iter()
                .map(|name| thing_name(name))
                .collect::<Result<_, _>>()?,
            claim: claim.map(Cow::into_owned),
            policies: policies.into_iter().map(Cow::into_owned).collect(),
            ca: ca.map(|ca| id(&ca)).transpose()?,
            under: under.map(|claim| id(&claim)).transpose()?,
            until: until.map(|until| time(&until)).transpose()?,
            at: time(&at)?,
            why: why.into_owned(),
        }),
        Wire::Thing {
            thing,
            thing_type,
            attributes,
            groups,
            why,
            at,
        } => Change::Thing(StateThing {
            name: thing_name(&thing)?,
            thing_type: thing_type
                .map(|name| ThingTypeName::parse(&name).map_err(|_| "type"))
                .transpose()?,
            attributes: attributes
                .into_iter()
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect(),
            groups: groups
                .iter()
                .map(|name| group_name(name))
                .collect::<Result<_, _>>()?,
            at: time(&at)?,
            why: why.into_owned(),
        }),
        Wire::Member {
            thing,
            group,
            why,
            at,
        } => Change::Member {
            thing: thing_name(&thing)?,
            group: group_name(&group)?,
            why: why.into_owned(),
            at: time(&at)?,
        },
        Wire::NotMember { thing, group, at } => Change::NotMember {
            thing: thing_name(&thing)?,
            group: group_name(&group)?,
            at: time(&at)?,
        },
        Wire::ForgetThing { thing } => Change::ForgetThing(thing_name(&thing)?),
        Wire::ForgetCertificate { id: own } => Change::ForgetCertificate(id(&own)?),
    })
}

#[cfg(test)]
mod tests;
