//! Who wins.
