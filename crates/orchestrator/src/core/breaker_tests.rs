//! The rules of the breaker, and what they add up to over an outage, on a clock that only the test moves.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp(1_760_000_000_000_000);
const SECOND: Micros = Micros::from_secs(1);

fn at(second: u64) -> Timestamp {
    START.plus(Micros::from_secs(second))
}

fn breaker() -> Breaker {
    Breaker::new(BreakerSettings::default(), START)
}

fn pass(breaker: &mut Breaker, now: Timestamp) -> Option<Pass> {
    match breaker.admit(now, 7) {
        Admission::Go(pass) => Some(pass),
        Admission::Wait(_) => None,
    }
}

fn call(breaker: &mut Breaker, now: Timestamp, health: Health) -> bool {
    let Some(pass) = pass(breaker, now) else { return false };
    breaker.report(pass, health, now, 7);
    true
}

#[test]
fn failures_in_a_row_open_it_and_successes_in_between_do_not() {
    let mut one = breaker();
    for n in 0..5 {
        assert_eq!(one.view(at(n)).state, BreakerState::Closed);
        assert!(call(&mut one, at(n), Health::Sick));
    }
    assert_eq!(one.view(at(5)).state, BreakerState::Open);
    let mut other = breaker();
    for n in 0..100 {
        assert!(call(&mut other, at(n * 60), Health::Sick));
        assert!(call(&mut other, at(n * 60), Health::Well));
    }
    assert_eq!(other.view(at(0)).state, BreakerState::Closed);
}

#[test]
fn one_probe_at_a_time_finds_out_and_a_failed_one_doubles_the_time() {
    let mut one = breaker();
    let mut now = START;
    (0..5).for_each(|_| assert!(call(&mut one, now, Health::Sick)));
    let mut waits = Vec::new();
    for _ in 0..4 {
        let State::Open { until } = one.state else { panic!("{one:?}") };
        assert!(!call(&mut one, until.minus(Micros(1)), Health::Well), "too early");
        waits.push(until.since(now).get());
        now = until;
        let probe = pass(&mut one, now).expect("a probe");
        assert_eq!(one.view(now).state, BreakerState::HalfOpen);
        assert_eq!(pass(&mut one, now), None, "one at a time");
        one.report(probe, Health::Sick, now, 7);
    }
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0] * 19 / 10), "{waits:?}");
    let State::Open { until } = one.state else { panic!("{one:?}") };
    assert!(call(&mut one, until, Health::Well));
    assert_eq!(one.view(until).state, BreakerState::Recovering);
}

#[test]
fn a_probe_that_nobody_hears_of_gives_way_to_the_next() {
    let mut one = breaker();
    (0..5).for_each(|_| assert!(call(&mut one, START, Health::Sick)));
    let probe = pass(&mut one, at(5)).expect("a probe");
    one.report(probe, Health::Unknown, at(5), 7);
    let probe = pass(&mut one, at(5)).expect("dropped, so the next one may go");
    assert_eq!(pass(&mut one, at(64)), None);
    // It takes longer than a probe may: failed, and its late answer says nothing.
    assert_eq!(pass(&mut one, at(65)), None);
    assert_eq!(one.view(at(65)).state, BreakerState::Open);
    one.report(probe, Health::Well, at(65), 7);
    assert_eq!(one.view(at(65)).state, BreakerState::Open);
}

#[test]
fn it_closes_when_all_is_calm() {
    let mut one = breaker();
    (0..5).for_each(|_| assert!(call(&mut one, START, Health::Sick)));
    assert!(call(&mut one, at(2), Health::Well));
    (3..14).for_each(|second| assert!(call(&mut one, at(second), Health::Well)));
    assert_eq!(one.view(at(14)).state, BreakerState::Closed);
}

/// How those behave who call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// They come again when they are told to.
    Patient,
    /// They come again after a second, whatever they are told.
    Impatient,
    /// They ask no breaker.
    Reckless,
}

/// Replicas before one dependency. Each second so much new work comes; what fails or is turned away comes again.
struct Fleet {
    replicas: Vec<Breaker>,
    /// Who calls when, and at which replica.
    due: BTreeMap<(Timestamp, u64), usize>,
    next: u64,
    rolls: u64,
    calls: BTreeMap<u64, u64>,
    done: u64,
}

impl Fleet {
    fn roll(&mut self) -> u64 {
        self.rolls =
            self.rolls.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.rolls >> 16
    }

    fn peak_after(&self, second: u64) -> u64 {
        self.calls.range(second..).map(|(_, n)| *n).max().unwrap_or_default()
    }

    fn add(&mut self, at: Timestamp, replica: usize) {
        self.next += 1;
        self.due.insert((at, self.next), replica);
    }

    /// Runs until nobody waits; the dependency is away in `outage`, after which only so many replicas are left.
    fn run(
        (replicas, left): (usize, usize),
        manner: Manner,
        per_second: u64,
        seconds: u64,
        outage: std::ops::Range<u64>,
    ) -> Self {
        let settings = BreakerSettings::default();
        let mut fleet = Self {
            replicas: vec![Breaker::new(settings, START); replicas],
            due: BTreeMap::new(),
            next: 0,
            rolls: 42,
            calls: BTreeMap::new(),
            done: 0,
        };
        for n in 0..seconds * per_second {
            let replica = usize::try_from(n).unwrap() % replicas;
            fleet.add(START.plus(Micros(n * 1_000_000 / per_second)), replica);
        }
        while let Some(((now, _), replica)) = fleet.due.pop_first() {
            let over = now.since(START).as_secs() >= outage.end;
            let replica = if over { replica % left } else { replica };
            let roll = fleet.roll();
            let admission = match manner {
                Manner::Reckless => Admission::Go(Pass { epoch: u64::MAX }),
                _ => fleet.replicas[replica].admit(now, roll),
            };
            match admission {
                // Whoever is turned away may come back to any replica.
                Admission::Wait(after) => {
                    let other = usize::try_from(fleet.roll()).unwrap() % replicas;
                    let after = if manner == Manner::Patient { after } else { SECOND };
                    fleet.add(now.plus(after), other);
                }
                Admission::Go(pass) => {
                    let second = now.since(START).as_secs();
                    *fleet.calls.entry(second).or_default() += 1;
                    let well = !outage.contains(&second);
                    let health = if well { Health::Well } else { Health::Sick };
                    fleet.replicas[replica].report(pass, health, now, roll);
                    if well {
                        fleet.done += 1;
                    } else {
                        let jitter = Micros(fleet.roll() % 2_000_000);
                        fleet.add(now.plus(jitter), replica);
                    }
                }
            }
            assert!(now < at(seconds * 20), "it never ends");
        }
        fleet
    }
}

#[test]
fn after_an_outage_thousands_come_back_at_no_more_than_twice_the_steady_rate() {
    for replicas in [1, 3] {
        let (per_second, seconds, outage) = (30, 600, 120..300);
        let fleet = Fleet::run((replicas, replicas), Manner::Patient, per_second, seconds, outage.clone());
        assert_eq!(fleet.done, per_second * seconds, "everybody was served");
        let waited = (outage.end - outage.start) * per_second;
        assert!(waited > 5_000);
        let peak = fleet.peak_after(outage.start);
        assert!(peak <= 2 * per_second, "{replicas} replicas: a peak of {peak} calls a second");
        // The breaker does not make the outage longer than it has to: the line drains at half of the steady rate.
        let last = *fleet.calls.keys().last().unwrap();
        assert!(
            last < outage.end + 2 * waited / per_second + 120,
            "{replicas} replicas: the last came at {last} s"
        );
        // While it is away, the dependency sees a handful of calls, and all retries are within the budget.
        let during: u64 = fleet.calls.range(outage).map(|(_, n)| *n).sum();
        assert!(during <= 25 * replicas as u64, "{replicas} replicas: {during} calls during the outage");
    }
}

/// The line is a courtesy; the limit is not.
#[test]
fn those_who_do_not_wait_for_their_turn_are_no_herd_either_and_without_a_breaker_they_would_be() {
    for (manner, herd) in [(Manner::Impatient, false), (Manner::Reckless, true)] {
        let fleet = Fleet::run((1, 1), manner, 30, 240, 60..120);
        // Only what comes in the first minutes after the outage; later the line may be given more.
        let peak = fleet.calls.range(120..150).map(|(_, n)| *n).max().unwrap();
        assert_eq!(peak > 60, herd, "a peak of {peak} calls a second");
    }
}

#[test]
fn one_replica_that_is_left_of_three_takes_over_their_work_in_time() {
    let (per_second, seconds, outage) = (30, 1_200, 120..300);
    let fleet = Fleet::run((3, 1), Manner::Patient, per_second, seconds, outage);
    assert_eq!(fleet.done, per_second * seconds);
    let last = *fleet.calls.keys().last().unwrap();
    assert!(last < seconds + 600, "the last came at {last} s");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Each failure leads to one retry at most, so this bounds the retries: the share of the successes, the floor for each
    /// minute, what the bucket holds, and the probes, of which there is one for each time that it opened.
    #[test]
    fn failures_never_pass_the_retry_budget(steps in prop::collection::vec((0_u64..2_000_000, 0_u8..10), 1..2_000), sick in 0_u8..10) {
        let mut one = breaker();
        let settings = BreakerSettings::default();
        let (mut now, mut well, mut failed) = (START, 0_u64, 0_u64);
        for (pause, draw) in steps {
            now = now.plus(Micros(pause));
            let health = if draw < sick { Health::Sick } else { Health::Well };
            if call(&mut one, now, health) {
                match health {
                    Health::Sick => failed += 1,
                    _ => well += 1,
                }
            }
        }
        let minutes = now.since(START).as_secs() / 60 + 1;
        let floor = u64::from(settings.retry_floor) * (minutes + 1);
        let allowed = well * u64::from(settings.retry_percent) / 100 + floor + 2 * one.trips + 1;
        prop_assert!(failed <= allowed, "{failed} failures, {allowed} allowed");
    }

    #[test]
    fn nobody_waits_for_ever(calls in prop::collection::vec((0_u64..200_000, any::<bool>(), any::<u64>()), 1..500)) {
        let mut one = breaker();
        let mut now = START;
        for (pause, sick, roll) in calls {
            now = now.plus(Micros(pause));
            match one.admit(now, roll) {
                Admission::Go(pass) => {
                    one.report(pass, if sick { Health::Sick } else { Health::Well }, now, roll);
                }
                Admission::Wait(after) => {
                    prop_assert!(after > Micros::ZERO);
                    prop_assert!(after <= one.settings.max_wait.max(SECOND));
                }
            }
        }
    }
}
