//! Providers, consumers and data units: registration, terms and the units' lifecycle.

pub(crate) mod bootstrap;
mod input;
pub(crate) mod maintenance;
mod party;
mod unit;
mod validate;

pub use bootstrap::{DefaultMarket, ensure_default_market};
pub use input::{MaintenanceRequest, NewAdapter, NewConsumer, NewProvider, NewUnit, TermsUpdate, UnitQuery};
pub use maintenance::{UnitDue, UnitMaintenance};
pub(in crate::service) use validate::size;

use std::sync::Arc;

use super::work::Work;
use crate::core::{
    client::vault::Vault,
    market::{quantity::Micros, terms::DomainId},
};

/// What the market's service is tuned by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarketSettings {
    /// Settlement domains that providers and consumers may choose.
    pub domains: Vec<DomainId>,
    /// Those of them whose accounts have owners on a chain.
    pub owned_domains: Vec<DomainId>,
    /// Longest maintenance window.
    pub longest_maintenance: Micros,
}

impl Default for MarketSettings {
    fn default() -> Self {
        Self {
            domains: vec![DomainId::local()],
            owned_domains: Vec::new(),
            longest_maintenance: Micros::from_days(7),
        }
    }
}

/// Registers providers, consumers and units, and leads the units through their lifecycle.
///
/// Operators register providers and consumers, because only they hand out keys; a provider registers its own units.
#[derive(Clone)]
pub struct MarketService {
    work: Work,
    vault: Arc<dyn Vault>,
    settings: MarketSettings,
}

impl MarketService {
    /// A service over the unit of work; the vault seals the tokens of providers elsewhere.
    #[must_use]
    pub fn new(work: Work, vault: Arc<dyn Vault>, settings: MarketSettings) -> Self {
        Self { work, vault, settings }
    }
}
