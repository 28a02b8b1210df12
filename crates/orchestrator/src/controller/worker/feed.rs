//! The event feed where replicas share a database: events are published by the replica whose relay leads, and every other
//! one follows what the outbox says was sent. It reads only while somebody listens.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use crate::{
    core::{
        client::{
            clock::Clock,
            database::{DatabaseError, Filter, Query, Reader, ReaderExt, Sort},
            event_bus::EventFeed,
            schema,
        },
        market::{
            event::DomainEvent,
            ids::EventId,
            quantity::{Micros, Timestamp},
        },
    },
    error,
    service::outbox::{OutboxRow, Outgoing},
};

/// Time between two looks while somebody listens.
const LOOK: Micros = Micros::from_millis(500);
/// How far back each look goes: relays of other replicas go by other clocks, and a row is marked after it was sent.
const OVERLAP: Micros = Micros::from_secs(5);
const PAGE: usize = 500;

/// Follows the outbox.
pub struct OutboxFeed {
    reader: Arc<dyn Reader>,
    clock: Arc<dyn Clock>,
    sender: broadcast::Sender<DomainEvent>,
    listened: Notify,
}

impl OutboxFeed {
    /// A feed; `capacity` is how many events a slow listener may be behind. Nothing is read before [`OutboxFeed::run`].
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>, clock: Arc<dyn Clock>, capacity: usize) -> Arc<Self> {
        let (sender, _) = broadcast::channel(capacity.max(1));
        Arc::new(Self { reader, clock, sender, listened: Notify::new() })
    }

    /// Follows until `shutdown` is cancelled.
    pub async fn run(self: Arc<Self>, shutdown: CancellationToken) {
        let mut since = self.clock.now();
        let mut seen = BTreeMap::new();
        while !shutdown.is_cancelled() {
            if self.sender.receiver_count() == 0 {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return,
                    () = self.listened.notified() => {}
                }
                // What happened while nobody listened is for those that come with a last event.
                since = self.clock.now();
                // Who came may be gone again.
                continue;
            }
            match self.look(&mut since, &mut seen).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(error = error::chain(&error), "the outbox could not be followed");
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.clock.sleep(LOOK) => {}
            }
        }
    }

    /// Sends on what was marked as sent since the last look and was not seen in it.
    async fn look(
        &self,
        since: &mut Timestamp,
        seen: &mut BTreeMap<EventId, i64>,
    ) -> Result<(), DatabaseError> {
        let from = since.minus(OVERLAP).as_micros();
        let mut query = Query::new(schema::OUTBOX)
            .filter(Filter::Ge("sent_at".into(), from.into()))
            .sort(Sort::Field("sent_at".into()))
            .limit(PAGE);
        loop {
            let (rows, next) = self.reader.list::<OutboxRow>(query.clone()).await?;
            for row in rows {
                let sent_at = row.value.sent_at.unwrap_or(from);
                *since = (*since).max(Timestamp(sent_at));
                if let Outgoing::Event(event) = row.value.outgoing
                    && seen.insert(event.id, sent_at).is_none()
                {
                    // Fails when nobody listens any more.
                    let _ = self.sender.send(event);
                }
            }
            query.after = next;
            if query.after.is_none() {
                break;
            }
        }
        let kept = since.minus(OVERLAP).as_micros();
        seen.retain(|_, sent_at| *sent_at >= kept);
        Ok(())
    }
}

impl EventFeed for OutboxFeed {
    fn subscribe(&self) -> broadcast::Receiver<DomainEvent> {
        let receiver = self.sender.subscribe();
        self.listened.notify_one();
        receiver
    }
}
