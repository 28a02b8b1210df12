//! The trigger that has blocks sealed: a job for each domain that has something unsealed, at most one at a time.

use async_trait::async_trait;

use super::super::BlockPorts;
use crate::{
    core::{
        client::{
            database::{Changeset, DatabaseError, Filter},
            schema,
        },
        job::{JobKind, NewJob},
        market::terms::DomainId,
    },
    error::{Error, Result},
    service::{
        job::{Trigger, TriggerReport},
        work::{Call, Draft, Work},
    },
};

/// The trigger `seal_blocks`: enqueues a seal job for each domain that has something unsealed.
#[derive(Clone)]
pub struct SealTrigger {
    work: Work,
    ports: BlockPorts,
}

impl SealTrigger {
    /// A trigger over these ports.
    #[must_use]
    pub const fn new(work: Work, ports: BlockPorts) -> Self {
        Self { work, ports }
    }

    async fn enqueue(&self, domain: &DomainId) -> Result<bool> {
        let unsealed = Filter::eq("domain", domain.as_str());
        let tip = self.ports.store.tip(domain).await?.value;
        if tip.halted.is_some() || self.work.reader.count(schema::UNSEALED, unsealed).await? == 0 {
            return Ok(false);
        }
        let key = format!("{domain}/{}.{}", tip.number + 1, tip.round);
        let pending = Filter::eq("dedup", format!("{}:{key}", JobKind::SealBlock));
        if self.work.reader.count(schema::JOBS, pending).await? > 0 {
            return Ok(false);
        }
        let call = Call::system("seal_blocks");
        let done = self
            .work
            .run(&call, "block.seal", || async {
                let mut changes = Changeset::new();
                NewJob::now(JobKind::SealBlock, domain, &key, self.work.now())
                    .enqueue(&mut changes, &self.work.ids);
                Ok(Draft::new(changes, ()))
            })
            .await;
        match done {
            Ok(_) => Ok(true),
            // Another replica was faster: the unique index over the key refused the second job.
            Err(error) if already_there(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn already_there(error: &Error) -> bool {
    let source = error.source.as_ref().and_then(|source| source.downcast_ref::<DatabaseError>());
    matches!(source, Some(DatabaseError::AlreadyExists { collection: schema::JOBS, .. }))
}

#[async_trait]
impl Trigger for SealTrigger {
    fn name(&self) -> &'static str {
        "seal_blocks"
    }

    async fn fire(&self) -> Result<TriggerReport> {
        let mut report = TriggerReport::default();
        let domains: Vec<DomainId> = self.ports.domains.domains().cloned().collect();
        for domain in domains {
            report.examined += 1;
            report.changed += u64::from(self.enqueue(&domain).await?);
        }
        Ok(report)
    }
}
