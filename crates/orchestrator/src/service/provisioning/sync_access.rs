//! Brings an allocation's access at the provider in line with its access state: by level, not by what happened, so that
//! a lost or repeated job does no harm.

use async_trait::async_trait;

use super::desk::{Desk, known};
use crate::{
    core::{
        client::{database::Changeset, provider::AccessLevel},
        job::JobKind,
        market::{allocation::AccessState, quantity::Micros},
    },
    service::job::{JobContext, JobError, JobHandler, Policy, Processed, step::SyncAccessStep},
};

/// The handler of `sync_access`.
pub struct SyncAccess {
    desk: Desk,
}

impl SyncAccess {
    /// A handler over the given ports.
    #[must_use]
    pub const fn new(desk: Desk) -> Self {
        Self { desk }
    }
}

#[async_trait]
impl JobHandler for SyncAccess {
    fn kind(&self) -> JobKind {
        JobKind::SyncAccess
    }

    fn policy(&self) -> Policy {
        Policy {
            mutates_subject: true,
            max_attempts: 30,
            max_delay: Micros::from_secs(300),
            ..Policy::default()
        }
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let allocation = self.desk.allocation(context.job()).await?.value;
        if allocation.activated_at.is_some() && !allocation.state.is_terminal() {
            let level = match allocation.access {
                AccessState::Active => AccessLevel::Full,
                AccessState::Restricted => AccessLevel::ReadOnly,
                AccessState::Expired => AccessLevel::None,
            };
            let client = self.desk.client(allocation.provider).await?;
            let (id, generation, step) = (allocation.id, context.generation(), SyncAccessStep::Restrict);
            known(client.call(context, step, |client| client.restrict(id, generation, level)).await)?;
        }
        Ok(Processed::Done(Changeset::new()))
    }
}
