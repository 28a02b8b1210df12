//! Data units: registration, terms, decommissioning.

use serde_json::json;

use super::{MarketService, NewUnit, TermsUpdate, UnitQuery, maintenance::UnitDue, validate};
use crate::{
    core::{
        client::database::{Changeset, Filter, ReaderExt, Sort, Stored},
        market::{
            event::Audience,
            ids::{ProviderId, UnitId},
            party::Principal,
            unit::{DataUnit, UnitEvent, UnitMode, transition},
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        ledger::{UnsealedKind, UnsealedMarker},
        outbox,
        page::{Listing, PageRequest, list},
        work::{Answer, Call, Draft},
    },
};

impl MarketService {
    /// Registers a unit: a provider its own, an operator any provider's.
    ///
    /// # Errors
    /// `Forbidden`; `InvalidField` with the field; `NotFound` for the provider; those of `Work::run`.
    pub async fn register_unit(&self, call: &Call, new: NewUnit) -> Result<Answer<DataUnit>> {
        let owner = owner(call, new.provider)?;
        validate::unit(&new)?;
        let provider = self.stored_provider(owner).await?;
        let compute = || async {
            let now = self.work.now();
            let unit = DataUnit {
                id: self.work.ids.next(),
                provider: provider.id,
                name: new.name.clone(),
                domain: provider.domain.clone(),
                kind: new.kind.clone().unwrap_or_else(|| "storage".into()),
                profile: new.profile.clone().unwrap_or_else(|| "s3".into()),
                region: new.region.clone(),
                country: new.country.clone(),
                capacity: new.capacity,
                free: new.capacity.signed(),
                live: 0,
                active: 0,
                features: new.features,
                tags: new.tags.clone(),
                price: new.price,
                price_bounds: new.price_bounds,
                sla: new.sla.clone(),
                mode: UnitMode::Open,
                maintenance: Vec::new(),
                created_at: now,
                updated_at: now,
            };
            let mut changes = Changeset::new();
            changes.insert(&unit).insert(&terms_marker(&unit, 1));
            self.announce(&mut changes, "unit.registered", &unit);
            Ok(Draft::new(changes, unit))
        };
        self.work.run(call, "unit.register", compute).await
    }

    /// A unit; open to everybody with a key.
    ///
    /// # Errors
    /// `NotFound`; database errors.
    pub async fn unit(&self, _call: &Call, id: UnitId) -> Result<DataUnit> {
        Ok(self.stored_unit(id).await?.value)
    }

    /// Units; open to everybody with a key.
    ///
    /// # Errors
    /// Database errors.
    pub async fn units(
        &self,
        _call: &Call,
        query: UnitQuery,
        page: PageRequest,
    ) -> Result<Listing<DataUnit>> {
        let mut filter = Filter::All;
        if let Some(provider) = query.provider {
            filter = filter.and(Filter::eq("provider", provider.to_string()));
        }
        if let Some(mode) = query.mode {
            filter = filter.and(Filter::eq("mode", mode.as_str()));
        }
        list(self.work.reader.as_ref(), filter, Sort::Id, page).await
    }

    /// Changes price, bounds, promise or tags for reservations from now on; running allocations keep theirs.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `InvalidField`, `InvalidState` for a unit that is being taken out.
    pub async fn update_terms(
        &self,
        call: &Call,
        id: UnitId,
        update: TermsUpdate,
    ) -> Result<Answer<DataUnit>> {
        let compute = || async {
            let Stored { version, value: mut unit } = self.owned_unit(call, id).await?;
            if matches!(unit.mode, UnitMode::Decommissioning | UnitMode::Decommissioned) {
                return Err(Error::new(
                    ErrorCode::InvalidState,
                    "the unit is being taken out; its terms can't change any more",
                ));
            }
            if let Some(price) = update.price {
                unit.price = price;
            }
            if let Some(bounds) = update.price_bounds {
                unit.price_bounds = bounds;
            }
            if let Some(sla) = &update.sla {
                unit.sla = sla.clone();
            }
            if let Some(tags) = &update.tags {
                unit.tags = tags.clone();
            }
            validate::price(&unit.price, unit.price_bounds.as_ref(), unit.capacity)?;
            validate::sla(&unit.sla)?;
            validate::tags(&unit.tags)?;
            unit.updated_at = self.work.now();
            let mut changes = Changeset::new();
            changes.replace(version, &unit).insert(&terms_marker(&unit, version + 1));
            self.announce(&mut changes, "unit.terms_changed", &unit);
            Ok(Draft::new(changes, unit))
        };
        self.work.run(call, "unit.update_terms", compute).await
    }

    /// Takes a unit out: no new allocations; gone as soon as none is live. Live ones run to their end: moving them to another
    /// unit is not supported yet.
    ///
    /// # Errors
    /// `NotFound`, `Forbidden`, `InvalidState`.
    pub async fn decommission(&self, call: &Call, id: UnitId) -> Result<Answer<DataUnit>> {
        let compute = || async {
            let Stored { version, value: mut unit } = self.owned_unit(call, id).await?;
            unit.mode = transition(unit.mode, UnitEvent::Decommission, unit.live)?;
            unit.updated_at = self.work.now();
            let mut changes = Changeset::new();
            if unit.live == 0 {
                unit.mode = transition(unit.mode, UnitEvent::Emptied, unit.live)?;
            } else {
                UnitDue::set(&mut changes, self.work.reader.as_ref(), id, Some(self.work.now())).await?;
            }
            changes.replace(version, &unit);
            let kind = if unit.live == 0 { "unit.decommissioned" } else { "unit.decommissioning" };
            self.announce(&mut changes, kind, &unit);
            Ok(Draft::new(changes, unit))
        };
        self.work.run(call, "unit.decommission", compute).await
    }

    pub(super) fn announce(&self, changes: &mut Changeset, kind: &str, unit: &DataUnit) {
        let data = json!({"mode": unit.mode, "state": unit.state(), "provider": unit.provider});
        outbox::event(changes, &self.work.ids, kind, unit.id, Audience::Public, data);
    }

    /// The unit, for somebody who may change it.
    pub(super) async fn owned_unit(&self, call: &Call, id: UnitId) -> Result<Stored<DataUnit>> {
        match call.principal {
            Principal::Operator(_) | Principal::System => self.stored_unit(id).await,
            Principal::Provider(provider) => {
                let unit = self.stored_unit(id).await?;
                if unit.value.provider != provider {
                    return Err(Error::not_found("data unit", id));
                }
                Ok(unit)
            }
            Principal::Consumer(_) | Principal::Oracle(_) => Err(not_yours()),
        }
    }

    pub(super) async fn stored_unit(&self, id: UnitId) -> Result<Stored<DataUnit>> {
        let stored = self.work.reader.load::<DataUnit>(&id.to_string()).await?;
        stored.ok_or_else(|| Error::not_found("data unit", id))
    }
}

fn owner(call: &Call, wanted: Option<ProviderId>) -> Result<ProviderId> {
    match (call.principal, wanted) {
        (Principal::Provider(own), None) => Ok(own),
        (Principal::Provider(own), Some(wanted)) if own == wanted => Ok(own),
        (Principal::Provider(_), Some(other)) => Err(Error::not_found("provider", other)),
        (Principal::Operator(_) | Principal::System, Some(provider)) => Ok(provider),
        (Principal::Operator(_) | Principal::System, None) => {
            Err(Error::field("provider", "an operator names the provider that owns the unit"))
        }
        (Principal::Consumer(_) | Principal::Oracle(_), _) => Err(not_yours()),
    }
}

fn not_yours() -> Error {
    Error::new(ErrorCode::Forbidden, "only providers and operators may register and change units")
}

/// The marker that makes the next block commit to the unit's terms as of `version`.
pub(super) fn terms_marker(unit: &DataUnit, version: u64) -> UnsealedMarker {
    UnsealedMarker {
        id: format!("{}@{version}", unit.id),
        domain: unit.domain.clone(),
        kind: UnsealedKind::Unit,
    }
}
