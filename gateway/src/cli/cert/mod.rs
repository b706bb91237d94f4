//! `portcullis cert`: device certificates, CAs and revocation lists. Works with the gateway stopped,
//! and takes effect at once on a running one.

mod issue;
mod show;
mod state;
pub(in crate::cli) mod which;

use std::path::{Path, PathBuf};

use portcullis_core::{identity::ThingName, registry::Status};
use serde_json::{Value, json};

use super::{
    Failure, Outcome,
    outcome::{escaped, lines, say, say_json},
    thing::{named, registry_file, say_what_is_in_the_way},
};
use crate::{
    clock::now,
    config,
    identity::{
        Claim, Holder,
        authority::DEVICE_DAYS,
        enrol::{self, Wanted},
        import::{self, Imported, ImportedList},
    },
};

/// What to do with certificates.
#[derive(Debug, clap::Subcommand)]
pub(super) enum CertCommand {
    /// Make a certificate for a thing, or a claim certificate, and register it.
    Issue {
        /// The thing.
        #[arg(required_unless_present = "claim", conflicts_with = "claim")]
        thing: Option<String>,
        #[command(flatten)]
        claim: ClaimArgs,
        #[command(flatten)]
        how: HowArgs,
    },
    /// Make another certificate for a thing; its present ones end after an overlap.
    Renew {
        /// The thing.
        thing: String,
        #[command(flatten)]
        how: HowArgs,
        /// How long the present ones still may connect.
        #[arg(long, value_name = "DAYS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(0..=365))]
        overlap: u32,
    },
    /// Take over a device's certificate, a claim certificate, a CA or revocation lists.
    Import {
        /// PEM or DER.
        file: PathBuf,
        /// Whose certificate it is; unless said, the thing named like its common name.
        #[arg(long, conflicts_with = "claim")]
        thing: Option<String>,
        #[command(flatten)]
        claim: ClaimArgs,
    },
    /// Let a certificate that registered itself connect.
    Approve {
        /// Its id or four digits or more of its beginning, its common name, or a file with it.
        #[arg(value_name = "CERTIFICATE")]
        id: String,
        /// Whose it is; unless said, the thing named like its common name.
        #[arg(long)]
        thing: Option<String>,
    },
    /// Let a certificate connect again that was deactivated; one that waits needs `approve`.
    Activate {
        /// Its id or four digits or more of its beginning, the thing that has it, or a file with it.
        #[arg(value_name = "CERTIFICATE")]
        id: String,
    },
    /// Keep a certificate from connecting for now.
    Deactivate {
        /// Its id or four digits or more of its beginning, the thing that has it, or a file with it.
        #[arg(value_name = "CERTIFICATE")]
        id: String,
        /// Why; kept with it.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Revoke a certificate, or all of a thing, for good.
    Revoke {
        /// A certificate (its id, four digits or more of its beginning, or a file with it), or a thing:
        /// all that it has.
        #[arg(value_name = "CERTIFICATE_OR_THING")]
        which: String,
        /// Why; kept with it.
        #[arg(long)]
        reason: Option<String>,
    },
    /// List all certificates: what the gateway makes of each, whose it is, its end and its issuer.
    List {
        /// Those of one CA alone: its id, four digits or more of its beginning, or a file with it.
        #[arg(long, value_name = "ID_OR_FILE")]
        ca: Option<String>,
    },
    /// Show all that is known of a certificate.
    Show {
        /// Its id or four digits or more of its beginning, the thing that has it, or a file with it.
        #[arg(value_name = "CERTIFICATE")]
        id: String,
    },
}

/// With which template and policies devices ask for certificates of their own.
#[derive(Debug, clap::Args)]
pub(super) struct ClaimArgs {
    /// It is a claim: with it, devices ask for certificates of their own by templates/TEMPLATE.json.
    #[arg(long, value_name = "TEMPLATE")]
    claim: Option<String>,
    /// A policy of the claim: what it may do is to connect and to ask.
    #[arg(long = "policy", value_name = "POLICY", requires = "claim")]
    policies: Vec<String>,
}

impl ClaimArgs {
    /// Whose the certificate is, if anything says so.
    fn holder<'a>(&'a self, thing: Option<&'a ThingName>) -> Option<Holder<'a>> {
        let claim = self.claim.as_deref().map(|template| Claim {
            template,
            policies: &self.policies,
        });
        claim.map(Holder::Claim).or(thing.map(Holder::Thing))
    }

    /// That it may do nothing yet.
    fn hint(&self) -> &'static str {
        match self.policies.is_empty() {
            true => {
                "\nIt has no policy yet, so it may not even connect: add `policies` in registry.toml."
            }
            false => "",
        }
    }
}

/// How a certificate is made.
#[derive(Debug, clap::Args)]
pub(super) struct HowArgs {
    /// Where `cert.pem`, `key.pem` and `ca.pem` go.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long it is valid.
    #[arg(long, default_value_t = DEVICE_DAYS, value_parser = clap::value_parser!(u32).range(1..=7300))]
    days: u32,
    /// A PKCS #10 request in PEM: the device keeps its key.
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    /// Organization in its subject, for policies that ask for it.
    #[arg(long, value_name = "NAME")]
    org: Option<String>,
    /// Organizational unit in its subject.
    #[arg(long, value_name = "NAME")]
    unit: Option<String>,
}

impl HowArgs {
    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            days: self.days,
            request: self.csr.as_deref(),
            organization: self.org.as_deref(),
            unit: self.unit.as_deref(),
        }
    }
}

pub(super) fn cert(
    command: &CertCommand,
    config: &Path,
    as_json: bool,
) -> Result<Outcome, Failure> {
    // Mistakes elsewhere in the settings must not keep anybody from revoking.
    registry_file(config)?;
    let identity = config::identity(config);
    match command {
        CertCommand::Issue { thing, claim, how } => {
            let settings = config::load(config).map_err(Failure::Mistakes)?.config;
            let thing = named_if(thing.as_deref())?;
            let holder = claim.holder(thing.as_ref());
            let holder = holder.ok_or_else(|| Failure::BadInput("name a thing".to_owned()))?;
            let enrolment = enrol::enrol(&settings.identity, holder, &how.wanted(), &how.out)?;
            match thing {
                Some(thing) => {
                    issue::issued(&settings, &thing, &enrolment, &how.out, &[], as_json);
                }
                None => issue::issued_claim(claim, &enrolment, &how.out, as_json),
            }
        }
        CertCommand::Renew {
            thing,
            how,
            overlap,
        } => {
            let settings = config::load(config).map_err(Failure::Mistakes)?.config;
            let thing = named(thing, ThingName::parse)?;
            let until = now().plus_millis(u64::from(*overlap) * 24 * 3600 * 1000);
            let wanted = how.wanted();
            let (enrolment, retired) =
                enrol::renew(&settings.identity, &thing, &wanted, &how.out, until)?;
            let ending: Vec<_> = retired.into_iter().map(|id| (id, until)).collect();
            issue::issued(&settings, &thing, &enrolment, &how.out, &ending, as_json);
        }
        CertCommand::Import { file, thing, claim } => {
            let thing = named_if(thing.as_deref())?;
            let done = import::import(&identity, file, claim.holder(thing.as_ref()))?;
            imported(&done, claim, as_json);
        }
        CertCommand::Approve { id, thing } => {
            let thing = named_if(thing.as_deref())?;
            state::approve(&identity, id, thing.as_ref(), as_json)?;
        }
        CertCommand::Activate { id } => {
            state::set_active(&identity, id, Status::Active, None, as_json)?;
        }
        CertCommand::Deactivate { id, reason } => {
            state::set_active(&identity, id, Status::Inactive, reason.as_deref(), as_json)?;
        }
        CertCommand::Revoke { which, reason } => {
            state::revoke(&identity, which, reason.as_deref(), as_json)?;
        }
        CertCommand::List { ca } => return show::list(&identity, ca.as_deref(), as_json),
        CertCommand::Show { id } => return show::show(&identity, id, as_json),
    }
    say_what_is_in_the_way(config);
    Ok(Outcome::Done)
}

fn named_if(name: Option<&str>) -> Result<Option<ThingName>, Failure> {
    name.map(|name| named(name, ThingName::parse)).transpose()
}

fn answer(text: &str, value: &Value, as_json: bool) {
    if as_json {
        say_json(value);
    } else {
        lines(text).for_each(say);
    }
}

fn imported(imported: &Imported, args: &ClaimArgs, as_json: bool) {
    let (text, value) = match imported {
        Imported::Certificate { id, thing, ca } => (
            format!("Registered {id} of the CA `{ca}` for `{thing}`."),
            json!({ "kind": "certificate", "certificateId": id.to_string(), "thingName": thing.as_str(), "ca": ca }),
        ),
        Imported::Claim { id, template, ca } => (
            format!(
                "Registered {id} of the CA `{ca}` as a claim for the template `{template}`.{}",
                args.hint()
            ),
            json!({ "kind": "claim", "certificateId": id.to_string(), "claim": template, "policies": args.policies, "ca": ca }),
        ),
        Imported::Ca { id, subject, file } => (
            format!(
                "Took over the CA `{}` ({id}) as {}.\nIts certificates connect once they are \
                 registered: `portcullis cert import`, or `auto-registration` or `template` in its \
                 `[[ca]]` in registry.toml.",
                escaped(subject),
                file.display()
            ),
            json!({ "kind": "ca", "caCertificateId": id.to_string(), "subject": subject, "file": file.to_string_lossy() }),
        ),
        Imported::Lists(lists) => {
            let text: Vec<_> = lists.iter().map(list).collect();
            let mut values: Vec<_> = lists.iter().map(list_json).collect();
            let value = match values.len() {
                1 => values.remove(0),
                _ => json!({ "kind": "crls", "lists": values }),
            };
            (text.join("\n"), value)
        }
    };
    answer(&text, &value, as_json);
}

fn list(list: &ImportedList) -> String {
    let mut text = format!(
        "Took over the revocation list of `{}` with {} certificates as {}",
        escaped(&list.issuer),
        list.entries,
        list.file.display()
    );
    match &list.next_update {
        Some(next) if list.is_expired => {
            text += &format!(
                ".\nIt should have been replaced at {next}: fetch the next one; until then it stays in force"
            );
        }
        Some(next) => text += &format!("; the next one is due at {next}"),
        None => {}
    }
    text + "."
}

fn list_json(list: &ImportedList) -> Value {
    json!({
        "kind": "crl",
        "issuer": list.issuer,
        "entries": list.entries,
        "nextUpdate": list.next_update,
        "expired": list.is_expired,
        "file": list.file.to_string_lossy(),
    })
}
