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

use super::super::{
    Failure,
    cert::which::{self, Named},
    thing::named,
};
use crate::{
    config::{self, PolicySettings},
    identity::{
        self, Credential, Journal, Registry, Snapshot,
        effective::{Effective, Examiner},
        issued::Kept,
        registry::{RegisteredCertificate, Status},
    },
};

/// The thing, and what it shows.
#[derive(Debug, clap::Args)]
pub(super) struct Connection {
    /// Its client id; the thing's name unless said otherwise.
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
    /// The certificate that it shows (its id, four digits or more of its beginning, or a file with
    /// it); its first active one unless said otherwise.
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
            Shown::Shut(why) => return Ok(Who::Refused(format!("{why}, so it cannot connect"))),
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
        let registry = snapshot.registry();
        // What cannot be read of it, the gateway has no use for either.
        let state = Journal::open(&settings.identity.journal).read();
        let state = state.unwrap_or_default();
        let examiner = Examiner::new(&settings.identity, registry, &state);
        let its = |c: &&RegisteredCertificate| c.is_attached_to(thing.name.as_str());
        if let Some(text) = &self.certificate {
            let kept = self.kept(settings, registry, text)?;
            let listed = snapshot.certificate(&kept.0);
            let found = listed.map(|listed| examiner.examine_as(listed, kept.1.clone()));
            return Ok(match found {
                Some(found) if !found.effective.opens() => shut(kept.0, &found.effective),
                _ => Shown::Certificate(content(kept.0, kept.1)),
            });
        }
        let mut shut_out = None;
        for listed in registry.certificates.iter().filter(its) {
            let found = examiner.examine(listed);
            if found.effective.opens() {
                return Ok(Shown::Certificate(content(listed.id, found.kept)));
            }
            shut_out.get_or_insert((listed.id, found.effective));
        }
        Ok(match shut_out {
            Some((id, effective)) => {
                let name = &thing.name;
                Shown::Shut(format!(
                    "no certificate of `{name}` is active: {id} is {effective}"
                ))
            }
            None => Shown::Nothing,
        })
    }

    /// The certificate that `text` means, and its content as far as it is known.
    fn kept(
        &self,
        settings: &PolicySettings,
        registry: &Registry,
        text: &str,
    ) -> Result<(CertificateId, Option<Kept>), Failure> {
        if CertificateId::parse(text).is_none()
            && Path::new(text).is_file()
            && let Some(kept) = Kept::read(Path::new(text))
        {
            return Ok((kept.certificate.id, Some(kept)));
        }
        let named = Named {
            belongs: &which::of_thing,
            is_meant: &|listed| listed.status == Status::Active,
        };
        let id = which::one(registry, text, &named)?;
        Ok((id, Kept::find(&settings.identity, id)))
    }
}

/// What a thing has to show.
enum Shown {
    Certificate(Arc<Certificate>),
    /// Certificates, none of which opens anything; why.
    Shut(String),
    /// It never had one.
    Nothing,
}

fn shut(id: CertificateId, effective: &Effective) -> Shown {
    Shown::Shut(format!("the certificate {id} is {effective}"))
}

/// What a certificate says is known if it was issued or registered here.
fn content(id: CertificateId, kept: Option<Kept>) -> Arc<Certificate> {
    Arc::new(kept.map_or_else(|| Certificate::unseen(id), |kept| kept.certificate))
}
