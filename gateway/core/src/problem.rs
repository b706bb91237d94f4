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

/// A mistake in a text whose file the finder does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Line and column from 1, where they are known.
    pub place: Option<Place>,
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// What to write instead: an imperative fragment.
    pub remedy: String,
}

impl Mistake {
    /// The mistake as one of `file`.
    pub fn in_file(self, file: impl Into<PathBuf>) -> Problem {
        Problem {
            file: file.into(),
            place: self.place,
            message: self.message,
            remedy: self.remedy,
        }
    }
}

/// The candidate that `wrong` was probably meant to be: at most two edits away, or three in a long
/// word; case aside.
pub fn nearest<'a>(wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let length = wrong.chars().count();
    let edits_max = match length {
        0..=3 => 1,
        4..=8 => 2,
        _ => 3,
    };
    candidates
        .into_iter()
        // Cheap, and enough for most; what somebody wrote may be long.
        .filter(|candidate| length.abs_diff(candidate.chars().count()) <= edits_max)
        .map(|candidate| (edits(&wrong, &candidate.to_lowercase()), candidate))
        .filter(|(edits, _)| *edits <= edits_max)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    fn the_nearest_word_is_found_and_a_far_one_is_not() {
        let words = ["connections-max", "handshakes-max", "address"];
        assert_eq!(nearest("conections-max", words), Some("connections-max"));
        assert_eq!(nearest("adress", words), Some("address"));
        assert_eq!(nearest("Address", words), Some("address"));
        assert_eq!(nearest("colour", words), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

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
