//! What condition values are: numbers, moments, networks, ARNs.

use std::{cmp::Ordering, net::IpAddr};

use super::super::{
    Fault,
    glob::{Case, Text, Token, Unresolved, Wildcards, matches, tokenize},
    resource::split_arn,
    rules::Rules,
    variable::Variable,
};
use crate::{timestamp::Timestamp, topic::TopicName};

/// How the value of the key must compare to an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Order {
    pub(super) fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// Fewer digits may be a year (`2027`) or a day (`20270101`) as well as seconds since 1970.
const EPOCH_DIGITS_MIN: usize = 9;
/// The first second of the year 10000; what is later was meant as milliseconds.
const EPOCH_SECS_END: u64 = 253_402_300_800;

/// `2026-11`, `2026-11-22`, `2026-11-22T10:00Z`, `2026-11-22T10:00:00.5+01:00`, or seconds since 1970
/// if they can be nothing else.
pub(super) fn parse_moment(text: &str) -> Option<Timestamp> {
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
        let secs: u64 = text.parse().ok()?;
        let is_plausible = text.len() >= EPOCH_DIGITS_MIN && secs < EPOCH_SECS_END;
        return is_plausible.then(|| Timestamp::from_millis(secs * 1000));
    }
    let Some((day, time)) = text.split_once('T') else {
        let day = if text.len() == "2026-11".len() {
            "-01"
        } else {
            ""
        };
        return Timestamp::parse_rfc3339(&format!("{text}{day}T00:00:00Z"));
    };
    let zone = time.find(['Z', '+', '-'])?;
    let (time, zone) = time.split_at(zone);
    if time.matches(':').count() == 1 {
        return Timestamp::parse_rfc3339(&format!("{day}T{time}:00{zone}"));
    }
    Timestamp::parse_rfc3339(text)
}

/// An address or a block of addresses. IPv4 addresses that are written as IPv6 ones are IPv4
/// addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

impl Network {
    /// Reads `10.0.0.0/8`, `10.1.2.3`, `2001:db8::/32` or `::1`. Bits behind the prefix are ignored.
    /// `Ok(None)` if it is no block, the error is message and remedy.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, Fault> {
        let Some((written, prefix_bits)) = parse_block(text) else {
            return Ok(None);
        };
        let address = written.to_canonical();
        let shorter_by = bits_of(written) - bits_of(address);
        match prefix_bits.checked_sub(shorter_by) {
            Some(prefix_bits) => Ok(Some(Self {
                address,
                prefix_bits,
            })),
            // It would match no peer: those with IPv4 addresses are compared as such.
            None => Err((
                format!("`{text}` is an IPv4 address with a prefix of less than 96 bits"),
                match prefix_bits {
                    0..=32 => format!("write the IPv4 form `{address}/{prefix_bits}`"),
                    _ => format!("write the IPv4 form `{address}/BITS`"),
                },
            )),
        }
    }

    /// Whether `address`, which is canonical, is in it.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(32 - self.prefix_bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differing = network.to_bits() ^ address.to_bits();
                differing.checked_shr(128 - self.prefix_bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

/// An address and the length of its prefix.
fn parse_block(text: &str) -> Option<(IpAddr, u32)> {
    let (address, prefix) = match text.split_once('/') {
        None => (text, None),
        // `parse` would take a sign.
        Some((_, prefix)) if prefix.starts_with('+') => return None,
        Some((address, prefix)) => (address, Some(prefix.parse::<u32>().ok()?)),
    };
    let address: IpAddr = address.parse().ok()?;
    let prefix = prefix.unwrap_or(bits_of(address));
    (prefix <= bits_of(address)).then_some((address, prefix))
}

const fn bits_of(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The six parts of an ARN, each with its own wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArnPattern([Vec<Token>; 6]);

impl ArnPattern {
    /// Compiles `text`; `Ok(None)` if it is no ARN, the error is message and remedy.
    pub(super) fn parse(text: &str, special: Wildcards) -> Result<Option<Self>, Fault> {
        let Some(parts) = split_arn(text).filter(|[arn, ..]| *arn == "arn") else {
            return Ok(None);
        };
        let mut compiled = [const { Vec::new() }; 6];
        for (tokens, part) in compiled.iter_mut().zip(parts) {
            *tokens = tokenize(part, special)?;
        }
        Ok(Some(Self(compiled)))
    }

    pub(super) fn takes<'v>(
        &self,
        parts: [&str; 6],
        value_of: &impl Fn(&Variable) -> Option<&'v str>,
        unresolved: Unresolved,
    ) -> bool {
        let mut both = self.0.iter().zip(parts);
        both.all(|(tokens, part)| {
            matches(
                tokens,
                Text::of(part),
                value_of,
                unresolved,
                Case::Sensitive,
            )
        })
    }

    /// Whether it takes the ARN of `topic`. Unless ARNs are strict, its partition, region and account
    /// do not matter: what a policy says of one account holds in any.
    pub(super) fn takes_topic<'v>(
        &self,
        topic: &TopicName,
        rules: &Rules,
        case: Case,
        value_of: &impl Fn(&Variable) -> Option<&'v str>,
        unresolved: Unresolved,
    ) -> bool {
        let takes = |tokens: &[Token], text| matches(tokens, text, value_of, unresolved, case);
        let [arn, partition, service, region, account, name] = &self.0;
        takes(name, Text::joined("topic/", topic.as_str()))
            && takes(arn, Text::of("arn"))
            && takes(service, Text::of("iot"))
            && (!rules.strict_arn
                || takes(partition, Text::of(&rules.arn.partition))
                    && takes(region, Text::of(&rules.arn.region))
                    && takes(account, Text::of(&rules.arn.account)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_iso_8601_or_seconds() {
        for (text, rfc3339) in [
            ("2026-11", "2026-11-01T00:00:00Z"),
            ("100000000", "1973-03-03T09:46:40Z"),
            ("253402300799", "9999-12-31T23:59:59Z"),
            ("2026-11-22", "2026-11-22T00:00:00Z"),
            ("2026-11-22T10:30Z", "2026-11-22T10:30:00Z"),
            ("2026-11-22T10:30+01:00", "2026-11-22T09:30:00Z"),
            ("2026-11-22T10:30:05.250Z", "2026-11-22T10:30:05.250Z"),
            ("1795341600", "2026-11-22T10:00:00Z"),
        ] {
            let expected = Timestamp::parse_rfc3339(rfc3339).unwrap();
            assert_eq!(parse_moment(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "today",
            "2026-13-01",
            "1969-12-31",
            "2026-11-22T10",
            "2026-11-22T10:00",
            "2026-13",
            "26-11-2",
            // A year, a day or seconds?
            "2027",
            "20270101",
            // Milliseconds.
            "1795341600000",
            "253402300800",
            "18446744073709551615",
            "99999999999999999999",
        ] {
            assert_eq!(parse_moment(text), None, "{text}");
        }
    }

    #[test]
    fn networks_are_blocks_of_either_family() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("10.1.2.3/8", "10.9.9.9", "9.255.255.255"),
            ("192.168.1.5", "192.168.1.5", "192.168.1.4"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::1"),
            ("::1", "::1", "::2"),
            ("::ffff:10.0.0.0/104", "10.1.2.3", "11.1.2.3"),
            ("::ffff:10.0.0.1", "10.0.0.1", "::1"),
            ("::ffff:10.0.0.1/96", "11.0.0.1", "::1"),
        ] {
            let block = Network::parse(network).unwrap().unwrap();
            assert!(block.contains(inside.parse().unwrap()), "{network}");
            assert!(!block.contains(outside.parse().unwrap()), "{network}");
        }
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "a/8",
        ] {
            assert_eq!(Network::parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn a_mapped_block_that_is_wider_than_ipv4_is_refused_with_its_ipv4_form() {
        for (text, remedy) in [
            ("::ffff:10.0.0.0/8", "write the IPv4 form `10.0.0.0/8`"),
            ("::ffff:10.0.0.0/0", "write the IPv4 form `10.0.0.0/0`"),
            ("::ffff:10.0.0.1/95", "write the IPv4 form `10.0.0.1/BITS`"),
        ] {
            assert_eq!(Network::parse(text).unwrap_err().1, remedy, "{text}");
        }
    }
}
