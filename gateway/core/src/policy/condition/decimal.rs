//! Decimal numbers, compared exactly: serial numbers of certificates have more digits than a binary
//! floating-point number holds.
//!
//! Nothing is allocated for the value of a request; its digits are compared where they stand.

use std::cmp::Ordering;

/// As in a floating-point number; what is beyond is no number.
const EXPONENT_MAX: i32 = 300;

/// A number in a text: 0.d₁d₂d₃… × 10^`magnitude`, where d₁ is not 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decimal<'t> {
    negative: bool,
    magnitude: i64,
    /// The digits d, in two parts; both are empty for 0.
    digits: [&'t str; 2],
}

/// A number that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Number {
    negative: bool,
    magnitude: i64,
    digits: Box<str>,
}

impl<'t> Decimal<'t> {
    /// Digits, with a minus, a fraction and an exponent or without; not `inf`, `nan` or `+1`.
    pub(super) fn parse(text: &'t str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (unsigned, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let are_digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
        if whole.is_empty() || !are_digits(whole) || !are_digits(fraction) {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let significant = match whole {
            "" => fraction.trim_start_matches('0'),
            _ => fraction,
        };
        // Of the digits before the point, or minus the zeros right behind it.
        let places = i64::try_from(whole.len()).ok()?;
        let zeros = i64::try_from(fraction.len() - significant.len()).ok()?;
        let is_zero = whole.is_empty() && significant.is_empty();
        Some(Self {
            negative: negative && !is_zero,
            magnitude: match is_zero {
                true => 0,
                false => places - zeros + i64::from(exponent),
            },
            digits: [whole, significant],
        })
    }

    /// How it compares to `other`.
    pub(super) fn compare(self, other: Decimal<'_>) -> Ordering {
        let sizes = || match (self.is_zero(), other.is_zero()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => {
                let magnitudes = self.magnitude.cmp(&other.magnitude);
                magnitudes.then_with(|| self.compare_digits(other))
            }
        };
        match (self.negative, other.negative) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => sizes(),
            (true, true) => sizes().reverse(),
        }
    }

    fn compare_digits(self, other: Decimal<'_>) -> Ordering {
        let (mut these, mut those) = (self.digits(), other.digits());
        loop {
            // Zeros at the end of a fraction do not count.
            let ordering = match (these.next(), those.next()) {
                (None, None) => return Ordering::Equal,
                (a, b) => a.unwrap_or(b'0').cmp(&b.unwrap_or(b'0')),
            };
            if ordering.is_ne() {
                return ordering;
            }
        }
    }

    fn digits(self) -> impl Iterator<Item = u8> {
        let [first, second] = self.digits;
        first.bytes().chain(second.bytes())
    }

    fn is_zero(self) -> bool {
        self.digits.iter().all(|part| part.is_empty())
    }
}

fn parse_exponent(text: &str) -> Option<i32> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let exponent: i32 = text.parse().ok()?;
    (-EXPONENT_MAX..=EXPONENT_MAX)
        .contains(&exponent)
        .then_some(exponent)
}

impl Number {
    pub(super) fn as_decimal(&self) -> Decimal<'_> {
        Decimal {
            negative: self.negative,
            magnitude: self.magnitude,
            digits: [&self.digits, ""],
        }
    }
}

impl From<Decimal<'_>> for Number {
    fn from(number: Decimal<'_>) -> Self {
        Self {
            negative: number.negative,
            magnitude: number.magnitude,
            digits: number.digits.concat().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn compare(a: &str, b: &str) -> Ordering {
        let [a, b] = [a, b].map(|text| Decimal::parse(text).unwrap());
        let kept = Number::from(b);
        assert_eq!(a.compare(b), a.compare(kept.as_decimal()));
        assert_eq!(a.compare(b), b.compare(a).reverse());
        a.compare(b)
    }

    #[test]
    fn numbers_are_decimal_and_finite() {
        for (text, same) in [
            ("0", "-0.000"),
            ("0e9", "0"),
            ("-1.5", "-15e-1"),
            ("1e3", "1000"),
            ("1E+3", "1000.0"),
            ("007", "7."),
            ("0.0012", "12e-4"),
            ("1200", "0.12e4"),
        ] {
            assert_eq!(compare(text, same), Ordering::Equal, "{text}");
        }
        for text in [
            "", "-", "+1", "inf", "NaN", "-inf", "1e999", "1e-999", "0x10", "1,5", " 1", ".5",
            "--1", "1e", "1e+-1", "1e1.5", "1.-5", "1.5.5", "٣",
        ] {
            assert!(Decimal::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn numbers_are_compared_to_their_last_digit() {
        for (less, more) in [
            ("9007199254740992", "9007199254740993"),
            ("10525622389124227205", "10525622389124227206"),
            ("0.1", "0.10000000000000000000001"),
            ("-2", "-1.99999999999999999999999"),
            ("-1", "0"),
            ("0", "1e-300"),
            ("99", "100"),
            ("-100", "-99"),
            ("0.09", "0.1"),
        ] {
            assert_eq!(compare(less, more), Ordering::Less, "{less} {more}");
        }
    }

    proptest! {
        #[test]
        fn integers_are_ordered_as_integers(a: i128, b: i128, c in -20_i64..20, d in -20_i64..20) {
            prop_assert_eq!(compare(&a.to_string(), &b.to_string()), a.cmp(&b));
            prop_assert_eq!(compare(&c.to_string(), &d.to_string()), c.cmp(&d));
            let cents = |n: i64| format!("{}{}.{:02}", if n < 0 { "-" } else { "" }, n.abs() / 10, n.abs() % 10 * 10);
            prop_assert_eq!(compare(&cents(c), &cents(d)), c.cmp(&d));
        }

        #[test]
        fn reading_never_panics(text in "[-+0-9.eE]{0,12}") {
            let as_float = text.parse::<f64>().ok();
            if let Some(number) = Decimal::parse(&text) {
                prop_assert_eq!(number.is_zero(), as_float == Some(0.0), "{}", text);
                prop_assert_eq!(number.negative, as_float < Some(0.0));
            }
        }
    }
}
