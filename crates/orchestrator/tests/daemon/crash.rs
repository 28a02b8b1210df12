//! The daemon is killed at random instants under load, several times, and told to end under load: whatever it had
//! acknowledged is there afterwards, once.

use std::time::Duration;

use serde_json::json;

use super::{
    harness::{Place, Running},
    load::{Dice, Judged, Load, judge},
};

const KILLS: u64 = 12;
const TERMINATIONS: u64 = 3;
const CONSUMERS: u64 = 4;

/// `ORCHESTRATOR_TEST_SEED` makes other choices.
#[expect(clippy::print_stdout, reason = "the test harness shows it with the failure")]
fn seed(default: u64) -> u64 {
    let seed = std::env::var("ORCHESTRATOR_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or(default);
    println!("seed {seed}");
    seed
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// The end of both tests: everything is judged, the daemon ends well, and what it published can be rebuilt.
async fn judge_and_end(place: &Place, daemon: Running, load: Load) -> Judged {
    let mut consumers = load.finish().await;
    let judged = judge(&daemon.api, &daemon.provider, &mut consumers).await;
    let log = daemon.log();
    assert!(!log.contains("panicked"), "{log}");
    daemon.stop_well().await;
    let report = place.cli(&["verify", "--json"]).await.json();
    assert_eq!((&report["is_final"], &report["problems"]), (&json!(true), &json!([])), "{report}");
    assert!(report["blocks"].as_u64().unwrap() > 0 && report["records"].as_u64().unwrap() > 0, "{report}");
    judged
}

/// What a run of kills came to, after everything was found as it should be.
pub(crate) struct Counted {
    pub(crate) kills: u64,
    pub(crate) judged: Judged,
}

/// Kills a daemon so many times under load, starts included, and judges.
pub(crate) async fn kill_under_load(seed: u64, kills: u64) -> Counted {
    let (place, mut dice) = (Place::busy(), Dice::new(seed));
    let mut done = 0;
    // Killed before it was ever ready: the first start must be repeatable too.
    for _ in 0..2 {
        let starting = place.spawn();
        pass(dice.below(300)).await;
        drop(starting);
        done += 1;
    }
    let mut daemon = place.start().await;
    let load = Load::begin(&daemon.api, seed, CONSUMERS).await;
    while done < kills {
        pass(200 + dice.below(2_300)).await;
        daemon.kill();
        done += 1;
        if dice.below(3) == 0 {
            let starting = place.spawn();
            pass(dice.below(400)).await;
            drop(starting);
            done += 1;
        }
        daemon = place.start().await;
    }
    pass(1_000).await;
    Counted { kills: done, judged: judge_and_end(&place, daemon, load).await }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_instant_it_loses_nothing_and_doubles_nothing() {
    kill_under_load(seed(7), KILLS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_other_instants_it_loses_nothing_and_doubles_nothing() {
    kill_under_load(seed(8) + 1, KILLS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_end_under_load_it_exits_with_0_and_the_next_start_goes_on() {
    let seed = seed(11);
    let (place, mut dice) = (Place::busy(), Dice::new(seed));
    let mut daemon = place.start().await;
    let load = Load::begin(&daemon.api, seed, CONSUMERS).await;
    for _ in 0..TERMINATIONS {
        // A reader of events that never goes away must not keep it.
        let events = daemon.api.http.get(format!("{}/events", daemon.api.base));
        let events = events.bearer_auth(&daemon.api.key).send().await.unwrap();
        assert_eq!(events.status(), 200);
        pass(300 + dice.below(2_000)).await;
        daemon.stop_well().await;
        drop(events);
        daemon = place.start().await;
    }
    pass(1_000).await;
    judge_and_end(&place, daemon, load).await;
}
