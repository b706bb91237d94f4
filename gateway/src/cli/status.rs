//! `portcullis status`: asks the running gateway how it is and what it refused last.

use std::path::Path;

use serde_json::Value;

use super::{
    Failure, Outcome, ask,
    outcome::{escaped, lines, say, say_json},
};
use crate::admin;

pub(super) fn status(file: &Path, as_json: bool) -> Result<Outcome, Failure> {
    let address = ask::address(file)?;
    let status = ask::ask(address, admin::STATUS_PATH)
        .map_err(|error| Failure::other(format!("no gateway answers at {address}"), error))?;
    if as_json {
        say_json(&status);
    } else {
        lines(&render(&status)).for_each(say);
    }
    Ok(Outcome::Done)
}

/// For people.
fn render(status: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, text: String| {
        out += &format!("{name:<15}{}\n", escaped(&text));
    };
    let ready = if status["ready"] == true {
        "ready".to_owned()
    } else {
        format!("waiting for {}", names(&status["waiting_for"]))
    };
    let up = duration(status["uptime_seconds"].as_u64().unwrap_or(0));
    line(
        "portcullis",
        format!("{}, up {up}, {ready}", text(&status["version"])),
    );
    let configuration = &status["configuration"];
    let mut in_force = format!(
        "generation {}, {} things",
        configuration["generation"], configuration["things"]
    );
    if configuration["refused"] == true {
        in_force +=
            "; THE LAST CHANGE IS REFUSED (see `portcullis check`), the one before is in force";
    }
    line("configuration", in_force);
    for note in status["notes"].as_array().into_iter().flatten() {
        line("", text(note));
    }
    line("connections", status["connections"].to_string());
    let uplink = &status["uplink"];
    let state = match (uplink["state"].as_str(), &uplink["online"]) {
        (Some("starting"), _) => "starting",
        (Some("online"), _) | (None, Value::Bool(true)) => "online",
        (Some("degraded"), _) => "DEGRADED",
        (Some("paused"), _) => "PAUSED",
        _ => "OFFLINE",
    };
    let lag = uplink["lag_seconds"].as_f64().unwrap_or(0.0);
    line(
        "uplink",
        format!(
            "{state}, {} records sent, lag {lag:.1} s",
            uplink["sent_records"]
        ),
    );
    for sink in uplink["sinks"].as_array().into_iter().flatten() {
        line(&format!("  {}", text(&sink["name"])), describe_sink(sink));
    }
    let buffer = &status["buffer"];
    let kib = buffer["disk_bytes"].as_u64().unwrap_or(0) / 1024;
    line(
        "buffer",
        format!("{} records, {kib} KiB on disk", buffer["records"]),
    );
    let denials = &status["denials"];
    line("denied", counts(&denials["total"], &denials["by_reason"]));
    line(
        "refused",
        counts(
            &denials["refused_connections"],
            &denials["refused_by_reason"],
        ),
    );
    let last = denials["last"].as_array().map_or(&[][..], Vec::as_slice);
    if !last.is_empty() {
        out += "\nlast refusals, the newest first:\n";
        for denial in last {
            out += &format!("  {}\n", escaped(&describe(denial)));
        }
    }
    out
}

/// How one sink is, on one line.
fn describe_sink(sink: &Value) -> String {
    let mut out = format!(
        "{}, {} waiting",
        text(&sink["state"]),
        sink["backlog_records"]
    );
    if let Some(at) = sink["last_success"].as_str() {
        out += &format!(", last took some at {at}");
    }
    let error = &sink["last_error"];
    if let Some(at) = error["at"].as_str() {
        let (reason, detail) = (text(&error["reason"]), text(&error["detail"]));
        out += &format!(", last failed at {at}: {reason} ({detail})");
    }
    out
}

/// A refusal on one line.
fn describe(denial: &Value) -> String {
    let mut out = format!(
        "{} {} {}",
        text(&denial["last_at"]),
        text(&denial["action"]),
        text(&denial["reason"])
    );
    for name in [
        "resource",
        "client",
        "thing",
        "certificate",
        "subject",
        "peer",
        "policy",
        "statement",
        "sid",
        "detail",
    ] {
        if !denial[name].is_null() {
            let value = match &denial[name] {
                // Debug form: what a client chose must not write to the terminal.
                Value::String(value) if value.chars().all(is_plain) => value.clone(),
                Value::String(value) => format!("{value:?}"),
                other => other.to_string(),
            };
            out += &format!(" {name}={value}");
        }
    }
    match denial["times"].as_u64() {
        Some(times) if times > 1 => out + &format!(" ({times} times)"),
        _ => out,
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_graphic() && c != '"'
}

fn counts(total: &Value, series: &Value) -> String {
    let mut out = total.to_string();
    let series = series.as_array().into_iter().flatten();
    let parts: Vec<_> = series
        .map(|part| {
            let action = part["action"].as_str().map(|action| format!("{action} "));
            let reason = text(&part["reason"]);
            format!("{}{reason} {}", action.unwrap_or_default(), part["count"])
        })
        .collect();
    if !parts.is_empty() {
        out += &format!(" ({})", parts.join(", "));
    }
    out
}

fn names(list: &Value) -> String {
    let names = list.as_array().into_iter().flatten().map(text);
    names.collect::<Vec<_>>().join(", ")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn duration(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_one_line_whatever_the_client_is_called() {
        let line = describe(&json!({
            "last_at": "2026-11-22T10:00:00.123Z", "action": "connect", "reason": "client-id",
            "client": "a\nb\u{1b}[2J", "thing": null, "times": 3
        }));
        assert_eq!(
            line,
            "2026-11-22T10:00:00.123Z connect client-id client=\"a\\nb\\u{1b}[2J\" (3 times)"
        );
    }

    #[test]
    fn what_matters_is_shown() {
        let shown = render(&json!({
            "version": "0.1.0", "uptime_seconds": 11_530, "ready": true, "waiting_for": [],
            "configuration": {"generation": 4, "things": 12, "refused": true},
            "connections": 9,
            "denials": {
                "total": 3, "by_reason": [{"action": "publish", "reason": "reserved", "count": 3}],
                "refused_connections": 0, "refused_by_reason": [], "last": []
            },
            "uplink": {
                "state": "offline", "online": false, "lag_seconds": 0.25, "sent_records": 7,
                "sinks": [{
                    "name": "kinesis", "state": "offline", "backlog_records": 12,
                    "last_success": "2026-11-22T10:00:00.123Z",
                    "last_error": {"at": "T", "reason": "connectivity", "detail": "refused"}
                }]
            },
            "buffer": {"records": 5, "disk_bytes": 4096}
        }));
        for part in [
            "0.1.0, up 3 h 12 min, ready",
            "generation 4, 12 things; THE LAST CHANGE IS REFUSED",
            "OFFLINE, 7 records sent",
            "  kinesis      offline, 12 waiting, last took some at 2026-11-22T10:00:00.123Z, last failed at T: connectivity (refused)",
            "5 records, 4 KiB",
            "3 (publish reserved 3)",
        ] {
            assert!(shown.contains(part), "{part:?} in {shown}");
        }
    }

    #[test]
    fn an_uplink_that_was_not_tried_yet_is_not_called_offline() {
        let shown = |uplink: Value| render(&json!({ "uplink": uplink }));
        assert!(shown(json!({"state": "starting", "online": false})).contains("starting, "));
        assert!(shown(json!({"state": "online", "online": true})).contains("online, "));
        // An older gateway.
        assert!(shown(json!({"online": true})).contains("online, "));
        assert!(shown(json!({"online": false})).contains("OFFLINE, "));
    }
}
