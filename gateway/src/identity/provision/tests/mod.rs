//! Provisioning beside a running watcher.

mod bounds;
mod claims;
mod just_in_time;

use std::{future::Future, net::Ipv4Addr};

use portcullis_core::{
    identity::{ClientId, ThingName},
    limits::{OWNERSHIP_TOKEN_LIFE, OWNERSHIP_TOKENS_PER_CLAIM_MAX, PROVISION_REQUEST_BYTES_MAX},
};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::identity::{
    Credential, Refusal, Watcher,
    config::Room,
    lifecycle, load,
    testing::{Bench, Leaf, TestCa},
};

const JUST_IN_TIME: &str = r#"{
  "Parameters": {
    "AWS::IoT::Certificate::CommonName": {"Type": "String"},
    "AWS::IoT::Certificate::Id": {"Type": "String"}
  },
  "Resources": {
    "thing": {
      "Type": "AWS::IoT::Thing",
      "Properties": {
        "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"},
        "ThingGroups": ["devices", "north"],
        "AttributePayload": {"line": "7"}
      }
    },
    "certificate": {
      "Type": "AWS::IoT::Certificate",
      "Properties": {"CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}
    },
    "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "extra"}}
  }
}"#;

const CLAIM: &str = r#"{
  "Parameters": {"Serial": {"Type": "String"}, "Group": {"Type": "String", "Default": "north"}},
  "Resources": {
    "thing": {
      "Type": "AWS::IoT::Thing",
      "Properties": {
        "ThingName": {"Fn::Join": ["-", ["logger", {"Ref": "Serial"}]]},
        "ThingGroups": ["devices", {"Ref": "Group"}]
      }
    },
    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {"Status": "Active"}}
  },
  "DeviceConfiguration": {"interval": "60"}
}"#;

/// A site with its watcher and a provisioner.
struct Running {
    bench: Bench,
    provisioner: Provisioner,
    snapshots: SnapshotWatch,
    metrics: Metrics,
}

async fn running<F: Future<Output = ()>>(bench: Bench, test: impl FnOnce(Running) -> F) {
    let registry = prometheus::Registry::new();
    let snapshot = load(&bench.config, &[]).unwrap();
    let (watcher, snapshots) = Watcher::new(
        bench.config.clone(),
        snapshot,
        crate::identity::Metrics::register(&registry),
    );
    let (reload, stop) = (Arc::new(Notify::new()), CancellationToken::new());
    let metrics = Metrics::register(&registry);
    let provisioner = Provisioner::new(
        bench.config.clone(),
        "123456789012",
        snapshots.clone(),
        Journal::open(&bench.config.journal),
        reload.clone(),
        metrics.clone(),
    );
    let test = test(Running {
        bench,
        provisioner,
        snapshots,
        metrics,
    });
    let stopped = async {
        timeout(Duration::from_secs(60), test).await.unwrap();
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(watcher.run(reload, stop.clone()), stopped);
    ended.unwrap();
}

impl Running {
    async fn introduce(&self, leaf: &Leaf) -> Introduction {
        let chain = [leaf.der.clone()];
        self.provisioner.introduce(&leaf.certificate, &chain).await
    }

    fn connect(&self, certificate: &Arc<Certificate>) -> Result<Principal, Refusal> {
        let client_id = ClientId::parse("whoever").unwrap();
        let credential = Credential::certificate(certificate);
        let source = Ipv4Addr::LOCALHOST.into();
        self.snapshots
            .borrow()
            .authenticate(&credential, &client_id, source)
    }

    /// Once `id` is in a snapshot with this status.
    async fn until(&self, id: CertificateId, status: Status) {
        let mut snapshots = self.snapshots.clone();
        let is_so = |snapshot: &Arc<Snapshot>| {
            snapshot
                .certificate(&id)
                .is_some_and(|found| found.status == status)
        };
        snapshots.wait_for(is_so).await.unwrap();
    }

    async fn ask(&self, principal: &Principal, topic: &str, payload: &str) -> (bool, Value) {
        let asked = TopicName::parse(topic).unwrap();
        assert!(Provisioner::serves(&asked));
        let answer = self
            .provisioner
            .answer(principal, &asked, payload.as_bytes())
            .await;
        let is_accepted = answer.topic.as_str() == format!("{topic}/accepted");
        assert!(is_accepted || answer.topic.as_str() == format!("{topic}/rejected"));
        (
            is_accepted,
            serde_json::from_slice(&answer.payload).unwrap(),
        )
    }
}

/// The label of a failure.
fn failure(introduction: &Introduction) -> &'static str {
    match introduction {
        Introduction::Failed { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

/// A site with a claim.
fn claiming() -> (Bench, Leaf) {
    let (bench, [leaf, _]) = claiming_twice();
    (bench, leaf)
}

/// A site with two claims.
fn claiming_twice() -> (Bench, [Leaf; 2]) {
    let (bench, ca) = (Bench::new(), TestCa::root("claims"));
    bench.write("templates/fleet.json", CLAIM);
    bench.register("claims", &ca, "");
    let leaves = ["claim", "other"].map(|name| ca.leaf(name));
    for leaf in &leaves {
        let id = leaf.certificate.id;
        bench.append(&format!(
            "[[certificate]]\nid = \"{id}\"\nclaim = \"fleet\"\npolicies = [\"extra\"]\n"
        ));
    }
    (bench, leaves)
}

const CREATE: &str = "$aws/certificates/create/json";

const FROM_CSR: &str = "$aws/certificates/create-from-csr/json";

const PROVISION: &str = "$aws/provisioning-templates/fleet/provision/json";

fn provision(token: &Value, parameters: &Value) -> String {
    json!({ "certificateOwnershipToken": token, "parameters": parameters }).to_string()
}

fn parsed(pem: &Value) -> Arc<Certificate> {
    let der = CertificateDer::from_pem_slice(pem.as_str().unwrap().as_bytes()).unwrap();
    Arc::new(Certificate::parse(&der).unwrap())
}
