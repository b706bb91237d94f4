//! Snapshots and their renewal, on real files.

use std::{fs, net::Ipv4Addr, path::Path, sync::Arc, time::Duration};

use portcullis_core::{
    certificate::Certificate,
    identity::{CertificateId, ClientId, GroupName, Principal, ThingName},
    policy::Action,
    registry::{Change, QUARANTINE, StateCertificate, Status},
};
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{clock::now, telemetry::Readiness};

use super::{
    authority::{Authority, Issued},
    config::Room,
    *,
};

const REGISTRY: &str = r#"
[[group]]
name = "devices"
policies = ["device"]
[[group]]
name = "cold"
parent = "devices"
[[thing]]
name = "t1"
groups = ["cold"]
"#;

pub(super) struct Site {
    dir: tempfile::TempDir,
    pub(super) config: Config,
    authority: Authority,
}

impl Site {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let config = Config {
            registry: path("registry.toml"),
            journal: path("data/registry.journal"),
            policies: path("policies"),
            templates: path("templates"),
            pki: path("pki"),
            crls: vec![path("pki/crl")],
            ca_certificates: vec![path("ca.pem")],
            server_certificate: path("server.pem"),
            server_key: path("server.key"),
            require_thing: true,
            rules: Arc::default(),
            room: Room::default(),
        };
        let authority = Authority::create(&config.ca_certificates[0], "test").unwrap();
        fs::create_dir(&config.policies).unwrap();
        fs::write(&config.registry, REGISTRY).unwrap();
        let site = Self {
            dir,
            config,
            authority,
        };
        site.install(
            &site
                .authority
                .issue_server(&["localhost".to_owned()])
                .unwrap(),
        );
        site.policy("device", "Publish", "topic/dt/*");
        site.policy("trial", "Publish", "topic/trial");
        site.policy("extra", "Publish", "topic/extra");
        site
    }

    fn install(&self, server: &Issued) {
        let write = |path: &Path, text: &str| files::write_private(path, text.as_bytes());
        write(&self.config.server_certificate, &server.certificate_pem).unwrap();
        write(&self.config.server_key, server.key_pem.as_ref().unwrap()).unwrap();
    }

    fn policy(&self, name: &str, action: &str, resource: &str) {
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Action":"iot:{action}","Resource":"arn:aws:iot:*:*:{resource}"}}}}"#
        );
        let file = self.config.policies.join(format!("{name}.json"));
        files::write(&file, text.as_bytes()).unwrap();
    }

    pub(super) fn append(&self, text: &str) {
        let before = fs::read_to_string(&self.config.registry).unwrap();
        let text = format!("{before}\n{text}");
        files::write(&self.config.registry, text.as_bytes()).unwrap();
    }

    pub(super) fn load(&self) -> Snapshot {
        load(&self.config, &["trial".to_owned()]).unwrap()
    }
}

pub(super) fn connect(
    snapshot: &Snapshot,
    credential: Credential<'_>,
    client_id: &str,
) -> Result<Principal, Refusal> {
    let client_id = ClientId::parse(client_id).unwrap();
    snapshot.authenticate(&credential, &client_id, Ipv4Addr::LOCALHOST.into())
}

pub(super) fn connect_with(
    snapshot: &Snapshot,
    id: CertificateId,
    client_id: &str,
) -> Result<Principal, Refusal> {
    let certificate = Arc::new(Certificate::unseen(id));
    connect(snapshot, Credential::certificate(&certificate), client_id)
}

pub(super) fn may_publish(principal: &Principal, topic: &str) -> bool {
    let context = principal.context(now());
    let decision = principal.policies.decide(&context, Action::Publish, topic);
    decision.is_ok()
}

#[test]
fn a_certificate_is_its_thing_whatever_the_client_id_with_the_policies_of_both() {
    let site = Site::new();
    let [active, inactive, bare] = [b"1", b"2", b"3"].map(|der| CertificateId::of_der(der));
    site.append(&format!(
        "[[certificate]]\nid = \"{active}\"\nthing = \"t1\"\npolicies = [\"extra\"]\n\
         [[certificate]]\nid = \"{inactive}\"\nthing = \"t1\"\nstatus = \"INACTIVE\"\n\
         [[certificate]]\nid = \"{bare}\"\npolicies = [\"extra\"]\n"
    ));
    let snapshot = site.load();
    let principal = connect_with(&snapshot, active, "other").unwrap();
    assert_eq!(principal.device(), "t1");
    assert!(
        may_publish(&principal, "dt/x"),
        "inherited from the parent of its group"
    );
    assert!(
        may_publish(&principal, "extra"),
        "attached to the certificate"
    );
    assert!(!may_publish(&principal, "trial"), "attached to nobody");
    let refused = |id| connect_with(&snapshot, id, "t1").unwrap_err();
    assert_eq!(refused(inactive), Refusal::CertificateNotActive);
    assert_eq!(refused(bare), Refusal::NoThing);
    assert_eq!(
        refused(CertificateId::of_der(b"4")),
        Refusal::CertificateUnknown
    );

    let config = Config {
        require_thing: false,
        ..site.config.clone()
    };
    let snapshot = load(&config, &[]).unwrap();
    let principal = connect_with(&snapshot, bare, "c").unwrap();
    assert_eq!(principal.device(), "c");
    assert!(may_publish(&principal, "extra") && !may_publish(&principal, "dt/x"));
}

#[test]
fn on_a_plain_listener_the_client_id_or_the_settings_say_who_it_is() {
    let site = Site::new();
    let snapshot = site.load();
    let plain = |thing, unknown_policy| Credential::Plain {
        thing,
        unknown_policy,
    };
    let t1 = ThingName::parse("t1").unwrap();
    let gone = ThingName::parse("gone").unwrap();
    let principal = connect(&snapshot, plain(None, None), "t1").unwrap();
    assert!(may_publish(&principal, "dt/x") && principal.certificate.is_none());
    let principal = connect(&snapshot, plain(Some(&t1), None), "anyone").unwrap();
    assert_eq!(principal.device(), "t1");
    let refused = |credential| connect(&snapshot, credential, "anyone").unwrap_err();
    assert_eq!(refused(plain(None, None)), Refusal::UnknownClientId);
    assert_eq!(refused(plain(Some(&gone), None)), Refusal::NoThing);
    assert_eq!(refused(plain(Some(&gone), Some("trial"))), Refusal::NoThing);
    assert_eq!(refused(plain(None, Some("gone"))), Refusal::NoPolicy);
    let principal = connect(&snapshot, plain(None, Some("trial")), "anyone").unwrap();
    assert!(principal.thing.is_none());
    assert!(may_publish(&principal, "trial") && !may_publish(&principal, "dt/x"));
}

#[test]
fn an_expired_server_certificate_stops_a_start_but_not_a_reload() {
    let site = Site::new();
    site.install(&expired(&site));
    let problems = load(&site.config, &[]).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("expired"), "{problems:?}");
    let reloaded = snapshot::Loader::new(site.config.clone()).reload(&[]);
    assert!(reloaded.is_ok(), "{reloaded:?}");
}

#[test]
fn an_authority_with_the_key_of_another_signs_nothing() {
    let (site, other) = (Site::new(), Site::new());
    let ca = &site.config.ca_certificates[0];
    assert!(Authority::open(ca).is_ok());
    let [ours, theirs] = [&site, &other].map(|site| site.dir.path().join("ca.key"));
    fs::copy(theirs, ours).unwrap();
    let error = Authority::open(ca).unwrap_err();
    assert!(error.to_string().contains("is not the key of"), "{error}");
}

/// A server certificate that ended yesterday.
fn expired(site: &Site) -> Issued {
    use rcgen::{CertificateParams, Issuer, KeyPair};
    let ca = fs::read_to_string(&site.config.ca_certificates[0]).unwrap();
    let ca_key = fs::read_to_string(site.dir.path().join("ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&ca, KeyPair::from_pem(&ca_key).unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let now = time::OffsetDateTime::now_utc();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = now - time::Duration::days(9);
    params.not_after = now - time::Duration::days(1);
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Issued {
        id: CertificateId::of_der(certificate.der()),
        certificate_pem: certificate.pem(),
        key_pem: Some(key.serialize_pem()),
        not_after: params.not_after,
    }
}

/// The watcher runs beside `test`, which gets what it publishes.
async fn watched<F>(site: &Site, test: impl FnOnce(SnapshotWatch, Arc<Notify>, Metrics) -> F)
where
    F: Future<Output = ()>,
{
    let metrics = Metrics::register(&prometheus::Registry::new());
    let (watcher, snapshots) = Watcher::new(site.config.clone(), site.load(), metrics.clone());
    let (reload, stop) = (Arc::new(Notify::new()), CancellationToken::new());
    let test = test(snapshots, reload.clone(), metrics);
    let stopped = async {
        timeout(Duration::from_secs(60), test).await.unwrap();
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(watcher.run(reload, stop.clone()), stopped);
    ended.unwrap();
}

pub(super) async fn until(condition: impl Fn() -> bool) {
    timeout(Duration::from_secs(60), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_change_of_any_file_is_published() {
    let site = Site::new();
    watched(&site, async |mut snapshots, _, metrics| {
        assert_eq!(snapshots.borrow().generation(), 1);
        site.append("[[thing]]\nname = \"t2\"\ngroups = [\"cold\"]\n");
        snapshots.changed().await.unwrap();
        assert!(snapshots.borrow().thing("t2").is_some());
        assert_eq!(metrics.things.get(), 2);

        site.policy("device", "Publish", "topic/other/*");
        snapshots.changed().await.unwrap();
        let plain = Credential::Plain {
            thing: None,
            unknown_policy: None,
        };
        let principal = connect(&snapshots.borrow(), plain, "t2").unwrap();
        assert!(may_publish(&principal, "other/x") && !may_publish(&principal, "dt/x"));

        // Two files: a look between the two writes may refuse the pair, never take half of it.
        let server = site.authority.issue_server(&["new".to_owned()]).unwrap();
        site.install(&server);
        let is_new = || {
            let snapshot = snapshots.borrow();
            CertificateId::of_der(&snapshot.trust().server_chain[0]) == server.id
        };
        until(is_new).await;
    })
    .await;
}

#[tokio::test]
async fn a_change_with_a_mistake_is_refused_whole_until_it_is_corrected() {
    let site = Site::new();
    watched(&site, async |mut snapshots, _, metrics| {
        let good = fs::read_to_string(&site.config.registry).unwrap();
        site.append("[[thing]]\nname = \"t2\"\n[[thing]]\nname = \"t3\"\ngroups = [\"none\"]\n");
        let refused = metrics.reloads.with_label_values(&["refused"]);
        until(|| refused.get() == 1).await;
        assert_eq!(metrics.stale.get(), 1);
        assert!(!snapshots.has_changed().unwrap());
        assert!(snapshots.borrow().thing("t2").is_none());

        fs::remove_file(&site.config.registry).unwrap();
        until(|| refused.get() == 2).await;
        assert!(snapshots.borrow().thing("t1").is_some());

        files::write(&site.config.registry, good.as_bytes()).unwrap();
        snapshots.changed().await.unwrap();
        assert_eq!(metrics.stale.get(), 0);
        assert_eq!(snapshots.borrow().generation(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_mistake_elsewhere_does_not_delay_a_revocation_and_admits_nobody_new() {
    let site = Site::new();
    let [lost, kept, of_t2] = [b"1", b"2", b"3"].map(|der| CertificateId::of_der(der));
    let certificate =
        |id, thing: &str| format!("[[certificate]]\nid = \"{id}\"\nthing = \"{thing}\"\n");
    site.append(&certificate(lost, "t1"));
    site.append(&certificate(kept, "t1"));
    let t1_alone = fs::read_to_string(&site.config.registry).unwrap();
    site.append("[[thing]]\nname = \"t2\"\n");
    site.append(&certificate(of_t2, "t2"));
    let newcomer = CertificateId::of_der(b"4");
    watched(&site, async |mut snapshots, _, metrics| {
        // A policy that a group names is gone: a mistake that the registry is not to blame for.
        fs::remove_file(site.config.policies.join("device.json")).unwrap();
        let refused = metrics.reloads.with_label_values(&["refused"]);
        until(|| refused.get() == 1).await;
        assert!(!snapshots.has_changed().unwrap());

        edit::revoke(&site.config.registry, &lost.to_string(), None).unwrap();
        snapshots.changed().await.unwrap();
        let as_t1 = |id| connect_with(&snapshots.borrow(), id, "t1");
        assert_eq!(as_t1(lost).unwrap_err(), Refusal::CertificateRevoked);
        assert!(may_publish(&as_t1(kept).unwrap(), "dt/x"));
        assert!(as_t1(of_t2).is_ok());
        assert_eq!(snapshots.borrow().generation(), 2);

        let text = format!("{t1_alone}{}", certificate(newcomer, "t1"));
        files::write(&site.config.registry, text.as_bytes()).unwrap();
        snapshots.changed().await.unwrap();
        let as_t1 = |id| connect_with(&snapshots.borrow(), id, "t1");
        assert_eq!(as_t1(of_t2).unwrap_err(), Refusal::CertificateUnknown);
        assert_eq!(as_t1(newcomer).unwrap_err(), Refusal::CertificateUnknown);
        assert!(
            as_t1(lost).is_err(),
            "nobody is let in again before the correction"
        );
        assert!(snapshots.borrow().thing("t2").is_none());
        assert_eq!(metrics.stale.get(), 1);
        until(|| metrics.narrowed_certificates.get() == 2).await;
        assert_eq!(metrics.narrowed_things.get(), 1);

        site.policy("device", "Publish", "topic/dt/*");
        snapshots.changed().await.unwrap();
        let corrected = snapshots.borrow();
        let as_t1 = |id| connect_with(&corrected, id, "t1");
        assert!(as_t1(newcomer).is_ok() && as_t1(lost).is_ok());
        assert_eq!(metrics.stale.get(), 0);
    })
    .await;
}

#[tokio::test]
async fn a_change_at_run_time_is_published_and_survives_a_restart() {
    let site = Site::new();
    let id = CertificateId::of_der(b"1");
    let journal = Journal::open(&site.config.journal);
    let certificate = |status| {
        let mut certificate = StateCertificate::new(id, status, now(), "test");
        certificate.things = vec![ThingName::parse("t1").unwrap()];
        Change::Certificate(certificate)
    };
    watched(&site, async |mut snapshots, _, _| {
        for (status, refused) in [
            (Status::PendingActivation, Some(Refusal::CertificatePending)),
            (Status::Active, None),
            (Status::Revoked, Some(Refusal::CertificateRevoked)),
        ] {
            journal.append(&[certificate(status)]).unwrap();
            snapshots.changed().await.unwrap();
            let found = connect_with(&snapshots.borrow(), id, "t1").err();
            assert_eq!(found, refused);
        }
    })
    .await;
    let refused = connect_with(&site.load(), id, "t1").unwrap_err();
    assert_eq!(refused, Refusal::CertificateRevoked);
}

#[tokio::test]
async fn what_is_shut_out_at_run_time_does_not_wait_for_the_correction_of_a_file() {
    let site = Site::new();
    let id = CertificateId::of_der(b"1");
    site.append(&format!("[[certificate]]\nid = \"{id}\"\nthing = \"t1\"\n"));
    site.append("[[thing]]\nname = \"t2\"\n");
    let newcomer = CertificateId::of_der(b"2");
    watched(&site, async |mut snapshots, _, metrics| {
        fs::write(&site.config.registry, "[[thing]]\nnme = \"t1\"\n").unwrap();
        let refused = metrics.reloads.with_label_values(&["refused"]);
        until(|| refused.get() == 1).await;
        let quarantine = Change::Member {
            thing: ThingName::parse("t2").unwrap(),
            group: GroupName::parse(QUARANTINE).unwrap(),
            why: "stolen".to_owned(),
            at: now(),
        };
        let known = |id, status| Change::Certificate(StateCertificate::new(id, status, now(), "x"));
        let changes = [
            quarantine,
            known(id, Status::Revoked),
            known(newcomer, Status::Active),
        ];
        Journal::open(&site.config.journal)
            .append(&changes)
            .unwrap();
        snapshots.changed().await.unwrap();
        let snapshot = snapshots.borrow();
        let refused = |id| connect_with(&snapshot, id, "t1").unwrap_err();
        assert_eq!(refused(id), Refusal::CertificateRevoked);
        assert_eq!(refused(newcomer), Refusal::CertificateUnknown);
        let plain = Credential::Plain {
            thing: None,
            unknown_policy: None,
        };
        assert_eq!(
            connect(&snapshot, plain, "t2").unwrap_err(),
            Refusal::Quarantined
        );
        assert!(connect(&snapshot, plain, "t1").is_ok());
        assert_eq!(metrics.stale.get(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_journal_that_is_deleted_lets_nobody_out_of_quarantine_and_no_gateway_start() {
    let site = Site::new();
    let t1 = ThingName::parse("t1").unwrap();
    let journal = Journal::open(&site.config.journal);
    runtime::quarantine(&site.config.registry, &journal, &t1, "stolen", now()).unwrap();
    let plain = Credential::Plain {
        thing: None,
        unknown_policy: None,
    };
    watched(&site, async |snapshots, _, metrics| {
        fs::remove_file(&site.config.journal).unwrap();
        until(|| metrics.stale.get() == 1).await;
        let refused = connect(&snapshots.borrow(), plain, "t1").unwrap_err();
        assert_eq!(refused, Refusal::Quarantined);
    })
    .await;
    let problems = load(&site.config, &[]).unwrap_err();
    assert!(problems[0].remedy.contains(".mark"), "{problems:?}");
}

#[tokio::test]
async fn what_is_refused_is_noted_with_its_place_until_it_is_corrected() {
    let site = Site::new();
    let readiness = Readiness::default();
    let metrics = Metrics::register(&prometheus::Registry::new());
    let (watcher, _snapshots) = Watcher::new(site.config.clone(), site.load(), metrics);
    let watcher = watcher.noting(readiness.clone());
    let stop = CancellationToken::new();
    let test = async {
        let good = fs::read_to_string(&site.config.registry).unwrap();
        site.append("[[thing]]\nnme = \"t2\"\n");
        until(|| !readiness.notes().is_empty()).await;
        let note = readiness.notes().remove(0);
        let file = site.config.registry.display();
        let line = good.lines().count() + 2;
        let expected = format!(
            "refused: 2 mistakes in {file}:{line} {file}:{}; the last good configuration is in force",
            line + 1
        );
        assert_eq!(note, expected);
        files::write(&site.config.registry, good.as_bytes()).unwrap();
        until(|| readiness.notes().is_empty()).await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(watcher.run(Arc::default(), stop.clone()), test);
    ended.unwrap();
}

#[tokio::test]
async fn a_registry_that_is_saved_in_two_steps_shuts_nobody_out() {
    let site = Site::new();
    let [kept, lost] = [b"1", b"2"].map(|der| CertificateId::of_der(der));
    for id in [kept, lost] {
        site.append(&format!("[[certificate]]\nid = \"{id}\"\nthing = \"t1\"\n"));
    }
    watched(&site, async |mut snapshots, _, metrics| {
        let good = fs::read_to_string(&site.config.registry).unwrap();
        let refused = metrics.reloads.with_label_values(&["refused"]);
        fs::write(&site.config.registry, "").unwrap();
        until(|| refused.get() == 1).await;
        assert!(
            !snapshots.has_changed().unwrap(),
            "an empty file is refused"
        );

        // Cut where no mistake shows it, and with a mistake elsewhere; the state that was worsened
        // before the cut counts at once.
        let cut = good.find(&lost.to_string()).unwrap() - "[[certificate]]\nid = \"".len();
        let id = format!("id = \"{kept}\"");
        let worse = format!("{id}\nstatus = \"REVOKED\"");
        let cut = good.get(..cut).unwrap().replace(&id, &worse);
        fs::write(&site.config.registry, &cut).unwrap();
        snapshots.changed().await.unwrap();
        let as_t1 = |id| connect_with(&snapshots.borrow(), id, "t1");
        assert_eq!(as_t1(kept).unwrap_err(), Refusal::CertificateRevoked);
        assert!(as_t1(lost).is_ok(), "behind the cut");
        fs::write(&site.config.registry, good.replace(&id, &worse)).unwrap();
        snapshots.changed().await.unwrap();
        assert!(connect_with(&snapshots.borrow(), lost, "t1").is_ok());

        fs::write(&site.config.registry, &cut).unwrap();
        until(|| connect_with(&snapshots.borrow(), lost, "t1").is_err()).await;
    })
    .await;
}

#[tokio::test]
async fn a_reload_can_be_forced() {
    let site = Site::new();
    watched(&site, async |mut snapshots, reload, _| {
        reload.notify_one();
        snapshots.changed().await.unwrap();
        assert_eq!(snapshots.borrow().generation(), 2);
    })
    .await;
}
