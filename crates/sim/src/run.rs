//! One run: founds a market, lets its people and its troubles loose for a while, lets it come to rest, and judges it. The
//! scheduler decides by the seed which lane goes on, for how many steps, and when a process dies, is paused or cut off.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use orchestrator::core::market::quantity::{Micros, Timestamp};
use parking_lot::Mutex;

use crate::{
    actors::Stage,
    chance::Dice,
    faults::Profile,
    judge,
    lane::Lane,
    node::Node,
    port::provider::Health,
    sabotage::Sabotage,
    time::{LaneId, START},
    world::{Cast, World},
};

/// The lane of everything that is no replica.
pub const WORLD: LaneId = 0;
/// How long a market may take to come to rest.
const REST: Micros = Micros::from_secs(3 * 3_600);
/// Time between two looks whether it has.
const LOOK: Micros = Micros::from_secs(30);
/// Steps after which a run is taken to go in circles.
const MOST_STEPS: u64 = 20_000_000;

/// What is to be run.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Everything is drawn from this.
    pub seed: u64,
    /// How long people and troubles are let loose, in thousandths of an hour.
    pub millihours: u32,
    /// What goes wrong.
    pub faults: Profile,
    /// Replicas; 0: one to three, by the seed.
    pub replicas: usize,
    /// Consumers.
    pub consumers: usize,
    /// The bug that is put in.
    pub sabotage: Sabotage,
}

impl Plan {
    /// The usual run of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            millihours: 250,
            faults: Profile::default(),
            replicas: 0,
            consumers: 3,
            sabotage: Sabotage::None,
        }
    }

    /// How long faults last.
    #[must_use]
    pub fn length(&self) -> Micros {
        Micros(u64::from(self.millihours) * 3_600_000)
    }

    fn replica_count(&self) -> usize {
        match self.replicas {
            0 => 1 + Dice::new(self.seed, 7).index(3),
            given => given.min(8),
        }
    }

    /// The command that repeats the run.
    #[must_use]
    pub fn command(&self) -> String {
        let hours = f64::from(self.millihours) / 1e3;
        let mut text =
            format!("cargo xtask sim --seed {} --hours {hours} --faults {}", self.seed, self.faults);
        if self.replicas > 0 {
            text.push_str(&format!(" --replicas {}", self.replicas));
        }
        if self.consumers != 3 {
            text.push_str(&format!(" --consumers {}", self.consumers));
        }
        if let Some((_, name)) = Sabotage::ALL.iter().find(|(bug, _)| *bug == self.sabotage) {
            text.push_str(&format!(" --sabotage {name}"));
        }
        text
    }
}

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// What is wrong; empty when all is well.
    pub violations: Vec<String>,
    /// Hash over everything that happened.
    pub trail: u64,
    /// The state root of the last block.
    pub root: String,
    /// Processes that were killed.
    pub kills: u64,
    /// Faults that were injected.
    pub faults: u64,
    /// Steps of tasks.
    pub steps: u64,
    /// Simulated seconds until the market was at rest.
    pub seconds: u64,
    /// What the judge counted.
    pub counts: judge::Counts,
}

/// Trouble that is not of a single call.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Kill(LaneId),
    Boot(LaneId),
    Pause(LaneId, u64),
    Resume(LaneId),
    Cut(LaneId, u64),
    Health(usize, Health),
    End,
    Look,
}

struct Scheduler {
    world: World,
    outside: Lane,
    nodes: Vec<Node>,
    dice: Dice,
    troubles: BTreeMap<(Timestamp, u64), Trouble>,
    sequence: u64,
    paused: u64,
    /// Steps that are left to a process that is about to die.
    dying: BTreeMap<LaneId, u64>,
    steps: u64,
    kills: u64,
    ended: bool,
}

/// Runs a plan.
#[must_use]
pub fn run(plan: &Plan) -> Outcome {
    let panics = crate::panics::listen();
    let outcome = catch_unwind(AssertUnwindSafe(|| live(plan)));
    let mut outcome = match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => failed(plan, format!("the run could not be made: {error}")),
        Err(_) => failed(plan, "the run panicked".into()),
    };
    outcome.violations.extend(panics.take().into_iter().map(|text| format!("a panic: {text}")));
    outcome
}

fn failed(plan: &Plan, problem: String) -> Outcome {
    Outcome { seed: plan.seed, violations: vec![problem], ..Outcome::default() }
}

fn live(plan: &Plan) -> Result<Outcome, String> {
    let world = World::new(plan.clone());
    let mut outside = Lane::new().map_err(|error| error.to_string())?;
    let cast = Arc::new(found(&world, &mut outside)?);
    let mut nodes = Vec::new();
    for n in 1..=plan.replica_count() {
        nodes.push(Node::new(&world, n).map_err(|error| error.to_string())?);
    }
    let doors = Arc::new(nodes.iter().map(|node| node.door.clone()).collect());
    let until = START.plus(plan.length());
    let stage = Stage::new(world.clone(), doors, cast.clone(), until);
    if let Some(handle) = outside.handle() {
        for task in stage.everybody() {
            handle.spawn(task);
        }
    }
    world.time.mark(WORLD);
    let mut scheduler = Scheduler {
        dice: Dice::new(plan.seed, 8),
        world,
        outside,
        nodes,
        troubles: BTreeMap::new(),
        sequence: 0,
        paused: 0,
        dying: BTreeMap::new(),
        steps: 0,
        kills: 0,
        ended: false,
    };
    scheduler.plan_troubles();
    let rested = scheduler.play();
    let Scheduler { world, steps, kills, mut nodes, mut outside, .. } = scheduler;
    let seconds = world.time.now().since(START).as_secs();
    // Whatever still runs is dropped before the books are looked at.
    nodes.iter_mut().for_each(|node| node.kill(&world));
    outside.kill();
    let mut verdict = judge::judge(&world, &stage);
    if let Err(problem) = rested {
        verdict.violations.insert(0, problem);
    }
    Ok(Outcome {
        seed: plan.seed,
        violations: verdict.violations,
        trail: world.journal.trail(),
        root: verdict.root,
        kills,
        faults: world.weather.injected(),
        steps,
        seconds,
        counts: verdict.counts,
    })
}

/// Founds the market, in the outside lane.
fn found(world: &World, outside: &mut Lane) -> Result<Cast, String> {
    let made = Arc::new(Mutex::new(None));
    let (slot, inside) = (made.clone(), world.clone());
    let handle = outside.handle().ok_or("no runtime")?;
    handle.spawn(async move {
        let cast = inside.found().await;
        *slot.lock() = Some(cast);
    });
    outside.run(1_000_000);
    let cast = made.lock().take().ok_or("the market was not founded")?;
    cast.map_err(|error| orchestrator::error::chain(&error))
}

impl Scheduler {
    fn at(&mut self, at: Timestamp, trouble: Trouble) {
        self.sequence += 1;
        self.troubles.insert((at, self.sequence), trouble);
    }

    /// Draws when what happens.
    fn plan_troubles(&mut self) {
        let profile = self.world.weather.profile().clone();
        let length = self.world.plan.length().get();
        let lanes: Vec<LaneId> = self.nodes.iter().map(|node| node.id).collect();
        for lane in &lanes {
            self.at(START, Trouble::Boot(*lane));
            for _ in 0..self.occurrences(profile.restarts_per_hour) {
                let at = self.instant(length);
                self.at(at, Trouble::Kill(*lane));
            }
            for _ in 0..self.occurrences(profile.pauses_per_hour) {
                let (at, length) = (self.instant(length), self.dice.spread(27));
                self.at(at, Trouble::Pause(*lane, length));
            }
            for _ in 0..self.occurrences(profile.cuts_per_hour) {
                let (at, length) = (self.instant(length), self.dice.spread(27));
                self.at(at, Trouble::Cut(*lane, length));
            }
        }
        for provider in 0..2 {
            for _ in 0..self.occurrences(profile.outages_per_hour) {
                let (at, lasts) = (self.instant(length), self.dice.spread(29));
                let health = if self.dice.below(2) == 0 { Health::Down } else { Health::Slow };
                self.at(at, Trouble::Health(provider, health));
                self.at(at.plus(Micros(lasts)), Trouble::Health(provider, Health::Well));
            }
        }
        self.at(START.plus(Micros(length)), Trouble::End);
    }

    fn occurrences(&mut self, per_hour: u32) -> u64 {
        let expected = u64::from(per_hour) * u64::from(self.world.plan.millihours);
        (expected + self.dice.below(1_000)) / 1_000
    }

    fn instant(&mut self, length: u64) -> Timestamp {
        START.plus(Micros(self.dice.below(length)))
    }

    /// Lets lanes go on until the market is at rest.
    fn play(&mut self) -> Result<(), String> {
        let limit = START.plus(self.world.plan.length()).plus(REST);
        loop {
            let ready = self.world.time.ready() & !self.paused;
            if ready != 0 {
                self.turn(ready);
                if self.steps > MOST_STEPS {
                    return Err(format!("it goes in circles: {} steps", self.steps));
                }
                continue;
            }
            let trouble = self.troubles.keys().next().map(|(at, _)| *at);
            let timer = self.world.time.next();
            let Some(next) = [trouble, timer].into_iter().flatten().min() else {
                return Err("nobody waits for anything any more".into());
            };
            if next > limit {
                return Err("it does not come to rest".into());
            }
            self.world.time.advance_to(next);
            if trouble == Some(next)
                && let Some((_, trouble)) = self.troubles.pop_first()
                && self.strike(trouble)?
            {
                return Ok(());
            }
        }
    }

    /// Gives one of the ready lanes a turn.
    fn turn(&mut self, ready: u64) {
        let mut chosen = self.dice.below(u64::from(ready.count_ones()));
        let mut lanes = (0..64_usize).filter(|lane| ready & (1 << lane) != 0);
        let lane = loop {
            let Some(lane) = lanes.next() else { return };
            if chosen == 0 {
                break lane;
            }
            chosen -= 1;
        };
        let mut steps = self.dice.spread(7);
        let time = self.world.time.clone();
        time.clear(lane);
        if lane == WORLD {
            let turn = self.outside.run(steps);
            self.steps += turn.steps;
            if !turn.idle {
                time.mark(lane);
            }
            return;
        }
        if let Some(left) = self.dying.get(&lane) {
            steps = steps.min(*left);
        }
        let Some(node) = self.nodes.get_mut(lane - 1) else { return };
        let turn = node.lane.run(steps);
        self.steps += turn.steps;
        if !turn.idle {
            time.mark(lane);
        }
        // Answers may have come for somebody outside.
        time.mark(WORLD);
        if let Some(left) = self.dying.get_mut(&lane) {
            *left = left.saturating_sub(turn.steps);
            if *left == 0 {
                self.dying.remove(&lane);
                self.kill(lane);
            }
        }
    }

    fn kill(&mut self, lane: LaneId) {
        let Some(node) = self.nodes.get_mut(lane - 1) else { return };
        node.kill(&self.world);
        self.kills += 1;
        self.paused &= !(1 << lane);
        tracing::debug!(lane, "killed");
        self.world.time.mark(WORLD);
        let down = Micros(self.dice.spread(25));
        let at = self.world.time.now().plus(down);
        self.at(at, Trouble::Boot(lane));
    }

    /// Lets trouble happen; true when the market is at rest.
    fn strike(&mut self, trouble: Trouble) -> Result<bool, String> {
        tracing::debug!(?trouble, "strikes");
        let now = self.world.time.now();
        match trouble {
            Trouble::Boot(lane) => {
                let outside = self.outside.handle().ok_or("no runtime")?;
                if let Some(node) = self.nodes.get_mut(lane - 1) {
                    node.boot(&self.world, &outside).map_err(|error| error.to_string())?;
                }
            }
            // It dies after some more steps: at whatever await point that is.
            Trouble::Kill(lane) => {
                let alive = self.nodes.get(lane - 1).is_some_and(|node| node.lane.handle().is_some());
                if alive && !self.ended {
                    self.dying.insert(lane, self.dice.spread(8));
                }
            }
            Trouble::Pause(lane, length) => {
                self.paused |= 1 << lane;
                self.at(now.plus(Micros(length)), Trouble::Resume(lane));
            }
            Trouble::Resume(lane) => self.paused &= !(1 << lane),
            Trouble::Cut(lane, length) => {
                if let Some(node) = self.nodes.get(lane - 1) {
                    node.faults.cut_until(now.plus(Micros(length)));
                    self.world.store.break_streams(lane);
                    self.world.time.mark(lane);
                }
            }
            Trouble::Health(at, health) => {
                if let Some((_, provider)) = self.world.providers.all().get(at)
                    && (!self.ended || health == Health::Well)
                {
                    provider.set_health(health);
                }
            }
            Trouble::End => {
                self.ended = true;
                self.paused = 0;
                self.dying.clear();
                for (_, provider) in self.world.providers.all() {
                    provider.set_health(Health::Well);
                }
                self.at(now.plus(LOOK), Trouble::Look);
            }
            Trouble::Look => {
                if judge::is_at_rest(&self.world) {
                    return Ok(true);
                }
                self.at(now.plus(LOOK), Trouble::Look);
            }
        }
        Ok(false)
    }
}

/// The lanes of a mask, for messages.
#[must_use]
pub fn lanes_of(mask: u64) -> BTreeSet<LaneId> {
    (0..64).filter(|lane| mask & (1 << lane) != 0).collect()
}
