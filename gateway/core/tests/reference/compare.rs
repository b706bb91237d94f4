//! Numbers, dates and addresses, compared the long way.

use std::net::IpAddr;

use super::Answer;

/// `Numeric…` and `Date…`, without `Not`.
pub(super) fn ordered(operator: &str, value: &str, operand: &str) -> Answer {
    let (order, how) = match operator.strip_prefix("Numeric") {
        Some(order) => (order, number(value)?.cmp(&number(operand)?)),
        None => {
            let order = operator.strip_prefix("Date")?;
            (order, millis(value)?.partial_cmp(&millis(operand)?)?)
        }
    };
    Some(match order {
        "Equals" => how.is_eq(),
        "LessThan" => how.is_lt(),
        "LessThanEquals" => how.is_le(),
        "GreaterThan" => how.is_gt(),
        "GreaterThanEquals" => how.is_ge(),
        _ => return None,
    })
}

/// In units of 10^-9; numbers with an exponent, or too long for that, are not asked about.
fn number(text: &str) -> Option<i128> {
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(unsigned) => (-1, unsigned),
        None => (1, text),
    };
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let all: i128 = format!("{whole}{fraction:0<9}").parse().ok()?;
    Some(sign * all)
}

/// Milliseconds since 1970. They are small enough for a double.
fn millis(text: &str) -> Option<f64> {
    if !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) {
        let secs: f64 = text.parse().ok()?;
        let before_10000 = secs < 253_402_300_800.0;
        return (text.len() > 8 && before_10000).then_some(secs * 1000.0);
    }
    let (day, time) = text.split_once('T').unwrap_or((text, "00:00Z"));
    let day: Vec<i64> = day
        .split('-')
        .filter_map(|part| part.parse().ok())
        .collect();
    let [year, month, day] = day[..] else {
        return None;
    };
    let time = time.strip_suffix('Z')?;
    let mut secs = time.split(':').map(|part| part.parse::<f64>().ok());
    let secs = secs.next()?? * 3600.0 + secs.next()?? * 60.0 + secs.next().unwrap_or(Some(0.0))?;
    let days = i32::try_from(days_before(year, month)? + day - 1).ok()?;
    (days >= 0).then(|| (f64::from(days) * 86400.0 + secs) * 1000.0)
}

/// Days from 1970-01-01 to the first of the month.
fn days_before(year: i64, month: i64) -> Option<i64> {
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = |year| {
        [
            31,
            28 + i64::from(is_leap(year)),
            31,
            30,
            31,
            30,
            31,
            31,
            30,
            31,
            30,
            31,
        ]
    };
    let months = usize::try_from(month - 1)
        .ok()
        .filter(|month| *month < 12)?;
    let years: i64 = (1970..year)
        .map(|year| if is_leap(year) { 366 } else { 365 })
        .sum();
    Some(years + lengths(year)[..months].iter().sum::<i64>())
}

/// Whether an address is in a block, bit for bit.
pub(super) fn address(value: &str, operand: &str) -> Answer {
    let value = bits(value.parse().ok()?);
    let (address, prefix) = match operand.split_once('/') {
        Some((address, prefix)) => (address, prefix.parse().ok()?),
        None => (operand, 128),
    };
    let address: IpAddr = address.parse().ok()?;
    let mut prefix: usize = prefix;
    let block = bits(address);
    if block.len() == 32 && address.is_ipv6() {
        prefix = prefix.saturating_sub(96);
    }
    let prefix = prefix.min(block.len());
    Some(value.len() == block.len() && value[..prefix] == block[..prefix])
}

/// The bits of an address, first to last; of an IPv4 address in IPv6 clothes, its own.
fn bits(address: IpAddr) -> String {
    match address {
        IpAddr::V4(four) => four
            .octets()
            .iter()
            .map(|byte| format!("{byte:08b}"))
            .collect(),
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => bits(four.into()),
            None => six
                .octets()
                .iter()
                .map(|byte| format!("{byte:08b}"))
                .collect(),
        },
    }
}
