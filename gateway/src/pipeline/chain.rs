//! The rules of one group, ready to be run.

use portcullis_core::identity::GroupName;

use super::{ChainConfig, OnFailure};
use crate::plugin::{Instance, Plugin, PluginError};

/// A configured chain with its compiled plugins; threads make their own instances from it.
#[derive(Debug)]
pub struct Chain {
    group: GroupName,
    steps: Vec<Step>,
}

/// One rule of a chain.
#[derive(Clone, Debug)]
pub struct Step {
    /// The compiled plugin.
    pub plugin: Plugin,
    /// A JSON object.
    pub settings: String,
    /// What happens to the events of a failed call.
    pub on_failure: OnFailure,
}

/// A chain cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// A step names no loaded plugin.
    #[error("the chain of group `{group}` names the unknown plugin `{plugin}`")]
    UnknownPlugin {
        /// The chain's group.
        group: GroupName,
        /// The name in the step.
        plugin: String,
    },
    /// A plugin does not start with the step's settings.
    #[error("the chain of group `{group}` cannot run plugin `{plugin}`")]
    Start {
        /// The chain's group.
        group: GroupName,
        /// The plugin's name.
        plugin: String,
        /// What the plugin says.
        #[source]
        source: Box<PluginError>,
    },
}

impl Chain {
    /// Resolves the steps' plugins and starts each once, so that bad settings are found before
    /// the gateway serves.
    ///
    /// # Errors
    /// The first step that cannot run.
    pub fn new(config: &ChainConfig, plugins: &[Plugin]) -> Result<Self, ChainError> {
        let group = config.group.clone();
        let mut steps = Vec::new();
        for step in &config.steps {
            let plugin = plugins
                .iter()
                .find(|plugin| plugin.name() == step.plugin)
                .ok_or_else(|| ChainError::UnknownPlugin {
                    group: group.clone(),
                    plugin: step.plugin.clone(),
                })?;
            plugin
                .instantiate(&group, 0, 1, &step.settings)
                .map_err(|source| ChainError::Start {
                    group: group.clone(),
                    plugin: step.plugin.clone(),
                    source: Box::new(source),
                })?;
            steps.push(Step {
                plugin: plugin.clone(),
                settings: step.settings.clone(),
                on_failure: step.on_failure,
            });
        }
        Ok(Self { group, steps })
    }

    /// The group whose things' events run through the chain.
    pub fn group(&self) -> &GroupName {
        &self.group
    }

    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }
}

impl Step {
    /// An instance for one shard of `group`.
    pub(super) fn instantiate(
        &self,
        group: &GroupName,
        shard: u32,
        shards: u32,
    ) -> Result<Instance, PluginError> {
        self.plugin
            .instantiate(group, shard, shards, &self.settings)
    }
}
