#![doc = include_str!("../README.md")]

mod batch;
mod bench;
#[doc(hidden)]
pub mod bindings;
pub mod log;
mod outcome;
mod rule;

pub use batch::{Batch, Event, Events};
pub use bench::{Bench, TestEvent};
pub use outcome::{
    Dropping, Edit, Emission, Label, Metric, MetricValue, Outcome, Replacement, Severity, Tagging,
    Violation,
};
pub use rule::{BooleanField, Context, NumberField, Rule, Subscription, TextField};

/// Makes a [`Rule`] the rule of this component. Once a crate; does nothing outside WebAssembly.
#[macro_export]
macro_rules! export {
    ($rule:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(
            unsafe_code,
            unreachable_pub,
            reason = "the exported functions of a component"
        )]
        const _: () = {
            use $crate::__private as private;

            thread_local! {
                static RULE: ::core::cell::RefCell<::core::option::Option<$rule>> =
                    const { ::core::cell::RefCell::new(::core::option::Option::None) };
            }

            struct Component;

            impl private::lifecycle::Guest for Component {
                fn configure(
                    context: private::lifecycle::Context,
                    settings: ::std::string::String,
                ) -> ::core::result::Result<private::lifecycle::Subscription, private::Error>
                {
                    let (rule, subscription) = private::configure::<$rule>(context, &settings)?;
                    RULE.set(::core::option::Option::Some(rule));
                    ::core::result::Result::Ok(subscription)
                }
            }

            impl private::handler::Guest for Component {
                fn handle(
                    batch: private::EventBatch,
                ) -> ::core::result::Result<$crate::Outcome, private::Error> {
                    RULE.with_borrow_mut(|rule| private::handle(rule.as_mut(), batch))
                }
            }

            $crate::bindings::export_rule!(
                Component with_types_in $crate::bindings
            );
        };
    };
}

/// What `export!` expands to uses this; no part of the interface.
#[doc(hidden)]
pub mod __private {
    pub use crate::{
        bindings::{
            exports::portcullis::plugin::{handler, lifecycle},
            portcullis::plugin::types::{Error, EventBatch},
        },
        rule::{configure, handle},
    };
}
