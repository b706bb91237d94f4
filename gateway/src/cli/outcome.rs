//! How a command ends, and how it says so.

use std::{
    borrow::Cow,
    error::Error,
    io::{self, Write},
    process::ExitCode,
};

use portcullis_core::problem::Problem;
use serde_json::json;

use crate::identity::{
    authority::AuthorityError, edit::EditError, enrol::EnrolError, files::WriteError,
    import::ImportError, lifecycle::LifecycleError,
};

impl From<EnrolError> for Failure {
    fn from(error: EnrolError) -> Self {
        match error {
            EnrolError::Authority(error) => error.into(),
            EnrolError::Lifecycle(error) => error.into(),
            EnrolError::Write(error) => error.into(),
            EnrolError::Exists(_) => Self::BadInput(error.to_string()),
            EnrolError::Directory { dir, source } => {
                Self::other(format!("failed to make `{}`", dir.display()), source)
            }
        }
    }
}

impl From<LifecycleError> for Failure {
    fn from(error: LifecycleError) -> Self {
        match error {
            LifecycleError::Edit(error) => error.into(),
            LifecycleError::Journal(error) => Self::other("the journal was not changed", error),
            LifecycleError::Absent(_)
            | LifecycleError::NotPending { .. }
            | LifecycleError::Pending(_)
            | LifecycleError::Revoked(_)
            | LifecycleError::NoThing(_) => Self::BadInput(error.to_string()),
        }
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Lifecycle(error) => error.into(),
            ImportError::Write(error) => error.into(),
            ImportError::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
                Self::BadInput(format!("there is no file `{}`", path.display()))
            }
            ImportError::Read { path, source } => {
                Self::other(format!("failed to read `{}`", path.display()), source)
            }
            _ => Self::BadInput(error.to_string()),
        }
    }
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Done,
    /// Exit code 1.
    Failed,
    /// Exit code 2.
    BadInput,
    /// Exit code 3.
    Denied,
}

impl Outcome {
    const fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::BadInput => 2,
            Self::Denied => 3,
        }
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome.exit_code())
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration has mistakes.
    #[error("the configuration has mistakes")]
    Mistakes(Vec<Problem>),
    /// The arguments make no sense; the text says what to write instead.
    #[error("{0}")]
    BadInput(String),
    /// The registry could not be changed.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// A certificate could not be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Something else failed.
    #[error("{message}")]
    Other {
        /// What.
        message: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl Failure {
    /// Something else that failed.
    pub fn other(
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Other {
            message: message.into(),
            source: source.into(),
        }
    }

    /// Says on standard error what went wrong, and as a JSON document on standard output if the
    /// answer was to be one.
    pub(super) fn report(&self, as_json: bool) -> Outcome {
        let (text, outcome) = self.told();
        match self.mistakes() {
            // Each begins with its place.
            Some(problems) => {
                for problem in problems {
                    say_error(&problem.to_string());
                }
            }
            None => say_error(&format!("portcullis: {text}")),
        }
        if as_json {
            say_json(&json!({ "error": text, "exitCode": outcome.exit_code() }));
        }
        outcome
    }

    fn mistakes(&self) -> Option<&[Problem]> {
        match self {
            Self::Mistakes(problems) | Self::Edit(EditError::Mistakes(problems)) => Some(problems),
            _ => None,
        }
    }

    fn told(&self) -> (String, Outcome) {
        if let Some(problems) = self.mistakes() {
            let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
            return (lines.join("\n"), Outcome::BadInput);
        }
        match self {
            Self::BadInput(_)
            | Self::Edit(
                EditError::Exists(_)
                | EditError::Provisioned(_)
                | EditError::Dynamic(_)
                | EditError::Absent(_)
                | EditError::Revoked(_)
                | EditError::SameHierarchy { .. },
            )
            | Self::Authority(AuthorityError::Request(_) | AuthorityError::NoKey(_)) => {
                (self.to_string(), Outcome::BadInput)
            }
            _ => {
                let mut text = self.to_string();
                let mut source = self.source();
                while let Some(error) = source {
                    text += &format!(": {error}");
                    source = error.source();
                }
                (text, Outcome::Failed)
            }
        }
    }
}

/// Prints a line of the answer. A reader that has gone (`| head`) is no failure.
pub(super) fn say(line: &str) {
    drop(writeln!(io::stdout().lock(), "{}", escaped(line)));
}

/// Prints a line about what went wrong.
pub(super) fn say_error(line: &str) {
    drop(writeln!(io::stderr().lock(), "{}", escaped(line)));
}

/// Prints the answer as JSON.
pub(super) fn say_json(value: &serde_json::Value) {
    say_document(&format!("{value:#}"));
}

/// Prints a JSON document as it is.
pub(super) fn say_document(json: &str) {
    let out = escaped_json(json.trim_end());
    drop(writeln!(io::stdout().lock(), "{out}"));
}

/// Several lines, whose values went through [`escaped`] when it was put together.
pub(super) fn lines(page: &str) -> impl Iterator<Item = &str> {
    page.trim_end().lines()
}

/// One line, whatever is in it: names in a certificate, reasons and topics are chosen by others, and
/// must write neither lines of their own nor to the terminal. Everything that people read here goes
/// through this.
pub(super) fn escaped(line: &str) -> Cow<'_, str> {
    if !line.contains(is_control) {
        return Cow::Borrowed(line);
    }
    let mut text = String::with_capacity(line.len() + 8);
    for c in line.chars() {
        match c {
            '\n' | '\r' | '\t' => text.extend(c.escape_default()),
            c if is_control(c) => text.extend(c.escape_unicode()),
            c => text.push(c),
        }
    }
    Cow::Owned(text)
}

/// The same for JSON, whose strings have their line breaks escaped already.
fn escaped_json(json: &str) -> Cow<'_, str> {
    if !json.contains(|c| c != '\n' && is_control(c)) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 8);
    for c in json.chars() {
        match c {
            '\n' => text.push(c),
            // Of no more than 16 bits, all of them.
            c if is_control(c) => text += &format!("\\u{:04x}", u32::from(c)),
            c => text.push(c),
        }
    }
    Cow::Owned(text)
}

/// What terminals obey: control characters, and those that turn the direction of what follows.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_chose_is_one_line_that_no_terminal_obeys() {
        for (given, shown) in [
            ("plain ünïcode", "plain ünïcode"),
            ("a\u{1b}[2Jb", r"a\u{1b}[2Jb"),
            ("a\nACTIVE\r\tb", r"a\nACTIVE\r\tb"),
            ("\u{9b}2J\u{7f}\u{202e}", r"\u{9b}2J\u{7f}\u{202e}"),
        ] {
            assert_eq!(escaped(given), shown);
        }
        let value = json!({ "cn": "a\u{1b}\n\u{9b}\u{202e}" });
        let text = format!("{value:#}");
        let told = escaped_json(&text);
        assert!(!told.contains(|c| c != '\n' && is_control(c)), "{told:?}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&told).unwrap(),
            value
        );
    }
}
