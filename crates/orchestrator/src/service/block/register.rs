//! Registers a published block and its proof with the settlement layer.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{
    BlockPorts,
    attest::signatures_of,
    reject,
    store::{advance, enqueue},
};
use crate::{
    core::{
        client::database::Changeset,
        job::JobKind,
        madara::settlement::{BlockProof, SettlementError, TransactionStatus},
        market::{
            block::{BlockEvent, BlockState},
            quantity::Micros,
        },
    },
    error::{Error, Result},
    service::job::{JobContext, JobError, JobHandler, Policy, Processed, Verified, step::RegisterProofStep},
};

/// The job kind `register_proof`.
pub struct RegisterProof {
    ports: BlockPorts,
}

impl RegisterProof {
    /// A handler over these ports.
    #[must_use]
    pub const fn new(ports: BlockPorts) -> Self {
        Self { ports }
    }
}

/// The transaction that an earlier attempt journalled under this key, if its outcome is known. The settlement layer is
/// idempotent by the same key, so an attempt whose outcome is unknown is simply made again.
pub(super) async fn journalled(
    context: &dyn JobContext,
    key: &str,
    intent: Value,
) -> Result<Option<String>, JobError> {
    let effect = context.intend(key, intent).await?;
    Ok(effect.outcome.and_then(|outcome| outcome.as_str().map(str::to_owned)))
}

/// The transaction that the process phase left for verification.
pub(super) fn transaction_of(context: &dyn JobContext) -> String {
    let output = &context.job().output;
    output.get("transaction").and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[async_trait]
impl JobHandler for RegisterProof {
    fn kind(&self) -> JobKind {
        JobKind::RegisterProof
    }

    fn policy(&self) -> Policy {
        super::patient()
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let BlockPorts { store, settings, .. } = &self.ports;
        let Some(block) = store.of_job(context.job()).await? else {
            return Ok(Processed::Done(Changeset::new()));
        };
        if !store.parent_is(&block.value, BlockState::Registered).await? {
            return Err(JobError::PollAgain(settings.poll));
        }
        let block = block.value;
        let client = self.ports.settlement(&block.header.domain)?;
        let key = format!("register/{}.{}", block.hash, block.round);
        let transaction = match journalled(context, &key, json!({ "block": block.hash })).await? {
            Some(transaction) => transaction,
            None => {
                let mut proof = store.proof(&block).await?;
                if let Some(oracles) = self.ports.domains.oracles(&block.header.domain)? {
                    let signatures = signatures_of(store.reader(), &block, oracles).await?;
                    if signatures.len() < oracles.threshold() {
                        // They come when oracles have looked at the evidence; waiting is no failure.
                        return Err(JobError::PollAgain(settings.poll));
                    }
                    let BlockProof::Reexecution { attestations, .. } = &mut proof;
                    *attestations = signatures;
                }
                let data = block.da_reference.clone().unwrap_or_default();
                let step = RegisterProofStep::Register;
                let register = client
                    .call(context, step, |client| client.register_proof(&key, &block.header, &proof, &data));
                match register.await {
                    Ok(transaction) => {
                        context.record(&key, Value::from(transaction.clone())).await?;
                        transaction
                    }
                    Err(SettlementError::Refused(reason)) => {
                        return Ok(Processed::Done(reject::from(&self.ports, &block, &reason).await?));
                    }
                    Err(error) => return Err(Error::from(error).into()),
                }
            }
        };
        let output = json!({ "transaction": transaction });
        Ok(Processed::Verify { changes: Changeset::new(), output, delay: Micros::ZERO })
    }

    async fn verify(&self, context: &dyn JobContext) -> Result<Verified, JobError> {
        let BlockPorts { store, settings, ids, .. } = &self.ports;
        let mut changes = Changeset::new();
        let Some(mut block) = store.of_job(context.job()).await? else {
            return Ok(Verified::Confirmed(changes));
        };
        let client = self.ports.settlement(&block.value.header.domain)?;
        let transaction = transaction_of(context);
        let step = RegisterProofStep::LookAtTransaction;
        let status = client.call(context, step, |client| client.transaction(&transaction)).await;
        match status.map_err(Error::from)? {
            TransactionStatus::Pending => Err(JobError::PollAgain(settings.poll)),
            TransactionStatus::Rejected(reason) => {
                Ok(Verified::Confirmed(reject::from(&self.ports, &block.value, &reason).await?))
            }
            TransactionStatus::Included | TransactionStatus::Final => {
                block.value.register_transaction = Some(transaction);
                advance(&mut block.value, BlockEvent::Register)?;
                changes.replace(block.version, &block.value);
                enqueue(&mut changes, ids, JobKind::UpdateState, &block.value, &context.job().trace_id);
                Ok(Verified::Confirmed(changes))
            }
        }
    }
}
