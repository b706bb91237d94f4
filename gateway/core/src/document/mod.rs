//! TOML files of the operator, read so that every mistake is found at once.
//!
//! A [`Document`] is parsed with places; a [`Section`] of it is read into its wire struct. Where
//! serde gives up at the first mistake, the section drops the key at fault and reads on, so that
//! ten mistakes make ten problems. Checks of values ask the section for places afterwards.
//!
//! Absent on purpose: meaning, and files. What a key may hold is said by the module that owns it;
//! the text is read by the caller.

mod section;

pub use section::Section;

use std::{
    borrow::Cow,
    cell::OnceCell,
    ops::Range,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use crate::problem::{Place, Problem, nearest};

/// A parsed file.
#[derive(Debug)]
pub struct Document<'t> {
    root: toml::Spanned<DeTable<'t>>,
    found: Found<'t>,
}

/// The problems of a file, beside its tables, so that a section can add to them while it looks at
/// its table.
#[derive(Debug)]
struct Found<'t> {
    file: PathBuf,
    text: &'t str,
    /// Where its lines start; once there is a mistake.
    lines: OnceCell<Vec<usize>>,
    problems: Vec<Problem>,
}

impl Found<'_> {
    fn problem(
        &mut self,
        span: Option<Range<usize>>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let place = span.map(|span| {
            let ends = |text: &str| text.match_indices('\n').map(|(at, _)| at + 1).collect();
            let lines = self.lines.get_or_init(|| ends(self.text));
            let before = lines.partition_point(|start| *start <= span.start);
            let start = before.checked_sub(1).map_or(0, |line| lines[line]);
            let line = self.text.get(start..).unwrap_or_default();
            Place {
                line: before + 1,
                ..Place::of_offset(line, span.start - start)
            }
        });
        self.problems.push(Problem {
            file: self.file.clone(),
            place,
            message: message.into(),
            remedy: remedy.into(),
        });
    }
}

impl<'t> Document<'t> {
    /// Parses `text`, which is the content of `file`. Syntax errors are problems; what stands
    /// beside them is still read.
    pub fn parse(file: &Path, text: &'t str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut document = Self {
            root,
            found: Found {
                file: file.to_owned(),
                text,
                lines: OnceCell::new(),
                problems: Vec::new(),
            },
        };
        for error in errors {
            let message = error.message().replace('\n', ", ");
            let remedy = if message.contains("duplicate key") {
                "keep one of them"
            } else {
                "correct the TOML syntax"
            };
            document.problem(error.span(), message, remedy);
        }
        document
    }

    /// The table `[name]`; an empty one if it is absent.
    pub fn section<'d>(&'d mut self, name: &'d str) -> Section<'d, 't> {
        let value = self.root.get_ref().get(name);
        Section::new(&mut self.found, Cow::Borrowed(name), value)
    }

    /// Whether `[name]` or `name =` is there.
    pub fn has(&self, name: &str) -> bool {
        self.root.get_ref().contains_key(name)
    }

    /// The tables `[[name]]`, by number.
    pub fn section_count(&mut self, name: &str) -> usize {
        let Some(value) = self.root.get_ref().get(name) else {
            return 0;
        };
        let span = value.span();
        match value.get_ref() {
            DeValue::Array(elements) => elements.len(),
            _ => {
                self.problem(
                    Some(span),
                    format!("`{name}` is not a list of tables"),
                    format!("write `[[{name}]]`"),
                );
                0
            }
        }
    }

    /// The `index`th of the tables `[[name]]`.
    pub fn section_at<'d>(&'d mut self, name: &'d str, index: usize) -> Section<'d, 't> {
        let value = self
            .root
            .get_ref()
            .get(name)
            .and_then(|value| value.get_ref().as_array())
            .and_then(|elements| elements.get(index));
        Section::new(&mut self.found, Cow::Borrowed(name), value)
    }

    /// Makes a problem of every key of the outermost table that is not among `known`.
    pub fn refuse_unknown(&mut self, known: &[&str]) {
        let unknown: Vec<_> = self
            .root
            .get_ref()
            .keys()
            .filter(|key| !known.contains(&key.get_ref().as_ref()))
            .map(|key| (key.span(), key.get_ref().to_string()))
            .collect();
        for (span, key) in unknown {
            self.problem(
                Some(span),
                format!("unknown section `{key}`"),
                unknown_key_remedy(&key, known),
            );
        }
    }

    /// Adds a problem of this file.
    pub fn problem(
        &mut self,
        span: Option<Range<usize>>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.found.problem(span, message, remedy);
    }

    /// What was found so far, in the order of the text.
    pub fn into_problems(mut self) -> Vec<Problem> {
        let problems = &mut self.found.problems;
        problems.sort_by_key(|problem| problem.place);
        problems.dedup();
        self.found.problems
    }
}

fn unknown_key_remedy(key: &str, known: &[&str]) -> String {
    match nearest(key, known.iter().copied()) {
        Some(near) => format!("write `{near}`"),
        None => format!("remove it, or use one of {}", known.join(", ")),
    }
}
