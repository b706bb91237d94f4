//! How a command ends, and how it says so.

use std::{
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
            Some(_) => say_error(&text),
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
pub(super) fn say(text: &str) {
    drop(writeln!(io::stdout().lock(), "{text}"));
}

/// Prints a line about what went wrong.
pub(super) fn say_error(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Prints the answer as JSON.
pub(super) fn say_json(value: &serde_json::Value) {
    say(&format!("{value:#}"));
}
