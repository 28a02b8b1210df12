//! The circuit breaker of one dependency outside: how many retries it is worth, when it is left alone, how it is asked
//! whether it is back, and how fast it is loaded again. Pure: time and chance come in as arguments, integers only.
//!
//! ```text
//! closed ── retries spent, or so many failures in a row ──▶ open ── its time is over ──▶ probing ── well ──▶ recovering ─▶ closed
//!    ▲                                                       ▲─────────── sick, for longer each time ───────┴──── sick ──┘
//! ```
//!
//! - **Retry budget.** A failure costs a token, because it will be tried again; a success earns a share of one, and some come
//!   with time. So retries never exceed that share of the calls and a floor. Without a token the breaker opens.
//! - **Half-open.** One call at a time finds out whether the dependency is back; all others wait.
//! - **No herd.** Who must wait is told for how long: each gets a place of its own in a line whose pace is half of the steady
//!   rate from before the outage. While the line drains, no more than one and a half times that rate is let through, new
//!   work included. If the line does not get shorter by that (other replicas are gone, or there is more work now), the
//!   rate grows, by a quarter every half minute.

use std::collections::VecDeque;

use super::market::quantity::{Micros, Timestamp};

/// One call, in thousandths: what tokens and rates are counted in.
const MILLI: u64 = 1_000;
/// Length of one slot of the window in which calls are counted.
const SLOT: Micros = Micros::from_secs(5);
/// Slots of the window.
const SLOTS: usize = 12;
/// How long nobody must have been turned away before the breaker closes.
const CALM: Micros = Micros::from_secs(10);
/// What a recovery may let through at once, as time at its rate. With one and a half times the steady rate, no second
/// sees more than twice that rate.
const BURST: Micros = Micros(300_000);
/// How often a recovery looks whether its line gets shorter, and by how much it must have to go on as it does.
const LOOK: Micros = Micros::from_secs(30);
const SHORTER: Micros = Micros::from_secs(10);
/// Failures that a recovery survives.
const RECOVERY_TOKENS: u64 = 2 * MILLI;
const MINUTE: u64 = 60_000_000;

/// How a breaker behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Retries, in percent of the calls that succeed.
    pub retry_percent: u32,
    /// Retries a minute that are always allowed.
    pub retry_floor: u32,
    /// Failures in a row that open the breaker.
    pub trip_after: u32,
    /// How long it stays open at first; doubles with each failed probe.
    pub open_min: Micros,
    /// The longest that it stays open.
    pub open_max: Micros,
    /// A probe that is not heard of for so long has failed.
    pub probe_timeout: Micros,
    /// Calls a second that are never thought of as a herd.
    pub min_rate: u32,
    /// The longest that anybody is told to wait.
    pub max_wait: Micros,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            retry_percent: 20,
            retry_floor: 10,
            trip_after: 5,
            open_min: Micros::from_secs(1),
            open_max: Micros::from_secs(30),
            probe_timeout: Micros::from_secs(60),
            min_rate: 5,
            max_wait: Micros::from_secs(600),
        }
    }
}

/// Where a breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls go through.
    Closed,
    /// None does.
    Open,
    /// One is under way and finds out.
    HalfOpen,
    /// They go through at a limited rate.
    Recovering,
}

impl BreakerState {
    /// The name that is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Recovering => "recovering",
        }
    }
}

/// The right to make one call; it must be given back with [`Breaker::report`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Calls that were begun before the last change of state say nothing about the present.
    epoch: u64,
}

/// The answer to whoever wants to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Go on.
    Go(Pass),
    /// Not now; come again after so long.
    Wait(Micros),
}

/// How a call went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The dependency answered, if only with a refusal.
    Well,
    /// It did not, or not in time.
    Sick,
    /// Nobody waited for the answer.
    Unknown,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed,
    Open { until: Timestamp },
    HalfOpen { until: Timestamp },
    Recovering { calm_since: Timestamp, looked_at: Timestamp, lag: Micros },
}

/// What may be shown of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BreakerView {
    /// Where it stands.
    pub state: BreakerState,
    /// Calls in a thousand seconds, when all was well.
    pub steady_milli: u64,
    /// How often it opened.
    pub trips: u64,
    /// Calls that were told to wait.
    pub deferred: u64,
}

/// The breaker of one dependency, in one process.
#[derive(Debug, Clone)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    epoch: u64,
    /// Failed probes in a row.
    streak: u32,
    failures_in_a_row: u32,
    /// Retries that are allowed, in thousandths.
    tokens: u64,
    refilled_at: Timestamp,
    window: Window,
    /// The steady rate before the outage, in thousandths of calls a second.
    steady: u64,
    /// The rate of a recovery in percent of what it begins with.
    boost: u64,
    /// When the next call of a recovery is due, as of its rate.
    arrival: Timestamp,
    /// The last place in the line.
    line_end: Timestamp,
    trips: u64,
    deferred: u64,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(settings: BreakerSettings, now: Timestamp) -> Self {
        Self {
            state: State::Closed,
            epoch: 0,
            streak: 0,
            failures_in_a_row: 0,
            tokens: capacity(&settings),
            refilled_at: now,
            window: Window::default(),
            steady: 0,
            boost: 100,
            arrival: now,
            line_end: now,
            trips: 0,
            deferred: 0,
            settings,
        }
    }

    /// What may be shown.
    #[must_use]
    pub fn view(&self, now: Timestamp) -> BreakerView {
        let state = match self.state {
            State::Closed => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
            State::Recovering { .. } => BreakerState::Recovering,
        };
        let steady_milli = self.window.rate(now).map_or(self.steady, |rate| rate.max(self.steady));
        BreakerView { state, steady_milli, trips: self.trips, deferred: self.deferred }
    }

    /// Whether somebody may call now. `roll` is a random number: it spreads those who must wait.
    pub fn admit(&mut self, now: Timestamp, roll: u64) -> Admission {
        match self.state {
            State::Closed => {
                self.window.count(now);
                self.go()
            }
            State::Open { until } if now < until => self.wait(now, until, roll),
            // One goes and finds out.
            State::Open { .. } => {
                self.state = State::HalfOpen { until: now.plus(self.settings.probe_timeout) };
                self.epoch += 1;
                self.go()
            }
            State::HalfOpen { until } if now < until => self.wait(now, now, roll),
            State::HalfOpen { .. } => {
                self.open(now, roll);
                self.wait(now, now, roll)
            }
            State::Recovering { .. } => self.admit_recovering(now, roll),
        }
    }

    fn admit_recovering(&mut self, now: Timestamp, roll: u64) -> Admission {
        self.look_at_the_line(now);
        let State::Recovering { calm_since, looked_at, lag } = self.state else { return self.go() };
        if now.since(calm_since) >= CALM && now >= self.line_end {
            self.close();
            self.window.count(now);
            return self.go();
        }
        if self.arrival > now.plus(BURST) {
            self.state = State::Recovering { calm_since: now, looked_at, lag };
            return self.wait(now, now, roll);
        }
        self.arrival = self.arrival.max(now).plus(self.interval(150));
        self.go()
    }

    /// Lets more through when the line does not get shorter by what there is.
    fn look_at_the_line(&mut self, now: Timestamp) {
        let State::Recovering { calm_since, looked_at, lag } = self.state else { return };
        if now.since(looked_at) < LOOK {
            return;
        }
        let present = self.line_end.since(now);
        if present.get().saturating_add(SHORTER.get()) > lag.get() && present > Micros::ZERO {
            self.boost = (self.boost * 5 / 4).min(10_000);
        }
        self.state = State::Recovering { calm_since, looked_at: now, lag: present };
    }

    /// How a call went that was let through.
    pub fn report(&mut self, pass: Pass, health: Health, now: Timestamp, roll: u64) {
        if pass.epoch != self.epoch {
            return;
        }
        self.refill(now);
        match (self.state, health) {
            (State::Closed | State::Recovering { .. }, Health::Well) => {
                self.failures_in_a_row = 0;
                let earned = u64::from(self.settings.retry_percent) * MILLI / 100;
                self.tokens = self.tokens.saturating_add(earned).min(self.capacity());
            }
            (State::Closed | State::Recovering { .. }, Health::Sick) => {
                self.failures_in_a_row += 1;
                let spent = self.tokens < MILLI;
                self.tokens = self.tokens.saturating_sub(MILLI);
                if spent || self.failures_in_a_row >= self.settings.trip_after {
                    self.open(now, roll);
                }
            }
            (State::HalfOpen { .. }, Health::Well) => self.recover(now),
            // Nobody knows; the next one finds out.
            (State::HalfOpen { .. }, Health::Unknown) => self.state = State::Open { until: now },
            (State::HalfOpen { .. }, Health::Sick) => self.open(now, roll),
            (State::Open { .. }, _) | (State::Closed | State::Recovering { .. }, Health::Unknown) => {}
        }
    }

    const fn go(&self) -> Admission {
        Admission::Go(Pass { epoch: self.epoch })
    }

    /// A place in the line of those who wait, from `open_until` on.
    fn wait(&mut self, now: Timestamp, open_until: Timestamp, roll: u64) -> Admission {
        self.deferred += 1;
        let pace = self.interval(50);
        let place = self.line_end.max(open_until).max(now).plus(pace);
        let longest = self.settings.max_wait;
        if place.since(now) > longest {
            // The line is too long for a place of one's own; the end of it is told anew.
            let half = longest.get() / 2;
            return Admission::Wait(Micros(half + roll % half.max(1)));
        }
        self.line_end = place;
        Admission::Wait(Micros(place.since(now).get() + roll % pace.get().max(1)))
    }

    /// Time between two calls at so many percent of the steady rate.
    fn interval(&self, percent: u64) -> Micros {
        let rate = self.steady.max(u64::from(self.settings.min_rate) * MILLI).max(1);
        let rate = rate.saturating_mul(self.boost) / 100;
        Micros((100_000_000_000 / rate.max(1) / percent).max(1))
    }

    fn open(&mut self, now: Timestamp, roll: u64) {
        if let Some(rate) = self.window.rate(now) {
            self.steady = rate;
        }
        self.window = Window::default();
        let length = self.settings.open_min.get().max(1);
        let length = length.saturating_mul(1 << self.streak.min(32)).min(self.settings.open_max.get().max(1));
        // From half of it to all of it, so that replicas don't probe at the same time.
        let until = now.plus(Micros(length / 2 + roll % (length / 2).max(1)));
        self.streak = self.streak.saturating_add(1);
        self.state = State::Open { until };
        self.epoch += 1;
        self.trips += 1;
        self.failures_in_a_row = 0;
    }

    fn recover(&mut self, now: Timestamp) {
        let lag = self.line_end.since(now);
        self.state = State::Recovering { calm_since: now, looked_at: now, lag };
        self.boost = 100;
        self.epoch += 1;
        self.arrival = now;
        self.tokens = RECOVERY_TOKENS.min(self.capacity());
        self.refilled_at = now;
    }

    fn close(&mut self) {
        self.state = State::Closed;
        self.streak = 0;
    }

    fn refill(&mut self, now: Timestamp) {
        let passed = now.since(self.refilled_at).get();
        let earned = passed.saturating_mul(u64::from(self.settings.retry_floor) * MILLI) / MINUTE;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned).min(self.capacity());
            self.refilled_at = now;
        }
    }

    fn capacity(&self) -> u64 {
        capacity(&self.settings)
    }
}

fn capacity(settings: &BreakerSettings) -> u64 {
    u64::from(settings.retry_floor.max(1)) * MILLI
}

/// Calls of the last minute.
#[derive(Debug, Clone, Default)]
struct Window {
    /// The slots' numbers with their counts, oldest first.
    slots: VecDeque<(u64, u64)>,
    first: Option<Timestamp>,
}

impl Window {
    fn slot(now: Timestamp) -> u64 {
        now.since(Timestamp::EPOCH).get() / SLOT.get()
    }

    fn count(&mut self, now: Timestamp) {
        let slot = Self::slot(now);
        self.first.get_or_insert(now);
        match self.slots.back_mut() {
            Some((last, count)) if *last == slot => *count += 1,
            _ => self.slots.push_back((slot, 1)),
        }
        while self.slots.len() > SLOTS {
            self.slots.pop_front();
        }
    }

    /// Calls a second, in thousandths; `None` when it was watched for too short a time.
    fn rate(&self, now: Timestamp) -> Option<u64> {
        let oldest = Self::slot(now).saturating_sub(SLOTS as u64 - 1);
        let watched = now.since(self.first?).get();
        let covered =
            watched.min(SLOT.get() * (SLOTS as u64 - 1) + now.since(Timestamp::EPOCH).get() % SLOT.get());
        if covered < SLOT.get() {
            return None;
        }
        let calls: u64 = self.slots.iter().filter(|(slot, _)| *slot >= oldest).map(|(_, count)| count).sum();
        Some(calls.saturating_mul(MILLI).saturating_mul(1_000_000) / covered.max(1))
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
