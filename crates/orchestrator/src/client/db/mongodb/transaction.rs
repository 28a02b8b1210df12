//! A transaction, begun again when it met another one, and committed again when nobody knows whether it was.
//!
//! It reads one snapshot and is durable on a majority, with its journal, when the commit is answered. Conflicts are told
//! by the server at once, without waiting: the loser begins anew after a random pause that grows. From its second try on
//! it also waits for its turn among those of this process that want the same documents, so that these don't throw each
//! other back over and over.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use ::mongodb::{
    ClientSession,
    error::{Error, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT},
    options::{Acknowledgment, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern},
};
use async_trait::async_trait;
use tokio::sync::{Mutex, MutexGuard};

use super::{
    Running,
    fault::{self, Trouble},
};
use crate::{core::client::database::DatabaseError, utils::random};

/// Durable on a majority of the servers.
pub(super) fn majority() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build()
}

/// Why a transaction's work ended early.
pub(super) enum Stop {
    /// The answer, from what the transaction saw. `written` tells whether it has changed anything.
    Refused { error: DatabaseError, written: bool },
    /// It met another transaction, or lost its server: again.
    Transient(Error),
    /// The work wants to go another way: again, at once.
    Otherwise,
    /// The database is in trouble.
    Failed(DatabaseError),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        if error.contains_label(TRANSIENT_TRANSACTION_ERROR)
            || fault::code(&error) == Some(fault::WRITE_CONFLICT)
        {
            return Self::Transient(error);
        }
        Self::Failed(fault::fault(error))
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Driver(error) => error.into(),
            Trouble::Database(error) => Self::Failed(error),
        }
    }
}

/// What is done inside a transaction; may be done more than once.
#[async_trait]
pub(super) trait Work: Send {
    /// What comes of it.
    type Output: Send;

    /// Names the documents that it changes, for waiting one's turn.
    fn documents(&self) -> Vec<(&'static str, String)>;

    /// Does it.
    async fn run(&mut self, session: &mut ClientSession) -> Result<Self::Output, Stop>;
}

/// Turns among the transactions of this process, by document.
#[derive(Debug)]
pub(super) struct Turns {
    stripes: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Self {
        Self { stripes: (0..256).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }
}

impl Turns {
    /// Waits for the turn of all these documents.
    async fn take(&self, documents: &[(&'static str, String)]) -> Vec<MutexGuard<'_, ()>> {
        let count = self.stripes.len() as u64;
        let mut places: Vec<u64> = documents.iter().map(|one| self.hasher.hash_one(one) % count).collect();
        // In one order for all, so that nobody waits in a circle.
        places.sort_unstable();
        places.dedup();
        let mut turns = Vec::with_capacity(places.len());
        for place in places {
            if let Some(stripe) = usize::try_from(place).ok().and_then(|place| self.stripes.get(place)) {
                turns.push(stripe.lock().await);
            }
        }
        turns
    }
}

/// A pause before try number `attempt`, at random below a bound that doubles from 2 ms to 256 ms.
pub(super) async fn pause(attempt: u32) {
    let bound = 2_000_u64 << attempt.saturating_sub(1).min(7);
    let drawn = random::bytes(4).into_iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(byte));
    tokio::time::sleep(Duration::from_micros(drawn % bound)).await;
}

/// Runs the work in a transaction until it is committed or refused, for as long as a call may take.
pub(super) async fn transact<W: Work>(running: &Running, work: &mut W) -> Result<W::Output, DatabaseError> {
    let until = Instant::now() + running.timeout;
    let mut turns = Vec::new();
    let mut attempt = 0;
    loop {
        let error = match once(running, work, until).await {
            Ok(output) => return Ok(output),
            Err(Stop::Refused { error, .. } | Stop::Failed(error)) => return Err(error),
            Err(Stop::Otherwise) => continue,
            Err(Stop::Transient(error)) => error,
        };
        attempt += 1;
        metrics::counter!("orchestrator_database_transaction_retries_total").increment(1);
        if Instant::now() >= until {
            return Err(DatabaseError::Unavailable(Box::new(error)));
        }
        if turns.is_empty() {
            turns = running.turns.take(&work.documents()).await;
        }
        pause(attempt).await;
    }
}

async fn once<W: Work>(running: &Running, work: &mut W, until: Instant) -> Result<W::Output, Stop> {
    let mut session = running.client.start_session().await?;
    session
        .start_transaction()
        .read_concern(ReadConcern::snapshot())
        .write_concern(majority())
        .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        .max_commit_time(running.timeout)
        .await?;
    match work.run(&mut session).await {
        Ok(output) => commit(&mut session, until).await.map(|()| output),
        // A refusal rests on what was read. Committing the reads makes sure that a majority has it, too, before the
        // caller is told.
        Err(Stop::Refused { error, written: false }) => {
            commit(&mut session, until).await?;
            Err(Stop::Refused { error, written: false })
        }
        Err(stop) => {
            // The server ends it by itself, too, when it can't be told.
            let _ = session.abort_transaction().await;
            Err(stop)
        }
    }
}

async fn commit(session: &mut ClientSession, until: Instant) -> Result<(), Stop> {
    let mut attempt = 0;
    loop {
        match session.commit_transaction().await {
            Ok(()) => return Ok(()),
            // Committing the same transaction again is safe: it answers what became of it.
            Err(error)
                if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) && Instant::now() < until =>
            {
                attempt += 1;
                pause(attempt).await;
            }
            Err(error) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {
                return Err(Stop::Failed(DatabaseError::Unavailable(Box::new(error))));
            }
            Err(error) => return Err(error.into()),
        }
    }
}
