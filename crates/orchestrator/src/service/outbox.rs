//! The outbox: what is to be told to the world, written in the commit that made it true. A relay sends it later.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::core::{
    client::{
        database::{Changeset, Entity},
        notification::Notification,
        scheduler::OneTimeSchedule,
        schema::{self, Collection},
    },
    job::JobKind,
    market::{
        event::{Audience, DomainEvent},
        ids::{EventId, IdGenerator},
        quantity::Timestamp,
    },
};

/// Where a row of the outbox goes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case")]
pub enum Outgoing {
    /// To the event bus.
    Event(DomainEvent),
    /// To a queue.
    Message {
        /// The queue.
        queue: String,
        /// The text.
        body: String,
    },
    /// To people.
    Alert {
        /// The topic.
        topic: String,
        /// What they are told.
        notification: Notification,
    },
    /// To the scheduler.
    Schedule(OneTimeSchedule),
    /// A job that was given up, or the bytes of a poison message, to the dead letters.
    DeadLetter {
        /// The kind of the job.
        kind: JobKind,
        /// The job's id, or the bytes.
        body: String,
    },
}

/// The mark of a row that waits to be sent.
pub const WAITING: i64 = 1;

/// The mark of a row that could not be sent, time and again: it is kept for a person to look at.
pub const QUARANTINED: i64 = -1;

/// A row of the outbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutboxRow {
    /// Its id; sorts by time.
    pub id: EventId,
    /// [`WAITING`] until it is sent, then `None`; [`QUARANTINED`] once the relay gave it up. The relay searches for it.
    pub unsent: Option<i64>,
    /// When it was sent, in microseconds.
    pub sent_at: Option<i64>,
    /// Attempts that failed.
    pub attempts: u32,
    /// What and where to.
    pub outgoing: Outgoing,
    /// When it was committed.
    pub created_at: Timestamp,
}

impl Entity for OutboxRow {
    const NAME: &'static str = "outbox_row";
    const COLLECTION: Collection = schema::OUTBOX;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}

impl OutboxRow {
    /// One that waits to be sent.
    const fn waiting(id: EventId, outgoing: Outgoing, created_at: Timestamp) -> Self {
        Self { id, unsent: Some(WAITING), sent_at: None, attempts: 0, outgoing, created_at }
    }
}

/// Adds something to be sent to a changeset.
pub fn send(changes: &mut Changeset, ids: &IdGenerator, outgoing: Outgoing) {
    changes.insert(&OutboxRow::waiting(ids.next(), outgoing, ids.now()));
}

/// Adds a domain event to a changeset.
pub fn event(
    changes: &mut Changeset,
    ids: &IdGenerator,
    kind: &str,
    subject: impl ToString,
    audience: Audience,
    data: Value,
) {
    let id = ids.next();
    let now = ids.now();
    let event =
        DomainEvent { id, kind: kind.to_owned(), subject: subject.to_string(), audience, data, at: now };
    changes.insert(&OutboxRow::waiting(id, Outgoing::Event(event), now));
}

/// Adds an alert to people to a changeset.
pub fn alert(changes: &mut Changeset, ids: &IdGenerator, subject: String, body: Value) {
    let id: EventId = ids.next();
    let notification = Notification { id: id.to_string(), subject, body };
    let outgoing = Outgoing::Alert { topic: ALERT_TOPIC.to_owned(), notification };
    changes.insert(&OutboxRow::waiting(id, outgoing, ids.now()));
}

/// The topic that operators subscribe to.
pub const ALERT_TOPIC: &str = "alerts";
