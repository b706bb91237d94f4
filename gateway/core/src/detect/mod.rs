//! Security profiles: metrics, windows, alarm state machine.
