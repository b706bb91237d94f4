//! What the session tells of itself: lifecycle events of its connection and of its subscriptions.
//!
//! The stream may take its time for an event; whatever ends the session does not wait for that.

use std::sync::Arc;

use portcullis_core::topic::TopicFilter;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Client, End};
use crate::broker::lifecycle::{Connection, Happened, Who};

impl<S> Client<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    /// The client is there.
    pub(super) async fn tell_connected(&mut self) -> Result<(), End> {
        let connected = Happened::Connected {
            connection: self.connection,
            source: self.principal().source,
        };
        self.tell(&connected).await
    }

    /// A change took subscriptions away.
    pub(super) async fn tell_dropped(&mut self) -> Result<(), End> {
        let dropped = std::mem::take(&mut self.dropped);
        self.tell_subscriptions(&dropped, |connection, filters| Happened::Unsubscribed {
            connection,
            filters,
        })
        .await
    }

    /// The client subscribed or unsubscribed.
    pub(super) async fn tell_subscriptions(
        &mut self,
        filters: &[TopicFilter],
        happened: impl for<'f> Fn(Connection, &'f [TopicFilter]) -> Happened<'f>,
    ) -> Result<(), End> {
        if filters.is_empty() {
            return Ok(());
        }
        // The client need not wait for the stream to have its SUBACK.
        self.flush().await?;
        self.tell(&happened(self.connection, filters)).await
    }

    async fn tell(&mut self, happened: &Happened<'_>) -> Result<(), End> {
        let shared = Arc::clone(&self.shared);
        let principal = self.principal().clone();
        let who = Who::of(&shared, &principal);
        // On the heap: this stands in many places of a session, and most of the time in none.
        let telling = Box::pin(shared.tell(&who, happened));
        self.while_it_may(telling).await
    }
}
