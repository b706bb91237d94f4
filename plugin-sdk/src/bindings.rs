//! Guest bindings of `wit/plugin.wit`, generated.
#![allow(
    missing_debug_implementations,
    unsafe_code,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    reason = "generated code"
)]

wit_bindgen::generate!({
    path: "../wit",
    world: "portcullis:plugin/rule",
    additional_derives: [PartialEq],
    pub_export_macro: true,
    export_macro_name: "export_rule",
    default_bindings_module: "portcullis_plugin::bindings",
});
