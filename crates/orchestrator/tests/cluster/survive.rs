//! What three replicas must survive, under load, on real servers. In the end everything that was acknowledged is held against
//! what the market says, and the provider's own counts tell that nothing took hold twice.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    meddler,
    servers::variable,
    world::{Cluster, REPLICAS, Shape},
};
use crate::daemon::{harness::wait_for, judge::judge, load::Load};

const CONSUMERS: u64 = 3;
/// Longer than a lease.
const BEYOND_A_LEASE: Duration = Duration::from_secs(9);
/// How long the database is away.
const OUTAGE: Duration = Duration::from_secs(15);
/// What a replica may hold, in a build for tests.
const MOST_MEMORY_KIB: u64 = 400 * 1024;

async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Everything is judged, the replicas end well, and what was published can be rebuilt.
async fn judge_and_end(cluster: Cluster, load: Load) {
    let mut consumers = load.finish().await;
    judge(&cluster.operator, &cluster.provider, &mut consumers).await;
    end(cluster).await;
}

/// The replicas that run end well, and what was published can be rebuilt.
pub async fn end(mut cluster: Cluster) {
    for running in cluster.replicas.iter().filter_map(|replica| replica.running.as_ref()) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(kib < MOST_MEMORY_KIB, "a replica holds {kib} KiB");
    }
    let logs = cluster.logs();
    assert!(!logs.contains("panicked"), "{logs}");
    cluster.stop().await;
    cluster.replicas[0].place.cli(&["verify"]).await.ends(0, &["final"]);
}

/// Lets the cluster stand the first rush, so that what follows meets it at work.
pub async fn under_load(cluster: &Cluster, seed: u64, consumers: u64) -> Load {
    let load = Load::begin(&cluster.operator, seed, consumers).await;
    wait_for("the first allocations", || async {
        let allocations = cluster.operator.all("/allocations").await;
        allocations.iter().any(|allocation| allocation["state"] == "active").then_some(())
    })
    .await;
    load
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_are_killed_one_after_another_and_database_and_cache_go_away() {
    let mut cluster = Cluster::start().await;
    let load = under_load(&cluster, 21, CONSUMERS).await;
    for at in 0..REPLICAS {
        cluster.replicas[at].kill();
        pass(Duration::from_secs(2)).await;
        cluster.replicas[at].start().await;
    }
    cluster.mongodb.kill();
    pass(OUTAGE).await;
    cluster.mongodb.resume().await;
    pass(Duration::from_secs(3)).await;
    // Not started again: a cache that is down slows, and never fails.
    cluster.redis.kill();
    pass(Duration::from_secs(5)).await;
    judge_and_end(cluster, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_dropped_doubled_delayed_and_shuffled() {
    let (endpoint, tally) = meddler::start(&variable("ORCHESTRATOR_TEST_AWS_ENDPOINT"), 5).await;
    let cluster = Cluster::of(Shape { aws: endpoint, ..Shape::default() }).await;
    let load = under_load(&cluster, 22, CONSUMERS).await;
    pass(Duration::from_secs(10)).await;
    tally.lose_all.store(true, Ordering::Relaxed);
    pass(Duration::from_secs(10)).await;
    tally.lose_all.store(false, Ordering::Relaxed);
    pass(Duration::from_secs(5)).await;
    judge_and_end(cluster, load).await;
    for count in [&tally.lost, &tally.doubled, &tally.delayed] {
        assert!(count.load(Ordering::Relaxed) > 0, "the queue was left alone: {tally:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_cut_off_from_the_database_and_another_is_paused_beyond_its_leases() {
    let cluster = Cluster::start().await;
    let load = under_load(&cluster, 23, CONSUMERS).await;
    cluster.replicas[1].wire.cut();
    pass(BEYOND_A_LEASE).await;
    cluster.replicas[1].wire.heal();
    for at in [0, 2] {
        cluster.replicas[at].signal("STOP");
        pass(BEYOND_A_LEASE).await;
        cluster.replicas[at].signal("CONT");
        pass(Duration::from_secs(2)).await;
    }
    judge_and_end(cluster, load).await;
}
