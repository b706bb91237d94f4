//! Who a thing would be to the gateway if it connected.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
};

use portcullis_core::{
    certificate::Certificate,
    identity::{CertificateId, ClientId, Principal, Thing, ThingName},
    problem::nearest,
};

use super::super::{Failure, thing::named};
use crate::{
    config::{self, PolicySettings},
    identity::{
        self, Credential, Snapshot, issued,
        registry::{RegisteredCertificate, Status},
    },
};

/// The thing, and what it shows.
#[derive(Debug, clap::Args)]
pub(super) struct Connection {
    /// Its client id; the thing's name unless said otherwise.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// The certificate that it shows; its first active one unless said otherwise.
    #[arg(long, value_name = "ID_OR_FILE")]
    certificate: Option<String>,
    /// The host name that it asks for in TLS.
    #[arg(long, value_name = "HOST")]
    domain: Option<String>,
    /// Where it connects from.
    #[arg(long, value_name = "ADDR")]
    source_ip: Option<IpAddr>,
}

/// Who that is.
#[derive(Debug)]
pub(super) enum Who {
    /// Somebody, whom the policies are asked about.
    Known(Box<Principal>),
    /// Nobody: the gateway refuses the connection.
    Refused(String),
}

/// Registry and policies, whatever is wrong elsewhere.
pub(super) fn load(config: &Path) -> Result<(PolicySettings, Snapshot), Failure> {
    let settings = config::policy_settings(config).map_err(Failure::Mistakes)?;
    let found = identity::inspect_change(&settings.identity, &[]);
    match found.snapshot {
        Some(snapshot) => Ok((settings, snapshot)),
        None => Err(Failure::Mistakes(found.problems)),
    }
}

/// The thing `name` of the registry.
pub(super) fn thing<'s>(snapshot: &'s Snapshot, name: &str) -> Result<&'s Arc<Thing>, Failure> {
    let name: ThingName = named(name, ThingName::parse)?;
    let absent = || {
        let near = nearest(
            name.as_str(),
            snapshot.things().map(|thing| thing.name.as_str()),
        );
        let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        Failure::BadInput(format!("the registry has no thing `{name}`{near}"))
    };
    snapshot.thing(name.as_str()).ok_or_else(absent)
}

impl Connection {
    pub(super) fn client_id(&self, thing: &Thing) -> Result<ClientId, Failure> {
        let client_id = self.client_id.as_deref().unwrap_or(thing.name.as_str());
        ClientId::parse(client_id)
            .map_err(|error| Failure::BadInput(format!("`{client_id}` is no client id: {error}")))
    }

    pub(super) fn source_ip(&self) -> Option<IpAddr> {
        self.source_ip
    }

    /// As the gateway would authenticate it.
    pub(super) fn who(
        &self,
        (settings, snapshot): &(PolicySettings, Snapshot),
        thing: &Thing,
        client_id: &ClientId,
    ) -> Result<Who, Failure> {
        let domain: Option<Arc<str>> = self.domain.as_deref().map(Into::into);
        let certificate;
        let credential = match self.shown(settings, snapshot, thing)? {
            Shown::Certificate(shown) => {
                certificate = shown;
                Credential::Certificate {
                    certificate: &certificate,
                    domain: domain.as_ref(),
                    chain: None,
                }
            }
            Shown::NoneActive => {
                let name = &thing.name;
                let text = format!("no certificate of `{name}` is active, so it cannot connect");
                return Ok(Who::Refused(text));
            }
            Shown::Nothing => Credential::Plain {
                thing: Some(&thing.name),
                unknown_policy: None,
            },
        };
        let source = self.source_ip.unwrap_or(Ipv4Addr::LOCALHOST.into());
        match snapshot.authenticate(&credential, client_id, source) {
            Ok(principal)
                if principal
                    .thing
                    .as_ref()
                    .is_none_or(|t| t.name != thing.name) =>
            {
                let other = principal.thing.map_or_else(
                    || "no thing".to_owned(),
                    |thing| format!("the thing `{}`", thing.name),
                );
                let text = format!("with this certificate and client id it is {other}");
                Err(Failure::BadInput(text))
            }
            Ok(principal) => Ok(Who::Known(Box::new(principal))),
            Err(refusal) => Ok(Who::Refused(format!("{refusal}, so it cannot connect"))),
        }
    }

    fn shown(
        &self,
        settings: &PolicySettings,
        snapshot: &Snapshot,
        thing: &Thing,
    ) -> Result<Shown, Failure> {
        if let Some(text) = &self.certificate {
            let shown = match CertificateId::parse(text) {
                Some(id) => of_id(settings, id),
                None => in_file(text)?,
            };
            return Ok(Shown::Certificate(shown));
        }
        let certificates = snapshot.registry().certificates.iter();
        let is_its = |c: &&RegisteredCertificate| c.is_attached_to(thing.name.as_str());
        let mut its = certificates.filter(is_its).peekable();
        let has_any = its.peek().is_some();
        Ok(match its.find(|c| c.status == Status::Active) {
            Some(active) => Shown::Certificate(of_id(settings, active.id)),
            None if has_any => Shown::NoneActive,
            None => Shown::Nothing,
        })
    }
}

/// What a thing has to show.
enum Shown {
    Certificate(Arc<Certificate>),
    /// It has certificates, none of them active.
    NoneActive,
    /// It never had one.
    Nothing,
}

/// The certificate with this id; what it says is known if it was issued or registered here.
fn of_id(settings: &PolicySettings, id: CertificateId) -> Arc<Certificate> {
    let kept = issued::certificate(&settings.identity, id);
    Arc::new(kept.unwrap_or_else(|| Certificate::unseen(id)))
}

fn in_file(text: &str) -> Result<Arc<Certificate>, Failure> {
    issued::certificate_in(Path::new(text)).ok_or_else(|| {
        let text = format!(
            "`{text}` is neither a certificate id nor a file with a certificate in PEM or DER"
        );
        Failure::BadInput(text)
    })
}
