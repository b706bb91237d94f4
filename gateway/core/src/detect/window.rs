//! Sliding windows: how much happened within the last `durationSeconds`.
//!
//! Both forget rather than over-count: a window never reaches further back than its duration, so
//! that a device at exactly the normal rate raises no alarm.

use std::net::IpAddr;

use crate::{
    identity::CertificateId,
    limits::{ADDRESSES_PER_WINDOW_MAX, DETECT_BUCKET},
    timestamp::Timestamp,
};

/// Counts in buckets of [`DETECT_BUCKET`]. Looks back by its duration less the part of the oldest
/// bucket that is over already: 290 to 300 of 300 seconds.
#[derive(Clone, Debug)]
pub(super) struct CountWindow {
    buckets: Box<[u32]>,
    /// Number of the newest bucket since the epoch.
    newest: u64,
    sum: u64,
}

impl CountWindow {
    pub(super) fn new(duration_secs: u32, now: Timestamp) -> Self {
        let buckets = u64::from(duration_secs) * 1000 / bucket_millis();
        let buckets = usize::try_from(buckets).expect("an hour has 360 buckets");
        Self {
            buckets: vec![0; buckets.max(1)].into(),
            newest: now.as_millis() / bucket_millis(),
            sum: 0,
        }
    }

    pub(super) fn add(&mut self, now: Timestamp) {
        self.advance(now);
        let at = self.index(self.newest);
        let bucket = &mut self.buckets[at];
        if let Some(more) = bucket.checked_add(1) {
            *bucket = more;
            self.sum += 1;
        }
    }

    pub(super) fn value(&mut self, now: Timestamp) -> u64 {
        self.advance(now);
        self.sum
    }

    /// Forgets what is too old. A clock that steps back a little keeps counting into the newest
    /// bucket; one that steps back by more than the window starts over, or the window would stand
    /// still until the clock catches up.
    fn advance(&mut self, now: Timestamp) {
        let number = now.as_millis() / bucket_millis();
        let length = self.buckets.len() as u64;
        if number >= self.newest + length || number + length <= self.newest {
            self.buckets.fill(0);
            self.sum = 0;
            self.newest = number;
            return;
        }
        while self.newest < number {
            self.newest += 1;
            let at = self.index(self.newest);
            self.sum -= u64::from(std::mem::take(&mut self.buckets[at]));
        }
    }

    fn index(&self, number: u64) -> usize {
        let index = number % self.buckets.len() as u64;
        usize::try_from(index).expect("less than a length")
    }
}

/// Different addresses that used one certificate. Addresses beyond [`ADDRESSES_PER_WINDOW_MAX`] push
/// out the one that was quiet longest: no profile calls that many normal.
#[derive(Clone, Debug)]
pub(super) struct AddressWindow {
    duration_millis: u64,
    seen: Vec<Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    certificate: CertificateId,
    address: IpAddr,
    last: Timestamp,
}

impl AddressWindow {
    pub(super) fn new(duration_secs: u32) -> Self {
        Self {
            duration_millis: u64::from(duration_secs) * 1000,
            seen: Vec::new(),
        }
    }

    /// Whether the address is new, so that the value may have grown.
    pub(super) fn add(
        &mut self,
        certificate: CertificateId,
        address: IpAddr,
        now: Timestamp,
    ) -> bool {
        let address = address.to_canonical();
        let known = self
            .seen
            .iter_mut()
            .find(|seen| seen.certificate == certificate && seen.address == address);
        if let Some(known) = known {
            let was_over = known
                .last
                .millis_since(now)
                .max(now.millis_since(known.last))
                > self.duration_millis;
            known.last = now;
            return was_over;
        }
        self.expire(now);
        if self.seen.len() == ADDRESSES_PER_WINDOW_MAX {
            let oldest = (0..self.seen.len()).min_by_key(|&at| self.seen[at].last);
            self.seen.swap_remove(oldest.expect("the table is full"));
        }
        self.seen.push(Seen {
            certificate,
            address,
            last: now,
        });
        true
    }

    /// The most addresses that any one certificate was used from.
    pub(super) fn value(&mut self, now: Timestamp) -> u64 {
        self.expire(now);
        self.seen
            .iter()
            .map(|one| {
                self.seen
                    .iter()
                    .filter(|other| other.certificate == one.certificate)
                    .count() as u64
            })
            .max()
            .unwrap_or(0)
    }

    fn expire(&mut self, now: Timestamp) {
        let duration = self.duration_millis;
        self.seen.retain(|seen| {
            now.millis_since(seen.last) < duration && seen.last.millis_since(now) < duration
        });
    }
}

fn bucket_millis() -> u64 {
    u64::from(DETECT_BUCKET.subsec_millis()) + DETECT_BUCKET.as_secs() * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        // Not at the edge of a bucket, like real clocks.
        Timestamp::from_millis(1_800_000_003_000 + seconds * 1000)
    }

    #[test]
    fn counts_slide_out_after_the_duration() {
        let mut window = CountWindow::new(300, at(0));
        for second in 0..300 {
            window.add(at(second));
        }
        let value = window.value(at(299));
        assert!((290..=300).contains(&value), "{value}");
        assert_eq!(window.value(at(299 + 300)), 0);
    }

    #[test]
    fn a_steady_rate_never_counts_more_than_its_share() {
        let mut window = CountWindow::new(300, at(0));
        for second in 0..10_000 {
            window.add(at(second));
            assert!(window.value(at(second)) <= 300);
        }
    }

    #[test]
    fn a_window_agrees_with_a_list_of_times() {
        let seed = 7_u64;
        let mut state = seed;
        let mut window = CountWindow::new(600, at(0));
        let (mut now, mut times) = (0, Vec::new());
        for _ in 0..5_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            now += (state >> 33) % 30;
            window.add(at(now));
            times.push(at(now).as_millis() / 10_000);
            let first = at(now).as_millis() / 10_000 - 59;
            let expected = times.iter().filter(|&&bucket| bucket >= first).count() as u64;
            assert_eq!(window.value(at(now)), expected, "seed {seed}, second {now}");
        }
    }

    #[test]
    fn a_clock_that_steps_back_neither_panics_nor_freezes_the_window() {
        let mut window = CountWindow::new(300, at(10_000));
        window.add(at(10_000));
        window.add(at(9_990));
        assert_eq!(window.value(at(9_990)), 2, "a small step keeps counting");
        assert_eq!(window.value(at(0)), 0, "a large one starts over");
        window.add(at(0));
        assert_eq!(window.value(at(400)), 0);
    }

    #[test]
    fn addresses_are_counted_per_certificate() {
        let (a, b) = (CertificateId::of_der(b"a"), CertificateId::of_der(b"b"));
        let address = |n: u8| IpAddr::from([10, 0, 0, n]);
        let mut window = AddressWindow::new(300);
        assert!(window.add(a, address(1), at(0)));
        assert!(!window.add(a, address(1), at(1)));
        assert!(window.add(b, address(2), at(2)));
        assert_eq!(window.value(at(2)), 1, "two certificates, an address each");
        window.add(a, address(2), at(3));
        assert_eq!(window.value(at(3)), 2);
        assert_eq!(window.value(at(302)), 1, "the first was seen last at 1");
        assert_eq!(window.value(at(400)), 0);
    }

    #[test]
    fn an_address_and_its_v4_mapped_form_are_one() {
        let certificate = CertificateId::of_der(b"a");
        let mut window = AddressWindow::new(300);
        window.add(certificate, "10.0.0.1".parse().unwrap(), at(0));
        window.add(certificate, "::ffff:10.0.0.1".parse().unwrap(), at(0));
        assert_eq!(window.value(at(0)), 1);
    }

    #[test]
    fn the_address_table_is_bounded() {
        let certificate = CertificateId::of_der(b"a");
        let mut window = AddressWindow::new(300);
        for n in 0..10_000_u32 {
            window.add(certificate, IpAddr::from(n.to_be_bytes()), at(0));
        }
        assert_eq!(window.value(at(0)), ADDRESSES_PER_WINDOW_MAX as u64);
    }
}
