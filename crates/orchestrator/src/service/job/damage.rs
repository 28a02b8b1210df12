//! Jobs that can't be read: they are set aside, so that they hide no other, and hold up those that depend on them.

use super::{engine::Inner, step::EngineStep};
use crate::{
    core::{
        client::{
            damaged::Damaged,
            database::{Document, Filter, Result, Stored},
            schema,
        },
        job::Job,
    },
    error,
    service::damage,
};

/// The jobs among documents. One that can't be read is set aside; if that fails, too, the next look tries again.
pub(super) async fn readable(inner: &Inner, documents: Vec<Document>) -> Vec<Stored<Job>> {
    let mut jobs = Vec::with_capacity(documents.len());
    let mut damaged = false;
    for document in documents {
        match document.decode::<Job>() {
            Ok(job) => jobs.push(job),
            Err(error) => {
                let committer = inner.writes.at(EngineStep::SetAside);
                match damage::set_aside(&committer, &inner.ids, schema::JOBS, &document, &error).await {
                    Ok(moved) => damaged |= moved,
                    Err(failure) => {
                        let failure = error::chain(&failure);
                        tracing::error!(job = document.id, failure, "a damaged job could not be set aside");
                    }
                }
            }
        }
    }
    if damaged {
        // Room was made at the head of the queue, and an alert waits.
        inner.wake.jobs.notify_one();
        inner.wake.outbox.notify_one();
    }
    jobs
}

/// Whether one of these jobs was set aside.
pub(super) async fn any_set_aside(inner: &Inner, ids: impl Iterator<Item = &String>) -> Result<bool> {
    for id in ids {
        let filter = Filter::IdPrefix(Damaged::prefix(schema::JOBS, id));
        if inner.reader.count(schema::DAMAGED, filter).await? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}
