//! One leads at a time: the next one goes on when the leader stops, dies, or is cut off from the database.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use futures::FutureExt as _;
use orchestrator::{
    client::{clock::ManualClock, db::memory::MemoryDatabase},
    controller::worker::{Leader, leader::Work},
    core::{
        client::{
            database::{Changeset, Committer, DatabaseError, Result},
            lease::Lease,
        },
        market::quantity::{Micros, Timestamp},
    },
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::harness::turn;

const LENGTH: Micros = Micros::from_secs(15);

/// A way to the database that can be cut.
struct Wire {
    database: Arc<MemoryDatabase>,
    cut: AtomicBool,
}

#[async_trait]
impl Committer for Wire {
    async fn commit(&self, changeset: Changeset) -> Result<()> {
        if self.cut.load(Ordering::SeqCst) {
            return Err(DatabaseError::Unavailable("cut".into()));
        }
        self.database.commit(changeset).await
    }
}

struct Replica {
    wire: Arc<Wire>,
    leads: Arc<AtomicUsize>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

fn replica(database: &Arc<MemoryDatabase>, clock: &ManualClock, name: &str) -> Replica {
    let wire = Arc::new(Wire { database: database.clone(), cut: AtomicBool::new(false) });
    let leads = Arc::new(AtomicUsize::new(0));
    let lease = Lease::new(database.clone(), wire.clone(), "work", name, LENGTH);
    let leader = Leader::new("work", lease, Arc::new(clock.clone()));
    let counted = leads.clone();
    let work: Work = Box::new(move |stop| {
        let leads = counted.clone();
        async move {
            leads.fetch_add(1, Ordering::SeqCst);
            stop.cancelled().await;
            leads.fetch_sub(1, Ordering::SeqCst);
        }
        .boxed()
    });
    let stop = CancellationToken::new();
    let ended = stop.clone();
    let task = tokio::spawn(async move { leader.run(work, ended).await });
    Replica { wire, leads, stop, task }
}

impl Replica {
    fn leads(&self) -> bool {
        self.leads.load(Ordering::SeqCst) == 1
    }
}

async fn pass(clock: &ManualClock, seconds: u64) {
    for _ in 0..seconds {
        clock.advance(Micros::from_secs(1));
        turn().await;
    }
}

#[tokio::test]
async fn exactly_one_leads_and_the_next_one_takes_over() {
    let database = MemoryDatabase::with_schema();
    let clock = ManualClock::new(Timestamp(1_700_000_000_000_000));
    let first = replica(&database, &clock, "first");
    turn().await;
    let second = replica(&database, &clock, "second");
    pass(&clock, 60).await;
    assert!(first.leads() && !second.leads(), "the lease is kept by who has it");

    // Stopped in order: it gives the lease back.
    first.stop.cancel();
    first.task.await.unwrap();
    pass(&clock, 11).await;
    assert!(second.leads());

    // Killed: nobody gives anything back; the lease must run out.
    let third = replica(&database, &clock, "third");
    turn().await;
    second.task.abort();
    pass(&clock, 5).await;
    assert!(!third.leads(), "the lease of the dead still holds");
    pass(&clock, 20).await;
    assert!(third.leads());

    // Cut off: it must not go on leading beyond its lease.
    let fourth = replica(&database, &clock, "fourth");
    turn().await;
    third.wire.cut.store(true, Ordering::SeqCst);
    for _ in 0..40 {
        pass(&clock, 1).await;
        assert!(!(third.leads() && fourth.leads()), "two lead");
    }
    assert!(fourth.leads() && !third.leads());
}
