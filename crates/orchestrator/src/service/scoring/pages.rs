//! Pages of offerings that replicas tell each other, for those that have no snapshot: one that has just started, or missed changes
//! and must read everything.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::projection::OfferingPage;
use crate::{
    core::market::quantity::{Micros, Timestamp},
    service::answers::SharedAnswers,
};

/// How long a page is told for. It may be three quarters of a second behind by then
/// ([`limit_age`](super::offering::OfferingSettings::limit_age)): a second in all.
const TOLD_FOR: Micros = Micros::from_millis(250);
/// A page that is asked for all the time is told as often, so that it is always there.
const TELL_EVERY: Micros = Micros::from_millis(125);
/// Pages that are being told at the same time; when the cache is slow, others are not.
const TELLING: usize = 32;

/// What replicas tell each other.
pub(super) struct SharedPages {
    answers: SharedAnswers,
    telling: Arc<Semaphore>,
}

impl SharedPages {
    pub fn new(answers: SharedAnswers) -> Self {
        Self { answers, telling: Arc::new(Semaphore::new(TELLING)) }
    }

    /// Whether there is anybody to tell.
    pub const fn is_shared(&self) -> bool {
        self.answers.is_shared()
    }

    /// What another replica answered a moment ago.
    pub async fn told(&self, question: &str) -> Option<OfferingPage> {
        Some(self.answers.get(&key(question), TOLD_FOR).await?.value)
    }

    /// Tells a page that is answered at this instant, unless it was told a moment ago. Nobody waits for it.
    pub fn tell(
        &self,
        question: &str,
        page: &Arc<OfferingPage>,
        told_at: &mut Option<Timestamp>,
        now: Timestamp,
    ) {
        if told_at.is_some_and(|at| now.since(at) < TELL_EVERY) {
            return;
        }
        let Ok(turn) = Arc::clone(&self.telling).try_acquire_owned() else { return };
        *told_at = Some(now);
        let (answers, key, page) = (self.answers.clone(), key(question), page.clone());
        tokio::spawn(async move {
            answers.put(&key, page.as_ref(), now, TOLD_FOR).await;
            drop(turn);
        });
    }
}

/// The name of a page among the shared answers; filters may be long.
fn key(question: &str) -> String {
    format!("offerings/{}", hex::encode(Sha256::digest(question)))
}
