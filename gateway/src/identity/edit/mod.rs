//! Edits of `registry.toml` from the command line.
//!
//! The file belongs to people: blocks are appended, single values replaced, whole blocks removed;
//! comments and order stay. Two commands at once wait for each other at a lock file. The result is
//! checked before it replaces the file, so that an edit never breaks a running gateway.

mod certificates;

pub use certificates::{add_ca, add_claim, set_status, set_until};

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use portcullis_core::{
    identity::{CertificateId, GroupName, ThingName, ThingTypeName},
    problem::Problem,
};
use toml::de::DeTable;

use super::{
    JournalError, Registry,
    files::{self, WriteError},
    registry::Status,
};

/// Why the registry was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It, or its lock, cannot be read.
    #[error("failed to open `{path}`; it must be there, and this user must be allowed to")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It has mistakes already, or would have them afterwards.
    #[error("the registry has mistakes; correct them, then repeat the command")]
    Mistakes(Vec<Problem>),
    /// The thing is there already.
    #[error(
        "the thing `{0}` exists already; choose another name, or remove it with `portcullis thing remove {0}`"
    )]
    Exists(ThingName),
    /// The thing is not in the registry, and registered itself.
    #[error(
        "the thing `{0}` exists already, it registered itself (`portcullis thing show {0}`); remove it with `portcullis thing remove {0}`, which revokes its certificates, or write what it is to be into registry.toml"
    )]
    Provisioned(ThingName),
    /// The query of a group says who is in it.
    #[error("the group `{0}` is a dynamic one: its query finds its things; name a static group")]
    Dynamic(GroupName),
    /// There is no such thing or certificate.
    #[error(
        "the registry has no {0}; `portcullis thing list` and `portcullis cert list` say what it has"
    )]
    Absent(String),
    /// A revoked certificate stays revoked.
    #[error("the certificate `{0}` is revoked for good")]
    Revoked(CertificateId),
    /// The thing would be in two groups of one hierarchy.
    #[error(
        "the groups `{one}` and `{other}` are both of the hierarchy of `{root}`, of which a thing is in one group at most; name one of them"
    )]
    SameHierarchy {
        /// A group.
        one: GroupName,
        /// Another.
        other: GroupName,
        /// The one that both are, or are under.
        root: GroupName,
    },
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The run-time state could not be read or written.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A thing to add.
#[derive(Clone, Debug)]
pub struct NewThing {
    /// Its name.
    pub name: ThingName,
    /// Its type, if any.
    pub thing_type: Option<ThingTypeName>,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// The groups; those that do not exist are made, each at the top of a hierarchy of its own.
    pub groups: Vec<GroupName>,
}

/// The group that every new thing is put into, unless one of its groups is under it: its policy says
/// what a device may do.
pub const ROOT_GROUP: &str = "devices";

/// Adds a thing. Returns the groups that were made for it. Its type is declared if others are.
pub fn add_thing(registry: &Path, new: &NewThing) -> Result<Vec<GroupName>, EditError> {
    edit(registry, |current, text| {
        if current.thing(new.name.as_str()).is_some() {
            return Err(EditError::Exists(new.name.clone()));
        }
        let groups = groups_of(current, &new.groups)?;
        let mut made: Vec<GroupName> = Vec::new();
        for group in &groups {
            if current.group(group.as_str()).is_none() {
                append(
                    text,
                    &format!("[[group]]\nname = {}\n", quoted(group.as_str())),
                );
                made.push(group.clone());
            }
        }
        if let Some(thing_type) = &new.thing_type
            && !current.types.is_empty()
            && !current.types.iter().any(|known| known.name == *thing_type)
        {
            append(
                text,
                &format!("[[type]]\nname = {}\n", quoted(thing_type.as_str())),
            );
        }
        let mut block = format!("[[thing]]\nname = {}\n", quoted(new.name.as_str()));
        if let Some(thing_type) = &new.thing_type {
            block += &format!("type = {}\n", quoted(thing_type.as_str()));
        }
        let groups: Vec<String> = groups.iter().map(|g| quoted(g.as_str())).collect();
        block += &format!("groups = [{}]\n", groups.join(", "));
        if !new.attributes.is_empty() {
            let pairs: Vec<String> = new
                .attributes
                .iter()
                .map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)))
                .collect();
            block += &format!("attributes = {{ {} }}\n", pairs.join(", "));
        }
        append(text, &block);
        Ok(made)
    })
}

/// The groups of a new thing: those that were asked for, one of each hierarchy, and the root group
/// unless one of them is under it.
fn groups_of(current: &Registry, asked: &[GroupName]) -> Result<Vec<GroupName>, EditError> {
    let mut groups: Vec<GroupName> = Vec::new();
    let mut roots: Vec<&GroupName> = Vec::new();
    for group in asked {
        if groups.contains(group) {
            continue;
        }
        let mut dynamic = current.dynamic_groups.iter();
        if dynamic.any(|dynamic| dynamic.name == *group) {
            return Err(EditError::Dynamic(group.clone()));
        }
        let root = current.root_of(group.as_str()).unwrap_or(group);
        if let Some(at) = roots.iter().position(|other| *other == root) {
            return Err(EditError::SameHierarchy {
                one: groups[at].clone(),
                other: group.clone(),
                root: root.clone(),
            });
        }
        groups.push(group.clone());
        roots.push(root);
    }
    if let Some(root) = current.group(ROOT_GROUP).map(|group| &group.name)
        && current.root_of(ROOT_GROUP) == Some(root)
        && !roots.contains(&root)
    {
        groups.insert(0, root.clone());
    }
    Ok(groups)
}

/// Removes a thing. Its certificates stay as revoked ones of no thing, so that a new thing of the same
/// name revives nothing. Returns their ids.
pub fn remove_thing(registry: &Path, thing: &ThingName) -> Result<Vec<CertificateId>, EditError> {
    edit(registry, |current, text| {
        if current.thing(thing.as_str()).is_none() {
            return Err(EditError::Absent(format!("thing `{thing}`")));
        }
        let attached = current.certificates.iter();
        let attached = attached.filter(|certificate| certificate.is_attached_to(thing.as_str()));
        let mut revoked = Vec::new();
        for certificate in attached {
            let id = certificate.id.to_string();
            let others: Vec<String> = certificate
                .things
                .iter()
                .filter(|other| *other != thing)
                .map(|other| quoted(other.as_str()))
                .collect();
            if !others.is_empty() {
                set(text, &id, "things", &format!("[{}]", others.join(", ")));
                continue;
            }
            unset(text, &id, "thing");
            unset(text, &id, "things");
            if certificate.status != Status::Revoked {
                set(text, &id, "status", &quoted(Status::Revoked.as_str()));
                let reason = format!("its thing `{thing}` was removed");
                set(text, &id, "reason", &quoted(&reason));
            }
            revoked.push(certificate.id);
        }
        for block in blocks(text, "thing", "name", thing.as_str()) {
            text.replace_range(block, "");
        }
        Ok(revoked)
    })
}

/// Lists a certificate as an active one of `thing`.
pub fn add_certificate(
    registry: &Path,
    id: CertificateId,
    thing: &ThingName,
) -> Result<(), EditError> {
    edit(registry, |current, text| {
        if current.thing(thing.as_str()).is_none() {
            return Err(EditError::Absent(format!("thing `{thing}`")));
        }
        let mut block = String::from("[[certificate]]\n");
        // Writing to a String cannot fail.
        _ = writeln!(block, "id = \"{id}\"");
        _ = writeln!(block, "thing = {}", quoted(thing.as_str()));
        _ = writeln!(block, "status = \"{}\"", Status::Active.as_str());
        append(text, &block);
        Ok(())
    })
}

/// Revokes the certificate whose id is `id_or_thing`, or all active ones of the thing of that name.
/// Returns their ids.
pub fn revoke(
    registry: &Path,
    id_or_thing: &str,
    reason: Option<&str>,
) -> Result<Vec<CertificateId>, EditError> {
    edit(registry, |current, text| {
        let wanted = CertificateId::parse(id_or_thing);
        let ids: Vec<CertificateId> = current
            .certificates
            .iter()
            .filter(|certificate| match wanted {
                Some(id) => certificate.id == id,
                None => {
                    certificate.status != Status::Revoked && certificate.is_attached_to(id_or_thing)
                }
            })
            .map(|certificate| certificate.id)
            .collect();
        if ids.is_empty() {
            let what = format!("certificate `{id_or_thing}` and no unrevoked one of such a thing");
            return Err(EditError::Absent(what));
        }
        for id in &ids {
            let status = quoted(Status::Revoked.as_str());
            set(text, &id.to_string(), "status", &status);
            if let Some(reason) = reason {
                set(text, &id.to_string(), "reason", &quoted(reason));
            }
        }
        Ok(ids)
    })
}

/// Changes the text of the registry under the lock, checks the result and writes it.
fn edit<T>(
    registry: &Path,
    change: impl FnOnce(&Registry, &mut String) -> Result<T, EditError>,
) -> Result<T, EditError> {
    let open = |path: &Path| {
        let path = path.to_owned();
        move |source| EditError::Open { path, source }
    };
    let lock_path = registry.with_file_name(".registry.lock");
    let lock = lock_file(&lock_path).map_err(open(&lock_path))?;
    // Held until `lock` is dropped; a killed command lets go of it too.
    lock.lock().map_err(open(&lock_path))?;
    // A link stays one: what it points to is replaced.
    let target = fs::canonicalize(registry).map_err(open(registry))?;
    let mut text = fs::read_to_string(&target).map_err(open(registry))?;
    let current = checked(registry, &text)?;
    let outcome = change(&current, &mut text)?;
    checked(registry, &text)?;
    files::write(&target, text.as_bytes())?;
    Ok(outcome)
}

/// Whoever edits first makes it; it may be another user's, and to lock it, it need not be written.
fn lock_file(path: &Path) -> io::Result<File> {
    let options = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    options.or_else(|error| File::open(path).map_err(|_| error))
}

fn checked(registry: &Path, text: &str) -> Result<Registry, EditError> {
    let (current, problems) = Registry::parse(registry, text, None);
    if problems.is_empty() {
        Ok(current)
    } else {
        Err(EditError::Mistakes(problems))
    }
}

fn append(text: &mut String, block: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(block);
}

/// `text` as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Sets `key` of the certificate `id`.
fn set(text: &mut String, id: &str, key: &str, value: &str) {
    let Some((id_span, old)) = certificate_spans(text, id, key) else {
        return;
    };
    match old {
        Some(span) => text.replace_range(span, value),
        None => {
            let rest = text.get(id_span.end..).unwrap_or_default();
            let line_end = rest.find('\n').map_or(text.len(), |at| id_span.end + at);
            text.insert_str(line_end, &format!("\n{key} = {value}"));
        }
    }
}

/// Takes `key` of the certificate `id` away, with its line.
fn unset(text: &mut String, id: &str, key: &str) {
    let Some((_, Some(value))) = certificate_spans(text, id, key) else {
        return;
    };
    let start = line_start(text, value.start);
    let rest = text.get(value.end..).unwrap_or_default();
    let end = rest.find('\n').map_or(text.len(), |at| value.end + at + 1);
    text.replace_range(start..end, "");
}

/// Where the id, and the value of `key`, of the certificate `id` stand.
fn certificate_spans(
    text: &str,
    id: &str,
    key: &str,
) -> Option<(Range<usize>, Option<Range<usize>>)> {
    let root = DeTable::parse(text).ok()?;
    let certificates = root.get_ref().get("certificate")?.get_ref().as_array()?;
    certificates.iter().find_map(|certificate| {
        let table = certificate.get_ref().as_table()?;
        let found = table.get("id")?;
        let same = found.get_ref().as_str()?.eq_ignore_ascii_case(id);
        same.then(|| (found.span(), table.get(key).map(toml::Spanned::span)))
    })
}

/// The text of each table `[[list]]` whose `key` is `value`, from its header to the comments of the
/// next table.
fn blocks(text: &str, list: &str, key: &str, value: &str) -> Vec<Range<usize>> {
    let Ok(root) = DeTable::parse(text) else {
        return Vec::new();
    };
    // Where tables of the outermost level start.
    let mut starts = Vec::new();
    let mut wanted = Vec::new();
    for (name, tables) in root.get_ref() {
        let Some(tables) = tables.get_ref().as_array() else {
            continue;
        };
        for table in tables.iter() {
            let start = line_start(text, table.span().start);
            starts.push(start);
            let found = table.get_ref().as_table().and_then(|table| table.get(key));
            if name.get_ref() == list
                && found.and_then(|found| found.get_ref().as_str()) == Some(value)
            {
                wanted.push(start);
            }
        }
    }
    wanted
        .into_iter()
        .map(|start| {
            let next = starts.iter().copied().filter(|next| *next > start).min();
            let end = next.map_or(text.len(), |next| comments_start(text, start, next));
            start..end
        })
        .collect()
}

fn line_start(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or_default();
    before.rfind('\n').map_or(0, |newline| newline + 1)
}

/// Where the comments directly above `next` start.
fn comments_start(text: &str, start: usize, next: usize) -> usize {
    let mut end = next;
    while end > start {
        let line = line_start(text, end - 1);
        let is_comment = text
            .get(line..end)
            .is_some_and(|line| line.trim_start().starts_with('#'));
        if !is_comment || line <= start {
            break;
        }
        end = line;
    }
    end
}

#[cfg(test)]
mod tests;
