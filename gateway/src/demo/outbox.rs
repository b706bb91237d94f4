//! Alerts as a consumer sees them: lines of the outbox that say `portcullis.violation/1`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// How often the outbox is read.
const LOOK: Duration = Duration::from_millis(50);
/// Alerts that the show has not taken yet; then reading waits.
const QUEUE: usize = 256;

/// An alarm that opened.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Alert {
    pub(super) thing: String,
    pub(super) profile: String,
    pub(super) behavior: String,
    /// When the gateway decided, in milliseconds since the epoch.
    pub(super) at_ms: u64,
    pub(super) violation_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    violation_event_time: u64,
    thing_name: String,
    security_profile_name: String,
    behavior: Behavior,
    violation_event_type: String,
    violation_id: String,
    metric_value: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Behavior {
    name: String,
}

/// Reads `dir` on a thread of its own, until nobody listens.
pub(super) fn watch(dir: PathBuf) -> Result<mpsc::Receiver<Alert>> {
    let (sender, alerts) = mpsc::channel(QUEUE);
    let read = move || {
        let mut tail = Tail::new(dir);
        while !sender.is_closed() {
            // A file that cannot be read now can be read at the next look.
            for alert in tail.read().unwrap_or_default() {
                if sender.blocking_send(alert).is_err() {
                    return;
                }
            }
            thread::sleep(LOOK);
        }
    };
    thread::Builder::new()
        .name("demo-outbox".into())
        .spawn(read)
        .context("failed to start a thread")?;
    Ok(alerts)
}

/// The files and how far they were read.
#[derive(Debug)]
struct Tail {
    dir: PathBuf,
    read: BTreeMap<PathBuf, u64>,
}

impl Tail {
    fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            read: BTreeMap::new(),
        }
    }

    fn read(&mut self) -> io::Result<Vec<Alert>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "ndjson")
            {
                files.push(path);
            }
        }
        files.sort();
        let mut alerts = Vec::new();
        for file in files {
            let offset = self.read.entry(file.clone()).or_default();
            let text = read_from(&file, *offset)?;
            // The rest of an unfinished line comes with the next look.
            let Some(end) = text.iter().rposition(|byte| *byte == b'\n') else {
                continue;
            };
            *offset += end as u64 + 1;
            alerts.extend(text[..end].split(|byte| *byte == b'\n').filter_map(alert));
        }
        Ok(alerts)
    }
}

fn read_from(file: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text)
}

fn alert(line: &[u8]) -> Option<Alert> {
    const SCHEMA: &[u8] = b"{\"schema\":\"portcullis.violation/1\"";
    if !line.starts_with(SCHEMA) {
        return None;
    }
    let line: Line = serde_json::from_slice(line).ok()?;
    (line.violation_event_type == "in-alarm").then_some(Alert {
        thing: line.thing_name,
        profile: line.security_profile_name,
        behavior: line.behavior.name,
        at_ms: line.violation_event_time,
        violation_id: line.violation_id,
        value: line.metric_value,
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn line(thing: &str, event_type: &str) -> String {
        format!(
            r#"{{"schema":"portcullis.violation/1","gateway_id":"g","boot_id":"b","seq":1,"event_id":"e","violationEventTime":5,"thingName":"{thing}","securityProfileName":"p","behavior":{{"name":"b"}},"violationEventType":"{event_type}","metricValue":{{"count":3}},"violationId":"v"}}"#
        )
    }

    #[test]
    fn alerts_are_read_once_and_only_when_their_line_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut tail = Tail::new(dir.path().into());
        let mut file = File::create(dir.path().join("1.ndjson")).unwrap();
        let things = |tail: &mut Tail| -> Vec<String> {
            tail.read()
                .unwrap()
                .into_iter()
                .map(|alert| alert.thing)
                .collect()
        };
        writeln!(file, "{{\"schema\":\"portcullis.event/1\",\"seq\":1}}").unwrap();
        writeln!(file, "{}", line("a", "in-alarm")).unwrap();
        writeln!(file, "{}", line("a", "alarm-cleared")).unwrap();
        assert_eq!(things(&mut tail), ["a"]);
        let whole = line("b", "in-alarm");
        let (first, rest) = whole.split_at(100);
        write!(file, "{first}").unwrap();
        assert_eq!(things(&mut tail), [""; 0]);
        writeln!(file, "{rest}").unwrap();
        fs::write(dir.path().join("2.ndjson"), line("c", "in-alarm") + "\n").unwrap();
        assert_eq!(things(&mut tail), ["b", "c"]);
        assert_eq!(things(&mut tail), [""; 0]);
    }
}
