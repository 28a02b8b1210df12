//! Domain events: what the rest of the world may be told, written to the outbox in the commit that made them true.

use serde::{Deserialize, Serialize};

use super::{ids::EventId, quantity::Timestamp};

/// Who may see an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Anybody with a key.
    Public,
    /// The named tenants, and operators.
    Tenants(Vec<String>),
    /// Operators only.
    Operators,
}

/// A domain event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainEvent {
    /// Its id; sorts by time.
    pub id: EventId,
    /// Dotted name, such as `allocation.active`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The id of what changed.
    pub subject: String,
    /// Who may see it.
    pub audience: Audience,
    /// Details; never a secret.
    pub data: serde_json::Value,
    /// When it became true.
    pub at: Timestamp,
}
