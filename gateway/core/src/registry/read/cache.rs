//! What was read the last time, so that a change of one table does not cost the reading of all.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use super::super::Registry;
use crate::problem::Problem;

/// The last registry without a mistake that was read from a file.
#[derive(Debug, Default)]
pub struct Cache {
    text: String,
    policies: Option<BTreeSet<String>>,
    registry: Arc<Registry>,
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
        let (registry, problems) = Registry::parse(file, text, policies);
        let registry = Arc::new(registry);
        if problems.is_empty() {
            text.clone_into(&mut self.text);
            self.policies = policies.cloned();
            self.registry = Arc::clone(&registry);
        }
        (registry, problems)
    }
}
