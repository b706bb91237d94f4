//! So many a minute, and no more.

use std::{collections::HashMap, time::Duration};

use portcullis_core::{identity::CertificateId, limits::CLAIMS_COUNTED_MAX};
use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Quota {
    max: u32,
    since: Instant,
    taken: u32,
}

impl Quota {
    pub(super) fn new(max: u32) -> Self {
        Self {
            max,
            since: Instant::now(),
            taken: 0,
        }
    }

    /// Whether there is one left in this minute; takes it.
    pub(super) fn take(&mut self) -> bool {
        if self.is_over() {
            self.since = Instant::now();
            self.taken = 0;
        }
        let is_left = self.taken < self.max;
        self.taken += u32::from(is_left);
        is_left
    }

    /// Whether its minute is.
    fn is_over(&self) -> bool {
        self.since.elapsed() >= WINDOW
    }
}

/// So many a minute for each certificate.
#[derive(Debug)]
pub(super) struct Quotas {
    max: u32,
    of: HashMap<CertificateId, Quota>,
}

impl Quotas {
    pub(super) fn new(max: u32) -> Self {
        let of = HashMap::new();
        Self { max, of }
    }

    /// Like [`Quota::take`] for `id`; nothing is left for one too many certificates.
    pub(super) fn take(&mut self, id: CertificateId) -> bool {
        if self.of.len() >= CLAIMS_COUNTED_MAX && !self.of.contains_key(&id) {
            self.of.retain(|_, quota| !quota.is_over());
            if self.of.len() >= CLAIMS_COUNTED_MAX {
                return false;
            }
        }
        let quota = self.of.entry(id).or_insert_with(|| Quota::new(self.max));
        quota.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_quota_starts_anew_after_a_minute() {
        let mut quota = Quota::new(2);
        assert_eq!([(); 3].map(|()| quota.take()), [true, true, false]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(quota.take());
    }

    #[tokio::test(start_paused = true)]
    async fn each_certificate_has_its_own_and_there_are_so_many_at_once() {
        let mut quotas = Quotas::new(1);
        let id = |n: usize| CertificateId::of_der(&n.to_be_bytes());
        assert_eq!([0, 0, 1].map(|n| quotas.take(id(n))), [true, false, true]);
        for n in 2..CLAIMS_COUNTED_MAX {
            assert!(quotas.take(id(n)), "{n}");
        }
        let more = id(CLAIMS_COUNTED_MAX);
        assert!(!quotas.take(more));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(quotas.take(more));
        assert_eq!(quotas.of.len(), 1, "the others are forgotten");
    }
}
