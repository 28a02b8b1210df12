//! What the market shows: reputations, and the ranked offerings over an in-memory projection of the units.

mod bitmap;
pub mod feed;
pub mod offering;
mod pages;
mod performance;
pub mod projection;
pub mod reputation;

pub use feed::{ChangeFeed, WatchedCommitter};
pub use offering::{OfferingService, OfferingSettings};
pub use projection::{Offering, OfferingPage, OfferingSort, Removed};
pub use reputation::{DailyReputation, ProviderReputation, ReputationService};
