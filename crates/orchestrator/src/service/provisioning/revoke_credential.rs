//! Takes a key away at the provider: revoked, run out, replaced, or never quite installed.

use async_trait::async_trait;
use serde::Deserialize;

use super::{
    desk::{Desk, input, known},
    rotate_credential::{announce, apply},
};
use crate::{
    core::{
        client::database::{Changeset, Stored},
        job::JobKind,
        market::{credential::CredentialEvent, ids::CredentialId},
    },
    service::job::{JobContext, JobError, JobHandler, Policy, Processed, step::RevokeCredentialStep},
};

/// The handler of `revoke_credential`.
pub struct RevokeCredential {
    desk: Desk,
}

#[derive(Deserialize)]
struct Input {
    credential: CredentialId,
    /// Whether it ran out, as opposed to being called back.
    #[serde(default)]
    expired: bool,
}

impl RevokeCredential {
    /// A handler over the given ports.
    #[must_use]
    pub const fn new(desk: Desk) -> Self {
        Self { desk }
    }
}

#[async_trait]
impl JobHandler for RevokeCredential {
    fn kind(&self) -> JobKind {
        JobKind::RevokeCredential
    }

    fn policy(&self) -> Policy {
        // A key that should not work any more is worth many attempts.
        Policy { mutates_subject: true, max_attempts: 100, max_losses: 100, ..Policy::default() }
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let Input { credential, expired } = input(context.job())?;
        let Stored { version, value: mut credential } = self.desk.credential(credential).await?;
        let mut changes = Changeset::new();
        if credential.state.is_terminal() {
            return Ok(Processed::Done(changes));
        }
        let allocation = self.desk.allocation(context.job()).await?.value;
        let client = self.desk.client(allocation.provider).await?;
        let (id, generation, key) = (allocation.id, context.generation(), &credential.access_key_id);
        let step = RevokeCredentialStep::RevokeKey;
        let done = client.call(context, step, |client| client.revoke_credential(id, generation, key)).await;
        known(done)?;
        let (event, kind) = if expired {
            (CredentialEvent::Expired, "credential.expired")
        } else {
            (CredentialEvent::Revoked, "credential.revoked")
        };
        apply(&mut credential, event, context)?;
        changes.replace(version, &credential);
        announce(&mut changes, &self.desk.work.ids, allocation.consumer, &credential, kind);
        Ok(Processed::Done(changes))
    }
}
