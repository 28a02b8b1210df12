//! The first start: a provider and a unit of our own, so that there is something to buy.

use serde::{Deserialize, Serialize};

use super::{MarketService, NewProvider, NewUnit};
use crate::{
    core::{
        client::{
            database::{Changeset, DatabaseError, Entity, ReaderExt},
            schema::{self, Collection},
        },
        market::{
            ids::{ProviderId, UnitId},
            party::Principal,
        },
    },
    error::Result,
    service::work::{Call, RequestKey},
};

/// What the first start made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultMarket {
    /// The built-in provider.
    pub provider: ProviderId,
    /// Its unit.
    pub unit: UnitId,
}

impl Entity for DefaultMarket {
    const NAME: &'static str = "default_market";
    const COLLECTION: Collection = schema::META;
    fn document_id(&self) -> String {
        RECORD.into()
    }
}

const RECORD: &str = "default_market";

/// Registers the built-in provider and one unit, once; later calls answer what the first one made, whatever they ask
/// for. The two registrations carry fixed request keys, so that a start that died half-way is gone on with.
///
/// # Errors
/// Those of the two registrations.
pub async fn ensure_default_market(
    market: &MarketService,
    provider: NewProvider,
    unit: NewUnit,
) -> Result<DefaultMarket> {
    if let Some(made) = market.work.reader.load::<DefaultMarket>(RECORD).await? {
        return Ok(made.value);
    }
    let provider = market.register_provider(&first("provider"), provider).await?.value.id;
    let unit = NewUnit { provider: Some(provider), ..unit };
    let unit = market.register_unit(&first("unit"), unit).await?.value.id;
    let made = DefaultMarket { provider, unit };
    let mut changes = Changeset::new();
    changes.insert(&made);
    match market.work.committer.commit(changes).await {
        // Another replica started at the same time: the request keys gave both the same ids.
        Ok(()) | Err(DatabaseError::AlreadyExists { .. }) => Ok(made),
        Err(error) => Err(error.into()),
    }
}

fn first(what: &str) -> Call {
    let request = RequestKey { id: format!("bootstrap/{what}"), fingerprint: "bootstrap".into() };
    Call { principal: Principal::System, request: Some(request), trace_id: "bootstrap".into() }
}
