//! Removes an allocation's keys and data at the provider: at the end of the grace, or because it is an orphan that no
//! live allocation stands behind.

use async_trait::async_trait;
use serde::Deserialize;

use super::{
    ProvisioningSettings,
    desk::{Desk, known},
    provision::advance,
};
use crate::{
    core::{
        client::{
            database::{Changeset, Filter, ReaderExt, Stored},
            provider::Operation,
        },
        job::JobKind,
        market::{
            allocation::{Allocation, AllocationEvent, AllocationState},
            credential::{Credential, CredentialEvent},
            ids::ProviderId,
            quantity::Micros,
        },
    },
    service::{
        allocation::{Counters, record},
        job::{JobContext, JobError, JobHandler, Policy, Processed, step::PurgeStep},
    },
};

/// The handler of `purge`.
pub struct Purge {
    desk: Desk,
    settings: ProvisioningSettings,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Input {
    /// Remove what a provider holds for an allocation that is over, or that nobody knows.
    orphan: bool,
    /// Where, for allocations that nobody knows.
    provider: Option<ProviderId>,
}

impl Purge {
    /// A handler over the given ports.
    #[must_use]
    pub const fn new(desk: Desk, settings: ProvisioningSettings) -> Self {
        Self { desk, settings }
    }

    async fn remove(&self, context: &dyn JobContext, provider: ProviderId) -> Result<(), JobError> {
        let client = self.desk.client(provider).await?;
        let id = Desk::subject(context.job())?;
        let (generation, step) = (context.generation(), PurgeStep::Deallocate);
        match known(client.call(context, step, |client| client.deallocate(id, generation)).await)? {
            None | Some(Operation::Done(())) => Ok(()),
            Some(Operation::Pending) => Err(JobError::PollAgain(self.settings.poll)),
        }
    }

    async fn orphan(&self, context: &dyn JobContext, input: &Input) -> Result<Processed, JobError> {
        let found = self.desk.find(Desk::subject(context.job())?).await?;
        let provider = match found {
            Some(stored) if stored.value.state.is_terminal() => Some(stored.value.provider),
            // Somebody stands behind it after all: nothing is removed.
            Some(_) => None,
            None => input.provider,
        };
        if let Some(provider) = provider {
            self.remove(context, provider).await?;
        }
        Ok(Processed::Done(Changeset::new()))
    }

    async fn closed(
        &self,
        context: &dyn JobContext,
        stored: Stored<Allocation>,
    ) -> Result<Changeset, JobError> {
        let Stored { version, value: mut allocation } = stored;
        let work = &self.desk.work;
        let mut changes = Changeset::new();
        let filter = Filter::eq("allocation", allocation.id.to_string());
        for Stored { version, value: mut credential } in work.reader.list_all::<Credential>(filter).await? {
            if !credential.state.is_terminal() {
                credential
                    .apply(CredentialEvent::Revoked, context.now())
                    .map_err(|error| JobError::Permanent(error.into()))?;
                changes.replace(version, &credential);
            }
        }
        advance(&mut allocation, AllocationEvent::Purged, context.now())?;
        record(&mut changes, &work.ids, version, &allocation, Counters::Freed, "allocation.closed");
        Ok(changes)
    }
}

#[async_trait]
impl JobHandler for Purge {
    fn kind(&self) -> JobKind {
        JobKind::Purge
    }

    fn policy(&self) -> Policy {
        Policy {
            mutates_subject: true,
            max_attempts: 30,
            max_delay: Micros::from_secs(1_800),
            ..Policy::default()
        }
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let input: Input = context.job().input.read().unwrap_or_default();
        if input.orphan {
            return self.orphan(context, &input).await;
        }
        let stored = self.desk.allocation(context.job()).await?;
        let (AllocationState::Closing, Some(purge_at)) = (stored.value.state, stored.value.purge_at) else {
            return Ok(Processed::Done(Changeset::new()));
        };
        if context.now() < purge_at {
            return Err(JobError::PollAgain(purge_at.since(context.now())));
        }
        self.remove(context, stored.value.provider).await?;
        Ok(Processed::Done(self.closed(context, stored).await?))
    }
}
