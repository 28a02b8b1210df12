//! Triggers: background tasks without input that run on a timer or on request. Each is idempotent and answers with a
//! typed report, which the API shows.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// What one run of a trigger did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerReport {
    /// Things looked at.
    pub examined: u64,
    /// Things changed.
    pub changed: u64,
    /// Things that could not be dealt with; each was logged, the rest went on.
    pub failed: u64,
    /// More, for people.
    pub note: Option<String>,
}

/// A background task.
#[async_trait]
pub trait Trigger: Send + Sync + 'static {
    /// Its name: that of its schedule, of its message and in the API.
    fn name(&self) -> &'static str;

    /// Runs once. Twice at the same time, on two replicas, must do no harm.
    async fn fire(&self) -> Result<TriggerReport>;
}
