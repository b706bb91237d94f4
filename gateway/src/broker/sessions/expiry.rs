//! What happens by itself: sessions end, delayed wills fall due, the log is written anew.

use std::{collections::HashSet, sync::Arc};

use portcullis_core::timestamp::Timestamp;

use super::{
    Sessions,
    queued::DelayedWill,
    record::{Record, Stored},
    session::Session,
};
use crate::broker::message::Message;

/// A will whose time has come.
#[derive(Clone, Debug)]
pub(in crate::broker) struct DueWill {
    /// The session that left it.
    pub(in crate::broker) session: Arc<Session>,
    pub(in crate::broker) message: Arc<Message>,
}

impl Sessions {
    /// Ends the sessions whose time is over, and takes out the wills that are due: those of the
    /// sessions that end, and those whose delay has passed (MQTT 5.0, 3.1.3.2.2).
    pub(in crate::broker) fn sweep(&self, now: Timestamp) -> Vec<DueWill> {
        let mut due = Vec::new();
        let mut table = self.table();
        let mut over = Vec::new();
        for session in table.values() {
            let (is_over, is_due) = {
                let state = session.lock();
                let is_over = state.is_over(now);
                let will = state.will.as_ref();
                (is_over, will.is_some_and(|will| is_over || will.due <= now))
            };
            if is_due {
                due.extend(self.take_will(session));
            }
            if is_over {
                over.push(Arc::clone(session));
            }
        }
        for session in over {
            table.remove(&session.client_id);
            self.end(&session);
        }
        due
    }

    /// Takes out the will that waits, whose time has come.
    pub(super) fn take_will(&self, session: &Arc<Session>) -> Option<DueWill> {
        let DelayedWill { message, .. } = session.lock().will.take()?;
        self.log.append(&Record::NoWill {
            number: session.number,
        });
        Some(DueWill {
            session: Arc::clone(session),
            message,
        })
    }

    /// Leaves a will that is published at `due`, unless the client comes back before.
    pub(in crate::broker) fn leave_will(
        &self,
        session: &Session,
        message: Arc<Message>,
        due: Timestamp,
    ) {
        let mut state = session.lock();
        if state.is_kept {
            self.log.append(&Record::Will {
                number: session.number,
                due: due.as_millis(),
                message: Stored::of(&message),
            });
        }
        state.will = Some(DelayedWill { message, due });
    }

    /// Writes the log anew, whenever that is due; does not end.
    pub(in crate::broker) async fn keep_log_short(&self) {
        let Some(wal) = self.log.wal() else {
            return std::future::pending().await;
        };
        loop {
            wal.checkpoint_due().await;
            self.checkpoint().await;
        }
    }

    pub(super) async fn checkpoint(&self) {
        let Some(wal) = self.log.wal() else { return };
        {
            // Nobody is between a message's body and what refers to it.
            let _nobody = self.routes_mut();
            wal.begin_checkpoint();
        }
        let mut bodies = HashSet::new();
        for topic in self.retained.topics() {
            wal.room().await;
            self.retained.with(&topic, |id, message| {
                if bodies.insert(id) {
                    let message = Stored::of(message);
                    self.log.append(&Record::Body { id, message });
                }
                self.log.append(&Record::Retain { id });
            });
        }
        let sessions: Vec<_> = self.table().values().cloned().collect();
        for session in sessions {
            wal.room().await;
            session.write_whole(&self.log, &mut |id| bodies.insert(id));
        }
        wal.end_checkpoint();
    }
}
