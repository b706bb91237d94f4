//! Integration tests of the gateway: one binary, real parts, faults.

mod plugins;
