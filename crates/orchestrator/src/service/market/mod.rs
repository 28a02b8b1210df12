//! Providers, consumers and data units: registration, terms and the units' lifecycle.

mod input;

pub use input::{
    Listing, MaintenanceRequest, NewConsumer, NewProvider, NewUnit, PageRequest, TermsUpdate, UnitQuery,
};

use super::work::{Answer, Call, Work};
use crate::{
    core::market::{
        ids::{ConsumerId, ProviderId, UnitId},
        party::{Consumer, Provider},
        quantity::{Micros, Timestamp},
        terms::DomainId,
        unit::DataUnit,
    },
    error::{Error, ErrorCode, Result},
};

/// What the market's service is tuned by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarketSettings {
    /// Settlement domains that providers and consumers may choose.
    pub domains: Vec<DomainId>,
    /// Longest maintenance window.
    pub longest_maintenance: Micros,
}

impl Default for MarketSettings {
    fn default() -> Self {
        Self { domains: vec![DomainId::local()], longest_maintenance: Micros::from_days(7) }
    }
}

/// Registers providers, consumers and units, and leads the units through their lifecycle.
///
/// Operators register providers and consumers, because only they hand out keys; a provider registers its own units.
#[derive(Clone)]
pub struct MarketService {
    work: Work,
    settings: MarketSettings,
}

impl MarketService {
    /// A service over the unit of work.
    #[must_use]
    pub const fn new(work: Work, settings: MarketSettings) -> Self {
        Self { work, settings }
    }
}

#[expect(
    missing_docs,
    clippy::missing_errors_doc,
    clippy::unused_async,
    unused_variables,
    reason = "signatures first"
)]
impl MarketService {
    pub async fn register_provider(&self, call: &Call, new: NewProvider) -> Result<Answer<Provider>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn provider(&self, call: &Call, id: ProviderId) -> Result<Provider> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn providers(&self, call: &Call, page: PageRequest) -> Result<Listing<Provider>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn register_consumer(&self, call: &Call, new: NewConsumer) -> Result<Answer<Consumer>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn consumer(&self, call: &Call, id: ConsumerId) -> Result<Consumer> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn consumers(&self, call: &Call, page: PageRequest) -> Result<Listing<Consumer>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn register_unit(&self, call: &Call, new: NewUnit) -> Result<Answer<DataUnit>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn unit(&self, call: &Call, id: UnitId) -> Result<DataUnit> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn units(&self, call: &Call, query: UnitQuery, page: PageRequest) -> Result<Listing<DataUnit>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn update_terms(
        &self,
        call: &Call,
        id: UnitId,
        update: TermsUpdate,
    ) -> Result<Answer<DataUnit>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn announce_maintenance(
        &self,
        call: &Call,
        id: UnitId,
        window: MaintenanceRequest,
    ) -> Result<Answer<DataUnit>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn begin_maintenance(
        &self,
        call: &Call,
        id: UnitId,
        until: Timestamp,
    ) -> Result<Answer<DataUnit>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn end_maintenance(&self, call: &Call, id: UnitId) -> Result<Answer<DataUnit>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
    pub async fn decommission(&self, call: &Call, id: UnitId) -> Result<Answer<DataUnit>> {
        Err(Error::new(ErrorCode::NotSupported, "not built yet"))
    }
}
