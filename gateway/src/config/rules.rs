//! Whether the engine takes the plugins, and they their settings.

use crate::{
    chain::chain,
    document::Document,
    pipeline::ChainConfig,
    plugin::{Host, Metrics, Plugin, PluginConfig},
};

/// Compiles every plugin and starts every step of every chain once; what fails is a problem of
/// `document`, with the place.
pub(super) fn check(document: &mut Document<'_>, plugins: &[PluginConfig], chains: &[ChainConfig]) {
    // Nobody reads these metrics.
    let metrics = Metrics::register(&prometheus::Registry::new());
    let host = match Host::new(metrics) {
        Ok(host) => host,
        Err(error) => {
            document.section("plugin").problem(
                "",
                chain(&error),
                "run `portcullis check` on a supported platform",
            );
            return;
        }
    };
    let mut loaded: Vec<Plugin> = Vec::new();
    let candidates = plugins.iter().enumerate();
    for (index, plugin) in candidates.filter(|(_, plugin)| plugin.names_a_component()) {
        match host.load(plugin) {
            Ok(plugin) => loaded.push(plugin),
            Err(error) => {
                let mut section = document.section_at("plugin", index);
                section.problem(
                    "file",
                    chain(&error),
                    "build it against the world in wit/plugin.wit",
                );
            }
        }
    }
    for (index, configured) in chains.iter().enumerate() {
        for (at, step) in configured.steps.iter().enumerate() {
            let Some(plugin) = loaded.iter().find(|plugin| plugin.name() == step.plugin) else {
                continue;
            };
            if let Err(error) = plugin.instantiate(&configured.group, 0, 1, &step.settings) {
                let mut section = document.section_at("chain", index);
                let remedy = format!(
                    "correct the settings as the README of `{}` says",
                    step.plugin
                );
                section
                    .section_at("step", at)
                    .problem("settings", chain(&error), remedy);
            }
        }
    }
}
