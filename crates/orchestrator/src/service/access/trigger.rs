//! The trigger that takes keys away when they ran out or when their overlap is over.

use async_trait::async_trait;
use serde_json::json;

use crate::{
    core::{
        client::{
            database::{Changeset, DatabaseError, Filter, Query, ReaderExt, Sort},
            schema,
        },
        job::{JobKind, NewJob},
        market::credential::Credential,
    },
    error::{Error, Result, chain},
    service::{
        job::{Trigger, TriggerReport},
        work::Work,
    },
};

/// Credentials dealt with per run and reason.
const BATCH: usize = 1_000;

/// Enqueues the revocation of credentials whose time is over.
pub struct ExpireCredentials {
    work: Work,
}

impl ExpireCredentials {
    /// The trigger over the unit of work.
    #[must_use]
    pub const fn new(work: Work) -> Self {
        Self { work }
    }

    /// Whether a job was enqueued: not when there is one already.
    async fn enqueue(&self, credential: &Credential, expired: bool) -> Result<bool> {
        let why = if expired { "expire" } else { "overlap" };
        let key = format!("{}:{why}", credential.id);
        let mut changes = Changeset::new();
        NewJob::now(JobKind::RevokeCredential, credential.allocation, key, self.work.now())
            .input(json!({"credential": credential.id, "expired": expired}))
            .enqueue(&mut changes, &self.work.ids);
        match self.work.committer.commit(changes).await {
            Ok(()) => Ok(true),
            Err(DatabaseError::AlreadyExists { collection: schema::JOBS, .. }) => Ok(false),
            Err(error) => Err(Error::from(error)),
        }
    }
}

#[async_trait]
impl Trigger for ExpireCredentials {
    fn name(&self) -> &'static str {
        "expire_credentials"
    }

    async fn fire(&self) -> Result<TriggerReport> {
        let mut report = TriggerReport::default();
        for (state, field, expired) in [
            ("pending", "expires_at", true),
            ("active", "expires_at", true),
            ("rotating", "expires_at", true),
            ("rotating", "overlap_until", false),
        ] {
            let past = Filter::Le(field.into(), self.work.now().as_micros().into());
            let query = Query::new(schema::CREDENTIALS)
                .filter(Filter::eq("state", state).and(past))
                .sort(Sort::Field(field.into()))
                .limit(BATCH);
            let (due, _) = self.work.reader.list::<Credential>(query).await?;
            for credential in due {
                report.examined += 1;
                match self.enqueue(&credential.value, expired).await {
                    Ok(changed) => report.changed += u64::from(changed),
                    Err(error) => {
                        report.failed += 1;
                        let id = credential.value.id;
                        tracing::warn!(credential = %id, error = chain(&error), "credential not withdrawn");
                    }
                }
            }
        }
        Ok(report)
    }
}
