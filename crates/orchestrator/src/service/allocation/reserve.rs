//! Reserving: capacity is taken and terms are frozen in one commit, which checks again what the offering promised.

use std::collections::BTreeSet;

use parking_lot::Mutex;

use super::{AllocationService, ReserveRequest, Target, change, marker};
use crate::{
    core::{
        client::{
            database::{Changeset, DatabaseError, Expect, ReaderExt},
            scheduler::OneTimeSchedule,
            schema,
        },
        market::{
            allocation::{Allocation, AllocationState, Usage},
            ids::{AllocationId, ConsumerId, UnitId},
            money::Amount,
            party::{Consumer, Principal},
            quantity::{Bytes, Timestamp},
            unit::{DataUnit, UnitMode},
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        market::size,
        outbox::{self, Outgoing},
        work::{Answer, Call, Draft},
    },
};

/// The queue that trigger names are sent to.
pub const TRIGGER_QUEUE: &str = "triggers";
/// The trigger that expires what was not funded.
pub const EXPIRE_RESERVATIONS: &str = "expire_reservations";
/// How many of the best offerings are tried when others are faster.
const CANDIDATES: usize = 8;

impl AllocationService {
    /// Reserves a part of a unit. The price and the promise are frozen, the capacity is held until `reserved_until`.
    ///
    /// # Errors
    /// `InvalidField`; `Forbidden` for providers and oracles; `NotFound` for unit or consumer; `NoMatchingOffering`;
    /// `InsufficientCapacity`; `InvalidState` for a unit that takes nothing; those of `Work::run`.
    pub async fn reserve(&self, call: &Call, request: ReserveRequest) -> Result<Answer<Allocation>> {
        let consumer = payer(call, request.consumer)?;
        self.check(&request)?;
        let refused = Mutex::new(BTreeSet::<UnitId>::new());
        loop {
            let chosen = Mutex::new(None);
            let compute = || async {
                let unit = self.choose(&request, &refused).await?;
                *chosen.lock() = Some(unit.id);
                self.draft_reservation(consumer, &request, &unit).await
            };
            let answer = self.work.run_mapped(call, "allocation.reserve", compute, full).await;
            let unit = chosen.into_inner();
            match (&request.target, unit, answer) {
                // Somebody else took the room in between: the next best one may do.
                (Target::Best(_), Some(unit), Err(error))
                    if error.code == ErrorCode::InsufficientCapacity && refused.lock().len() < CANDIDATES =>
                {
                    refused.lock().insert(unit);
                }
                (_, _, answer) => return answer,
            }
        }
    }

    fn check(&self, request: &ReserveRequest) -> Result<()> {
        size("bytes", request.bytes)?;
        if request.egress_allowance > Bytes::MAX {
            return Err(Error::field(
                "egress_allowance",
                format!("an allowance is at most {} bytes", Bytes::MAX.0),
            ));
        }
        let (shortest, longest) = (self.settings.shortest_period, self.settings.longest_period);
        if !(shortest..=longest).contains(&request.period) {
            let (from, to) = (shortest.as_secs(), longest.as_secs());
            return Err(Error::field("period", format!("a period is {from} to {to} seconds long")));
        }
        Ok(())
    }

    async fn choose(&self, request: &ReserveRequest, refused: &Mutex<BTreeSet<UnitId>>) -> Result<DataUnit> {
        let filter = match &request.target {
            Target::Unit(id) => {
                let unit = self.unit(*id).await?.ok_or_else(|| Error::not_found("data unit", id))?;
                takes(&unit, request.bytes)?;
                return Ok(unit);
            }
            Target::Best(filter) => filter,
        };
        let mut filter = filter.clone();
        filter.min_free = Some(filter.min_free.map_or(request.bytes, |least| least.max(request.bytes)));
        let candidates = self.offerings.pick(&filter, CANDIDATES).await?;
        let mut last = None;
        for id in candidates {
            if refused.lock().contains(&id) {
                continue;
            }
            let Some(unit) = self.unit(id).await? else { continue };
            match takes(&unit, request.bytes) {
                Ok(()) => return Ok(unit),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::new(
                ErrorCode::InsufficientCapacity,
                "the offerings that matched were taken by others; look for offerings again",
            )
        }))
    }

    async fn unit(&self, id: UnitId) -> Result<Option<DataUnit>> {
        Ok(self.work.reader.load::<DataUnit>(&id.to_string()).await?.map(|stored| stored.value))
    }

    async fn draft_reservation(
        &self,
        consumer: ConsumerId,
        request: &ReserveRequest,
        unit: &DataUnit,
    ) -> Result<Draft<Allocation>> {
        let known = self.work.reader.load::<Consumer>(&consumer.to_string()).await?;
        let payer = known.ok_or_else(|| Error::not_found("consumer", consumer))?.value;
        if payer.domain != unit.domain {
            return Err(Error::field(
                "unit",
                format!("the unit settles in `{}`, the consumer in `{}`", unit.domain, payer.domain),
            ));
        }
        let allocation = self.frozen(consumer, request, unit)?;
        let mut changes = Changeset::new();
        // The mode is checked by value, not by version: reservations of one unit must not contend with each other.
        changes
            .require(schema::UNITS, unit.id, Expect::Field("mode".into(), UnitMode::Open.as_str().into()))
            .add(schema::UNITS, unit.id, "free", -allocation.bytes.signed(), 0)
            .add(schema::UNITS, unit.id, "live", 1, 0)
            .insert(&allocation)
            .insert(&marker(&allocation, 1));
        change::announce(&mut changes, &self.work.ids, &allocation, "allocation.reserved");
        let expiry = expiry(allocation.id, allocation.reserved_until);
        outbox::send(&mut changes, &self.work.ids, Outgoing::Schedule(expiry));
        Ok(Draft::new(changes, allocation))
    }

    fn frozen(&self, consumer: ConsumerId, request: &ReserveRequest, unit: &DataUnit) -> Result<Allocation> {
        let escrow_required = unit
            .price
            .ceiling(request.bytes, request.period, request.egress_allowance)
            .ok_or_else(|| Error::new(ErrorCode::Overflow, "the price of this allocation does not fit"))?;
        let now = self.work.now();
        Ok(Allocation {
            id: self.work.ids.next(),
            consumer,
            unit: unit.id,
            provider: unit.provider,
            domain: unit.domain.clone(),
            bytes: request.bytes,
            egress_allowance: request.egress_allowance,
            period: request.period,
            price: unit.price,
            sla: unit.sla.clone(),
            escrow_required,
            state: AllocationState::Reserved,
            access: AllocationState::Reserved.access(),
            restrictions: BTreeSet::new(),
            routing: None,
            reserved_until: now.plus(self.settings.reservation),
            activated_at: None,
            ends_at: None,
            closing_at: None,
            purge_at: None,
            periods_settled: 0,
            settled_through: None,
            settled_usage: Usage::default(),
            usage: Usage::default(),
            paid: Amount::ZERO,
            credited: Amount::ZERO,
            breached_in_a_row: 0,
            earlier: Vec::new(),
            failure: None,
            created_at: now,
            updated_at: now,
        })
    }
}

/// Who pays: consumers themselves, or whom an operator names.
fn payer(call: &Call, wanted: Option<ConsumerId>) -> Result<ConsumerId> {
    match (call.principal, wanted) {
        (Principal::Consumer(own), None) => Ok(own),
        (Principal::Consumer(own), Some(wanted)) if own == wanted => Ok(own),
        (Principal::Consumer(_), Some(other)) => Err(Error::not_found("consumer", other)),
        (Principal::Operator(_) | Principal::System, Some(consumer)) => Ok(consumer),
        (Principal::Operator(_) | Principal::System, None) => {
            Err(Error::field("consumer", "an operator names the consumer that pays"))
        }
        (Principal::Provider(_) | Principal::Oracle(_), _) => {
            Err(Error::new(ErrorCode::Forbidden, "only consumers and operators may reserve"))
        }
    }
}

/// Whether the unit takes a reservation of this size now.
fn takes(unit: &DataUnit, bytes: Bytes) -> Result<()> {
    if unit.mode != UnitMode::Open {
        let text = format!("unit {} is in mode {} and takes no allocations", unit.id, unit.mode.as_str());
        return Err(Error::new(ErrorCode::InvalidState, text));
    }
    if unit.free < bytes.signed() {
        return Err(insufficient(&unit.id.to_string(), Some(unit.free)));
    }
    Ok(())
}

fn insufficient(unit: &str, free: Option<i64>) -> Error {
    let text = match free {
        Some(free) => format!("unit {unit} has {free} bytes free; ask for less, or for another unit"),
        None => format!("unit {unit} has too few bytes free; ask for less, or for another unit"),
    };
    Error::new(ErrorCode::InsufficientCapacity, text)
}

fn full(error: DatabaseError) -> Error {
    match &error {
        DatabaseError::BelowFloor { id, .. } => insufficient(id, None).because(error),
        _ => Error::from(error),
    }
}

/// Fires the expiry trigger when the reservation runs out.
fn expiry(id: AllocationId, at: Timestamp) -> OneTimeSchedule {
    OneTimeSchedule {
        name: format!("expire-{id}"),
        at,
        queue: TRIGGER_QUEUE.into(),
        body: EXPIRE_RESERVATIONS.into(),
        enabled: true,
    }
}
