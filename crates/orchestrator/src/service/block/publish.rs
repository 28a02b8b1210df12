//! Publishes the records of a proven block on the data-availability layer.

use async_trait::async_trait;
use serde_json::json;

use super::{
    BlockPorts,
    store::{advance, enqueue},
};
use crate::{
    core::{
        client::database::Changeset, job::JobKind, madara::da::DaError, market::block::BlockEvent,
        market::quantity::Micros,
    },
    error::{Error, ErrorCode},
    service::job::{JobContext, JobError, JobHandler, Policy, Processed, Verified, step::PublishDataStep},
};

impl From<DaError> for Error {
    fn from(error: DaError) -> Self {
        if let DaError::Deferred(after) = error {
            return Self::deferred("the data-availability layer", after).because(error);
        }
        let code = if error.retryable() { ErrorCode::Unavailable } else { ErrorCode::InvalidState };
        Self::new(code, "the data-availability layer did not do as asked").because(error)
    }
}

/// The job kind `publish_data`.
pub struct PublishData {
    ports: BlockPorts,
}

impl PublishData {
    /// A handler over these ports.
    #[must_use]
    pub const fn new(ports: BlockPorts) -> Self {
        Self { ports }
    }
}

#[async_trait]
impl JobHandler for PublishData {
    fn kind(&self) -> JobKind {
        JobKind::PublishData
    }

    fn policy(&self) -> Policy {
        super::patient()
    }

    async fn process(&self, context: &dyn JobContext) -> Result<Processed, JobError> {
        let Some(block) = self.ports.store.of_job(context.job()).await? else {
            return Ok(Processed::Done(Changeset::new()));
        };
        let header = &block.value.header;
        let data = self.ports.store.data(&block.value).await?;
        let (da, step) = (self.ports.da(), PublishDataStep::Publish);
        let publish =
            da.call(context, step, |da| da.publish_state_diff(&header.domain, header.number, &data));
        let published = publish.await;
        let reference = published.map_err(Error::from)?;
        let output = json!({ "reference": reference });
        Ok(Processed::Verify { changes: Changeset::new(), output, delay: Micros::ZERO })
    }

    async fn verify(&self, context: &dyn JobContext) -> Result<Verified, JobError> {
        let job = context.job();
        let mut changes = Changeset::new();
        let Some(mut block) = self.ports.store.of_job(job).await? else {
            return Ok(Verified::Confirmed(changes));
        };
        let reference = job.output.get("reference").and_then(|text| text.as_str()).unwrap_or_default();
        let (da, step) = (self.ports.da(), PublishDataStep::VerifyInclusion);
        let included = da.call(context, step, |da| da.verify_inclusion(reference)).await;
        if !included.map_err(Error::from)? {
            return Ok(Verified::Refuted("the records are not on the data-availability layer".to_owned()));
        }
        block.value.da_reference = Some(reference.to_owned());
        advance(&mut block.value, BlockEvent::Publish)?;
        changes.replace(block.version, &block.value);
        enqueue(&mut changes, &self.ports.ids, JobKind::RegisterProof, &block.value, &job.trace_id);
        Ok(Verified::Confirmed(changes))
    }
}
