//! The unit of work: compute, then commit once. It retries when somebody else was faster, and it makes a request that
//! carries an idempotency key happen once, by a marker in the same commit.

use std::{future::Future, sync::Arc};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    core::{
        client::{
            database::{Changeset, Committer, DatabaseError, Entity, Reader, ReaderExt, WriteOp},
            schema::{self, Collection},
        },
        market::{
            ids::{AuditId, IdGenerator},
            party::Principal,
            quantity::Timestamp,
        },
    },
    error::{Error, ErrorCode, Result},
};

/// How often a unit of work is computed anew when its commit met a conflict.
const MAX_TRIES: u32 = 16;

/// An idempotency key as the controller found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestKey {
    /// Names the request: a hash over tenant, endpoint and the caller's key.
    pub id: String,
    /// Hash over the body: the same key with another body is refused.
    pub fingerprint: String,
}

/// Who calls, and in the course of what.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who.
    pub principal: Principal,
    /// The idempotency key, if one was given.
    pub request: Option<RequestKey>,
    /// Ties logs, jobs and events of one operation together.
    pub trace_id: String,
}

impl Call {
    /// A call of the daemon itself.
    #[must_use]
    pub fn system(trace_id: impl Into<String>) -> Self {
        Self { principal: Principal::System, request: None, trace_id: trace_id.into() }
    }

    /// Refuses everybody but operators and the daemon itself. `what` ends the sentence "only operators may …".
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`].
    pub fn operators_only(&self, what: &str) -> Result<()> {
        if self.principal.is_operator() {
            return Ok(());
        }
        Err(Error::new(ErrorCode::Forbidden, format!("only operators may {what}")))
    }
}

/// What a unit of work wants to happen, and what it answers when that is done.
#[derive(Debug)]
pub struct Draft<T> {
    /// What is to be written.
    pub changes: Changeset,
    /// The answer; kept with the request's marker, so it must hold no secret.
    pub outcome: T,
}

impl<T> Draft<T> {
    /// A draft.
    #[must_use]
    pub const fn new(changes: Changeset, outcome: T) -> Self {
        Self { changes, outcome }
    }
}

/// The marker of a request that was carried out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The request's id.
    pub id: String,
    /// Hash over its body.
    pub fingerprint: String,
    /// What it answered.
    pub outcome: Value,
    /// When.
    pub created_at: Timestamp,
}

impl Entity for RequestRecord {
    const NAME: &'static str = "request_record";
    const COLLECTION: Collection = schema::REQUESTS;
    fn document_id(&self) -> String {
        self.id.clone()
    }
}

/// An entry of the audit log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its id; sorts by time.
    pub id: AuditId,
    /// Who.
    pub principal: Principal,
    /// What, as a dotted name.
    pub action: String,
    /// On what.
    pub subject: String,
    /// Ties it to logs and jobs.
    pub trace_id: String,
    /// When.
    pub at: Timestamp,
}

impl Entity for AuditEntry {
    const NAME: &'static str = "audit_entry";
    const COLLECTION: Collection = schema::AUDIT;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}

/// Carries out units of work.
#[derive(Clone)]
pub struct Work {
    /// Reads.
    pub reader: Arc<dyn Reader>,
    /// The one write path.
    pub committer: Arc<dyn Committer>,
    /// Ids and the present instant.
    pub ids: IdGenerator,
}

/// An answer, and whether it was given before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// Whether the request's marker was found: nothing happened this time. Holds the instant of the first time.
    pub replayed: Option<Timestamp>,
}

impl Work {
    /// A unit-of-work runner over the given ports.
    #[must_use]
    pub fn new(reader: Arc<dyn Reader>, committer: Arc<dyn Committer>, ids: IdGenerator) -> Self {
        Self { reader, committer, ids }
    }

    /// The present instant.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.ids.now()
    }

    /// Calls `compute` and commits what it drafted, with an audit entry named `action` about `subject` (taken from the
    /// draft's outcome by `subject_of`), and the request's marker. Computes anew, up to 16 times, when a document changed
    /// in between. A request that was carried out before is answered from its marker.
    ///
    /// # Errors
    /// What `compute` answers; [`ErrorCode::IdempotencyKeyReused`]; [`ErrorCode::Conflict`] when the tries are spent; database
    /// errors. `AlreadyExists`, `Missing` and `BelowFloor` reach the caller as the source of an [`ErrorCode::Internal`] error:
    /// those that can happen in ordinary use are mapped with [`Work::run_mapped`].
    pub async fn run<T, F, Fut>(&self, call: &Call, action: &str, compute: F) -> Result<Answer<T>>
    where
        T: Serialize + DeserializeOwned + Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<Draft<T>>> + Send,
    {
        self.run_mapped(call, action, compute, Error::from).await
    }

    /// As [`Work::run`], with the commit's refusals mapped by the caller: which counter fell below its floor, which unique
    /// index was hit.
    ///
    /// # Errors
    /// As [`Work::run`].
    pub async fn run_mapped<T, F, Fut, M>(
        &self,
        call: &Call,
        action: &str,
        compute: F,
        map: M,
    ) -> Result<Answer<T>>
    where
        T: Serialize + DeserializeOwned + Send,
        F: Fn() -> Fut + Send + Sync,
        Fut: Future<Output = Result<Draft<T>>> + Send,
        M: Fn(DatabaseError) -> Error + Send + Sync,
    {
        for _ in 0..MAX_TRIES {
            if let Some(answer) = self.replay(call).await? {
                return Ok(answer);
            }
            let Draft { mut changes, outcome } = compute().await?;
            self.mark(call, action, &outcome, &mut changes)?;
            match self.committer.commit(changes).await {
                Ok(()) => return Ok(Answer { value: outcome, replayed: None }),
                // Somebody else was faster, or the same request came twice at once: look again.
                Err(DatabaseError::Conflict { .. }) => {}
                Err(DatabaseError::AlreadyExists { collection: schema::REQUESTS, .. }) => {}
                // The same request, carried out elsewhere after this one had looked for its marker: its movement is there, and now
                // its marker is, too.
                Err(DatabaseError::AlreadyExists { collection: schema::TRANSFERS, .. })
                    if call.request.is_some() => {}
                // Two first movements of one account at once: the second one finds the account now.
                Err(DatabaseError::AlreadyExists {
                    collection: schema::ACCOUNTS | schema::PAYOUTS, ..
                }) => {}
                Err(error) => return Err(map(error)),
            }
        }
        Err(Error::new(ErrorCode::Conflict, "too many changes at the same time; try again"))
    }

    async fn replay<T: DeserializeOwned>(&self, call: &Call) -> Result<Option<Answer<T>>> {
        let Some(request) = &call.request else { return Ok(None) };
        let Some(record) = self.reader.load::<RequestRecord>(&request.id).await? else { return Ok(None) };
        let record = record.value;
        if record.fingerprint != request.fingerprint {
            return Err(Error::new(
                ErrorCode::IdempotencyKeyReused,
                "this idempotency key was used with another body; use a new key for a new request",
            ));
        }
        let value = serde_json::from_value(record.outcome).map_err(Error::internal)?;
        Ok(Some(Answer { value, replayed: Some(record.created_at) }))
    }

    fn mark<T: Serialize>(
        &self,
        call: &Call,
        action: &str,
        outcome: &T,
        changes: &mut Changeset,
    ) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let now = self.now();
        let outcome = serde_json::to_value(outcome).map_err(Error::internal)?;
        // The daemon's own doings are in the jobs' records; the audit log is about people.
        if call.principal != Principal::System {
            let subject = outcome.get("id").and_then(Value::as_str).unwrap_or_default().to_owned();
            changes.insert(&AuditEntry {
                id: self.ids.next(),
                principal: call.principal,
                action: action.to_owned(),
                subject,
                trace_id: call.trace_id.clone(),
                at: now,
            });
        }
        if let Some(request) = &call.request {
            let fingerprint = request.fingerprint.clone();
            changes.insert(&RequestRecord { id: request.id.clone(), fingerprint, outcome, created_at: now });
        }
        Ok(())
    }
}

/// Whether a changeset enqueues a job, so that a worker may be woken.
#[must_use]
pub fn touches_jobs(changes: &Changeset) -> bool {
    changes.writes.iter().any(|write| {
        write.collection == schema::JOBS
            && matches!(write.op, WriteOp::Insert { .. } | WriteOp::Replace { .. })
    })
}
