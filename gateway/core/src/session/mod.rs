//! What an MQTT session is, apart from connections: what waits for its client, and what is in flight
//! in either direction (MQTT 5.0, 3.1.2.4 and 4.3).
//!
//! A session outlives its connection, and a connection that comes back takes up what the former one
//! left. Nothing here knows sockets, time or disks: the broker tells what happened and asks what to
//! send, and writes down what must survive. The message is the caller's own type.
//!
//! Packet ids of deliveries follow from a message's place in the queue, so that a message keeps its
//! id through a restart without a write for every sending: that is what keeps a QoS 2 delivery from
//! being taken twice.

mod incoming;
mod outgoing;

pub use incoming::Incoming;
pub use outgoing::{
    Acknowledged, Full, Outgoing, OutgoingBounds, Restored, Stage, Transmission, Unexpected,
};

#[cfg(test)]
mod tests;
