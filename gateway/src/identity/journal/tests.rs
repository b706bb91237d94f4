//! Journals on disk: torn, broken, written by several at once.

use portcullis_core::{
    identity::{CertificateId, ThingName},
    registry::{StateCertificate, Status},
    timestamp::Timestamp,
};

use super::*;

fn journal() -> (tempfile::TempDir, Journal) {
    let dir = tempfile::tempdir().unwrap();
    let journal = Journal::open(&dir.path().join("data/registry.journal"));
    (dir, journal)
}

fn certificate(n: usize, status: Status) -> Change {
    let id = CertificateId::of_der(&n.to_be_bytes());
    let mut certificate = StateCertificate::new(id, status, Timestamp::default(), "test");
    certificate.things = vec![ThingName::parse("t1").unwrap()];
    Change::Certificate(certificate)
}

fn active(n: usize) -> Change {
    certificate(n, Status::Active)
}

#[test]
fn what_was_appended_is_there_after_a_restart() {
    let (_dir, journal) = journal();
    assert!(journal.read().unwrap().is_empty(), "no file, no change");
    journal.append(&[active(1), active(2)]).unwrap();
    journal.append(&[certificate(2, Status::Revoked)]).unwrap();
    assert_eq!(journal.read().unwrap().len(), 2);
    let again = Journal::open(journal.path());
    assert_eq!(again.read().unwrap(), journal.read().unwrap());
    let mode = fs::metadata(journal.path()).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

#[test]
fn another_writer_s_changes_are_seen() {
    let (_dir, journal) = journal();
    let other = Journal::open(journal.path());
    journal.append(&[active(1)]).unwrap();
    assert_eq!(other.read().unwrap().len(), 1);
    other.append(&[active(2)]).unwrap();
    assert_eq!(journal.read().unwrap().len(), 2);
    let kept = journal.append_if(|state| Ok::<_, JournalError>((state.len(), Vec::new())));
    assert_eq!(kept.unwrap(), 2);
}

#[test]
fn the_next_writer_cuts_a_torn_line_off_wherever_it_is_torn() {
    let (_dir, journal) = journal();
    journal.append(&[active(1)]).unwrap();
    let first = fs::read(journal.path()).unwrap();
    let torn = line::encode(&active(2)).unwrap();
    for cut in [1, torn.len() / 2, torn.len() - 1] {
        let mut bytes = first.clone();
        bytes.extend(&torn.as_bytes()[..cut]);
        fs::remove_file(journal.beside(".mark")).unwrap();
        fs::write(journal.path(), bytes).unwrap();
        let after = Journal::open(journal.path());
        assert_eq!(after.read().unwrap().len(), 1);
        after.append(&[active(3)]).unwrap();
        let reading = Journal::open(journal.path()).reading().unwrap();
        assert_eq!((reading.state.len(), reading.faults.len()), (2, 0));
    }
}

#[test]
fn writers_at_the_same_time_lose_nothing_through_compactions() {
    let (_dir, journal) = journal();
    let each = JOURNAL_IDLE_LINES_MAX / 4;
    std::thread::scope(|scope| {
        for writer in 0..4 {
            // A handle of its own, as another process has.
            let journal = Journal::open(journal.path());
            scope.spawn(move || {
                for round in 0..5 {
                    let changes: Vec<_> = (0..each).map(|n| active(writer * each + n)).collect();
                    journal.append(&changes).unwrap();
                    assert!(journal.read().unwrap().len() >= each, "round {round}");
                }
            });
        }
    });
    let reading = Journal::open(journal.path()).reading().unwrap();
    assert_eq!(reading.state.len(), 4 * each);
    assert_eq!(reading.faults, []);
    assert!(reading.lines < 4 * 5 * each, "never compacted");
}

#[test]
fn a_compaction_that_was_killed_changes_nothing() {
    let (_dir, journal) = journal();
    let two: Vec<_> = (0..JOURNAL_IDLE_LINES_MAX)
        .flat_map(|_| [active(1), active(2)])
        .collect();
    // What a kill in the middle of writing the new file leaves.
    fs::create_dir_all(journal.path().parent().unwrap()).unwrap();
    fs::write(journal.beside(".new"), "{\"change\":\"cert").unwrap();
    journal.append(&two[..10]).unwrap();
    assert_eq!(journal.reading().unwrap().lines, 10);
    journal.append(&two).unwrap();
    let reading = Journal::open(journal.path()).reading().unwrap();
    assert_eq!((reading.lines, reading.state.len()), (2, 2));
    assert!(!journal.beside(".new").exists());
}

#[test]
fn broken_lines_are_told_shut_out_and_kept_aside() {
    let (_dir, journal) = journal();
    journal.append(&[active(1), active(2)]).unwrap();
    let text = fs::read_to_string(journal.path()).unwrap();
    let broken = text.replacen("ACTIVE", "ACTIWE", 1) + "rubbish\n";
    fs::write(journal.path(), &broken).unwrap();
    let journal = Journal::open(journal.path());
    let reading = journal.reading().unwrap();
    let statuses = |state: &State| -> Vec<Status> {
        [1usize, 2]
            .map(|n| CertificateId::of_der(&n.to_be_bytes()))
            .map(|id| state.certificate(&id).unwrap().status)
            .into()
    };
    assert_eq!(statuses(&reading.state), [Status::Inactive, Status::Active]);
    let told = journal.mistakes(&reading);
    let places: Vec<_> = told.iter().map(|m| m.place.unwrap().line).collect();
    assert_eq!(places, [1, 3], "{told:?}");
    assert!(journal.warnings(&reading).is_empty());

    let many: Vec<_> = (0..2 * JOURNAL_IDLE_LINES_MAX).map(|_| active(2)).collect();
    journal.append(&many).unwrap();
    let reading = journal.reading().unwrap();
    assert!(reading.lines > many.len(), "it is not compacted");
    let accepted = fs::read_to_string(journal.path()).unwrap();
    let accepted = format!("#{}", accepted.replacen("rubbish", "#rubbish", 1));
    fs::write(journal.path(), accepted).unwrap();
    let reading = journal.reading().unwrap();
    assert_eq!(journal.mistakes(&reading), []);
    assert_eq!(journal.warnings(&reading).len(), 2);
    journal.append(&[active(2)]).unwrap();
    let reading = Journal::open(journal.path()).reading().unwrap();
    assert_eq!(statuses(&reading.state), [Status::Inactive, Status::Active]);
    assert_eq!((reading.lines, reading.faults.len()), (2, 0));
    let damaged = fs::read_to_string(journal.beside(".damaged")).unwrap();
    let lines: Vec<_> = damaged.lines().collect();
    assert_eq!(lines[1], "#rubbish");
    assert_eq!(
        lines[0].trim_start_matches('#'),
        broken.lines().next().unwrap()
    );
}

/// About a hundred kilobytes.
fn long(n: usize) -> Vec<Change> {
    let Change::Certificate(mut certificate) = active(n) else {
        panic!("not a certificate");
    };
    certificate.why = "x".repeat(100 * 1024);
    vec![Change::Certificate(certificate)]
}

#[test]
fn a_journal_that_devices_filled_takes_commands_and_a_full_one_what_takes_access_away() {
    let (_dir, journal) = journal();
    let by_device = |n| journal.append_for_device(|_| Ok::<_, JournalError>(((), long(n))));
    let full = |outcome| matches!(outcome, Err(JournalError::Full { .. }));
    let mut last = 0;
    while by_device(last).is_ok() {
        last += 1;
    }
    assert!(full(by_device(last)));
    let inactive = certificate(usize::MAX, Status::Inactive);
    let by_device = journal.append_for_device(|_| Ok(((), vec![inactive.clone(); 1000])));
    assert!(full(by_device), "a new one takes nothing away");
    while journal.append(&long(last)).is_ok() {
        last += 1;
    }
    assert!(full(journal.append(&long(last))));
    assert!(full(journal.append(&vec![inactive; 1000])));
    let length = || fs::metadata(journal.path()).unwrap().len();
    assert!(length() > JOURNAL_COMMAND_BYTES_MAX - 200 * 1024);

    let mut revoked = long(1);
    let Change::Certificate(one) = &mut revoked[0] else {
        panic!("not a certificate");
    };
    one.status = Status::Revoked;
    while length() + 200 * 1024 < JOURNAL_HARD_BYTES_MAX {
        journal.append(&revoked).unwrap();
    }
    let reading = Journal::open(journal.path()).reading().unwrap();
    let id = CertificateId::of_der(&1usize.to_be_bytes());
    let status = reading.state.certificate(&id).unwrap().status;
    assert_eq!(status, Status::Revoked, "whatever is written is read");
}

#[test]
fn an_acknowledged_line_whose_end_is_damaged_is_not_cut_off() {
    let (_dir, journal) = journal();
    journal.append(&[active(1)]).unwrap();
    journal.append(&[certificate(1, Status::Revoked)]).unwrap();
    let mut bytes = fs::read(journal.path()).unwrap();
    *bytes.last_mut().unwrap() = b' ';
    fs::write(journal.path(), &bytes).unwrap();
    let again = Journal::open(journal.path());
    assert!(matches!(again.read(), Err(JournalError::Lost { .. })));
    assert!(again.append(&[active(2)]).is_err());
    assert_eq!(fs::read(journal.path()).unwrap(), bytes);
}

#[test]
fn a_journal_that_is_gone_or_shorter_is_lost_until_that_is_accepted() {
    let (_dir, journal) = journal();
    journal
        .append(&[active(1), certificate(2, Status::Revoked)])
        .unwrap();
    let whole = fs::read(journal.path()).unwrap();
    let is_lost = |journal: &Journal| {
        let read = journal.read();
        let written = journal.append(&[active(3)]);
        matches!(read, Err(JournalError::Lost { .. }))
            && matches!(written, Err(JournalError::Lost { .. }))
    };
    fs::remove_file(journal.path()).unwrap();
    for journal in [&journal, &Journal::open(journal.path())] {
        assert!(is_lost(journal), "gone");
        assert!(!journal.path().exists(), "and nobody makes another");
    }
    let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    fs::write(journal.path(), &whole[..first]).unwrap();
    for journal in [&journal, &Journal::open(journal.path())] {
        assert!(is_lost(journal), "shorter");
    }
    fs::write(journal.path(), &whole).unwrap();
    assert_eq!(journal.read().unwrap().len(), 2);
    fs::remove_file(journal.path()).unwrap();
    fs::remove_file(journal.beside(".mark")).unwrap();
    assert!(is_lost(&journal), "who knew it knows better");
    let started = Journal::open(journal.path());
    assert!(started.read().unwrap().is_empty());
    started.append(&[active(3)]).unwrap();
    assert_eq!(journal.read().unwrap().len(), 1, "accepted");
}

#[test]
fn a_journal_that_cannot_be_read_is_no_empty_one() {
    let (_dir, journal) = journal();
    fs::create_dir_all(journal.path()).unwrap();
    assert!(matches!(journal.read(), Err(JournalError::Read { .. })));
    assert!(journal.append(&[active(1)]).is_err());
}
