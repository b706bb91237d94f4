//! Journals as they were written, and as disks return them.

use super::*;

fn thing(name: &str) -> ThingName {
    ThingName::parse(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

fn active(n: u8) -> StateCertificate {
    let at = Timestamp::from_millis(1_795_341_600_123);
    StateCertificate {
        things: vec![thing("t1")],
        policies: vec!["device".to_owned()],
        ..StateCertificate::new(
            CertificateId::of_der(&[n]),
            Status::Active,
            at,
            "JITP \"x\"",
        )
    }
}

fn every_kind() -> Vec<Change> {
    let at = Timestamp::from_millis(1_795_341_600_123);
    vec![
        Change::Certificate(StateCertificate {
            claim: Some("fleet".to_owned()),
            ca: Some(CertificateId::of_der(b"ca")),
            under: Some(CertificateId::of_der(b"claim")),
            until: Some(at.plus_millis(1)),
            ..active(1)
        }),
        Change::Thing(StateThing {
            name: thing("t2"),
            thing_type: ThingTypeName::parse("sensor").ok(),
            attributes: [("zone".to_owned(), "b".to_owned())].into(),
            groups: vec![group("devices")],
            at,
            why: String::new(),
        }),
        Change::Member {
            thing: thing("t1"),
            group: group("quarantine"),
            why: "line\nbreak".to_owned(),
            at,
        },
        Change::NotMember {
            thing: thing("t1"),
            group: group("quarantine"),
            at,
        },
        Change::ForgetThing(thing("t2")),
        Change::ForgetCertificate(CertificateId::of_der(&[1])),
    ]
}

fn read(text: &[u8]) -> Reading {
    let mut reading = Reading::default();
    reading.read_on(text);
    reading
}

fn journal(changes: &[Change]) -> String {
    changes
        .iter()
        .map(|change| encode(change).unwrap())
        .collect()
}

#[test]
fn every_change_is_read_as_it_was_written() {
    for change in every_kind() {
        let line = encode(&change).unwrap();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert_eq!(decode(line.trim_end().as_bytes()), Ok(change), "{line}");
    }
}

#[test]
fn a_state_written_anew_is_the_same() {
    let mut state = State::default();
    for change in every_kind().into_iter().take(3) {
        state.apply(change);
    }
    let again: Vec<_> = state.changes().collect();
    assert_eq!(again.len(), state.len());
    let reading = read(journal(&again).as_bytes());
    assert_eq!(reading.state, state);
    assert_eq!(reading.faults, []);
}

#[test]
fn an_unfinished_last_line_counts_as_not_written_wherever_it_is_torn() {
    let first = journal(&[Change::Certificate(active(1))]);
    let both = journal(&[
        Change::Certificate(active(1)),
        Change::Certificate(active(2)),
    ]);
    for cut in first.len()..both.len() {
        let reading = read(&both.as_bytes()[..cut]);
        assert_eq!(reading.state.len(), 1, "cut at {cut}");
        assert_eq!((reading.lines, reading.bytes), (1, first.len()));
        assert_eq!(reading.faults, []);
    }
    let mut reading = read(&both.as_bytes()[..both.len() - 1]);
    reading.read_on(&both.as_bytes()[reading.bytes..]);
    assert_eq!(reading.state.len(), 2, "the rest came later");
}

#[test]
fn a_line_that_is_not_understood_shuts_out_whom_it_names_and_the_rest_counts() {
    let both = journal(&[
        Change::Certificate(active(1)),
        Change::Certificate(active(2)),
    ]);
    let id = CertificateId::of_der(&[1]);
    let broken = [
        // A flipped bit, a newer version, and no JSON at all.
        journal(&[Change::Certificate(active(1))]).replace("ACTIVE", "aCTIVE"),
        format!("{{\"change\":\"certificate-note\",\"id\":\"{id}\",\"crc\":\"0\"}}\n"),
        format!("\u{0}\u{0}{id}\u{0}\n"),
    ];
    for line in broken {
        let text = format!("{both}{line}{}", journal(&[Change::Certificate(active(3))]));
        let reading = read(text.as_bytes());
        let status = |n: u8| {
            let id = CertificateId::of_der(&[n]);
            reading.state.certificate(&id).unwrap().status
        };
        assert_eq!(status(1), Status::Inactive, "{line}");
        assert_eq!((status(2), status(3)), (Status::Active, Status::Active));
        assert_eq!(reading.faults.len(), 1);
        assert_eq!(reading.faults[0].line, 3);
        let why = &reading.state.certificate(&id).unwrap().why;
        assert_eq!(why, "line 3 of the journal is not understood");
    }
}

#[test]
fn a_broken_line_does_not_soften_a_revocation_nor_does_a_later_one() {
    let revoked = StateCertificate {
        status: Status::Revoked,
        ..active(1)
    };
    let broken = journal(&[Change::Certificate(active(1))]).replace("ACTIVE", "ALIVE");
    let text = journal(&[Change::Certificate(revoked)]) + &broken;
    let id = CertificateId::of_der(&[1]);
    assert_eq!(
        read(text.as_bytes()).state.certificate(&id).unwrap().status,
        Status::Revoked
    );
    let text = text + &journal(&[Change::Certificate(active(1))]);
    assert_eq!(
        read(text.as_bytes()).state.certificate(&id).unwrap().status,
        Status::Revoked
    );
}

#[test]
fn a_broken_release_leaves_the_thing_in_quarantine() {
    let [_, _, member, release, ..] = &every_kind()[..] else {
        panic!("the kinds have changed");
    };
    let released = journal(&[member.clone(), release.clone()]);
    assert!(read(released.as_bytes()).state.is_empty());
    let broken = released.replace("not-member", "not-membr");
    let reading = read(broken.as_bytes());
    assert_eq!(reading.faults.len(), 1);
    let memberships = reading.state.memberships("t1");
    assert_eq!(memberships.len(), 1);
    assert_eq!(memberships[0].group.as_str(), QUARANTINE);
}

#[test]
fn a_journal_with_any_byte_changed_opens_nothing() {
    let closed = StateCertificate {
        status: Status::Revoked,
        things: Vec::new(),
        ..active(1)
    };
    let (id, text) = (closed.id, journal(&[Change::Certificate(closed)]));
    for at in 0..text.len() - 1 {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let reading = read(&bytes);
        let status = reading.state.certificate(&id).map(|known| known.status);
        assert_ne!(status, Some(Status::Active), "byte {at}");
        assert_eq!(reading.faults.len(), reading.lines, "byte {at}");
        assert!(reading.is_doubtful(), "byte {at}");
    }
}

#[test]
fn a_damaged_line_is_doubtful_until_it_is_accepted_and_one_of_a_newer_version_is_not() {
    let closed = StateCertificate {
        status: Status::Revoked,
        ..active(1)
    };
    let id = closed.id.to_string();
    let before = journal(&[Change::Certificate(active(1))]);
    let line = journal(&[Change::Certificate(closed)]);
    let other = if id.starts_with('0') { "1" } else { "0" };
    let damaged = line.replacen(&id, &format!("{other}{}", id.get(1..).unwrap()), 1);
    let reading = read((before.clone() + &damaged).as_bytes());
    let status = |reading: &Reading| {
        let id = CertificateId::of_der(&[1]);
        reading.state.certificate(&id).unwrap().status
    };
    assert_eq!(status(&reading), Status::Active, "it names another one");
    assert!(reading.is_doubtful());
    assert_eq!(reading.faults[0].line, 2);

    let accepted = read((before.clone() + "#" + &damaged).as_bytes());
    assert!(!accepted.is_doubtful());
    assert_eq!(accepted.faults[0].whom, Whom::Accepted);

    let newer = |body: &str| {
        let crc = crc32fast::hash(body.as_bytes());
        read(format!("{before}{body},\"crc\":\"{crc:08x}\"}}\n").as_bytes())
    };
    let reading = newer(&format!("{{\"change\":\"lock\",\"id\":\"{id}\""));
    assert_eq!(status(&reading), Status::Inactive);
    assert!(!reading.is_doubtful());
    assert!(newer("{\"change\":\"lock\"").is_doubtful(), "nobody");
}

#[test]
fn only_what_is_known_is_taken_away() {
    let mut state = State::default();
    let inactive = |n| StateCertificate {
        status: Status::Inactive,
        ..active(n)
    };
    let takes = |state: &State, known| Change::Certificate(known).only_takes_away(state);
    assert!(!takes(&state, inactive(1)), "it is new, and of a thing");
    let of_the_file = StateCertificate {
        things: Vec::new(),
        ..inactive(1)
    };
    assert!(takes(&state, of_the_file));
    state.apply(Change::Certificate(active(1)));
    assert!(takes(&state, inactive(1)));
    assert!(!takes(&state, active(1)));
    let of_more = StateCertificate {
        things: vec![thing("t1"), thing("t2")],
        ..inactive(1)
    };
    assert!(!takes(&state, of_more));
}

#[test]
fn a_change_that_is_too_long_is_not_written() {
    let long = StateCertificate {
        why: "x".repeat(JOURNAL_LINE_BYTES_MAX),
        ..active(1)
    };
    assert_eq!(encode(&Change::Certificate(long)), Err(TooLong));
}
