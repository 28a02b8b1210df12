//! Logged changes of prices.

use serde::{Deserialize, Serialize};

use super::{
    ids::{PriceChangeId, ProviderId, UnitId},
    money::Amount,
    quantity::Timestamp,
};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// A change of a unit's storage price by an advisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceChange {
    /// Its id; sorts by time.
    pub id: PriceChangeId,
    /// The unit.
    pub unit: UnitId,
    /// Its owner.
    pub provider: ProviderId,
    /// Price per GiB-month before.
    pub before: Amount,
    /// Price per GiB-month after.
    pub after: Amount,
    /// Which advisor.
    pub advisor: String,
    /// Why, for people.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

impl Entity for PriceChange {
    const NAME: &'static str = "price_change";
    const COLLECTION: Collection = schema::PRICE_CHANGES;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}
