//! Commits of attempts that share a task, given to the database together: one request and one wake-up for all that are ready
//! at the same time. Each stays a commit of its own, all or nothing by itself.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;

use crate::core::client::database::{Changeset, Committer, DatabaseError, Result};

/// Where a commit stands.
enum Place {
    /// It waits, gathered or under way; with whom to tell, once somebody asked.
    Waiting(Option<Waker>),
    /// It was answered.
    Answered(Result<()>),
    /// The answer was taken.
    Over,
}

/// A commit that waits for its answer. One each, so that the answer to a commit that nobody waits for any more, as when a
/// handler ran out of time, is never taken for that to a later one.
type Ticket = Arc<Mutex<Place>>;

/// The commits of one task's attempts.
pub(super) struct Gather {
    committer: Arc<dyn Committer>,
    gathered: Mutex<Vec<(Ticket, Changeset)>>,
}

impl Gather {
    /// Nothing gathered yet.
    pub(super) fn new(committer: Arc<dyn Committer>) -> Arc<Self> {
        Arc::new(Self { committer, gathered: Mutex::default() })
    }

    /// Commits, together with what others of the task have to commit. Only for attempts that [`Gather::run`] runs.
    pub(super) async fn commit(&self, changes: Changeset) -> Result<()> {
        let ticket = Arc::new(Mutex::new(Place::Waiting(None)));
        self.gathered.lock().push((Arc::clone(&ticket), changes));
        poll_fn(|cx| answer_of(&ticket, cx)).await
    }

    /// The commit of all that was gathered so far.
    fn flush(self: &Arc<Self>) -> Option<BoxFuture<'static, ()>> {
        let gathered = std::mem::take(&mut *self.gathered.lock());
        if gathered.is_empty() {
            return None;
        }
        let committer = Arc::clone(&self.committer);
        Some(Box::pin(async move {
            let (tickets, changes): (Vec<Ticket>, Vec<Changeset>) = gathered.into_iter().unzip();
            let answers = committer.commit_each(changes).await;
            let none = || Err(DatabaseError::Unavailable("a commit was not answered".into()));
            let answers = answers.into_iter().chain(std::iter::repeat_with(none));
            for (ticket, answer) in tickets.into_iter().zip(answers) {
                let before = std::mem::replace(&mut *ticket.lock(), Place::Answered(answer));
                if let Place::Waiting(Some(waker)) = before {
                    waker.wake();
                }
            }
        }))
    }

    /// Runs attempts to their ends. What they commit while a commit is under way is gathered for the next one.
    pub(super) async fn run(self: Arc<Self>, attempts: Vec<BoxFuture<'static, ()>>) {
        let mut attempts: FuturesUnordered<_> = attempts.into_iter().collect();
        let mut under_way: Option<BoxFuture<'static, ()>> = None;
        poll_fn(|cx| {
            loop {
                let all_ended = loop {
                    match attempts.poll_next_unpin(cx) {
                        Poll::Ready(Some(())) => {}
                        Poll::Ready(None) => break true,
                        Poll::Pending => break false,
                    }
                };
                if under_way.is_none() {
                    under_way = self.flush();
                }
                match under_way.as_mut().map(|commit| commit.poll_unpin(cx)) {
                    Some(Poll::Ready(())) => under_way = None,
                    None if all_ended => return Poll::Ready(()),
                    Some(Poll::Pending) | None => return Poll::Pending,
                }
            }
        })
        .await;
    }
}

fn answer_of(ticket: &Ticket, cx: &Context<'_>) -> Poll<Result<()>> {
    let mut place = ticket.lock();
    match std::mem::replace(&mut *place, Place::Over) {
        Place::Answered(answer) => Poll::Ready(answer),
        Place::Waiting(_) | Place::Over => {
            *place = Place::Waiting(Some(cx.waker().clone()));
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, task::Waker};

    use async_trait::async_trait;

    use super::*;
    use crate::core::client::{database::Expect, schema};

    /// Notes how many changesets came together, and refuses those that require something.
    #[derive(Default)]
    struct Counting(Mutex<Vec<usize>>);

    #[async_trait]
    impl Committer for Counting {
        async fn commit(&self, _: Changeset) -> Result<()> {
            Err(DatabaseError::Invalid("one by one".into()))
        }

        async fn commit_each(&self, changesets: Vec<Changeset>) -> Vec<Result<()>> {
            self.0.lock().push(changesets.len());
            tokio::task::yield_now().await;
            let answer = |changes: Changeset| match changes.is_empty() {
                true => Ok(()),
                false => Err(DatabaseError::Invalid("refused".into())),
            };
            changesets.into_iter().map(answer).collect()
        }
    }

    fn refused() -> Changeset {
        let mut changes = Changeset::new();
        changes.require(schema::UNITS, "none", Expect::Version(1));
        changes
    }

    #[tokio::test]
    async fn commits_that_are_ready_together_go_together_and_each_gets_its_own_answer() {
        let counting = Arc::new(Counting::default());
        let gather = Gather::new(counting.clone());
        let refusals = Arc::new(Mutex::new(Vec::new()));
        let attempts = (0..5).map(|n| {
            let (gather, refusals) = (Arc::clone(&gather), Arc::clone(&refusals));
            let attempt = async move {
                // The last one comes while the others' commit is under way.
                if n == 4 {
                    tokio::task::yield_now().await;
                }
                let changes = if n % 2 == 1 { refused() } else { Changeset::new() };
                if gather.commit(changes).await.is_err() {
                    refusals.lock().push(n);
                }
                gather.commit(Changeset::new()).await.unwrap();
            };
            attempt.boxed()
        });
        gather.clone().run(attempts.collect()).await;
        assert_eq!(*refusals.lock(), [1, 3]);
        let together = counting.0.lock().clone();
        assert_eq!((together.first(), together.iter().sum()), (Some(&4), 10), "{together:?}");
    }

    #[tokio::test]
    async fn the_answer_to_a_commit_that_nobody_waits_for_is_nobody_elses() {
        let gather = Gather::new(Arc::new(Counting::default()));
        let attempt = {
            let gather = Arc::clone(&gather);
            async move {
                let mut given_up = Box::pin(gather.commit(Changeset::new()));
                let polled = given_up.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(polled.is_pending());
                drop(given_up);
                assert!(gather.commit(refused()).await.is_err());
            }
        };
        gather.clone().run(vec![attempt.boxed()]).await;
    }
}
