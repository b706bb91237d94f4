//! TBD

pub mod ack;
pub mod config;

pub use ack::{Ack, Acked};
pub use config::Config;
