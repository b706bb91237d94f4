//! What every sink does the same way with its source.

use portcullis_core::{limits::CONNECT_BACKOFF_BASE, record::Record};
use tokio::{select, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{RecordSource, SourceError};

/// What a sink does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Ship these.
    Records(Vec<Record>),
    /// Stop was asked for and everything is read.
    Done,
}

/// The next records; before `stop` waits for them, after it takes what is there.
pub(super) async fn next<S: RecordSource>(
    source: &mut S,
    records_max: usize,
    bytes_max: usize,
    stop: &CancellationToken,
) -> Next {
    loop {
        if stop.is_cancelled() && source.unread() == 0 {
            return Next::Done;
        }
        let read = select! {
            read = source.read(records_max, bytes_max) => read,
            // Reads are cancel-safe; what is there is read in the next round.
            () = stop.cancelled(), if !stop.is_cancelled() => continue,
        };
        match read {
            Ok(records) => return Next::Records(records),
            // Whoever feeds the source has ended; the order of the stop is the supervisor's.
            Err(SourceError::Closed) => {
                stop.cancelled().await;
                return Next::Done;
            }
            Err(SourceError::Unavailable(error)) => {
                warn!(error, "The buffer cannot be read at the moment.");
                if stop.is_cancelled() {
                    return Next::Done;
                }
                select! {
                    () = sleep(CONNECT_BACKOFF_BASE) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }
}
