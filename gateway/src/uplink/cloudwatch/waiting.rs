//! How both sinks wait: for records, after a failure, and for the end.

use std::{future::Future, time::Duration};

use portcullis_core::{
    limits::{CONNECT_BACKOFF_BASE, UPLINK_DRAIN_MAX},
    record::{Lane, Record},
};
use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Part, RecordSource};
use crate::uplink::SourceError;

/// What follows a call.
#[derive(Debug)]
pub(super) enum Then {
    /// The next, at once.
    GoOn,
    /// The next, after a while; at stop, the end.
    Wait(Duration),
}

/// Does as `then` says; `false` if there is nothing left to do for ever.
pub(super) async fn wait(then: Then, stop: &CancellationToken) -> bool {
    match then {
        Then::GoOn => true,
        Then::Wait(_) if stop.is_cancelled() => false,
        Then::Wait(delay) => {
            select! {
                () = sleep(delay) => {}
                () = stop.cancelled() => {}
            }
            true
        }
    }
}

/// Ships until it ends, or until the last attempt after `stop` has taken too long.
pub(super) async fn until_drained(ship: impl Future<Output = ()>, stop: &CancellationToken) {
    let last_attempt_over = async {
        stop.cancelled().await;
        sleep(UPLINK_DRAIN_MAX).await;
    };
    select! {
        () = ship => {}
        () = last_attempt_over => {
            warn!("The last attempt took too long; the rest stays in the buffer.");
        }
    }
}

/// The next records, waited for before `stop`; `None` if stop was asked for and everything is read.
pub(super) async fn more<S: RecordSource>(
    source: &mut S,
    (records_max, bytes_max): (usize, usize),
    stop: &CancellationToken,
) -> Option<Vec<Record>> {
    loop {
        let error = match source
            .read(Lane::Bulk, Part::Backlog, records_max, bytes_max)
            .await
        {
            Ok(records) if !records.is_empty() => return Some(records),
            Ok(_) if stop.is_cancelled() => return None,
            Ok(_) => {
                let changed = select! {
                    changed = source.changed() => changed,
                    // It is cancel-safe; what is there is read in the next round.
                    () = stop.cancelled() => continue,
                };
                match changed {
                    Ok(()) => continue,
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        match error {
            // Whoever feeds the source has ended; the order of the stop is the supervisor's.
            SourceError::Closed => {
                stop.cancelled().await;
                return None;
            }
            SourceError::Unavailable(_) if stop.is_cancelled() => return None,
            SourceError::Unavailable(error) => {
                warn!(error, "The buffer cannot be read at the moment.");
                select! {
                    () = sleep(CONNECT_BACKOFF_BASE) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }
}
