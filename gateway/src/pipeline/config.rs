//! Settings of the pipeline: which rules run for which group.

use portcullis_core::{identity::GroupName, problem::nearest};
use serde::{Deserialize, de::IgnoredAny};

use crate::document::{Document, Section};

/// The rules of one group, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainConfig {
    /// The group whose things' events run through the chain.
    pub group: GroupName,
    /// The steps.
    pub steps: Vec<StepConfig>,
}

/// One rule in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepConfig {
    /// Name of a configured plugin.
    pub plugin: String,
    /// A JSON object, handed to the plugin as it is.
    pub settings: String,
    /// What happens to the events of a failed call.
    pub on_failure: OnFailure,
}

/// What happens to the events of a failed call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// They go on as if the step were not there.
    #[default]
    Pass,
    /// They are dropped and counted.
    Drop,
}

/// `[[chain]]` as it is written; its steps are read one by one.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct ChainToml {
    group: String,
    #[serde(default)]
    step: Vec<IgnoredAny>,
}

/// `[[chain.step]]` as it is written.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct StepToml {
    plugin: String,
    #[serde(default)]
    on_failure: OnFailure,
    #[serde(default)]
    settings: toml::Table,
}

impl ChainConfig {
    /// Reads every `[[chain]]`; `groups` and `plugins` are the names that exist. `None`: nobody knows.
    pub(crate) fn read_all(
        document: &mut Document<'_>,
        groups: Option<&[&str]>,
        plugins: &[&str],
    ) -> Vec<Self> {
        let mut chains: Vec<Self> = Vec::new();
        for index in 0..document.section_count("chain") {
            let mut section = document.section_at("chain", index);
            let Some(toml) = section.read::<ChainToml>() else {
                continue;
            };
            if let Some(groups) = groups
                && !groups.contains(&toml.group.as_str())
            {
                let message = format!("the group `{}` does not exist", toml.group);
                let remedy = match nearest(&toml.group, groups.iter().copied()) {
                    Some(near) => format!("write `{near}`"),
                    None => "add it to registry.toml, or remove the chain".to_owned(),
                };
                section.problem("group", message, remedy);
            }
            if chains
                .iter()
                .any(|earlier| earlier.group.as_str() == toml.group)
            {
                let message = format!("the group `{}` has a chain already", toml.group);
                section.problem("group", message, "put the steps into one chain");
            }
            if toml.step.is_empty() {
                let message = "the chain has no step";
                section.problem("step", message, "add `[[chain.step]]`, or remove the chain");
            }
            let steps = (0..toml.step.len())
                .filter_map(|step| StepConfig::read(&mut section.section_at("step", step), plugins))
                .collect();
            if let Ok(group) = GroupName::parse(&toml.group) {
                chains.push(Self { group, steps });
            }
        }
        chains
    }
}

impl StepConfig {
    fn read(section: &mut Section<'_, '_>, plugins: &[&str]) -> Option<Self> {
        let toml: StepToml = section.read()?;
        if !plugins.contains(&toml.plugin.as_str()) {
            let message = format!("the plugin `{}` does not exist", toml.plugin);
            let remedy = match nearest(&toml.plugin, plugins.iter().copied()) {
                Some(near) => format!("write `{near}`"),
                None => "add `[[plugin]]` with its name and file".to_owned(),
            };
            section.problem("plugin", message, remedy);
        }
        let settings = toml::Value::Table(toml.settings);
        let Some(settings) = to_json(&settings) else {
            section.problem(
                "settings",
                "the settings hold a number that JSON does not have",
                "remove `inf` and `nan`",
            );
            return None;
        };
        Some(Self {
            plugin: toml.plugin,
            settings: settings.to_string(),
            on_failure: toml.on_failure,
        })
    }
}

/// The settings as the plugin gets them; dates become texts.
fn to_json(value: &toml::Value) -> Option<serde_json::Value> {
    use serde_json::Value;
    Some(match value {
        toml::Value::String(text) => Value::from(text.as_str()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => Value::Number(serde_json::Number::from_f64(*number)?),
        toml::Value::Boolean(truth) => Value::from(*truth),
        toml::Value::Datetime(when) => Value::from(when.to_string()),
        toml::Value::Array(elements) => {
            Value::Array(elements.iter().map(to_json).collect::<Option<_>>()?)
        }
        toml::Value::Table(table) => Value::Object(
            table
                .iter()
                .map(|(key, value)| Some((key.clone(), to_json(value)?)))
                .collect::<Option<_>>()?,
        ),
    })
}
