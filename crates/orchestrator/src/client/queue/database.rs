//! A queue in the database: the same code runs on every database. A message is a row; to receive is to claim rows whose
//! `visible_at` has come, and each delivery counts `deliveries` up, which makes older receipts stale.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;

use crate::core::{
    client::{
        clock::{Clock, Entropy},
        damaged::Damaged,
        database::{
            Changeset, Claim, DatabaseClient, DatabaseError, Document, Entity, Expect, Filter, Query, Scalar,
            Sort, Stored,
        },
        queue::{Message, NewMessage, QueueClient, QueueError},
        schema::{self, Collection},
    },
    market::quantity::{Micros, Timestamp},
};

/// Longest message in bytes.
const MAX_BODY: usize = 64 << 10;
/// Most messages of a batch.
const MAX_BATCH: usize = 1_000;
/// Tries of a write that others may overtake.
const TRIES: usize = 16;

/// Settings of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseQueueSettings {
    /// How often a waiting receiver looks for messages that another process sent. What this process sends, and what
    /// becomes visible again, wakes it without.
    pub poll: Micros,
}

impl Default for DatabaseQueueSettings {
    fn default() -> Self {
        Self { poll: Micros::from_secs(5) }
    }
}

/// Queues over a database.
pub struct DatabaseQueue {
    database: Arc<dyn DatabaseClient>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    settings: DatabaseQueueSettings,
    /// Queues that are known to exist, with those who wait for a message. Queues are never removed.
    known: Mutex<HashMap<String, Arc<Notify>>>,
    sent: AtomicU64,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct Row {
    id: String,
    queue: String,
    body: String,
    visible_at: i64,
    deliveries: u32,
}

impl Entity for Row {
    const NAME: &'static str = "queue_message";
    const COLLECTION: Collection = schema::QUEUE_MESSAGES;
    fn document_id(&self) -> String {
        self.id.clone()
    }
}

fn unavailable(error: DatabaseError) -> QueueError {
    QueueError::Unavailable(Box::new(error))
}

fn meta_id(queue: &str) -> String {
    format!("queue/{queue}")
}

/// A receipt names the row and the delivery.
fn receipt(row: &Row) -> String {
    format!("{}#{}", row.id, row.deliveries)
}

/// The row and the delivery that a receipt names, if it is one of this queue.
fn parse_receipt<'a>(queue: &str, receipt: &'a str) -> Result<(&'a str, u32), QueueError> {
    let (id, deliveries) = receipt.rsplit_once('#').ok_or(QueueError::StaleReceipt)?;
    let deliveries = deliveries.parse().map_err(|_| QueueError::StaleReceipt)?;
    match id.split_once('/') {
        Some((of, _)) if of == queue => Ok((id, deliveries)),
        _ => Err(QueueError::StaleReceipt),
    }
}

impl DatabaseQueue {
    /// A queue over `database`, whose schema has the collections `meta` and `queue_messages`.
    #[must_use]
    pub fn new(
        database: Arc<dyn DatabaseClient>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        settings: DatabaseQueueSettings,
    ) -> Self {
        Self { database, clock, entropy, settings, known: Mutex::default(), sent: AtomicU64::new(0) }
    }

    /// Those who wait for a message of the queue, if it exists.
    async fn waiters(&self, queue: &str) -> Result<Arc<Notify>, QueueError> {
        if let Some(waiters) = self.known.lock().get(queue) {
            return Ok(waiters.clone());
        }
        match self.database.get(schema::META, &meta_id(queue)).await.map_err(unavailable)? {
            Some(_) => Ok(self.remember(queue)),
            None => Err(QueueError::NoQueue(queue.to_owned())),
        }
    }

    fn remember(&self, queue: &str) -> Arc<Notify> {
        self.known.lock().entry(queue.to_owned()).or_default().clone()
    }

    /// Ids sort by the time of sending and, within one process, by its order.
    fn next_id(&self, queue: &str, now: Timestamp) -> String {
        let mut random = [0_u8; 8];
        self.entropy.fill(&mut random);
        let sequence = self.sent.fetch_add(1, Ordering::Relaxed);
        let micros = now.as_micros().max(0);
        format!("{queue}/{micros:016x}-{sequence:012x}-{:016x}", u64::from_le_bytes(random))
    }

    async fn claim(
        &self,
        queue: &str,
        max: usize,
        now: Timestamp,
        visibility: Micros,
    ) -> Result<Vec<Message>, QueueError> {
        let claim = Claim {
            collection: schema::QUEUE_MESSAGES,
            filter: Filter::eq("queue", queue)
                .and(Filter::Le("visible_at".to_owned(), Scalar::Int(now.as_micros()))),
            sort: Sort::Field("visible_at".to_owned()),
            limit: max.min(MAX_BATCH),
            set: vec![("visible_at".to_owned(), Scalar::Int(now.plus(visibility).as_micros()))],
            increment: vec![("deliveries".to_owned(), 1)],
        };
        let rows = match self.database.claim(claim.clone()).await {
            // A row whose deliveries can't be counted refuses the whole claim.
            Err(DatabaseError::Invalid(_)) => {
                self.clear(&claim, now).await?;
                self.database.claim(claim).await
            }
            answer => answer,
        };
        let rows = rows.map_err(unavailable)?;
        let mut messages = Vec::with_capacity(rows.len());
        for row in rows {
            match message(&row) {
                Ok(message) => messages.push(message),
                Err(error) => self.set_aside(&row, &error, now).await?,
            }
        }
        Ok(messages)
    }

    /// Sets aside what a claim would meet and can't read.
    async fn clear(&self, claim: &Claim, now: Timestamp) -> Result<(), QueueError> {
        let Claim { collection, filter, sort, limit, .. } = claim.clone();
        let query = Query { collection, filter, sort, limit, after: None };
        for row in self.database.find(query).await.map_err(unavailable)?.documents {
            if let Err(error) = message(&row) {
                self.set_aside(&row, &error, now).await?;
            }
        }
        Ok(())
    }

    /// Moves a row that can't be read out of the way, with its bytes: those behind it are delivered.
    async fn set_aside(
        &self,
        row: &Document,
        error: &DatabaseError,
        now: Timestamp,
    ) -> Result<(), QueueError> {
        let reason = crate::error::chain(error);
        if !matches!(error, DatabaseError::Damaged { .. }) {
            tracing::error!(id = row.id, error = reason, "a message can't be read; it is left alone");
            return Ok(());
        }
        let changes = Damaged::set_aside(schema::QUEUE_MESSAGES, row, &reason, now);
        match self.database.commit(changes).await {
            Ok(()) => {
                tracing::error!(alert = true, id = row.id, error = reason, "a damaged message was set aside");
                Ok(())
            }
            Err(DatabaseError::Conflict { .. } | DatabaseError::Missing { .. }) => Ok(()),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// When the first hidden message of the queue becomes visible.
    async fn next_visible(&self, queue: &str) -> Result<Option<Timestamp>, QueueError> {
        let query = Query::new(schema::QUEUE_MESSAGES)
            .filter(Filter::eq("queue", queue))
            .sort(Sort::Field("visible_at".to_owned()))
            .limit(1);
        let page = self.database.find(query).await.map_err(unavailable)?;
        match page.documents.first() {
            // One that can't be read is worth a claim, which sets it aside.
            Some(document) => {
                let row = document.decode::<Row>();
                Ok(Some(row.map_or(Timestamp(i64::MIN), |row| Timestamp(row.value.visible_at))))
            }
            None => Ok(None),
        }
    }
}

fn message(document: &Document) -> Result<Message, DatabaseError> {
    let row = document.decode::<Row>()?.value;
    Ok(Message { receipt: receipt(&row), id: row.id, body: row.body, deliveries: row.deliveries })
}

fn check_name(queue: &str) -> Result<(), QueueError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if queue.is_empty() || queue.len() > 80 || !queue.bytes().all(allowed) {
        let reason = "a queue's name has 1 to 80 of a-z A-Z 0-9 - _";
        return Err(QueueError::Invalid(reason.to_owned()));
    }
    Ok(())
}

fn check_batch(messages: &[NewMessage]) -> Result<(), QueueError> {
    if messages.len() > MAX_BATCH {
        return Err(QueueError::Invalid(format!("a batch has at most {MAX_BATCH} messages")));
    }
    if messages.iter().any(|message| message.body.len() > MAX_BODY) {
        return Err(QueueError::Invalid(format!("a message has at most {MAX_BODY} bytes")));
    }
    Ok(())
}

#[async_trait]
impl QueueClient for DatabaseQueue {
    async fn create(&self, queue: &str) -> Result<(), QueueError> {
        check_name(queue)?;
        let mut changes = Changeset::new();
        changes.insert_json(schema::META, meta_id(queue), &json!({ "queue": queue }));
        match self.database.commit(changes).await {
            Ok(()) | Err(DatabaseError::AlreadyExists { .. }) => {
                self.remember(queue);
                Ok(())
            }
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn send(&self, queue: &str, messages: Vec<NewMessage>) -> Result<(), QueueError> {
        let waiters = self.waiters(queue).await?;
        check_batch(&messages)?;
        if messages.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let mut changes = Changeset::new();
        for NewMessage { body, delay } in messages {
            let visible_at = now.plus(delay).as_micros();
            let id = self.next_id(queue, now);
            changes.insert(&Row { id, queue: queue.to_owned(), body, visible_at, deliveries: 0 });
        }
        self.database.commit(changes).await.map_err(unavailable)?;
        waiters.notify_waiters();
        Ok(())
    }

    async fn receive(
        &self,
        queue: &str,
        max: usize,
        visibility: Micros,
        wait: Micros,
    ) -> Result<Vec<Message>, QueueError> {
        let waiters = self.waiters(queue).await?;
        if max == 0 {
            return Ok(Vec::new());
        }
        let deadline = self.clock.now().plus(wait);
        loop {
            // Listens before it looks, so that nothing that is sent in between is missed.
            let mut sent = std::pin::pin!(waiters.notified());
            sent.as_mut().enable();
            let now = self.clock.now();
            let poll = now.plus(self.settings.poll).min(deadline);
            // A look is cheaper than a claim: an idle queue costs no write.
            let mut next = self.next_visible(queue).await?;
            if next.is_some_and(|visible| visible <= now) {
                let messages = self.claim(queue, max, now, visibility).await?;
                if !messages.is_empty() {
                    return Ok(messages);
                }
                next = self.next_visible(queue).await?.filter(|visible| *visible > now);
            }
            if now >= deadline {
                return Ok(Vec::new());
            }
            let until = next.map_or(poll, |visible| visible.min(poll));
            tokio::select! {
                biased;
                () = sent => {}
                () = self.clock.sleep_until(until) => {}
            }
        }
    }

    async fn delete(&self, queue: &str, receipt: &str) -> Result<(), QueueError> {
        self.waiters(queue).await?;
        let (id, deliveries) = parse_receipt(queue, receipt)?;
        let mut changes = Changeset::new();
        let expect = Expect::Field("deliveries".to_owned(), Scalar::Int(i64::from(deliveries)));
        changes.delete(schema::QUEUE_MESSAGES, id, expect);
        match self.database.commit(changes).await {
            Ok(()) | Err(DatabaseError::Missing { .. }) => Ok(()),
            Err(DatabaseError::Conflict { .. }) => Err(QueueError::StaleReceipt),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn change_visibility(
        &self,
        queue: &str,
        receipt: &str,
        visibility: Micros,
    ) -> Result<(), QueueError> {
        let waiters = self.waiters(queue).await?;
        let (id, deliveries) = parse_receipt(queue, receipt)?;
        for _ in 0..TRIES {
            let document = self.database.get(schema::QUEUE_MESSAGES, id).await.map_err(unavailable)?;
            let mut row: Stored<Row> =
                document.ok_or(QueueError::StaleReceipt)?.decode().map_err(unavailable)?;
            if row.value.deliveries != deliveries {
                return Err(QueueError::StaleReceipt);
            }
            row.value.visible_at = self.clock.now().plus(visibility).as_micros();
            let mut changes = Changeset::new();
            changes.replace(row.version, &row.value);
            match self.database.commit(changes).await {
                Ok(()) => {
                    waiters.notify_waiters();
                    return Ok(());
                }
                Err(DatabaseError::Conflict { .. } | DatabaseError::Missing { .. }) => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
        Err(QueueError::StaleReceipt)
    }

    async fn purge(&self, queue: &str) -> Result<(), QueueError> {
        self.waiters(queue).await?;
        let mut after = None;
        loop {
            let query = Query::new(schema::QUEUE_MESSAGES).filter(Filter::eq("queue", queue)).after(after);
            let page = self.database.find(query).await.map_err(unavailable)?;
            self.remove(&page.documents).await?;
            match page.next {
                Some(cursor) => after = Some(cursor),
                None => return Ok(()),
            }
        }
    }

    async fn depth(&self, queue: &str) -> Result<u64, QueueError> {
        self.waiters(queue).await?;
        self.database.count(schema::QUEUE_MESSAGES, Filter::eq("queue", queue)).await.map_err(unavailable)
    }
}

impl DatabaseQueue {
    /// Removes rows in one commit or, when a receiver overtook it, one by one whatever became of them.
    async fn remove(&self, documents: &[Document]) -> Result<(), QueueError> {
        let mut changes = Changeset::new();
        for document in documents {
            changes.delete(schema::QUEUE_MESSAGES, &document.id, Expect::Version(document.version));
        }
        match self.database.commit(changes).await {
            Ok(()) => return Ok(()),
            Err(DatabaseError::Conflict { .. } | DatabaseError::Missing { .. }) => {}
            Err(error) => return Err(unavailable(error)),
        }
        for document in documents {
            self.remove_one(&document.id).await?;
        }
        Ok(())
    }

    async fn remove_one(&self, id: &str) -> Result<(), QueueError> {
        let mut last = None;
        for _ in 0..TRIES {
            let Some(found) = self.database.get(schema::QUEUE_MESSAGES, id).await.map_err(unavailable)?
            else {
                return Ok(());
            };
            let mut changes = Changeset::new();
            changes.delete(schema::QUEUE_MESSAGES, id, Expect::Version(found.version));
            match self.database.commit(changes).await {
                Ok(()) | Err(DatabaseError::Missing { .. }) => return Ok(()),
                Err(error @ DatabaseError::Conflict { .. }) => last = Some(error),
                Err(error) => return Err(unavailable(error)),
            }
        }
        last.map_or(Ok(()), |error| Err(unavailable(error)))
    }
}
