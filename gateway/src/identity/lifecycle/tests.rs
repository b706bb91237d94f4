//! Decisions about certificates beside a broken registry, and beside other commands.

use super::*;
use crate::identity::testing::Bench;

fn bench(n: &[u8], keys: &str) -> (Bench, CertificateId) {
    let bench = Bench::new();
    let id = CertificateId::of_der(n);
    bench.append(&format!("[[certificate]]\nid = \"{id}\"\n{keys}\n"));
    (bench, id)
}

fn status(bench: &Bench, id: CertificateId) -> Status {
    let known = read(&bench.config).unwrap();
    known.merged.certificate(&id).unwrap().status
}

const MISTAKE: &str = "[[thing]]\nnme = \"t9\"\n";

#[test]
fn a_mistake_in_the_registry_does_not_keep_access_from_being_taken_away() {
    for mistake in [MISTAKE, "[[thing"] {
        let (bench, id) = bench(b"1", "thing = \"t1\"");
        let good = std::fs::read_to_string(&bench.config.registry).unwrap();
        let deactivated = |bench: &Bench| set_active(&bench.config, id, Status::Inactive, None);
        bench.append(mistake);
        deactivated(&bench).unwrap();
        bench.write("registry.toml", &good);
        assert_eq!(status(&bench, id), Status::Inactive);
        bench.append(mistake);
        let revoked = revoke(&bench.config, &id.to_string(), Some("lost")).unwrap();
        assert_eq!(revoked, [id]);
        bench.write("registry.toml", &good);
        assert_eq!(status(&bench, id), Status::Revoked);
    }
}

#[test]
fn the_certificates_of_a_thing_are_revoked_beside_a_mistake_or_the_mistake_is_told() {
    let (bench, id) = bench(b"1", "thing = \"t1\"");
    bench.append(MISTAKE);
    assert_eq!(revoke(&bench.config, "t1", None).unwrap(), [id]);
    assert_eq!(status(&bench, id), Status::Revoked);
    bench.append("[[thing");
    let unknown = revoke(&bench.config, "t2", None).unwrap_err();
    let is_told = matches!(unknown, LifecycleError::Edit(EditError::Mistakes(_)));
    assert!(is_told, "{unknown:?}");
}

#[test]
fn a_certificate_that_was_revoked_meanwhile_is_not_activated() {
    let (bench, id) = bench(b"1", "thing = \"t1\"");
    // What another command did after this one looked.
    edit::revoke(&bench.config.registry, &id.to_string(), None).unwrap();
    let file = edit::set_status(&bench.config.registry, id, Status::Active, None);
    assert!(matches!(file, Err(EditError::Revoked(_))), "{file:?}");
    let journal = Journal::open(&bench.config.journal);
    let certificate = |status| StateCertificate::new(id, status, now(), "test");
    let revoked = Change::Certificate(certificate(Status::Revoked));
    journal.append(&[revoked]).unwrap();
    let recorded = record(&bench.config, &[id], Status::Active, "test");
    assert!(
        matches!(recorded, Err(LifecycleError::Revoked(_))),
        "{recorded:?}"
    );
    let later = Change::Certificate(certificate(Status::Active));
    journal.append(&[later]).unwrap();
    let state = journal.read().unwrap();
    let known = state.certificate(&id).unwrap().status;
    assert_eq!(known, Status::Revoked, "a later line does not count");
}

#[test]
fn a_certificate_that_several_things_share_is_revoked_with_any_of_them() {
    let (bench, id) = bench(b"1", "things = [\"t1\", \"t2\"]");
    bench.append("[[thing]]\nname = \"t2\"\n");
    assert_eq!(revoke(&bench.config, "t2", None).unwrap(), [id]);
    assert_eq!(status(&bench, id), Status::Revoked);
}

#[test]
fn a_certificate_that_waits_for_approval_is_not_activated_and_the_way_is_named() {
    let bench = Bench::new();
    let id = CertificateId::of_der(b"1");
    let pending = StateCertificate::new(id, Status::PendingActivation, now(), "test");
    let journal = Journal::open(&bench.config.journal);
    journal.append(&[Change::Certificate(pending)]).unwrap();
    let refused = set_active(&bench.config, id, Status::Active, None).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("waits for approval"), "{text}");
    assert!(text.contains("portcullis cert approve"), "{text}");
}
