//! Host bindings of `wit/plugin.wit`, generated.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "portcullis:plugin/rule",
    ownership: Borrowing { duplicate_if_necessary: true },
    require_store_data_send: true,
});
