//! Circuit breakers around the ports of dependencies outside: decorators that implement the same port. Who meets an open
//! breaker is told when to come again, and the dependency is not asked. The rules are in [`crate::core::breaker`].

mod da;
mod notification;
mod provider;
mod settlement;
mod storage;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

pub use self::{
    da::GuardedDa, notification::GuardedNotification, provider::GuardedProviders,
    settlement::GuardedSettlement, storage::GuardedStorage,
};
use crate::core::{
    breaker::{Admission, Breaker, BreakerSettings, BreakerState, BreakerView, Health, Pass},
    client::clock::{Clock, Entropy},
    market::quantity::{Micros, Timestamp},
};

/// What an error of a guarded port says of the dependency.
pub(crate) trait Symptom {
    /// Whether the dependency failed, as opposed to an answer that somebody does not like.
    fn is_sick(&self) -> bool;

    /// The error of a call that was not made.
    fn deferred(after: Micros) -> Self;
}

/// The breaker of one dependency. Clones share it.
#[derive(Clone)]
pub struct Guard {
    class: &'static str,
    name: Arc<str>,
    breaker: Arc<Mutex<Breaker>>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Guard {
    /// A closed breaker for a dependency; the class labels its metrics.
    #[must_use]
    pub fn new(
        class: &'static str,
        name: &str,
        settings: BreakerSettings,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let breaker = Arc::new(Mutex::new(Breaker::new(settings, clock.now())));
        Self { class, name: name.into(), breaker, clock, entropy }
    }

    /// How the breaker stands.
    #[must_use]
    pub fn view(&self) -> BreakerView {
        self.breaker.lock().view(self.clock.now())
    }

    /// Lets calls fail until the breaker opens.
    #[cfg(test)]
    pub(crate) fn fail_for_tests(&self) {
        for _ in 0..100 {
            if let Admission::Go(pass) = self.change(|breaker, now, roll| breaker.admit(now, roll)) {
                drop(Report { guard: self, pass, health: Health::Sick });
            }
        }
    }

    /// Makes the call, if the breaker lets it through.
    async fn call<T, E: Symptom>(&self, call: impl Future<Output = Result<T, E>> + Send) -> Result<T, E> {
        let pass = match self.change(|breaker, now, roll| breaker.admit(now, roll)) {
            Admission::Go(pass) => pass,
            Admission::Wait(after) => {
                metrics::counter!("orchestrator_breaker_deferred_total", "dependency" => self.class)
                    .increment(1);
                return Err(E::deferred(after));
            }
        };
        // A call that is dropped under way says nothing; if it was a probe, the next one finds out.
        let mut report = Report { guard: self, pass, health: Health::Unknown };
        let answer = call.await;
        report.health = match &answer {
            Err(error) if error.is_sick() => Health::Sick,
            _ => Health::Well,
        };
        answer
    }

    /// Moves the breaker on, and tells of it when that changed its state.
    fn change<T>(&self, change: impl FnOnce(&mut Breaker, Timestamp, u64) -> T) -> T {
        let (now, roll) = (self.clock.now(), self.entropy.below(u64::MAX));
        let (before, answer, after) = {
            let mut breaker = self.breaker.lock();
            let before = breaker.view(now).state;
            let answer = change(&mut breaker, now, roll);
            (before, answer, breaker.view(now).state)
        };
        if before != after {
            self.tell(before, after);
        }
        answer
    }

    fn tell(&self, before: BreakerState, after: BreakerState) {
        let (class, name) = (self.class, self.name.as_ref());
        let gauge = metrics::gauge!("orchestrator_breakers_not_closed", "dependency" => class);
        match (before, after) {
            (BreakerState::Closed, _) => gauge.increment(1.0),
            (_, BreakerState::Closed) => gauge.decrement(1.0),
            _ => {}
        }
        if after == BreakerState::Open {
            tracing::warn!(dependency = name, "it failed too often and is left alone for a while");
            metrics::counter!("orchestrator_breaker_trips_total", "dependency" => class).increment(1);
        } else {
            tracing::info!(dependency = name, state = after.as_str(), "a breaker moved on");
        }
    }
}

/// Gives a pass back when the call is over, however it ends.
struct Report<'a> {
    guard: &'a Guard,
    pass: Pass,
    health: Health,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        self.guard.change(|breaker, now, roll| breaker.report(self.pass, self.health, now, roll));
    }
}

/// All breakers of this process, by the names of the dependencies. Clones share them.
#[derive(Clone)]
pub struct Breakers {
    settings: BreakerSettings,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    all: Arc<Mutex<BTreeMap<String, Guard>>>,
}

impl Breakers {
    /// None yet.
    #[must_use]
    pub fn new(settings: BreakerSettings, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { settings, clock, entropy, all: Arc::default() }
    }

    /// The breaker of a dependency; made when it is asked for first. The class labels metrics, the name is shown.
    #[must_use]
    pub fn of(&self, class: &'static str, name: &str) -> Guard {
        let mut all = self.all.lock();
        if let Some(guard) = all.get(name) {
            return guard.clone();
        }
        let guard =
            Guard::new(class, name, self.settings, Arc::clone(&self.clock), Arc::clone(&self.entropy));
        all.insert(name.to_owned(), guard.clone());
        guard
    }

    /// The names of those that are not asked now.
    #[must_use]
    pub fn left_alone(&self) -> Vec<String> {
        let all = self.view().into_iter();
        let away = all.filter(|(_, view)| matches!(view.state, BreakerState::Open | BreakerState::HalfOpen));
        away.map(|(name, _)| name).collect()
    }

    /// Whether more than half of the dependencies of a class, and at least two, are not asked now.
    #[must_use]
    pub fn are_most_away(&self, class: &str) -> bool {
        let all = self.all.lock();
        let states = all.values().filter(|guard| guard.class == class).map(|guard| guard.view().state);
        let states: Vec<_> = states.collect();
        let away = states.iter().filter(|state| matches!(state, BreakerState::Open | BreakerState::HalfOpen));
        let away = away.count();
        away >= 2 && away * 2 > states.len()
    }

    /// How each stands.
    #[must_use]
    pub fn view(&self) -> BTreeMap<String, BreakerView> {
        self.all.lock().iter().map(|(name, guard)| (name.clone(), guard.view())).collect()
    }
}
