//! Reputation and score documents.

use serde::{Deserialize, Serialize};

use super::{
    ids::{ProviderId, UnitId},
    quantity::Timestamp,
};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// The reputation of a unit, with what it was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reputation {
    /// The unit.
    pub unit: UnitId,
    /// Its owner.
    pub provider: ProviderId,
    /// 0 to 100,000: thousandths of a point, so that daily decay stays an integer.
    pub millipoints: u32,
    /// The last day that was judged, in days since the epoch.
    pub day: i64,
    /// The latest changes, newest last.
    pub history: Vec<ReputationChange>,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// One day's change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReputationChange {
    /// The day, in days since the epoch.
    pub day: i64,
    /// What was added, in thousandths of a point, before clamping.
    pub delta: i32,
    /// Why, for people.
    pub reason: String,
}

impl Entity for Reputation {
    const NAME: &'static str = "reputation";
    const COLLECTION: Collection = schema::REPUTATIONS;
    fn document_id(&self) -> String {
        self.unit.to_string()
    }
}
