//! How much may be torn down at one provider for reasons of our own (nobody asked for it: orphans, purges that were given
//! up) before a person has looked: a share of what the provider holds, in an hour. Beyond that nothing more is torn down
//! there, an alert goes out, and it stays so until an operator lets it go on.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::AllocationService;
use crate::{
    core::{
        client::{
            database::{Changeset, Entity, Filter, ReaderExt, Stored},
            schema::{self, Collection},
        },
        market::{
            allocation::AllocationState,
            event::Audience,
            ids::ProviderId,
            quantity::{Micros, Timestamp},
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        outbox,
        work::{Answer, Call, Draft, Work},
    },
};

const HOUR: Micros = Micros::from_secs(3_600);

/// How much that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlastRadius {
    /// Percent of a provider's allocations in an hour.
    pub percent: u32,
    /// So many in an hour are always allowed.
    pub floor: u32,
}

impl Default for BlastRadius {
    fn default() -> Self {
        Self { percent: 10, floor: 10 }
    }
}

/// What was torn down at a provider in the present hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Teardowns {
    /// The provider.
    pub provider: ProviderId,
    /// When the hour began.
    pub since: Timestamp,
    /// Teardowns in it.
    pub used: u32,
    /// How many there may be.
    pub limit: u32,
    /// Since when all are stopped, if they are.
    pub stopped_at: Option<Timestamp>,
}

impl Entity for Teardowns {
    const NAME: &'static str = "teardowns";
    const COLLECTION: Collection = schema::META;
    fn document_id(&self) -> String {
        id_of(self.provider)
    }
}

fn id_of(provider: ProviderId) -> String {
    format!("teardowns/{provider}")
}

impl BlastRadius {
    /// Counts one teardown, in the commit that asks for it. `false`: it must not be asked for, and `changes` say so to
    /// people, if it is new to them.
    pub(super) async fn take(
        self,
        work: &Work,
        provider: ProviderId,
        changes: &mut Changeset,
    ) -> Result<bool> {
        let now = work.now();
        let (version, mut teardowns) = match work.reader.load::<Teardowns>(&id_of(provider)).await? {
            Some(Stored { version, value }) if value.since.plus(HOUR) > now => (version, value),
            found => {
                let version = found.as_ref().map_or(0, |stored| stored.version);
                let stopped_at = found.and_then(|stored| stored.value.stopped_at);
                let limit = self.limit(work, provider).await?;
                (version, Teardowns { provider, since: now, used: 0, limit, stopped_at })
            }
        };
        if teardowns.stopped_at.is_some() {
            return Ok(false);
        }
        let allowed = teardowns.used < teardowns.limit;
        if allowed {
            teardowns.used += 1;
        } else {
            teardowns.stopped_at = Some(now);
            let headline =
                format!("nothing more is torn down at provider {provider} until an operator has looked");
            let body = json!({ "provider": provider, "torn_down": teardowns.used, "limit": teardowns.limit });
            outbox::alert(changes, &work.ids, headline, body);
        }
        match version {
            0 => changes.insert(&teardowns),
            version => changes.replace(version, &teardowns),
        };
        Ok(allowed)
    }

    /// What may be torn down at a provider in an hour, by what it holds now.
    async fn limit(self, work: &Work, provider: ProviderId) -> Result<u32> {
        let states = [AllocationState::Active, AllocationState::Restricted, AllocationState::Closing];
        let states = states.iter().map(|state| state.as_str().into()).collect();
        let filter = Filter::eq("provider", provider.to_string()).and(Filter::In("state".into(), states));
        let held = work.reader.count(schema::ALLOCATIONS, filter).await?;
        let share = u32::try_from(held.saturating_mul(u64::from(self.percent)) / 100).unwrap_or(u32::MAX);
        Ok(share.max(self.floor))
    }
}

impl AllocationService {
    /// Lets teardowns at a provider go on after too many of them had stopped all; for operators, who have looked why. The
    /// hour begins anew.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; [`ErrorCode::InvalidState`] when they have not stopped; database errors.
    pub async fn resume_teardowns(&self, call: &Call, provider: ProviderId) -> Result<Answer<Teardowns>> {
        call.operators_only("let teardowns go on")?;
        let compute = || async {
            let found = self.work.reader.load::<Teardowns>(&id_of(provider)).await?;
            let stopped = found.filter(|stored| stored.value.stopped_at.is_some());
            let Some(Stored { version, value: mut teardowns }) = stopped else {
                return Err(Error::new(
                    ErrorCode::InvalidState,
                    "teardowns at this provider have not stopped",
                ));
            };
            (teardowns.stopped_at, teardowns.used, teardowns.since) = (None, 0, self.work.now());
            let mut changes = Changeset::new();
            changes.replace(version, &teardowns);
            let data = json!({ "limit": teardowns.limit });
            let kind = "provider.teardowns_resumed";
            outbox::event(&mut changes, &self.work.ids, kind, provider, Audience::Operators, data);
            Ok(Draft::new(changes, teardowns))
        };
        self.work.run(call, "provider.resume_teardowns", compute).await
    }
}
