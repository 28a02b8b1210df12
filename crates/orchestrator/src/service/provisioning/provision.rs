//! Makes an allocation usable at its provider. A provider that answers at once makes it active in one step; one that
//! works on it is polled in the verify phase. Given up: escrow back, capacity freed, and whatever may have been left at
//! the provider is removed by a job of its own.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ProvisioningSettings,
    desk::{Desk, failed, may_leave_orphan},
};
use crate::{
    core::{
        client::{
            database::{Changeset, Filter, ReaderExt, Stored},
            provider::{AllocateRequest, IssueRequest, IssuedKey, Operation, ProviderClient, ProviderError},
            vault::Vault,
        },
        job::{JobKind, NewJob},
        market::{
            allocation::{Allocation, AllocationEvent, AllocationState, Routing, Usage},
            credential::{Credential, CredentialState},
            quantity::Timestamp,
            unit::DataUnit,
        },
    },
    error::{Error, ErrorCode},
    service::{
        allocation::{Counters, fund, record},
        job::{JobContext, JobError, JobHandler, Outside, Policy, Processed, Verified, step::ProvisionStep},
        outbox,
    },
};

/// The handler of `provision`.
pub struct Provision {
    desk: Desk,
    vault: Arc<dyn Vault>,
    settings: ProvisioningSettings,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Input {
    /// The provider lost an allocation that is in use: make it again.
    repair: bool,
}

impl Provision {
    /// A handler over the given ports.
    #[must_use]
    pub fn new(desk: Desk, vault: Arc<dyn Vault>, settings: ProvisioningSettings) -> Self {
        Self { desk, vault, settings }
    }

    async fn allocate(
        &self,
        context: &dyn JobContext,
        client: &Outside<dyn ProviderClient>,
        allocation: &Allocation,
    ) -> Result<Operation<Routing>, JobError> {
        let unit = self.desk.work.reader.load::<DataUnit>(&allocation.unit.to_string()).await?;
        let unit = unit.ok_or_else(|| JobError::Permanent(Error::not_found("data unit", allocation.unit)))?;
        let request = AllocateRequest {
            allocation: allocation.id,
            generation: context.generation(),
            bytes: allocation.bytes,
            region: unit.value.region,
        };
        let step = ProvisionStep::Allocate;
        let done = client.call(context, step, |client| client.allocate(&request)).await.map_err(failed)?;
        let late = context.now() > context.job().created_at.plus(self.settings.give_up);
        if matches!(done, Operation::Pending) && late {
            let text = "the provider was at work for too long";
            return Err(JobError::Permanent(Error::new(ErrorCode::ProviderFailed, text)));
        }
        Ok(done)
    }

    fn activated(
        &self,
        version: u64,
        mut allocation: Allocation,
        routing: Routing,
        now: Timestamp,
    ) -> Result<Changeset, JobError> {
        if allocation.state == AllocationState::Funded {
            advance(&mut allocation, AllocationEvent::StartProvisioning, now)?;
        }
        advance(&mut allocation, AllocationEvent::Activate, now)?;
        allocation.routing = Some(routing);
        allocation.activated_at = Some(now);
        allocation.ends_at = Some(now.plus(allocation.period));
        allocation.settled_through = Some(now);
        allocation.usage = Usage { read_at: now, ..Usage::default() };
        allocation.settled_usage = allocation.usage;
        let mut changes = Changeset::new();
        let ids = &self.desk.work.ids;
        record(&mut changes, ids, version, &allocation, Counters::Activated, "allocation.active");
        Ok(changes)
    }

    /// Makes an allocation again that the provider has lost, with its keys; the data is gone, and people are told.
    async fn repair(
        &self,
        context: &dyn JobContext,
        client: &Outside<dyn ProviderClient>,
        stored: Stored<Allocation>,
    ) -> Result<Processed, JobError> {
        let Stored { version, value: mut allocation } = stored;
        let Operation::Done(routing) = self.allocate(context, client, &allocation).await? else {
            return Err(JobError::PollAgain(self.settings.poll));
        };
        let filter = Filter::eq("allocation", allocation.id.to_string());
        for stored in self.desk.work.reader.list_all::<Credential>(filter).await? {
            let credential = stored.value;
            if matches!(credential.state, CredentialState::Active | CredentialState::Rotating) {
                let request = install(context, self.vault.as_ref(), &credential)?;
                let step = ProvisionStep::ReissueKey;
                let done = client.call(context, step, |client| client.issue_credential(&request)).await;
                done.map_err(failed)?;
            }
        }
        allocation.routing = Some(routing);
        allocation.updated_at = context.now();
        let mut changes = Changeset::new();
        let ids = &self.desk.work.ids;
        record(&mut changes, ids, version, &allocation, Counters::Unchanged, "allocation.repaired");
        NewJob::now(
            JobKind::SyncAccess,
            allocation.id,
            format!("{}@{version}", allocation.id),
            context.now(),
        )
        .enqueue(&mut changes, ids);
        let subject = format!("provider lost allocation {}; made again, empty", allocation.id);
        outbox::alert(&mut changes, ids, subject, json!({"allocation": allocation.id}));
        Ok(Processed::Done(changes))
    }
}

#[async_trait]
impl JobHandler for Provision {
    fn kind(&self) -> JobKind {
        JobKind::Provision
    }

    fn policy(&self) -> Policy {
        Policy { mutates_subject: true, ..Policy::default() }
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let stored = self.desk.allocation(context.job()).await?;
        let client = self.desk.client(stored.value.provider).await?;
        let input: Input = context.job().input.read().unwrap_or_default();
        match stored.value.state {
            AllocationState::Funded | AllocationState::Provisioning => {}
            AllocationState::Active | AllocationState::Restricted | AllocationState::Closing => {
                if input.repair {
                    return self.repair(context, &client, stored).await;
                }
                return Ok(Processed::Done(Changeset::new()));
            }
            // It was given up meanwhile; an earlier attempt may have reached the provider.
            AllocationState::Cancelled
            | AllocationState::Failed
            | AllocationState::Expired
            | AllocationState::Closed => {
                let (id, generation, step) =
                    (stored.value.id, context.generation(), ProvisionStep::RemoveUnwanted);
                return match client.call(context, step, |client| client.deallocate(id, generation)).await {
                    Ok(Operation::Done(())) | Err(ProviderError::Unknown(_)) => {
                        Ok(Processed::Done(Changeset::new()))
                    }
                    Ok(Operation::Pending) => Err(JobError::PollAgain(self.settings.poll)),
                    Err(error) => Err(failed(error)),
                };
            }
            AllocationState::Reserved => {
                let text = "an allocation that is not funded can't be provisioned";
                return Err(JobError::Permanent(Error::new(ErrorCode::InvalidState, text)));
            }
        }
        match self.allocate(context, &client, &stored.value).await? {
            Operation::Done(routing) => {
                let Stored { version, value } = stored;
                Ok(Processed::Done(self.activated(version, value, routing, context.now())?))
            }
            Operation::Pending => {
                let mut changes = Changeset::new();
                let Stored { version, value: mut allocation } = stored;
                if allocation.state == AllocationState::Funded {
                    advance(&mut allocation, AllocationEvent::StartProvisioning, context.now())?;
                    let (ids, kind) = (&self.desk.work.ids, "allocation.provisioning");
                    record(&mut changes, ids, version, &allocation, Counters::Unchanged, kind);
                }
                Ok(Processed::Verify { changes, output: Value::Null, delay: self.settings.poll })
            }
        }
    }

    async fn verify(&self, context: &dyn JobContext) -> Result<Verified, JobError> {
        let Stored { version, value } = self.desk.allocation(context.job()).await?;
        if value.state != AllocationState::Provisioning {
            return Ok(Verified::Confirmed(Changeset::new()));
        }
        let client = self.desk.client(value.provider).await?;
        match self.allocate(context, &client, &value).await? {
            Operation::Pending => Err(JobError::PollAgain(self.settings.poll)),
            Operation::Done(routing) => {
                Ok(Verified::Confirmed(self.activated(version, value, routing, context.now())?))
            }
        }
    }

    async fn on_failed(&self, context: &dyn JobContext, error: &Error) -> Result<Changeset, JobError> {
        let Stored { version, value: mut allocation } = self.desk.allocation(context.job()).await?;
        let ids = &self.desk.work.ids;
        let mut changes = Changeset::new();
        let asked = allocation.state == AllocationState::Provisioning;
        if matches!(allocation.state, AllocationState::Funded | AllocationState::Provisioning) {
            advance(&mut allocation, AllocationEvent::Fail, context.now())?;
            allocation.failure = Some(error.to_string());
            fund::refund(&self.desk.work, &mut changes, &allocation).await?;
            record(&mut changes, ids, version, &allocation, Counters::Freed, "allocation.failed");
        }
        if allocation.state.is_terminal() && (asked || may_leave_orphan(context.job(), error)) {
            NewJob::now(
                JobKind::Purge,
                allocation.id,
                format!("orphan:{}:{}", context.job().id, context.job().lease_token),
                context.now(),
            )
            .input(json!({"orphan": true}))
            .enqueue(&mut changes, ids);
        }
        Ok(changes)
    }
}

/// The request that installs a credential.
pub(super) fn install(
    context: &dyn JobContext,
    vault: &dyn Vault,
    credential: &Credential,
) -> Result<IssueRequest, JobError> {
    let permanent = |error: Error| JobError::Permanent(error);
    let secret = vault
        .open(&credential.id.to_string(), &credential.sealed_secret)
        .map_err(|error| permanent(error.into()))?;
    let secret = String::from_utf8(secret).map_err(|error| permanent(Error::internal(error)))?;
    Ok(IssueRequest {
        allocation: credential.allocation,
        generation: context.generation(),
        key: IssuedKey { access_key_id: credential.access_key_id.clone(), secret },
        permissions: credential.permissions,
    })
}

/// Takes the event; a move that is not allowed is no use trying again.
pub(super) fn advance(
    allocation: &mut Allocation,
    event: AllocationEvent,
    now: Timestamp,
) -> Result<(), JobError> {
    allocation.apply(event, now).map_err(|error| JobError::Permanent(error.into()))
}
