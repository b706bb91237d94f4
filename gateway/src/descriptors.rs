//! How many files and sockets the process may have open, and how many of them are for devices.
//!
//! Whoever holds a connection holds a descriptor. Were all of them devices', the buffer could not open
//! its next file, and that stops the gateway; so some are kept back. The limit is read from `/proc`,
//! not asked of the kernel: the call that asks is the one that sets, and a service may be forbidden it.

use std::fs;

use portcullis_core::limits::DESCRIPTORS_RESERVED;
use rustix::process::{Resource, Rlimit, setrlimit};
use tracing::{debug, warn};

/// What the process may have open, and what it may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    soft: u64,
    hard: u64,
}

/// Raises the limit as far as it goes; how many of `wanted` connections fit below it. Says so in the
/// log if they are fewer.
pub fn connections(wanted: usize) -> usize {
    let Some(limit) = raise() else {
        return wanted;
    };
    let served = for_devices(limit);
    if served >= wanted {
        return wanted;
    }
    warn!(
        open_files_max = limit,
        connections_max = wanted,
        served,
        "The limit of open files leaves room for fewer connections than `connections-max`. Raise \
         `LimitNOFILE=` in the unit, or `ulimit -n`."
    );
    served
}

/// The limit in force from now on; `None` if nobody knows.
fn raise() -> Option<u64> {
    let limit = parse(&fs::read_to_string("/proc/self/limits").ok()?)?;
    if limit.soft >= limit.hard {
        return Some(limit.soft);
    }
    let all = Rlimit {
        current: Some(limit.hard),
        maximum: Some(limit.hard),
    };
    match setrlimit(Resource::Nofile, all) {
        Ok(()) => Some(limit.hard),
        Err(error) => {
            debug!(%error, "The limit of open files stays as it is.");
            Some(limit.soft)
        }
    }
}

/// The line `Max open files  SOFT  HARD  files`.
fn parse(limits: &str) -> Option<Limit> {
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"))?;
    let mut values = line.split_whitespace().map(|value| match value {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    });
    Some(Limit {
        soft: values.next()??,
        hard: values.next()??,
    })
}

/// All but the reserve; where that would leave little, half.
fn for_devices(limit: u64) -> usize {
    let served = limit - DESCRIPTORS_RESERVED.min(limit / 2);
    usize::try_from(served.max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_read_as_the_kernel_writes_them() {
        let limits = "\
Limit                     Soft Limit           Hard Limit           Units     
Max core file size        0                    unlimited            bytes     
Max open files            1024                 524288               files     
Max locked memory         8388608              8388608              bytes     
";
        let (soft, hard) = (1024, 524_288);
        assert_eq!(parse(limits), Some(Limit { soft, hard }));
        let unlimited = limits.replace("524288", "unlimited");
        let hard = u64::MAX;
        assert_eq!(parse(&unlimited), Some(Limit { soft, hard }));
        assert_eq!(parse("Max open files"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn some_descriptors_are_never_for_devices() {
        assert_eq!(for_devices(65_536), 65_408);
        assert_eq!(for_devices(1024), 896);
        assert_eq!(for_devices(120), 60);
        assert_eq!(for_devices(1), 1);
        assert_eq!(for_devices(0), 1);
    }

    #[test]
    fn this_process_has_a_limit_and_keeps_room_below_it() {
        let limit = raise().expect("the kernel says");
        assert!(for_devices(limit) < usize::try_from(limit).unwrap_or(usize::MAX));
        assert_eq!(raise(), Some(limit), "there is no more to be had");
        assert_eq!(connections(1), 1);
    }
}
