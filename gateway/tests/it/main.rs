//! The gateway from outside: its binary, its modules together, real clients, real emulators, faults.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::let_underscore_must_use,
    reason = "test code may panic and print"
)]

mod attacks;
mod buffer;
mod bulk;
mod certs;
mod check;
mod cloud;
mod cloudwatch;
mod crowd;
mod damage;
mod day;
mod demo;
mod denials;
mod device;
mod emulators;
mod fake_cloudwatch;
mod fake_kinesis;
mod flapping;
mod full;
mod hostile;
mod init;
mod kick;
mod kill;
mod kill_local;
mod kinesis;
mod learn;
mod leave;
mod lifecycle;
mod limits;
mod live;
mod live_first;
mod mosquitto;
mod outage;
mod outbox;
mod outcomes;
mod peer;
mod pipelined;
mod plugins;
mod policy;
mod power;
mod provisioning;
mod rates;
mod refusals;
mod reserved;
mod runaway;
mod served;
mod sessions;
mod site;
mod sni;
mod soak;
mod standard;
mod standing;
mod status;
mod stream;
mod support;
mod sys;
mod things;
mod tree;
mod websocket;
mod wire;
