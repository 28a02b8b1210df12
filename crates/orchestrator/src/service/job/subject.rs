//! Subjects of mutating kinds: one holder at a time, and a generation that grows with every attempt and travels in every
//! provider call.
//!
//! A hold lasts for one attempt of one phase; it is named by the job and its fencing token. A token that is no longer the
//! job's own is a hold that has lapsed, so nothing needs to clean up after a worker that died.

use serde::{Deserialize, Serialize};

use crate::core::{
    client::{
        database::{Changeset, DatabaseError, Entity, Expect, Reader, ReaderExt, Result, Stored},
        schema::{self, Collection},
    },
    job::Job,
    market::ids::JobId,
};

/// Who may change a subject at its provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The subject's id.
    pub id: String,
    /// Grows by one with every attempt that holds the subject.
    pub generation: u64,
    /// The job that holds it.
    pub holder: Option<JobId>,
    /// The fencing token under which it does.
    pub token: i64,
}

impl Entity for Subject {
    const NAME: &'static str = "job_subject";
    const COLLECTION: Collection = schema::SUBJECTS;
    fn document_id(&self) -> String {
        self.id.clone()
    }
}

/// What came of the wish to hold a subject.
#[derive(Debug)]
pub(super) enum Hold {
    /// The changes that take it; `job.generation` is set.
    Take(Changeset),
    /// Another job is at it.
    Busy,
}

/// Works out how `job` takes hold of its subject.
pub(super) async fn hold(reader: &dyn Reader, job: &mut Job) -> Result<Hold> {
    let found: Option<Stored<Subject>> = reader.load(&job.subject).await?;
    let mut changes = Changeset::new();
    let mut next =
        Subject { id: job.subject.clone(), generation: 1, holder: Some(job.id), token: job.lease_token };
    match found {
        None => {
            changes.insert(&next);
        }
        Some(Stored { version, value }) => {
            if is_held(reader, &value, job.id).await? {
                return Ok(Hold::Busy);
            }
            next.generation = value.generation.checked_add(1).ok_or_else(|| {
                DatabaseError::Invalid(format!("the generation of {} is exhausted", job.subject))
            })?;
            changes.replace(version, &next);
        }
    }
    job.generation = next.generation;
    Ok(Hold::Take(changes))
}

/// Whether a job other than `claimant` holds the subject, under a token that is still its own.
async fn is_held(reader: &dyn Reader, subject: &Subject, claimant: JobId) -> Result<bool> {
    let Some(holder) = subject.holder.filter(|holder| *holder != claimant) else { return Ok(false) };
    match reader.load::<Job>(&holder.to_string()).await {
        Ok(holder) => Ok(holder.is_some_and(|job| job.value.lease_token == subject.token)),
        // Until it is set aside, nobody can tell.
        Err(DatabaseError::Damaged { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Lets the subject go, in the commit that ends the attempt.
pub(super) fn release(changes: &mut Changeset, job: &Job) {
    let free = Subject { id: job.subject.clone(), generation: job.generation, holder: None, token: 0 };
    let generation = i64::try_from(job.generation).unwrap_or(i64::MAX);
    changes.replace_expecting(Expect::Field("generation".into(), generation.into()), &free);
}
