//! Whether numbered records arrive in order, each at least once, in a bit and a few bytes each.

use std::collections::HashMap;

/// Numbers above are not looked at: they would need 128 MiB of marks.
const NUMBER_MAX: u64 = 1 << 30;

/// What became of the numbers of a stream. Numbers belong to one sender, and grow with each partition
/// key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Records with a number.
    pub records: u64,
    /// Numbers that were seen.
    pub distinct: u64,
    /// Records whose number had been seen before.
    pub duplicates: u64,
    /// Records whose number had **not** been seen before, after a larger one of the same key.
    pub out_of_order: u64,
    /// Records that had no number, or one that is too large.
    pub without_number: u64,
    /// The largest.
    pub highest: u64,
    latest: HashMap<String, u64>,
    seen: Vec<u64>,
}

impl Order {
    pub(crate) fn take(&mut self, key: &str, number: Option<u64>) {
        let Some(number) = number.filter(|n| *n < NUMBER_MAX) else {
            self.without_number += 1;
            return;
        };
        self.records += 1;
        let (word, bit) = place(number);
        if self.seen.len() <= word {
            self.seen.resize((word + 1).next_power_of_two(), 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        self.seen[word] |= bit;
        self.distinct += 1;
        self.highest = self.highest.max(number);
        match self.latest.get_mut(key) {
            Some(latest) if *latest > number => self.out_of_order += 1,
            Some(latest) => *latest = number,
            None => {
                self.latest.insert(key.to_owned(), number);
            }
        }
    }

    /// Whether this number was seen.
    pub fn contains(&self, number: u64) -> bool {
        let (word, bit) = place(number);
        self.seen.get(word).is_some_and(|marks| marks & bit != 0)
    }

    /// Numbers of this range that were never seen, the first hundred of them.
    pub fn missing(&self, range: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let unseen = range.into_iter().filter(|number| !self.contains(*number));
        unseen.take(100).collect()
    }
}

fn place(number: u64) -> (usize, u64) {
    let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
    (word, 1 << (number % 64))
}

/// The member `seq` of a record of the gateway.
pub fn seq_of(data: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"\"seq\":";
    let at = data.windows(NAME.len()).position(|part| part == NAME)?;
    let digits = &data[at + NAME.len()..];
    let end = digits
        .iter()
        .position(|b| !b.is_ascii_digit())
        .unwrap_or(digits.len());
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_and_what_is_late_are_told_apart() {
        let mut order = Order::default();
        for (key, number) in [("a", 1), ("b", 2), ("a", 5), ("a", 1), ("a", 4), ("b", 6)] {
            order.take(key, Some(number));
        }
        order.take("a", None);
        assert_eq!((order.records, order.distinct), (6, 5));
        assert_eq!((order.duplicates, order.out_of_order), (1, 1));
        assert_eq!((order.without_number, order.highest), (1, 6));
        assert_eq!(order.missing(1..=7), [3, 7]);
    }

    #[test]
    fn the_number_is_found_where_the_gateway_writes_it() {
        let data =
            br#"{"schema":"portcullis.event/1","gateway_id":"g","boot_id":"b","seq":178,"x":1}"#;
        assert_eq!(seq_of(data), Some(178));
        assert_eq!(seq_of(br#"{"seq":"#), None);
        assert_eq!(seq_of(b"{}"), None);
    }
}
