//! `portcullis thing`: works with the gateway stopped, and takes effect at once on a running one.

use std::{collections::BTreeMap, fs, path::Path};

use portcullis_core::{
    identity::{GroupName, NameError, ThingName, ThingTypeName},
    problem::Problem,
    registry::{QUARANTINE, State, attribute_mistakes},
};
use serde_json::json;

use super::{
    Failure, Outcome,
    outcome::{say, say_error, say_json},
    shown::{self, Known, Live, names},
};
use crate::{
    clock::now,
    config,
    document::read_text,
    identity::{
        Registry,
        edit::{NewThing, ROOT_GROUP},
        effective::Examiner,
        runtime::{self, Added, Removed},
    },
};

/// What to do with things.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ThingCommand {
    /// Add a thing; groups that do not exist are made, and it is in `devices`, too.
    Add {
        /// Its name.
        name: String,
        /// A group that it is in; one of each hierarchy.
        #[arg(long = "group", value_name = "GROUP", required = true)]
        groups: Vec<String>,
        /// Its type.
        #[arg(long = "type", value_name = "TYPE")]
        thing_type: Option<String>,
        /// An attribute.
        #[arg(long = "attr", value_name = "KEY=VALUE", value_parser = attribute)]
        attributes: Vec<(String, String)>,
    },
    /// List all things.
    List,
    /// Show a thing, its certificates, its groups and where each of them comes from.
    Show {
        /// Its name.
        name: String,
    },
    /// Remove a thing; its certificates stay as revoked ones.
    Remove {
        /// Its name.
        name: String,
    },
    /// Put a thing into quarantine, where it can connect and do nothing else.
    Quarantine {
        /// Its name.
        name: String,
        /// Why.
        #[arg(long, default_value = "quarantined by an operator")]
        reason: String,
        /// Take it out again.
        #[arg(long, conflicts_with = "reason")]
        release: bool,
    },
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// Each once, and as the registry takes them.
fn attributes_of(written: &[(String, String)]) -> Result<BTreeMap<String, String>, Failure> {
    let mut attributes = BTreeMap::new();
    for (name, value) in written {
        if let Some(mistake) = attribute_mistakes(name, value).into_iter().next() {
            let (message, remedy) = (mistake.message, mistake.remedy);
            return Err(Failure::BadInput(format!("--attr: {message}; {remedy}")));
        }
        if attributes.insert(name.clone(), value.clone()).is_some() {
            let text = format!("--attr: `{name}` is given twice; keep one of the two");
            return Err(Failure::BadInput(text));
        }
    }
    Ok(attributes)
}

pub(super) fn thing(
    command: &ThingCommand,
    config: &Path,
    as_json: bool,
) -> Result<Outcome, Failure> {
    let file = registry_file(config)?;
    match command {
        ThingCommand::Add {
            name,
            groups,
            thing_type,
            attributes,
        } => {
            let new = NewThing {
                name: named(name, ThingName::parse)?,
                thing_type: match thing_type {
                    Some(name) => Some(named(name, ThingTypeName::parse)?),
                    None => None,
                },
                attributes: attributes_of(attributes)?,
                groups: groups
                    .iter()
                    .map(|name| named(name, GroupName::parse))
                    .collect::<Result<_, _>>()?,
            };
            let journal = config::journal(config);
            let of_new = runtime::add(&file, &journal, &new)?;
            added(config, &file, &new, &of_new, as_json)?;
            say_what_is_in_the_way(config);
        }
        ThingCommand::List => {
            let known = Known::read(config)?;
            let registry = &known.registry;
            if as_json {
                let examiner = known.examiner();
                let things = registry.things.iter();
                let things = things
                    .map(|thing| shown::to_json(registry, thing, &Live::NOT_ASKED, &examiner));
                say_json(&things.collect());
            } else {
                for registered in &registry.things {
                    let added = registered.memberships.iter().map(|added| &added.group);
                    let groups: Vec<&str> = registered
                        .direct_groups
                        .iter()
                        .chain(added)
                        .map(GroupName::as_str)
                        .collect();
                    say(&format!("{}  {}", registered.thing.name, groups.join(", ")));
                }
            }
        }
        ThingCommand::Show { name } => {
            let known = Known::read(config)?;
            let Some(registered) = known.registry.thing(name) else {
                let text = format!("the registry has no thing `{name}`");
                return Err(Failure::BadInput(text));
            };
            let live = Live::ask(config, &known.registry, name);
            shown::show(&known, registered, &live, as_json);
        }
        ThingCommand::Remove { name } => {
            let name = named(name, ThingName::parse)?;
            let journal = config::journal(config);
            let Removed {
                certificates,
                is_quarantined,
            } = runtime::remove(&file, &journal, &name, now())?;
            if as_json {
                let ids: Vec<_> = certificates.iter().map(ToString::to_string).collect();
                say_json(&json!({
                    "removed": name.as_str(),
                    "certificates": ids,
                    "quarantined": is_quarantined,
                }));
            } else {
                say(&format!("Removed the thing `{name}`."));
                for id in certificates {
                    say(&format!("Its certificate {id} is revoked."));
                }
                if is_quarantined {
                    say(&format!(
                        "Its name stays in quarantine; `portcullis thing quarantine {name} --release` takes it out."
                    ));
                }
            }
            say_what_is_in_the_way(config);
        }
        ThingCommand::Quarantine {
            name,
            reason,
            release,
        } => {
            let name = named(name, ThingName::parse)?;
            quarantine(config, &file, &name, (!release).then_some(reason), as_json)?;
        }
    }
    Ok(Outcome::Done)
}

/// After an edit: mistakes elsewhere for which a running gateway does not take it.
pub(super) fn say_what_is_in_the_way(config: &Path) {
    let problems = config::inspect_change(config);
    for problem in &problems {
        say_error(&problem.to_string());
    }
    if !problems.is_empty() {
        say_error(
            "portcullis: recorded; a running gateway takes nothing new until these are corrected",
        );
    }
}

fn added(
    config: &Path,
    file: &Path,
    new: &NewThing,
    of_new: &Added,
    as_json: bool,
) -> Result<(), Failure> {
    let registry = read(file)?;
    let made = &of_new.made;
    if as_json {
        if let Some(registered) = registry.thing(new.name.as_str()) {
            let (identity, state) = (config::identity(config), State::default());
            let examiner = Examiner::new(&identity, &registry, &state);
            let mut answer = shown::to_json(&registry, registered, &Live::NOT_ASKED, &examiner);
            answer["groupsMade"] = names(made).into();
            answer["quarantined"] = of_new.quarantined.is_some().into();
            say_json(&answer);
        }
        return Ok(());
    }
    say(&format!("Added the thing `{}`.", new.name));
    for group in made {
        say(&format!(
            "Made the group `{group}`. It has no policy of its own yet."
        ));
    }
    let is_device = registry.thing(new.name.as_str()).is_some_and(|registered| {
        let mut groups = registered.thing.groups.iter();
        groups.any(|group| group.as_str() == ROOT_GROUP)
    });
    if is_device {
        say(&format!(
            "It is in `{ROOT_GROUP}`, whose policy says what it may do."
        ));
    } else if !made.is_empty() {
        say(&format!(
            "There is no group `{ROOT_GROUP}`: attach a policy to one of its groups."
        ));
    }
    if let Some(known) = &of_new.quarantined {
        let (name, at, why) = (&new.name, known.at, &known.why);
        say(&format!(
            "It is in quarantine, as one of its name was since {at}: {why}; `portcullis thing quarantine {name} --release` takes it out."
        ));
    }
    Ok(())
}

/// Puts the thing into quarantine for a reason, or takes it out.
fn quarantine(
    config: &Path,
    file: &Path,
    name: &ThingName,
    reason: Option<&String>,
    as_json: bool,
) -> Result<(), Failure> {
    let journal = config::journal(config);
    match reason {
        Some(reason) => runtime::quarantine(file, &journal, name, reason, now())?,
        None => runtime::release(&journal, name, now())?,
    }
    let registry = match merged(config) {
        Ok(registry) => registry,
        // What was asked for is done; the file is for `check`.
        Err(_) if reason.is_some() => {
            if as_json {
                say_json(&json!({ "thingName": name.as_str(), "quarantined": true }));
            } else {
                say(&format!(
                    "Put the thing `{name}` into quarantine, in the journal alone: registry.toml has mistakes; see `portcullis check`."
                ));
            }
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let in_file = registry.thing(name.as_str()).is_some_and(|registered| {
        let mut groups = registered.direct_groups.iter();
        groups.any(|group| group.as_str() == QUARANTINE)
    });
    if as_json {
        let is_in = reason.is_some() || in_file;
        say_json(&json!({ "thingName": name.as_str(), "quarantined": is_in }));
        return Ok(());
    }
    if reason.is_none() {
        say(&format!("Released the thing `{name}`."));
        if in_file {
            say("registry.toml has it in quarantine still; take it out of its groups there.");
        }
        return Ok(());
    }
    say(&format!("Put the thing `{name}` into quarantine."));
    if registry.group(QUARANTINE).is_none() {
        say(&format!(
            "There is no group `{QUARANTINE}` that says what it may still do, so it may not even connect."
        ));
    }
    Ok(())
}

/// `registry.toml` beside the settings.
pub(super) fn registry_file(config: &Path) -> Result<std::path::PathBuf, Failure> {
    let file = config.with_file_name("registry.toml");
    match fs::metadata(&file) {
        Ok(_) => Ok(file),
        Err(_) => Err(Failure::Mistakes(vec![Problem {
            file,
            place: None,
            message: "the file does not exist".to_owned(),
            remedy: "make a configuration with `portcullis init DIR`, and name it with \
                     `-c DIR/gateway.toml` or PORTCULLIS_CONFIG"
                .to_owned(),
        }])),
    }
}

/// `registry.toml` with what changed at run time.
pub(super) fn merged(config: &Path) -> Result<Registry, Failure> {
    let file = registry_file(config)?;
    Ok(runtime::in_force(&file, &config::journal(config))?)
}

pub(super) fn read(file: &Path) -> Result<Registry, Failure> {
    let text = read_text(file).map_err(|problem| Failure::Mistakes(vec![problem]))?;
    match Registry::parse(file, &text, None) {
        (registry, problems) if problems.is_empty() => Ok(registry),
        (_, problems) => Err(Failure::Mistakes(problems)),
    }
}

pub(super) fn named<T>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, NameError>,
) -> Result<T, Failure> {
    parse(text).map_err(|error| Failure::BadInput(format!("`{text}` is no name: {error}")))
}
