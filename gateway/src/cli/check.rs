//! `portcullis check`: every mistake at once, each with place and remedy.

use std::path::Path;

use portcullis_core::problem::Problem;
use serde_json::{Value, json};

use super::{
    Failure, Outcome,
    outcome::{say, say_error, say_json},
};
use crate::config;

pub(super) fn check(file: &Path, as_json: bool) -> Result<Outcome, Failure> {
    let inspection = config::inspect(file);
    let is_good = inspection.problems.is_empty();
    if as_json {
        say_json(&json!({
            "ok": is_good,
            "problems": inspection.problems.iter().map(to_json).collect::<Vec<_>>(),
            "warnings": inspection.warnings.iter().map(to_json).collect::<Vec<_>>(),
        }));
    } else {
        for warning in &inspection.warnings {
            say_error(&format!("warning: {warning}"));
        }
        for problem in &inspection.problems {
            say_error(&problem.to_string());
        }
        match inspection.problems.len() {
            0 => say("ok"),
            1 => say_error("1 mistake"),
            n => say_error(&format!("{n} mistakes")),
        }
    }
    Ok(if is_good {
        Outcome::Done
    } else {
        Outcome::BadInput
    })
}

fn to_json(problem: &Problem) -> Value {
    json!({
        "file": problem.file.to_string_lossy(),
        "line": problem.place.map(|place| place.line),
        "column": problem.place.map(|place| place.column),
        "message": problem.message,
        "remedy": problem.remedy,
    })
}
