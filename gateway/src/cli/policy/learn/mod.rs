//! `portcullis policy learn`: a least-privilege policy for a group, as files to review.

mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use portcullis_core::{
    identity::{CertificateId, GroupName, Thing, ThingName},
    learn::{self, NoProposal, Proposal},
    limits::TRAFFIC_KEPT,
    policy::Policy,
    problem::nearest,
    timestamp::Timestamp,
};

use self::report::Report;
use super::{
    super::{
        Failure, Outcome,
        outcome::{lines, say, say_document, say_error, say_json},
        thing::named,
    },
    who,
};
use crate::{
    chain::chain,
    clock::now,
    identity::Snapshot,
    traffic::{self, Recorded},
};

const HOURS_MAX: u64 = TRAFFIC_KEPT.as_secs() / 3600;

/// Arguments of `policy learn`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct LearnArgs {
    /// The group whose things are looked at.
    #[arg(long)]
    group: String,
    /// How far back.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 24,
        value_parser = clap::value_parser!(u64).range(1..=HOURS_MAX)
    )]
    hours: u64,
    /// Where to write the policy, with what it is based on beside it; standard output unless said
    /// otherwise. A second policy, if one is too small, gets `-2` to its name.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn learn(args: &LearnArgs, config: &Path, as_json: bool) -> Result<Outcome, Failure> {
    let group = named(&args.group, GroupName::parse)?;
    let (settings, snapshot) = who::load(config)?;
    must_exist(&snapshot, &group)?;
    let out = args.out.as_deref();
    if let Some(document) = out {
        must_be_read(document, &settings.identity.policies)?;
    }
    let out = out.map(Out::new).transpose()?;

    let dir = settings.data_dir.join("traffic");
    let from = now().as_millis().saturating_sub(args.hours * 3_600_000);
    let from = Timestamp::from_millis(from);
    let recorded = traffic::read_since(&dir, from)
        .map_err(|error| Failure::other(format!("failed to read `{}`", dir.display()), error))?;
    for error in &recorded.unread {
        say_error(&format!("portcullis: left out: {}", chain(error)));
    }
    let things: Vec<Arc<Thing>> = snapshot.things().cloned().collect();
    let proposal = learn::propose(&recorded.observations, &things, &group)
        .map_err(|error| no_proposal(error, &recorded, args.hours, &dir))?;

    let present = present(&snapshot, &proposal);
    let report = Report {
        group: &group,
        hours: args.hours,
        written: recorded.written,
        proposal: &proposal,
        unused: learn::unused(&present, &proposal.deeds),
        present: present.iter().map(|policy| policy.name()).collect(),
    };
    if let Some(out) = out {
        out.write(&proposal, &report.text())?;
        if as_json {
            say_json(&report.to_json());
        } else {
            lines(&report.text()).for_each(say);
        }
        for file in out.documents(&proposal) {
            say_error(&format!("Written to `{}`; review it.", file.display()));
        }
    } else if as_json {
        say_json(&report.to_json());
    } else {
        for policy in &proposal.policies {
            say_document(&policy.json);
        }
        lines(&report.text()).for_each(say_error);
    }
    Ok(Outcome::Done)
}

/// The gateway takes files in `policies` for policies by their ending alone.
fn must_be_read(document: &Path, policies: &Path) -> Result<(), Failure> {
    if document.extension().is_some_and(|ending| ending == "json") {
        return Ok(());
    }
    let parent = match document.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // Directories that are not there hold nothing that the gateway reads.
    match (parent.canonicalize(), policies.canonicalize()) {
        (Ok(parent), Ok(policies)) if parent.starts_with(&policies) => {
            let mut named = document.as_os_str().to_owned();
            named.push(".json");
            Err(Failure::BadInput(format!(
                "`{}` would be no policy, whose names end in `.json`; write `--out {}`",
                document.display(),
                Path::new(&named).display()
            )))
        }
        _ => Ok(()),
    }
}

fn must_exist(snapshot: &Snapshot, group: &GroupName) -> Result<(), Failure> {
    let registry = snapshot.registry();
    if registry.group(group.as_str()).is_some() {
        return Ok(());
    }
    let names = registry.groups.iter().map(|group| group.name.as_str());
    let near = nearest(group.as_str(), names);
    let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    let text = format!("the registry has no group `{group}`{near}");
    Err(Failure::BadInput(text))
}

fn no_proposal(error: NoProposal, recorded: &Recorded, hours: u64, dir: &Path) -> Failure {
    match error {
        NoProposal::NoThings(_) => Failure::BadInput(error.to_string()),
        NoProposal::NothingObserved { .. } => {
            let remedy = if recorded.hours == 0 {
                "no traffic is recorded: let the gateway run with the devices connected, then ask again"
            } else if hours < HOURS_MAX {
                "ask for more hours with `--hours`, or let the devices do their work first"
            } else {
                "let the devices do their work first, then ask again"
            };
            Failure::other(
                format!(
                    "no proposal from the last {hours} hours in `{}`",
                    dir.display()
                ),
                format!("{error}; {remedy}"),
            )
        }
        NoProposal::NothingToPropose(_) | NoProposal::TooLarge(_) | NoProposal::Unsound(_) => {
            Failure::other("no proposal", error)
        }
    }
}

/// The policies that hold for a thing of the group now, by its groups or its certificates.
fn present(snapshot: &Snapshot, proposal: &Proposal<'_>) -> Vec<Arc<Policy>> {
    let registry = snapshot.registry();
    let members: BTreeSet<&ThingName> = proposal.deeds.iter().map(|d| &d.thing.name).collect();
    let mut present: BTreeMap<String, Arc<Policy>> = BTreeMap::new();
    let mut add = |certificate: Option<&CertificateId>, name: &ThingName| {
        for (_, policy) in snapshot.policies_of(name, certificate) {
            present.insert(policy.name().to_owned(), policy);
        }
    };
    for name in &members {
        add(None, name);
    }
    for certificate in &registry.certificates {
        for name in certificate
            .attached()
            .filter(|name| members.contains(*name))
        {
            add(Some(&certificate.id), name);
        }
    }
    present.into_values().collect()
}

/// The files of a proposal.
struct Out<'a> {
    document: &'a Path,
    second: PathBuf,
    basis: PathBuf,
}

impl<'a> Out<'a> {
    /// Refuses to overwrite any of them.
    fn new(document: &'a Path) -> Result<Self, Failure> {
        let Some(stem) = document.file_stem().map(|stem| stem.to_string_lossy()) else {
            let text = format!("`{}` is no file name; correct `--out`", document.display());
            return Err(Failure::BadInput(text));
        };
        let out = Self {
            document,
            second: document.with_file_name(format!("{stem}-2.json")),
            basis: document.with_file_name(format!("{stem}.basis.txt")),
        };
        for file in [document, &out.second, &out.basis] {
            if file.exists() {
                return Err(Failure::BadInput(format!(
                    "`{}` exists already; remove it, or name another file",
                    file.display()
                )));
            }
        }
        Ok(out)
    }

    fn documents(&self, proposal: &Proposal<'_>) -> Vec<&Path> {
        let both = [self.document, &self.second];
        both.into_iter().take(proposal.policies.len()).collect()
    }

    /// The documents last: whoever sees one, sees what it is based on.
    fn write(&self, proposal: &Proposal<'_>, basis: &str) -> Result<(), Failure> {
        write_new(&self.basis, basis)?;
        let files = self.documents(proposal).into_iter();
        for (file, policy) in files.zip(&proposal.policies).rev() {
            write_new(file, &policy.json)?;
        }
        Ok(())
    }
}

fn write_new(file: &Path, text: &str) -> Result<(), Failure> {
    let written = || -> io::Result<()> {
        let parent = match file.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        // Whole or not at all: a gateway may be watching the directory.
        let mut made = tempfile::NamedTempFile::new_in(parent)?;
        made.write_all(text.as_bytes())?;
        made.as_file()
            .set_permissions(Permissions::from_mode(0o644))?;
        made.as_file().sync_all()?;
        made.persist_noclobber(file).map_err(|error| error.error)?;
        File::open(parent)?.sync_all()
    };
    written().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::BadInput(format!(
            "`{}` exists already; remove it, or name another file",
            file.display()
        )),
        _ => Failure::other(format!("failed to write `{}`", file.display()), error),
    })
}
