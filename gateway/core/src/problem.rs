//! Mistakes in what the operator wrote: all of them at once, each with place and remedy.

use std::{fmt, path::PathBuf};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file in which it stands.
    pub file: PathBuf,
    /// Line and column from 1, where they are known.
    pub place: Option<Place>,
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// What to write instead: an imperative fragment.
    pub remedy: String,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl Place {
    /// The place of byte `offset` in `text`.
    pub fn of_offset(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.chars().count()
                - before.get(..line_start).map_or(0, |s| s.chars().count())
                + 1,
        }
    }
}

/// `gateway.toml:12:3: unknown key `foo`; write …`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(place) = self.place {
            write!(f, "{}:{}:", place.line, place.column)?;
        }
        write!(f, " {}; {}", self.message, self.remedy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_names_file_line_column_and_remedy() {
        let text = "a = 1\nbé = 2\n";
        let offset = text.find("= 2").unwrap();
        let problem = Problem {
            file: "gateway.toml".into(),
            place: Some(Place::of_offset(text, offset)),
            message: "unknown key `bé`".into(),
            remedy: "remove it".into(),
        };
        assert_eq!(
            problem.to_string(),
            "gateway.toml:2:4: unknown key `bé`; remove it"
        );
    }
}
