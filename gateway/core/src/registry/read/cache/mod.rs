//! What was read the last time, so that a change of one table does not cost the reading of all.
//!
//! Nearly all of the time of a large registry goes into TOML. A text is cut before every line that
//! starts with `[[`; a piece that stood there the last time is known, any other is read alone. That is
//! the same as reading the whole if every piece is one table of one of our lists and in order; wherever
//! it is not (a string over several lines, a mistake), the whole is read, which also gives every
//! mistake its place.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::Arc,
};

use super::{
    super::Registry,
    CaToml, Reader, Table, TypeToml,
    certificates::CertificateToml,
    groups::{DynamicGroupToml, GroupToml},
    things::ThingToml,
};
use crate::{document::Document, problem::Problem};

/// The last registry without a mistake that was read from a file.
#[derive(Debug, Default)]
pub struct Cache {
    text: String,
    policies: Option<BTreeSet<String>>,
    registry: Arc<Registry>,
    pieces: HashMap<Box<str>, Piece>,
}

/// All tables of a text, by list, in order.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) types: Vec<Arc<TypeToml>>,
    pub(super) groups: Vec<Arc<GroupToml>>,
    pub(super) dynamic_groups: Vec<Arc<DynamicGroupToml>>,
    pub(super) things: Vec<Arc<ThingToml>>,
    pub(super) certificates: Vec<Arc<CertificateToml>>,
    pub(super) cas: Vec<Arc<CaToml>>,
}

/// One table.
#[derive(Clone, Debug)]
enum Piece {
    Type(Arc<TypeToml>),
    Group(Arc<GroupToml>),
    DynamicGroup(Arc<DynamicGroupToml>),
    Thing(Arc<ThingToml>),
    Certificate(Arc<CertificateToml>),
    Ca(Arc<CaToml>),
}

impl Cache {
    /// Like [`Registry::parse`].
    pub fn parse(
        &mut self,
        file: &Path,
        text: &str,
        policies: Option<&BTreeSet<String>>,
    ) -> (Arc<Registry>, Vec<Problem>) {
        if self.text == text && self.policies.as_ref() == policies {
            return (Arc::clone(&self.registry), Vec::new());
        }
        let from_pieces = self.pieces_of(text).and_then(|(tables, pieces)| {
            let (registry, problems) = Reader::of_tables(file, tables, policies).read();
            problems.is_empty().then_some((registry, pieces))
        });
        let registry = match from_pieces {
            Some((registry, pieces)) => {
                self.pieces = pieces;
                Arc::new(registry)
            }
            None => {
                let (registry, problems) = Registry::parse(file, text, policies);
                let registry = Arc::new(registry);
                if !problems.is_empty() {
                    return (registry, problems);
                }
                self.pieces = HashMap::new();
                registry
            }
        };
        text.clone_into(&mut self.text);
        self.policies = policies.cloned();
        self.registry = Arc::clone(&registry);
        (registry, Vec::new())
    }

    /// `None` if the text cannot be cut.
    fn pieces_of(&self, text: &str) -> Option<(Tables, HashMap<Box<str>, Piece>)> {
        // A line in such a string may look like the start of a table.
        if text.contains("\"\"\"") || text.contains("'''") {
            return None;
        }
        let mut tables = Tables::default();
        let mut pieces: HashMap<Box<str>, Piece> = HashMap::with_capacity(self.pieces.len());
        let mut cut = cut(text);
        let is_blank = |line: &str| line.trim().is_empty() || line.trim_start().starts_with('#');
        if !cut.next().is_none_or(|before| before.lines().all(is_blank)) {
            return None;
        }
        for text in cut {
            let known = self.pieces.get(text).or_else(|| pieces.get(text));
            let piece = match known {
                Some(piece) => piece.clone(),
                None => Piece::read(text)?,
            };
            tables.add(piece.clone());
            pieces.insert(text.into(), piece);
        }
        Some((tables, pieces))
    }
}

/// What stands before the first table, then each table.
fn cut(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    let mut is_first = true;
    std::iter::from_fn(move || {
        let piece = rest?;
        let next = if is_first && piece.starts_with("[[") {
            Some(0)
        } else {
            piece.find("\n[[").map(|at| at + 1)
        };
        is_first = false;
        let (piece, behind) = match next.and_then(|at| piece.split_at_checked(at)) {
            Some((piece, behind)) => (piece, Some(behind)),
            None => (piece, None),
        };
        rest = behind;
        Some(piece)
    })
}

impl Tables {
    fn add(&mut self, piece: Piece) {
        match piece {
            Piece::Type(table) => self.types.push(table),
            Piece::Group(table) => self.groups.push(table),
            Piece::DynamicGroup(table) => self.dynamic_groups.push(table),
            Piece::Thing(table) => self.things.push(table),
            Piece::Certificate(table) => self.certificates.push(table),
            Piece::Ca(table) => self.cas.push(table),
        }
    }
}

impl Piece {
    /// The one table in `text`, if it is in order.
    fn read(text: &str) -> Option<Self> {
        let mut document = Document::parse(Path::new(""), text);
        let name = super::SECTIONS
            .into_iter()
            .find(|name| document.has(name))?;
        document.refuse_unknown(&[name]);
        if document.section_count(name) != 1 {
            return None;
        }
        let read = match name {
            TypeToml::NAME => table(&mut document).map(Self::Type),
            GroupToml::NAME => table(&mut document).map(Self::Group),
            DynamicGroupToml::NAME => table(&mut document).map(Self::DynamicGroup),
            ThingToml::NAME => table(&mut document).map(Self::Thing),
            CertificateToml::NAME => table(&mut document).map(Self::Certificate),
            _ => table(&mut document).map(Self::Ca),
        };
        read.filter(|_| document.into_problems().is_empty())
    }
}

fn table<T: Table>(document: &mut Document<'_>) -> Option<Arc<T>> {
    document.section_at(T::NAME, 0).read().map(Arc::new)
}

#[cfg(test)]
mod tests;
