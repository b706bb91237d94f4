//! `portcullis thing`: works with the gateway stopped, and takes effect at once on a running one.

use std::{fs, path::Path};

use portcullis_core::{
    identity::{GroupName, NameError, ThingName, ThingTypeName},
    problem::Problem,
};
use serde_json::{Value, json};

use super::{
    Failure, Outcome,
    outcome::{say, say_error, say_json},
};
use crate::{
    config,
    document::read_text,
    identity::{
        Registry,
        edit::{self, NewThing, ROOT_GROUP},
        registry::RegisteredThing,
    },
};

/// What to do with things.
#[derive(Debug, clap::Subcommand)]
pub(super) enum ThingCommand {
    /// Add a thing; groups that do not exist are made.
    Add {
        /// Its name.
        name: String,
        /// A group that it is in.
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
    /// Show a thing, its groups and its certificates.
    Show {
        /// Its name.
        name: String,
    },
    /// Remove a thing and its certificates.
    Remove {
        /// Its name.
        name: String,
    },
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
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
                attributes: attributes.iter().cloned().collect(),
                groups: groups
                    .iter()
                    .map(|name| named(name, GroupName::parse))
                    .collect::<Result<_, _>>()?,
            };
            let made = edit::add_thing(&file, &new)?;
            added(&file, &new, &made, as_json)?;
            say_what_is_in_the_way(config);
        }
        ThingCommand::List => {
            let registry = read(&file)?;
            if as_json {
                let things = registry.things.iter();
                say_json(&things.map(|thing| to_json(&registry, thing)).collect());
            } else {
                for registered in &registry.things {
                    let groups = names(&registered.direct_groups).join(", ");
                    say(&format!("{}  {groups}", registered.thing.name));
                }
            }
        }
        ThingCommand::Show { name } => {
            let registry = read(&file)?;
            let Some(registered) = registry.thing(name) else {
                let text = format!("the registry has no thing `{name}`");
                return Err(Failure::BadInput(text));
            };
            show(&registry, registered, as_json);
        }
        ThingCommand::Remove { name } => {
            let name = named(name, ThingName::parse)?;
            let certificates = edit::remove_thing(&file, &name)?;
            if as_json {
                let ids: Vec<_> = certificates.iter().map(ToString::to_string).collect();
                say_json(&json!({ "removed": name.as_str(), "certificates": ids }));
            } else {
                say(&format!("Removed the thing `{name}`."));
                for id in certificates {
                    say(&format!(
                        "Removed its certificate {id}, which is refused now."
                    ));
                }
            }
            say_what_is_in_the_way(config);
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

fn added(file: &Path, new: &NewThing, made: &[GroupName], as_json: bool) -> Result<(), Failure> {
    let registry = read(file)?;
    if as_json {
        if let Some(registered) = registry.thing(new.name.as_str()) {
            let mut answer = to_json(&registry, registered);
            answer["groupsMade"] = names(made).into();
            say_json(&answer);
        }
        return Ok(());
    }
    say(&format!("Added the thing `{}`.", new.name));
    for group in made {
        let parent = registry
            .group(group.as_str())
            .and_then(|g| g.parent.as_ref());
        match parent {
            Some(parent) => say(&format!(
                "Made the group `{group}` under `{parent}`, whose policies it inherits."
            )),
            None => say(&format!(
                "Made the group `{group}`. It has no policy yet (there is no group `{ROOT_GROUP}` to inherit from)."
            )),
        }
    }
    Ok(())
}

fn show(registry: &Registry, registered: &RegisteredThing, as_json: bool) {
    if as_json {
        return say_json(&to_json(registry, registered));
    }
    let thing = &registered.thing;
    say(&format!("thing         {}", thing.name));
    if let Some(thing_type) = &thing.thing_type {
        say(&format!("type          {thing_type}"));
    }
    say(&format!(
        "groups        {}",
        names(&thing.groups).join(", ")
    ));
    for (name, value) in &thing.attributes {
        say(&format!("attribute     {name} = {value}"));
    }
    let certificates = registry.certificates.iter();
    for certificate in certificates.filter(|c| c.thing.as_ref() == Some(&thing.name)) {
        let status = certificate.status.as_str();
        say(&format!("certificate   {} {status}", certificate.id));
    }
}

fn to_json(registry: &Registry, registered: &RegisteredThing) -> Value {
    let thing = &registered.thing;
    let certificates: Vec<Value> = registry
        .certificates
        .iter()
        .filter(|certificate| certificate.thing.as_ref() == Some(&thing.name))
        .map(|certificate| {
            json!({
                "certificateId": certificate.id.to_string(),
                "status": certificate.status.as_str(),
            })
        })
        .collect();
    json!({
        "thingName": thing.name.as_str(),
        "thingTypeName": thing.thing_type.as_ref().map(ThingTypeName::as_str),
        "attributes": thing.attributes,
        "thingGroups": names(&registered.direct_groups),
        "thingGroupsWithAncestors": names(&thing.groups),
        "certificates": certificates,
    })
}

fn names(groups: &[GroupName]) -> Vec<&str> {
    groups.iter().map(GroupName::as_str).collect()
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
