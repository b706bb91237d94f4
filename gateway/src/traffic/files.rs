//! Facts on disk: a JSON file an hour.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use portcullis_core::{
    identity::{GroupName, ThingName},
    learn::{Bounds, Doer, Fact, Ground, Grounds, Observations, Shape},
    limits::{
        TRAFFIC_ACTIVE_MAX, TRAFFIC_BYTES_MAX, TRAFFIC_DOERS_MAX, TRAFFIC_EXAMPLES_MAX,
        TRAFFIC_FACTS_MAX, TRAFFIC_GROUNDS_MAX, TRAFFIC_KEPT, TRAFFIC_TABLES_MAX,
    },
    policy::Action,
    timestamp::Timestamp,
};
use serde::{Deserialize, Serialize};

use crate::identity::files::{self, WriteError};

const SCHEMA: &str = "portcullis.traffic/1";
const HOUR_MILLIS: u64 = 60 * 60 * 1000;

/// What an hour may have.
pub(super) const BOUNDS: Bounds = Bounds {
    tables_max: TRAFFIC_TABLES_MAX,
    facts_max: TRAFFIC_FACTS_MAX,
    active_max: TRAFFIC_ACTIVE_MAX,
    doers_max: TRAFFIC_DOERS_MAX,
    examples_max: TRAFFIC_EXAMPLES_MAX,
    grounds_max: TRAFFIC_GROUNDS_MAX,
};

/// Which hour since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hour(u64);

impl Hour {
    pub(super) fn of(at: Timestamp) -> Self {
        Self(at.as_millis() / HOUR_MILLIS)
    }

    fn file_name(self) -> String {
        let start = Timestamp::from_millis(self.0.saturating_mul(HOUR_MILLIS)).to_string();
        let hour = start.get(..13).unwrap_or(&start);
        format!("{hour}.json")
    }

    /// The hour whose file has this name.
    fn parse(file: &Path) -> Option<Self> {
        let name = file.file_name()?.to_str()?.strip_suffix(".json")?;
        let start = Timestamp::parse_rfc3339(&format!("{name}:00:00Z"))?;
        Some(Self::of(start))
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HourFile {
    schema: String,
    lost: u64,
    /// Facts name them by their positions. Files from before facts had grounds have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    statements: Vec<StatementFile>,
    tables: Vec<TableFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StatementFile {
    policy: String,
    /// From 0.
    index: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    /// As the policy had it, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    condition: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TableFile {
    groups: Vec<String>,
    active: Vec<String>,
    facts: Vec<FactFile>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FactFile {
    action: String,
    resource: String,
    times: u64,
    first: u64,
    last: u64,
    things: Vec<DoerFile>,
    more_things: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    examples: Vec<ExampleFile>,
    /// The statements that allowed it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    by: Vec<usize>,
    /// Whether others did, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    by_more: bool,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DoerFile {
    thing: String,
    /// Where it is not the thing's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    times: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct ExampleFile {
    #[serde(flatten)]
    doer: DoerFile,
    resource: String,
}

/// Why the file of an hour cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system says so.
    #[error("failed to read `{0}`")]
    Io(PathBuf, #[source] io::Error),
    /// It is no file of ours.
    #[error("`{0}` is no record of traffic")]
    Content(PathBuf, #[source] Box<dyn std::error::Error + Send + Sync>),
}

impl DoerFile {
    fn of(doer: &Doer, times: u64) -> Self {
        let thing = doer.thing.as_str();
        Self {
            thing: thing.to_owned(),
            client_id: (*doer.client_id != *thing).then(|| doer.client_id.to_string()),
            times,
        }
    }

    fn read(self) -> Option<(Doer, u64)> {
        let doer = Doer {
            thing: ThingName::parse(&self.thing).ok()?,
            client_id: self.client_id.unwrap_or(self.thing).into(),
        };
        Some((doer, self.times))
    }
}

impl FactFile {
    fn of(fact: &Fact, statements: &mut Statements) -> Self {
        let doers = fact.doers.iter();
        let grounds = fact.grounds.known.iter();
        let by = grounds.map(|ground| statements.position(ground)).collect();
        let examples = fact.examples.iter();
        Self {
            action: fact.action.name().to_owned(),
            resource: fact.shape.to_string(),
            times: fact.times,
            first: fact.first.as_millis(),
            last: fact.last.as_millis(),
            things: doers
                .map(|(doer, times)| DoerFile::of(doer, *times))
                .collect(),
            more_things: fact.more_doers,
            examples: examples
                .map(|(doer, resource)| ExampleFile {
                    doer: DoerFile::of(doer, 1),
                    resource: resource.clone(),
                })
                .collect(),
            by,
            by_more: fact.grounds.more,
        }
    }

    fn read(self, statements: &[Arc<Ground>]) -> Option<Fact> {
        let by = self.by.iter().map(|at| statements.get(*at).cloned());
        let known = by.collect::<Option<BTreeSet<_>>>()?;

        let action = |action: &&Action| action.name() == self.action;
        Some(Fact {
            action: *Action::ALL.iter().find(action)?,
            shape: Shape::parse(&self.resource)?,
            times: self.times,
            first: Timestamp::from_millis(self.first),
            last: Timestamp::from_millis(self.last),
            doers: self
                .things
                .into_iter()
                .map(DoerFile::read)
                .collect::<Option<BTreeMap<_, _>>>()?,
            more_doers: self.more_things,
            examples: self
                .examples
                .into_iter()
                .map(|example| Some((example.doer.read()?.0, example.resource)))
                .collect::<Option<BTreeSet<_>>>()?,
            grounds: Grounds {
                more: self.by_more || known.is_empty(),
                known,
            },
        })
    }
}

impl StatementFile {
    fn of(ground: &Ground) -> Self {
        Self {
            policy: ground.policy.as_ref().to_owned(),
            index: ground.index,
            sid: ground.sid.as_deref().map(str::to_owned),
            condition: ground.condition.as_deref().map(str::to_owned),
        }
    }

    fn read(self) -> Arc<Ground> {
        Arc::new(Ground {
            policy: self.policy.into(),
            index: self.index,
            sid: self.sid.map(Into::into),
            condition: self.condition.map(Into::into),
        })
    }
}

/// Each statement once.
#[derive(Debug, Default)]
struct Statements {
    positions: BTreeMap<Arc<Ground>, usize>,
    written: Vec<StatementFile>,
}

impl Statements {
    fn position(&mut self, ground: &Arc<Ground>) -> usize {
        let next = self.written.len();
        let written = &mut self.written;
        *self.positions.entry(ground.clone()).or_insert_with(|| {
            written.push(StatementFile::of(ground));
            next
        })
    }
}

impl HourFile {
    fn of(observations: &Observations) -> Self {
        let mut statements = Statements::default();
        let tables = observations.tables().map(|(groups, table)| TableFile {
            groups: groups.iter().map(|name| name.as_str().to_owned()).collect(),
            active: table
                .active()
                .map(|name| name.as_str().to_owned())
                .collect(),
            facts: table
                .facts()
                .map(|fact| FactFile::of(fact, &mut statements))
                .collect(),
        });
        let tables = tables.collect();
        Self {
            schema: SCHEMA.to_owned(),
            lost: observations.lost(),
            statements: statements.written,
            tables,
        }
    }

    /// Adds everything to `observations`; `None` if something in it is nothing that we write.
    fn add_to(self, observations: &mut Observations) -> Option<()> {
        if self.schema != SCHEMA {
            return None;
        }
        observations.add_lost(self.lost);
        let statements = self.statements.into_iter().map(StatementFile::read);
        let statements: Vec<Arc<Ground>> = statements.collect();
        for table in self.tables {
            let groups = table.groups.iter().map(|name| GroupName::parse(name).ok());
            let groups: Arc<[GroupName]> = groups.collect::<Option<_>>()?;
            for name in &table.active {
                observations.add_active(&groups, ThingName::parse(name).ok()?);
            }
            for fact in table.facts {
                observations.add(&groups, fact.read(&statements)?);
            }
        }
        Some(())
    }
}

/// Writes the hour whole, or leaves the file as it was.
pub(super) fn write(dir: &Path, hour: Hour, observations: &Observations) -> Result<(), WriteError> {
    let path = dir.join(hour.file_name());
    let json = serde_json::to_vec(&HourFile::of(observations))
        .map_err(io::Error::other)
        .and_then(|json| fs::create_dir_all(dir).map(|()| json))
        .map_err(|source| WriteError {
            path: path.clone(),
            source,
        })?;
    files::write_private(&path, &json)
}

/// The facts of an hour; none if it has no file.
pub(super) fn read(dir: &Path, hour: Hour) -> Result<Observations, ReadError> {
    let mut observations = Observations::new(BOUNDS);
    let path = dir.join(hour.file_name());
    if path.exists() {
        read_into(&path, &mut observations)?;
    }
    Ok(observations)
}

fn read_into(path: &Path, observations: &mut Observations) -> Result<(), ReadError> {
    let content = |source| ReadError::Content(path.to_owned(), source);
    let bytes = fs::read(path).map_err(|error| ReadError::Io(path.to_owned(), error))?;
    let file: HourFile =
        serde_json::from_slice(&bytes).map_err(|error| content(Box::new(error)))?;
    // On its own first: of a file with a mistake nothing counts.
    let mut found = Observations::new(BOUNDS);
    file.add_to(&mut found)
        .ok_or_else(|| content("something in it is nothing that is written there".into()))?;
    observations.merge(&found);
    Ok(())
}

/// What was kept of some time.
#[derive(Debug)]
pub struct Recorded {
    /// The facts.
    pub observations: Observations,
    /// How many hours have a file.
    pub hours: usize,
    /// When one of them was written last.
    pub written: Option<Timestamp>,
    /// Files that could not be read and are not in it.
    pub unread: Vec<ReadError>,
}

/// Everything since `from`, in whole hours.
///
/// # Errors
/// If the directory is there and cannot be read.
pub fn read_since(dir: &Path, from: Timestamp) -> io::Result<Recorded> {
    let mut recorded = Recorded {
        // Hours with different facts come together here.
        observations: Observations::new(Bounds {
            facts_max: BOUNDS.facts_max * 4,
            ..BOUNDS
        }),
        hours: 0,
        written: None,
        unread: Vec::new(),
    };
    for (hour, path, _) in hour_files(dir)? {
        if hour < Hour::of(from) {
            continue;
        }
        match read_into(&path, &mut recorded.observations) {
            Ok(()) => {
                recorded.hours += 1;
                recorded.written = recorded.written.max(written(&path));
            }
            Err(error) => recorded.unread.push(error),
        }
    }
    Ok(recorded)
}

fn written(path: &Path) -> Option<Timestamp> {
    let since_epoch = fs::metadata(path).ok()?.modified().ok()?;
    let since_epoch = since_epoch.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let millis = u64::try_from(since_epoch.as_millis()).ok()?;
    Some(Timestamp::from_millis(millis))
}

/// Removes what is older than a week, and the oldest beyond the bound in bytes.
pub(super) fn prune(dir: &Path, now: Timestamp) -> io::Result<()> {
    let kept_millis = u64::try_from(TRAFFIC_KEPT.as_millis()).unwrap_or(u64::MAX);
    let oldest = Hour::of(Timestamp::from_millis(
        now.as_millis().saturating_sub(kept_millis),
    ));
    let files = hour_files(dir)?;
    let mut bytes: u64 = files.iter().map(|(_, _, bytes)| bytes).sum();
    for (hour, path, size) in files {
        if hour >= oldest && bytes <= TRAFFIC_BYTES_MAX {
            break;
        }
        fs::remove_file(path)?;
        bytes -= size;
    }
    Ok(())
}

/// With their sizes, oldest first; none if there is no directory.
fn hour_files(dir: &Path) -> io::Result<Vec<(Hour, PathBuf, u64)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        if let Some(hour) = Hour::parse(&entry.path()) {
            files.push((hour, entry.path(), entry.metadata()?.len()));
        }
    }
    files.sort();
    Ok(files)
}
