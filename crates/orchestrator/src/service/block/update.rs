//! Settles a registered block and waits until nobody can undo it.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    BlockPorts,
    register::{journalled, transaction_of},
    reject,
    store::advance,
};
use crate::{
    core::{
        client::database::Changeset,
        job::JobKind,
        madara::settlement::{SettlementError, TransactionStatus},
        market::{
            block::{Block, BlockEvent, BlockState},
            event::Audience,
            quantity::Micros,
        },
    },
    error::Error,
    service::{
        job::{JobContext, JobError, JobHandler, Policy, Processed, Verified, step::UpdateStateStep},
        outbox,
    },
};

/// The job kind `update_state`.
pub struct UpdateState {
    ports: BlockPorts,
}

impl UpdateState {
    /// A handler over these ports.
    #[must_use]
    pub const fn new(ports: BlockPorts) -> Self {
        Self { ports }
    }
}

#[async_trait]
impl JobHandler for UpdateState {
    fn kind(&self) -> JobKind {
        JobKind::UpdateState
    }

    fn policy(&self) -> Policy {
        super::patient()
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let BlockPorts { store, settings, .. } = &self.ports;
        let Some(mut block) = store.of_job(context.job()).await? else {
            return Ok(Processed::Done(Changeset::new()));
        };
        if !store.parent_is(&block.value, BlockState::Settled).await? {
            return Err(JobError::PollAgain(settings.poll));
        }
        let client = self.ports.settlement(&block.value.header.domain)?;
        let key = format!("update/{}.{}", block.value.hash, block.value.round);
        let transaction = match journalled(context, &key, json!({ "block": block.value.hash })).await? {
            Some(transaction) => transaction,
            None => match client
                .call(context, UpdateStateStep::Settle, |client| {
                    client.update_state(&key, &block.value.header)
                })
                .await
            {
                Ok(transaction) => {
                    context.record(&key, Value::from(transaction.clone())).await?;
                    transaction
                }
                Err(SettlementError::Refused(reason)) => {
                    return Ok(Processed::Done(reject::from(&self.ports, &block.value, &reason).await?));
                }
                Err(error) => return Err(Error::from(error).into()),
            },
        };
        let mut changes = Changeset::new();
        if block.value.state == BlockState::Registered {
            block.value.settle_transaction = Some(transaction.clone());
            advance(&mut block.value, BlockEvent::Settle)?;
            changes.replace(block.version, &block.value);
        }
        let output = json!({ "transaction": transaction });
        Ok(Processed::Verify { changes, output, delay: Micros::ZERO })
    }

    async fn verify(&self, context: &dyn JobContext) -> Result<Verified, JobError> {
        let BlockPorts { store, settings, ids, .. } = &self.ports;
        let mut changes = Changeset::new();
        let Some(mut block) = store.of_job(context.job()).await? else {
            return Ok(Verified::Confirmed(changes));
        };
        let domain = block.value.header.domain.clone();
        let client = self.ports.settlement(&domain)?;
        let (transaction, step) = (transaction_of(context), UpdateStateStep::LookAtTransaction);
        let status = client.call(context, step, |client| client.transaction(&transaction)).await;
        match status.map_err(Error::from)? {
            TransactionStatus::Pending | TransactionStatus::Included => {
                Err(JobError::PollAgain(settings.poll))
            }
            TransactionStatus::Rejected(reason) => {
                Ok(Verified::Confirmed(reject::from(&self.ports, &block.value, &reason).await?))
            }
            TransactionStatus::Final => {
                if !store.parent_is(&block.value, BlockState::Final).await? {
                    return Err(JobError::PollAgain(settings.poll));
                }
                block.value.final_at = Some(ids.now());
                advance(&mut block.value, BlockEvent::Finalise)?;
                changes.replace(block.version, &block.value);
                let mut tip = store.tip(&domain).await?;
                if tip.value.rejections > 0 && tip.version > 0 {
                    tip.value.rejections = 0;
                    changes.replace(tip.version, &tip.value);
                }
                let header = &block.value.header;
                let data = json!({ "number": header.number, "state_root": header.state_root });
                let id = Block::id_of(&domain, header.number);
                outbox::event(&mut changes, ids, "block.final", id, Audience::Public, data);
                Ok(Verified::Confirmed(changes))
            }
        }
    }
}
