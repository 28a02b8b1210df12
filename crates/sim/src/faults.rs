//! What goes wrong, how often, and when: the profile of a run, and the faults that a lane draws from it.

mod profile;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use orchestrator::core::market::quantity::Timestamp;
use parking_lot::Mutex;

pub use self::profile::{Port, Profile, Rates};
use crate::{
    chance::Dice,
    lane::Fuse,
    time::{LaneId, Time},
};

/// What becomes of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It goes as it should.
    Pass,
    /// It fails, and nothing has happened.
    Before,
    /// It happens, and the answer is lost.
    After,
}

/// What all lanes of a run share.
pub struct Weather {
    profile: Profile,
    /// Faults end here, so that the market can come to rest.
    until: AtomicI64,
    injected: AtomicU64,
}

impl Weather {
    /// The weather of a run, until an instant.
    #[must_use]
    pub const fn new(profile: Profile, until: Timestamp) -> Self {
        Self { profile, until: AtomicI64::new(until.as_micros()), injected: AtomicU64::new(0) }
    }

    /// What goes wrong.
    #[must_use]
    pub const fn profile(&self) -> &Profile {
        &self.profile
    }

    /// How many faults were injected.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }
}

/// The faults of one lane. Clones share them.
#[derive(Clone)]
pub struct Faults {
    weather: Arc<Weather>,
    time: Time,
    lane: LaneId,
    dice: Arc<Mutex<Dice>>,
    /// The lane reaches no database before this instant.
    cut_until: Arc<AtomicI64>,
    fuse: Arc<Fuse>,
    /// Whether the process is starting: less goes wrong then, or nothing would ever be up for long.
    starting: Arc<AtomicBool>,
}

impl Faults {
    /// The faults of a lane.
    #[must_use]
    pub fn new(weather: Arc<Weather>, time: Time, (lane, fuse): (LaneId, Arc<Fuse>), dice: Dice) -> Self {
        let dice = Arc::new(Mutex::new(dice));
        Self {
            weather,
            time,
            lane,
            dice,
            cut_until: Arc::new(AtomicI64::new(i64::MIN)),
            fuse,
            starting: Arc::default(),
        }
    }

    /// The lane.
    #[must_use]
    pub const fn lane(&self) -> LaneId {
        self.lane
    }

    /// The time.
    #[must_use]
    pub const fn time(&self) -> &Time {
        &self.time
    }

    /// Cuts the lane off from the database until an instant.
    pub fn cut_until(&self, until: Timestamp) {
        self.cut_until.store(until.as_micros(), Ordering::Relaxed);
    }

    /// Whether the lane is cut off from the database now.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.time.now().as_micros() < self.cut_until.load(Ordering::Relaxed)
    }

    /// Notes whether the process is starting.
    pub fn set_starting(&self, starting: bool) {
        self.starting.store(starting, Ordering::Relaxed);
    }

    /// The rates of a port now.
    fn rates(&self, port: Port) -> Rates {
        if self.time.now().as_micros() >= self.weather.until.load(Ordering::Relaxed) {
            return Rates::default();
        }
        let rates = self.weather.profile.rates(port);
        if self.starting.load(Ordering::Relaxed) {
            let few = |ppm: u32| ppm / 8;
            return Rates {
                before: few(rates.before),
                after: few(rates.after),
                delay: few(rates.delay),
                ..rates
            };
        }
        rates
    }

    /// Draws whether something with this probability happens, and counts it.
    fn hits(&self, ppm: u32) -> bool {
        let hit = ppm > 0 && self.dice.lock().hits(ppm);
        if hit {
            self.weather.injected.fetch_add(1, Ordering::Relaxed);
        }
        hit
    }

    /// Draws what becomes of a call, after the delay that it meets on its way.
    pub async fn enter(&self, port: Port) -> Fate {
        let rates = self.rates(port);
        self.linger(rates).await;
        if port == Port::Db && self.is_cut() {
            return Fate::Before;
        }
        match () {
            () if self.hits(rates.before) => Fate::Before,
            () if self.hits(rates.after) => Fate::After,
            () => Fate::Pass,
        }
    }

    /// The way back of an answer.
    pub async fn leave(&self, port: Port) {
        self.linger(self.rates(port)).await;
    }

    /// Lets others go first, now and then for a while.
    async fn linger(&self, rates: Rates) {
        self.fuse.step().await;
        let (step_aside, delay) = {
            let mut dice = self.dice.lock();
            let aside = dice.below(8) == 0;
            (aside, if rates.delay > 0 && dice.hits(rates.delay) { Some(dice.spread(27)) } else { None })
        };
        if let Some(delay) = delay {
            self.weather.injected.fetch_add(1, Ordering::Relaxed);
            // Up to 134 s, which outlasts every lease; half of all delays are below 12 ms.
            let until = self.time.now().as_micros().saturating_add_unsigned(delay);
            self.time.sleep_until(self.lane, Timestamp(until)).await;
        } else if step_aside {
            tokio::task::yield_now().await;
        }
    }

    /// Whether a message is lost.
    #[must_use]
    pub fn drops(&self, port: Port) -> bool {
        self.hits(self.rates(port).drop)
    }

    /// Whether a message or a call comes twice.
    #[must_use]
    pub fn doubles(&self, port: Port) -> bool {
        self.hits(self.rates(port).duplicate)
    }

    /// Whether messages overtake one another.
    #[must_use]
    pub fn reorders(&self, port: Port) -> bool {
        self.hits(self.rates(port).reorder)
    }

    /// A number in `0..bound`, of the lane's own chance.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        self.dice.lock().below(bound)
    }
}

/// The error that a caller sees when a fault hits.
#[derive(Debug)]
pub struct Injected;

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("injected")
    }
}

impl std::error::Error for Injected {}

/// Leads a call through its fate: `through!(faults, port, call, error)`.
macro_rules! through {
    ($faults:expr, $port:expr, $call:expr, $error:expr) => {
        match $faults.enter($port).await {
            $crate::faults::Fate::Before => Err($error),
            $crate::faults::Fate::Pass => {
                let answer = $call.await;
                $faults.leave($port).await;
                answer
            }
            $crate::faults::Fate::After => {
                let _ = $call.await?;
                $faults.leave($port).await;
                Err($error)
            }
        }
    };
}
pub(crate) use through;
