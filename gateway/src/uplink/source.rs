//! What a sink without requests under way does with its source: whatever there is, urgent first.

use portcullis_core::{
    limits::CONNECT_BACKOFF_BASE,
    record::{Lane, Record},
};
use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Part, RecordSource, SourceError};

/// What a sink does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Ship these, of this lane.
    Records(Lane, Vec<Record>),
    /// Stop was asked for and everything is read.
    Done,
}

/// The next records of the backlogs of `lanes`; before `stop` waits for them, after it takes what is
/// there.
pub(super) async fn next<S: RecordSource>(
    source: &mut S,
    lanes: &[Lane],
    records_max: usize,
    bytes_max: usize,
    stop: &CancellationToken,
) -> Next {
    loop {
        let mut unavailable = None;
        for &lane in lanes {
            match source
                .read(lane, Part::Backlog, records_max, bytes_max)
                .await
            {
                Ok(records) if records.is_empty() => {}
                Ok(records) => return Next::Records(lane, records),
                Err(SourceError::Closed) => {}
                Err(SourceError::Unavailable(error)) => unavailable = Some(error),
            }
        }
        if let Some(error) = unavailable {
            warn!(error, "The buffer cannot be read at the moment.");
            if stop.is_cancelled() {
                return Next::Done;
            }
            select! {
                () = sleep(CONNECT_BACKOFF_BASE) => {}
                () = stop.cancelled() => {}
            }
            continue;
        }
        if stop.is_cancelled() {
            return Next::Done;
        }
        let changed = select! {
            changed = source.changed() => changed,
            () = stop.cancelled() => Ok(()),
        };
        // Whoever feeds the source has ended; the order of the stop is the supervisor's.
        if let Err(SourceError::Closed) = changed {
            stop.cancelled().await;
        }
    }
}
