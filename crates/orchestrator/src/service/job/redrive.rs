//! Dead letters: how many wait, and their way back. A letter names a job that was given up; redriving it gives the job its
//! attempts back, unless somebody retried it meanwhile. The database decides: a letter is a hint like every message.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::admin::{JOBS, JobService, start_again};
use crate::{
    core::{
        client::{
            damaged::Damaged,
            database::{Changeset, Document, Filter, ReaderExt, Stored},
            queue::QueueError,
            schema,
        },
        job::{Job, JobKind, JobState, Phase},
        madara::job_queue::{JobMessage, JobQueueClient},
        market::{ids::JobId, quantity::Micros},
    },
    error::{Error, ErrorCode, Result},
    service::work::{Call, Draft},
};

/// Most letters that one call sends back.
const MAX_LETTERS: usize = 1_000;

/// How long letters are hidden from other redrives while this one is at them.
const VISIBILITY: Micros = Micros::from_secs(60);

/// What waits for a person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetters {
    /// Dead letters.
    pub waiting: u64,
    /// Documents and messages that could not be read and were set aside.
    pub damaged: u64,
}

/// What a redrive came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redriven {
    /// Letters that were taken.
    pub letters: u64,
    /// Jobs that have their attempts back and are due.
    pub retried: Vec<JobId>,
    /// Letters whose job had not failed any more, or is gone.
    pub outdated: u64,
    /// Letters that name no job; their bytes are kept among the damaged.
    pub unreadable: u64,
}

/// A letter with the kind of its queue.
type Letter = (JobKind, JobMessage);

impl JobService {
    /// How much waits for a person.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; [`ErrorCode::NotSupported`] without queues; [`ErrorCode::Unavailable`]; database errors.
    pub async fn dead_letters(&self, call: &Call) -> Result<DeadLetters> {
        call.operators_only(JOBS)?;
        let waiting = self.letters()?.dead_letters().await.map_err(unavailable)?;
        let damaged = self.work.reader.count(schema::DAMAGED, Filter::All).await?;
        Ok(DeadLetters { waiting, damaged })
    }

    /// Takes up to `max` (1 to 1,000) dead letters back: the jobs that they name and that are still failed get their
    /// attempts back, in one commit; only then are the letters removed. A crash in between repeats letters, which finds
    /// the jobs on their way.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; [`ErrorCode::InvalidField`] on `max`; [`ErrorCode::NotSupported`] without queues;
    /// [`ErrorCode::Unavailable`]; database errors.
    pub async fn redrive(&self, call: &Call, max: usize) -> Result<Redriven> {
        call.operators_only(JOBS)?;
        if !(1..=MAX_LETTERS).contains(&max) {
            return Err(Error::field("max", format!("give a number from 1 to {MAX_LETTERS}")));
        }
        let queue = self.letters()?;
        // Taken by the first computation and kept for the next; a request that is replayed takes none.
        let taken: Mutex<Option<Vec<Letter>>> = Mutex::default();
        let compute = || async {
            let known = taken.lock().clone();
            let letters = match known {
                Some(letters) => letters,
                None => take(queue, max).await?,
            };
            *taken.lock() = Some(letters.clone());
            self.draft(&letters).await
        };
        let answer = self.work.run(call, "job.redrive", compute).await?;
        if answer.replayed.is_some() {
            return Ok(answer.value);
        }
        for (kind, letter) in taken.into_inner().unwrap_or_default() {
            queue.acknowledge(kind, Phase::Process, &letter.message).await.map_err(unavailable)?;
        }
        Ok(answer.value)
    }

    fn letters(&self) -> Result<&dyn JobQueueClient> {
        let missing = || Error::new(ErrorCode::NotSupported, "this daemon has no queue of dead letters");
        self.letters.as_deref().ok_or_else(missing)
    }

    async fn draft(&self, letters: &[Letter]) -> Result<Draft<Redriven>> {
        let now = self.work.now();
        let mut changes = Changeset::new();
        let mut report = Redriven { letters: letters.len() as u64, ..Redriven::default() };
        let mut named = BTreeSet::new();
        for (_, letter) in letters {
            let Some(job) = letter.job else {
                let (id, body) = (letter.message.id.clone(), letter.message.body.clone());
                let document = Document { id, version: 0, body };
                changes.insert(&Damaged::new(
                    schema::QUEUE_MESSAGES,
                    &document,
                    "a dead letter names no job",
                    now,
                ));
                report.unreadable += 1;
                continue;
            };
            // Two letters of one job are one wish.
            if !named.insert(job) {
                report.outdated += 1;
                continue;
            }
            match self.work.reader.load::<Job>(&job.to_string()).await? {
                Some(Stored { version, value: mut job }) if job.state == JobState::Failed => {
                    start_again(&mut job, now)?;
                    changes.replace(version, &job);
                    report.retried.push(job.id);
                }
                _ => report.outdated += 1,
            }
        }
        Ok(Draft::new(changes, report))
    }
}

/// Up to `max` letters: those that an earlier call sent back and did not come to, then as many dead ones.
async fn take(queue: &dyn JobQueueClient, max: usize) -> Result<Vec<Letter>> {
    let mut letters = Vec::new();
    for round in 0..2 {
        if round == 1 {
            queue.redrive(max.saturating_sub(letters.len())).await.map_err(unavailable)?;
        }
        for kind in JobKind::ALL {
            let room = max.saturating_sub(letters.len());
            if room == 0 {
                return Ok(letters);
            }
            let found = queue.receive(kind, Phase::Process, room, VISIBILITY, Micros::ZERO).await;
            letters.extend(found.map_err(unavailable)?.into_iter().map(|letter| (kind, letter)));
        }
    }
    Ok(letters)
}

fn unavailable(error: QueueError) -> Error {
    Error::new(ErrorCode::Unavailable, "the queue of dead letters does not answer").because(error)
}
