//! The daemon is killed at random instants under load, a hundred times in all, and told to end under load: whatever it had
//! acknowledged is there afterwards, once. `cargo xtask soak` does the same many thousands of times.

use std::time::Duration;

use serde_json::json;

use super::{
    harness::{Place, Running},
    judge::{Judged, examine, settlement_agrees},
    load::{Dice, Load},
};

/// Kills of each of the four rounds.
const KILLS: u64 = 25;
const TERMINATIONS: u64 = 3;
const CONSUMERS: u64 = 4;

/// `ORCHESTRATOR_TEST_SEED` makes other choices.
#[expect(clippy::print_stdout, reason = "the test harness shows it with the failure")]
fn seed(default: u64) -> u64 {
    let seed = std::env::var("ORCHESTRATOR_TEST_SEED").ok().and_then(|text| text.parse().ok());
    // Each round has seeds of its own, whatever is asked for.
    let seed = seed.map_or(default, |seed: u64| seed.wrapping_mul(100).wrapping_add(default));
    println!("seed {seed}");
    seed
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// The end of all rounds: everything is examined, the daemon ends well, and what it published can be rebuilt.
async fn judge_and_end(place: &Place, daemon: Running, load: Load) -> Judged {
    let mut consumers = load.finish().await;
    let mut judged = examine(&daemon.api, &daemon.provider, &mut consumers).await;
    let log = daemon.log();
    assert!(!log.contains("panicked"), "{log}");
    if !judged.is_good() {
        return judged;
    }
    let blocks = daemon.api.all("/blocks").await;
    daemon.stop_well().await;
    settlement_agrees(place, &consumers, &blocks, &mut judged);
    let report = place.cli(&["verify", "--json"]).await.json();
    assert_eq!((&report["is_final"], &report["problems"]), (&json!(true), &json!([])), "{report}");
    assert!(report["blocks"].as_u64().unwrap() > 0 && report["records"].as_u64().unwrap() > 0, "{report}");
    judged
}

/// How long daemons live.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lives {
    /// From 20 ms to 2.5 s after they are ready.
    Mixed,
    /// From 100 ms to 900 ms.
    Short,
}

impl Lives {
    fn next(self, dice: &mut Dice) -> u64 {
        match (self, dice.below(10)) {
            (Self::Short, _) => 100 + dice.below(800),
            (Self::Mixed, 0..=1) => 20 + dice.below(80),
            (Self::Mixed, 2..=7) => 100 + dice.below(700),
            (Self::Mixed, _) => 800 + dice.below(1_700),
        }
    }
}

/// What a run of kills came to.
pub(crate) struct Counted {
    pub(crate) kills: u64,
    /// Kills of daemons that had acknowledged something in that life.
    pub(crate) at_work: u64,
    pub(crate) judged: Judged,
}

/// Kills a daemon so many times under load, starts included, and judges.
pub(crate) async fn kill_under_load(seed: u64, kills: u64, lives: Lives) -> Counted {
    let (place, mut dice) = (Place::busy(), Dice::new(seed));
    let (mut done, mut at_work) = (0, 0);
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
        let answered = load.answered();
        pass(lives.next(&mut dice)).await;
        let log = daemon.log();
        assert!(!log.contains("panicked"), "{log}");
        daemon.kill();
        done += 1;
        at_work += u64::from(load.answered() > answered);
        if done < kills && dice.below(6) == 0 {
            let starting = place.spawn();
            pass(dice.below(400)).await;
            drop(starting);
            done += 1;
        }
        daemon = place.start().await;
    }
    pass(1_000).await;
    Counted { kills: done, at_work, judged: judge_and_end(&place, daemon, load).await }
}

/// A round of every test run.
async fn round(default: u64) {
    let counted = kill_under_load(seed(default), KILLS, Lives::Mixed).await;
    counted.judged.expect_good();
    let Counted { kills, at_work, .. } = counted;
    assert!(kills == KILLS && at_work * 2 > kills, "{at_work} of {kills} kills hit a daemon at work");
}

// Four directories rather than one with a hundred kills: they run side by side, and as each begins with an empty chain, the
// judging at the end is short.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_instant_it_loses_nothing_and_doubles_nothing_1() {
    round(7).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_instant_it_loses_nothing_and_doubles_nothing_2() {
    round(9).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_instant_it_loses_nothing_and_doubles_nothing_3() {
    round(13).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_instant_it_loses_nothing_and_doubles_nothing_4() {
    round(17).await;
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
    judge_and_end(&place, daemon, load).await.expect_good();
}
