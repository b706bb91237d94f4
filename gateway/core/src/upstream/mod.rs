//! What the uplink decides, without doing it: which sinks a record is for ([`routes`]), which shard
//! a key belongs to and how much that shard takes ([`shards`]), how many records travel as one
//! ([`aggregate`]), and how well a sink is reached ([`health`]).

pub mod aggregate;
pub mod health;
pub mod routes;
pub mod shards;

pub use routes::{Route, Routes};
