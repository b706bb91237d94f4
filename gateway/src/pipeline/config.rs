//! Settings of the pipeline: which rules run for which group.

use portcullis_core::identity::GroupName;

/// The rules of one group, in order.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// The group whose things' events run through the chain.
    pub group: GroupName,
    /// The steps.
    pub steps: Vec<StepConfig>,
}

/// One rule in a chain.
#[derive(Clone, Debug)]
pub struct StepConfig {
    /// Name of a configured plugin.
    pub plugin: String,
    /// A JSON object, handed to the plugin as it is.
    pub settings: String,
    /// What happens to the events of a failed call.
    pub on_failure: OnFailure,
}

/// What happens to the events of a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// They go on as if the step were not there.
    Pass,
    /// They are dropped and counted.
    Drop,
}
