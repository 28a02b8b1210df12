//! Installs a new key at the provider. With a predecessor, that one keeps working until the overlap ends, and its
//! revocation is scheduled in the same commit.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::json;

use super::{
    desk::{Desk, failed, input},
    provision::install,
};
use crate::{
    core::{
        client::{
            database::{Changeset, Stored},
            vault::Vault,
        },
        job::{JobKind, NewJob},
        market::{
            credential::{Credential, CredentialEvent, CredentialState},
            event::Audience,
            ids::{ConsumerId, CredentialId, IdGenerator},
            quantity::Micros,
        },
    },
    error::Error,
    service::{
        job::{JobContext, JobError, JobHandler, Policy, Processed, step::RotateCredentialStep},
        outbox,
    },
};

/// The handler of `rotate_credential`.
pub struct RotateCredential {
    desk: Desk,
    vault: Arc<dyn Vault>,
}

#[derive(Deserialize)]
struct Input {
    credential: CredentialId,
    overlap: Micros,
}

impl RotateCredential {
    /// A handler over the given ports.
    #[must_use]
    pub fn new(desk: Desk, vault: Arc<dyn Vault>) -> Self {
        Self { desk, vault }
    }

    /// Lets the predecessor run out.
    async fn replace(
        &self,
        context: &dyn JobContext,
        changes: &mut Changeset,
        predecessor: CredentialId,
        overlap: Micros,
    ) -> Result<(), JobError> {
        let Stored { version, value: mut old } = self.desk.credential(predecessor).await?;
        if old.state != CredentialState::Active {
            return Ok(());
        }
        let until = context.now().plus(overlap);
        apply(&mut old, CredentialEvent::Replaced, context)?;
        old.overlap_until = Some(until);
        changes.replace(version, &old);
        let mut job =
            NewJob::now(JobKind::RevokeCredential, old.allocation, format!("{predecessor}:overlap"), until);
        job.run_at = until;
        job.input(json!({"credential": predecessor})).enqueue(changes, &self.desk.work.ids);
        Ok(())
    }
}

#[async_trait]
impl JobHandler for RotateCredential {
    fn kind(&self) -> JobKind {
        JobKind::RotateCredential
    }

    fn policy(&self) -> Policy {
        Policy { mutates_subject: true, ..Policy::default() }
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let Input { credential, overlap } = input(context.job())?;
        let Stored { version, value: mut credential } = self.desk.credential(credential).await?;
        if credential.state != CredentialState::Pending {
            return Ok(Processed::Done(Changeset::new()));
        }
        let allocation = self.desk.allocation(context.job()).await?.value;
        let mut changes = Changeset::new();
        if allocation.state.is_in_use() {
            let client = self.desk.client(allocation.provider).await?;
            let request = install(context, self.vault.as_ref(), &credential)?;
            let step = RotateCredentialStep::IssueKey;
            let done = client.call(context, step, |client| client.issue_credential(&request)).await;
            done.map_err(failed)?;
            apply(&mut credential, CredentialEvent::Installed, context)?;
            if let Some(predecessor) = credential.predecessor {
                self.replace(context, &mut changes, predecessor, overlap).await?;
            }
            let ids = &self.desk.work.ids;
            announce(&mut changes, ids, allocation.consumer, &credential, "credential.active");
        } else {
            // The allocation was closed before the key came to be.
            apply(&mut credential, CredentialEvent::Revoked, context)?;
        }
        changes.replace(version, &credential);
        Ok(Processed::Done(changes))
    }

    /// The key may have been installed all the same: a job takes it away and ends it. The predecessor is written anew, which
    /// allows another rotation.
    async fn on_failed(&self, context: &dyn JobContext, _error: &Error) -> Result<Changeset, JobError> {
        let Input { credential, .. } = input(context.job())?;
        let credential = self.desk.credential(credential).await?.value;
        let mut changes = Changeset::new();
        if credential.state != CredentialState::Pending {
            return Ok(changes);
        }
        let key = format!("{}:failed:{}", credential.id, context.job().lease_token);
        NewJob::now(JobKind::RevokeCredential, credential.allocation, key, context.now())
            .input(json!({"credential": credential.id}))
            .enqueue(&mut changes, &self.desk.work.ids);
        if let Some(predecessor) = credential.predecessor {
            let Stored { version, value: mut old } = self.desk.credential(predecessor).await?;
            old.updated_at = context.now();
            changes.replace(version, &old);
        }
        Ok(changes)
    }
}

/// Takes the event; a move that is not allowed is no use trying again.
pub(super) fn apply(
    credential: &mut Credential,
    event: CredentialEvent,
    context: &dyn JobContext,
) -> Result<(), JobError> {
    credential.apply(event, context.now()).map_err(|error| JobError::Permanent(error.into()))
}

/// Tells the consumer.
pub(super) fn announce(
    changes: &mut Changeset,
    ids: &IdGenerator,
    consumer: ConsumerId,
    credential: &Credential,
    kind: &str,
) {
    let data = json!({"allocation": credential.allocation, "state": credential.state});
    let audience = Audience::Tenants(vec![consumer.to_string()]);
    outbox::event(changes, ids, kind, credential.id, audience, data);
}
