//! What detection is told of the publishes and deliveries of one connection: runs of the same kind and
//! size once, with their number, at the end of the turn in which they were.
//!
//! Detection counts them, and sees sizes of publishes; topics it does not.

use portcullis_core::identity::Principal;

use crate::{broker::shared::Shared, defend::ActivityKind};

/// The run that is not told yet.
#[derive(Debug, Default)]
pub(super) struct Observed {
    run: Option<(ActivityKind, u32)>,
}

impl Observed {
    /// Adds one of `kind`.
    pub(super) fn add(&mut self, shared: &Shared, principal: &Principal, kind: ActivityKind) {
        match &mut self.run {
            Some((last, times)) if *last == kind && *times < u32::MAX => *times += 1,
            _ => {
                self.tell(shared, principal);
                self.run = Some((kind, 1));
            }
        }
    }

    /// Tells what there is.
    pub(super) fn tell(&mut self, shared: &Shared, principal: &Principal) {
        if let Some((kind, times)) = self.run.take() {
            shared.observe_times(principal, kind, times);
        }
    }
}
