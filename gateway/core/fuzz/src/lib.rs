//! What is fuzzed. The bodies are run by the ordinary tests as well (`tests/fuzz.rs` of core), so that
//! they never rot.

#[path = "../../tests/reference/mod.rs"]
pub mod reference;
pub mod targets;
