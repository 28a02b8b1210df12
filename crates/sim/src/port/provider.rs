//! Storage providers: what they hold, what it costs, how well they serve. They keep the rules of the port (generations,
//! tombstones, idempotence), count what took effect, meter what is stored, and have bad times.

mod reach;

use std::{collections::BTreeMap, sync::Arc};

use orchestrator::core::{
    client::provider::{AccessLevel, AllocateRequest, Generation, IssueRequest, Operation, ProviderError},
    market::{
        allocation::Routing,
        ids::{AllocationId, ProviderId},
        quantity::{Micros, Timestamp},
    },
};
use parking_lot::Mutex;

pub use self::reach::{SimDirectory, SimProbe};
use crate::{faults::Injected, journal::Journal, sabotage::Sabotage, time::Time};

type Result<T> = std::result::Result<T, ProviderError>;

/// What a provider holds of one allocation.
#[derive(Debug, Clone, Default)]
pub struct Held {
    generation: u64,
    /// Deallocated: a tombstone.
    pub gone: bool,
    quota: u64,
    polls_left: u64,
    /// How wide it is open.
    pub level: Option<AccessLevel>,
    /// Secrets by access key id.
    pub keys: BTreeMap<String, String>,
    stored: u64,
    byte_seconds: u128,
    egress: u64,
    metered_at: Timestamp,
}

/// How a provider fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// Well.
    #[default]
    Well,
    /// It answers, late.
    Slow,
    /// It answers nobody.
    Down,
}

#[derive(Default)]
struct State {
    capacity: u64,
    /// Polls until an allocation is ready, at most.
    polls: u64,
    allocations: BTreeMap<AllocationId, Held>,
    effects: BTreeMap<(AllocationId, &'static str), u64>,
    health: Health,
    name: String,
}

/// A mutating call, as it may come again.
#[derive(Clone)]
enum Call {
    Allocate(AllocateRequest),
    Deallocate(AllocationId, Generation),
    Issue(IssueRequest),
    Revoke(AllocationId, Generation, String),
    Restrict(AllocationId, Generation, AccessLevel),
}

/// A provider. Clones share it.
#[derive(Clone)]
pub struct SimProvider {
    state: Arc<Mutex<State>>,
    time: Time,
    journal: Arc<Journal>,
    sabotage: Sabotage,
}

impl SimProvider {
    /// A provider of this size that lets new allocations wait for up to `polls` polls.
    #[must_use]
    pub fn new(
        name: String,
        capacity: u64,
        polls: u64,
        time: Time,
        journal: Arc<Journal>,
        sabotage: Sabotage,
    ) -> Self {
        let state = State { capacity, polls, name, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), time, journal, sabotage }
    }

    /// Sets how it fares.
    pub fn set_health(&self, health: Health) {
        self.state.lock().health = health;
    }

    /// Everything it holds or held.
    #[must_use]
    pub fn holdings(&self) -> BTreeMap<AllocationId, Held> {
        self.state.lock().allocations.clone()
    }

    /// How often each operation took effect.
    #[must_use]
    pub fn effects(&self) -> BTreeMap<(AllocationId, &'static str), u64> {
        self.state.lock().effects.clone()
    }

    /// A consumer stores so many bytes in all, and fetches some, if it may.
    pub fn store(&self, id: AllocationId, stored: u64, egress: u64) {
        let now = self.time.now();
        let mut state = self.state.lock();
        let Some(held) = state.allocations.get_mut(&id).filter(|held| !held.gone) else { return };
        held.meter(now);
        if !matches!(held.level, Some(AccessLevel::ReadOnly | AccessLevel::None)) {
            held.stored = stored.min(held.quota);
        }
        held.egress = held.egress.saturating_add(egress);
    }

    /// Loses an allocation, as a provider with a broken disk does.
    pub fn lose(&self, id: AllocationId) {
        self.state.lock().allocations.remove(&id);
    }

    fn call<T>(&self, what: &str, serve: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let mut state = self.state.lock();
        if state.health == Health::Down {
            return Err(ProviderError::Unavailable(Box::new(Injected)));
        }
        let answer = serve(&mut state);
        let outcome = if answer.is_ok() { "ok" } else { "refused" };
        self.journal.note(self.time.now(), usize::MAX, &[&state.name, what, outcome]);
        answer
    }

    /// Carries out a call that came in, whoever sent it and whenever.
    fn serve(&self, call: Call) -> Result<Operation<Option<Routing>>> {
        let (lenient, now) = (self.sabotage == Sabotage::NoGeneration, self.time.now());
        let repeats = self.sabotage == Sabotage::NoKeys;
        match call {
            Call::Allocate(request) => self.call("allocate", |state| {
                let id = request.allocation;
                if !state.allocations.contains_key(&id) || (repeats && state.allocations.len() % 3 == 0) {
                    let taken: u64 = state.allocations.values().map(|held| held.quota).sum();
                    if taken.saturating_add(request.bytes.get()) > state.capacity {
                        return Err(ProviderError::NoCapacity);
                    }
                    let held = Held {
                        generation: request.generation.0,
                        quota: request.bytes.get(),
                        polls_left: state.polls,
                        metered_at: now,
                        ..Held::default()
                    };
                    state.allocations.insert(id, held);
                    state.count(id, "allocate");
                }
                let held = state.fenced(id, request.generation, lenient)?;
                if held.polls_left > 0 {
                    held.polls_left -= 1;
                    return Ok(Operation::Pending);
                }
                Ok(Operation::Done(Some(routing(id))))
            }),
            Call::Deallocate(id, generation) => self.call("deallocate", |state| {
                match state.fenced(id, generation, lenient) {
                    Ok(held) => {
                        *held = Held { generation: generation.0, gone: true, ..Held::default() };
                        state.count(id, "deallocate");
                    }
                    Err(ProviderError::Unknown(_)) => {
                        let tombstone = Held { generation: generation.0, gone: true, ..Held::default() };
                        state.allocations.insert(id, tombstone);
                    }
                    Err(error) => return Err(error),
                }
                Ok(Operation::Done(None))
            }),
            Call::Issue(request) => self.call("issue", |state| {
                let held = state.fenced(request.allocation, request.generation, lenient)?;
                if held.polls_left > 0 {
                    return Err(ProviderError::Unavailable(Box::new(Injected)));
                }
                let (name, secret) = (request.key.access_key_id.clone(), request.key.secret.clone());
                match held.keys.insert(name, secret.clone()) {
                    Some(old) if old != secret => {
                        Err(ProviderError::Refused("the key has another secret".into()))
                    }
                    Some(_) => Ok(Operation::Done(None)),
                    None => {
                        state.count(request.allocation, "put_key");
                        Ok(Operation::Done(None))
                    }
                }
            }),
            Call::Revoke(id, generation, key) => {
                self.call("revoke", |state| match state.fenced(id, generation, lenient) {
                    Ok(held) => {
                        if held.keys.remove(&key).is_some() {
                            state.count(id, "delete_key");
                        }
                        Ok(Operation::Done(None))
                    }
                    Err(ProviderError::Unknown(_)) => Ok(Operation::Done(None)),
                    Err(error) => Err(error),
                })
            }
            Call::Restrict(id, generation, level) => self.call("restrict", |state| {
                let held = state.fenced(id, generation, lenient)?;
                held.meter(now);
                if held.level.replace(level).unwrap_or(AccessLevel::Full) != level {
                    state.count(id, "restrict");
                }
                Ok(Operation::Done(None))
            }),
        }
    }
}

impl Held {
    /// Brings the meter up to date.
    fn meter(&mut self, now: Timestamp) {
        let seconds = now.since(self.metered_at).as_secs();
        self.byte_seconds += u128::from(self.stored) * u128::from(seconds);
        self.metered_at = self.metered_at.plus(Micros::from_secs(seconds));
    }
}

impl State {
    fn count(&mut self, id: AllocationId, operation: &'static str) {
        *self.effects.entry((id, operation)).or_default() += 1;
    }

    fn fenced(&mut self, id: AllocationId, generation: Generation, lenient: bool) -> Result<&mut Held> {
        let held = self.allocations.get_mut(&id).ok_or(ProviderError::Unknown(id))?;
        if generation.0 < held.generation && !lenient {
            return Err(ProviderError::Stale(generation));
        }
        held.generation = generation.0;
        if held.gone && lenient {
            held.gone = false;
        }
        if held.gone { Err(ProviderError::Unknown(id)) } else { Ok(held) }
    }
}

fn routing(id: AllocationId) -> Routing {
    Routing {
        endpoint: "http://sim.invalid".into(),
        region: "sim".into(),
        bucket: id.to_string().replace('_', "-"),
        profile: "s3".into(),
        path_style: true,
    }
}

/// The providers of a market, by their ids.
#[derive(Clone, Default)]
pub struct Providers {
    known: Arc<Mutex<BTreeMap<ProviderId, SimProvider>>>,
}

impl Providers {
    /// Adds one.
    pub fn add(&self, id: ProviderId, provider: SimProvider) {
        self.known.lock().insert(id, provider);
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<(ProviderId, SimProvider)> {
        self.known.lock().iter().map(|(id, provider)| (*id, provider.clone())).collect()
    }

    /// The provider that holds an allocation, as the probes and the consumers find it.
    fn holder(&self, bucket: &str) -> Option<SimProvider> {
        let all = self.known.lock();
        let found = all.values().find(|provider| {
            let state = provider.state.lock();
            state.allocations.iter().any(|(id, held)| !held.gone && routing(*id).bucket == bucket)
        });
        found.cloned()
    }
}
