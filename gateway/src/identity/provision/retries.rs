//! Certificates that were looked at, and are not looked at again for a while: longer each time, so that
//! a device that cannot be registered does not use up what the others may.

use std::{collections::HashMap, time::Duration};

use portcullis_core::{
    identity::CertificateId,
    limits::{REGISTRATION_RETRIES_MAX, REGISTRATION_RETRY_MAX, REGISTRATION_RETRY_MIN},
};
use tokio::time::Instant;

#[derive(Debug, Default)]
pub(super) struct Retries(HashMap<CertificateId, Retry>);

#[derive(Clone, Copy, Debug)]
struct Retry {
    delay: Duration,
    from: Instant,
}

impl Retries {
    /// How long `id` is not to be looked at yet, if it is not.
    pub(super) fn wait(&self, id: CertificateId) -> Option<Duration> {
        let left = self.0.get(&id)?.from.duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// `id` was looked at.
    pub(super) fn looked_at(&mut self, id: CertificateId) {
        let known = self.0.get(&id);
        let delay = known.map_or(REGISTRATION_RETRY_MIN, |known| {
            REGISTRATION_RETRY_MAX.min(known.delay * 2)
        });
        if known.is_none() && self.0.len() >= REGISTRATION_RETRIES_MAX {
            let first = self.0.iter().min_by_key(|(_, retry)| retry.from);
            if let Some(first) = first.map(|(id, _)| *id) {
                self.0.remove(&first);
            }
        }
        let from = Instant::now() + delay;
        self.0.insert(id, Retry { delay, from });
    }

    /// It is in force.
    pub(super) fn forget(&mut self, id: CertificateId) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_wait_doubles_up_to_its_bound_and_ends() {
        let (mut retries, id) = (Retries::default(), CertificateId::of_der(b"a"));
        assert_eq!(retries.wait(id), None);
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            retries.looked_at(id);
            let wait = Duration::from_secs(seconds);
            assert_eq!(retries.wait(id), Some(wait));
            assert_eq!(retries.wait(CertificateId::of_der(b"b")), None);
            advance(wait).await;
            assert_eq!(retries.wait(id), None);
        }
        retries.forget(id);
        retries.looked_at(id);
        assert_eq!(retries.wait(id), Some(REGISTRATION_RETRY_MIN));
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_bound_the_one_that_is_due_first_is_forgotten() {
        let mut retries = Retries::default();
        let id = |n: usize| CertificateId::of_der(&n.to_be_bytes());
        for n in 0..=REGISTRATION_RETRIES_MAX {
            retries.looked_at(id(n));
            advance(Duration::from_nanos(1)).await;
        }
        assert_eq!(retries.0.len(), REGISTRATION_RETRIES_MAX);
        assert_eq!(retries.wait(id(0)), None);
        assert!(retries.wait(id(1)).is_some());
    }
}
