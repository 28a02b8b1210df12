//! What all these jobs need: the allocation that the job is about, its provider's adapter, and what a provider's error
//! means for a job.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::{
    core::{
        client::{
            database::{ReaderExt, Stored},
            provider::{ProviderClient, ProviderDirectory, ProviderError},
        },
        job::Job,
        market::{
            allocation::Allocation,
            credential::Credential,
            ids::{AllocationId, CredentialId, ProviderId},
            party::Provider,
        },
    },
    error::{Error, ErrorCode},
    service::{
        job::{JobError, Outside},
        work::Work,
    },
};

/// Reads what a job is about and finds the provider's adapter.
#[derive(Clone)]
pub struct Desk {
    pub(super) work: Work,
    providers: Arc<dyn ProviderDirectory>,
}

impl Desk {
    /// A desk over the unit of work and the adapters.
    #[must_use]
    pub fn new(work: Work, providers: Arc<dyn ProviderDirectory>) -> Self {
        Self { work, providers }
    }

    /// The allocation's id, from the job's subject.
    pub(super) fn subject(job: &Job) -> Result<AllocationId, JobError> {
        job.subject.parse().map_err(|error| JobError::Permanent(Error::internal(error)))
    }

    /// The allocation that the job is about.
    pub(super) async fn allocation(&self, job: &Job) -> Result<Stored<Allocation>, JobError> {
        let id = Self::subject(job)?;
        self.find(id).await?.ok_or_else(|| JobError::Permanent(Error::not_found("allocation", id)))
    }

    /// An allocation, if there is one.
    pub(super) async fn find(&self, id: AllocationId) -> Result<Option<Stored<Allocation>>, JobError> {
        Ok(self.work.reader.load::<Allocation>(&id.to_string()).await?)
    }

    /// A credential.
    pub(super) async fn credential(&self, id: CredentialId) -> Result<Stored<Credential>, JobError> {
        let stored = self.work.reader.load::<Credential>(&id.to_string()).await?;
        stored.ok_or_else(|| JobError::Permanent(Error::not_found("credential", id)))
    }

    /// The adapter of a provider, to be called step by step.
    pub(super) async fn client(&self, id: ProviderId) -> Result<Outside<dyn ProviderClient>, JobError> {
        let stored = self.work.reader.load::<Provider>(&id.to_string()).await?;
        let provider = stored.ok_or_else(|| JobError::Permanent(Error::not_found("provider", id)))?.value;
        Ok(Outside::new(self.providers.client(&provider).await.map_err(failed)?))
    }
}

/// The job's input.
pub(super) fn input<T: DeserializeOwned>(job: &Job) -> Result<T, JobError> {
    job.input.read().map_err(|error| JobError::Permanent(Error::internal(error)))
}

/// What a provider's error means for the attempt. A stale generation is worth another attempt, because that one holds a
/// higher generation; if the job was lost to another worker meanwhile, its token stops this one.
pub(super) fn failed(error: ProviderError) -> JobError {
    if let ProviderError::Deferred(after) = error {
        return JobError::PollAgain(after);
    }
    let again = error.retryable() || matches!(error, ProviderError::Stale(_));
    let error = Error::new(ErrorCode::ProviderFailed, error.to_string()).because(error);
    if again { JobError::Transient(error) } else { JobError::Permanent(error) }
}

/// Whether something may be left at the provider by a job that is given up with this error. Refusals leave nothing; but
/// if there were attempts before the last one, lost ones among them, only the last one's end is known for sure.
pub(super) fn may_leave_orphan(job: &Job, error: &Error) -> bool {
    let cause = error.source.as_ref().and_then(|source| source.downcast_ref::<ProviderError>());
    job.attempts > 1 || job.losses > 0 || cause.is_none_or(ProviderError::may_leave_orphan)
}

/// Takes "unknown" for an answer: what is gone needs no further care.
pub(super) fn known<T>(result: Result<T, ProviderError>) -> Result<Option<T>, JobError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(ProviderError::Unknown(_)) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}
