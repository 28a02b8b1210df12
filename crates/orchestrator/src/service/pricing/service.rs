//! The trigger that reprices units once a day, and the history of prices.

use std::sync::Arc;

use async_trait::async_trait;

use super::advisor::{MarketView, PriceAdvisor};
use crate::{
    core::{
        client::database::{Changeset, DatabaseError, Entity, Filter, Query, ReaderExt, Sort, Stored},
        market::{
            event::Audience,
            ids::UnitId,
            money::Amount,
            pricing::PriceChange,
            quantity::{Micros, Ppm},
            reputation::START,
            score::Reputation,
            terms::PriceBounds,
            unit::{DataUnit, UnitMode},
        },
    },
    error::{Error, Result},
    service::{
        job::{Trigger, TriggerReport},
        ledger::{UnsealedKind, UnsealedMarker},
        outbox,
        page::{Listing, PageRequest, list},
        work::{Call, Work},
    },
};

/// The largest change of one day: ten percent.
const MAX_CHANGE: Ppm = Ppm(100_000);

/// Shows the history of prices.
#[derive(Clone)]
pub struct PricingService {
    work: Work,
}

impl PricingService {
    /// A service over the unit of work.
    #[must_use]
    pub const fn new(work: Work) -> Self {
        Self { work }
    }

    /// The changes of a unit's price, latest first; open to everybody with a key.
    ///
    /// # Errors
    /// [`crate::error::ErrorCode::NotFound`]; database errors.
    pub async fn history(
        &self,
        _call: &Call,
        unit: UnitId,
        page: PageRequest,
    ) -> Result<Listing<PriceChange>> {
        if self.work.reader.load::<DataUnit>(&unit.to_string()).await?.is_none() {
            return Err(Error::not_found("unit", unit));
        }
        let filter = Filter::eq("unit", unit.to_string());
        list(self.work.reader.as_ref(), filter, Sort::IdDescending, page).await
    }
}

/// Lets an advisor move the prices of the units that have bounds, at most once in `interval` each.
pub struct Reprice {
    work: Work,
    advisor: Arc<dyn PriceAdvisor>,
    interval: Micros,
}

impl Reprice {
    /// The trigger; `interval` is a day.
    #[must_use]
    pub fn new(work: Work, advisor: Arc<dyn PriceAdvisor>, interval: Micros) -> Self {
        Self { work, advisor, interval }
    }

    async fn reprice(&self, unit: Stored<DataUnit>, bounds: PriceBounds, median: Amount) -> Result<bool> {
        let Stored { version, value: mut unit } = unit;
        let now = self.work.now();
        let query = Query::new(PriceChange::COLLECTION)
            .filter(Filter::eq("unit", unit.id.to_string()))
            .sort(Sort::IdDescending)
            .limit(1);
        let last = self.work.reader.list::<PriceChange>(query).await?.0.pop();
        if last.is_some_and(|l| now.since(l.value.at) < self.interval) {
            return Ok(false);
        }
        let reputation = self.work.reader.load::<Reputation>(&unit.id.to_string()).await?;
        let used = u128::from(unit.capacity.get()).saturating_sub(u128::try_from(unit.free).unwrap_or(0));
        let utilisation = used * 1_000_000 / u128::from(unit.capacity.get().max(1));
        let before = unit.price.per_gib_month;
        let advice = self.advisor.advise(&MarketView {
            price: before,
            median,
            utilisation: Ppm(u32::try_from(utilisation).unwrap_or(1_000_000)),
            reputation: reputation.map_or(START, |r| r.value.millipoints),
        })?;
        let after = clamp(advice.price, before, bounds);
        if after == before {
            return Ok(false);
        }
        let change = PriceChange {
            id: self.work.ids.next(),
            unit: unit.id,
            provider: unit.provider,
            before,
            after,
            advisor: self.advisor.name().to_owned(),
            reason: advice.reason,
            at: now,
        };
        unit.price.per_gib_month = after;
        unit.updated_at = now;
        let mut changes = Changeset::new();
        changes.replace(version, &unit).insert(&change).insert(&UnsealedMarker {
            id: format!("{}@price-{}", unit.id, now.as_micros()),
            domain: unit.domain.clone(),
            kind: UnsealedKind::Unit,
        });
        let data = serde_json::json!({"before": before, "after": after, "reason": change.reason});
        outbox::event(&mut changes, &self.work.ids, "unit.repriced", unit.id, Audience::Public, data);
        match self.work.committer.commit(changes).await {
            Ok(()) => Ok(true),
            // The unit is busy, or another replica repriced it: the next run looks again.
            Err(DatabaseError::Conflict { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The wish, within a tenth of the price before and inside the provider's bounds. A price that lies outside of its bounds
/// moves toward them by a tenth a day.
fn clamp(wish: Amount, before: Amount, bounds: PriceBounds) -> Amount {
    let step = before.ppm(MAX_CHANGE);
    let low = before.saturating_sub(step);
    let high = Amount(before.get().saturating_add(step.get()));
    wish.max(bounds.min).min(bounds.max.max(bounds.min)).max(low).min(high)
}

#[async_trait]
impl Trigger for Reprice {
    fn name(&self) -> &'static str {
        "reprice"
    }

    async fn fire(&self) -> Result<TriggerReport> {
        let mut report = TriggerReport::default();
        let units = self.work.reader.list_all::<DataUnit>(Filter::eq("mode", "open")).await?;
        let mut prices: Vec<Amount> = units.iter().map(|u| u.value.price.per_gib_month).collect();
        prices.sort_unstable();
        let median = prices.get(prices.len().saturating_sub(1) / 2).copied().unwrap_or_default();
        for unit in units {
            let (id, Some(bounds)) = (unit.value.id, unit.value.price_bounds) else { continue };
            if unit.value.mode != UnitMode::Open {
                continue;
            }
            report.examined += 1;
            match self.reprice(unit, bounds, median).await {
                Ok(true) => report.changed += 1,
                Ok(false) => {}
                Err(error) => {
                    report.failed += 1;
                    tracing::warn!(unit = %id, error = %crate::error::chain(&error), "a price could not be moved");
                }
            }
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_is_clamped_to_a_tenth_and_to_the_bounds() {
        let bounds = PriceBounds { min: Amount(950), max: Amount(1_050) };
        assert_eq!(clamp(Amount(2_000), Amount(1_000), bounds), Amount(1_050));
        assert_eq!(clamp(Amount(1), Amount(1_000), bounds), Amount(950));
        let wide = PriceBounds { min: Amount(0), max: Amount(u128::MAX) };
        assert_eq!(clamp(Amount(u128::MAX), Amount(1_000), wide), Amount(1_100));
        assert_eq!(clamp(Amount(0), Amount(1_000), wide), Amount(900));
        // Outside of the bounds: a tenth a day.
        assert_eq!(clamp(Amount(5_000), Amount(5_000), bounds), Amount(4_500));
    }
}
