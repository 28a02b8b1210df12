//! Storage providers: what they hold, what it costs, how well they serve. They keep the rules of the port (generations,
//! tombstones, idempotence), count what took effect, meter what is stored, and have bad times. The network in front of them
//! loses answers and delivers calls a second time, late.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes as Buffer;
use orchestrator::core::{
    client::{
        probe::{ProbeClient, ProbeFailure, ProbeReading, ProbeTarget},
        provider::{
            AccessLevel, AllocateRequest, Generation, IssueRequest, Operation, ProviderClient,
            ProviderDescription, ProviderDirectory, ProviderError,
        },
    },
    market::{
        allocation::{Routing, Usage},
        evidence::FailureClass,
        ids::{AllocationId, ProviderId},
        party::Provider,
        quantity::{Bytes, Micros, Timestamp},
    },
};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::{
    faults::{Fate, Faults, Injected, Port, through},
    journal::Journal,
    sabotage::Sabotage,
    time::Time,
};

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

fn broken() -> ProviderError {
    ProviderError::Unavailable(Box::new(Injected))
}

fn silent() -> ProviderError {
    ProviderError::Timeout(Box::new(Injected))
}

/// A provider as one process reaches it.
struct Reached {
    provider: SimProvider,
    faults: Faults,
    world: Handle,
}

impl Reached {
    /// Sends a mutating call; the network may deliver it once more, later.
    async fn send(&self, call: Call) -> Result<Operation<Option<Routing>>> {
        if self.faults.doubles(Port::Provider) {
            let (provider, late) = (self.provider.clone(), call.clone());
            let time = self.faults.time().clone();
            let until = time.now().plus(Micros(self.faults.below(180_000_000)));
            self.world.spawn(async move {
                time.sleep_until(crate::run::WORLD, until).await;
                // Nobody waits for this answer any more.
                let _ = provider.serve(late);
            });
            self.faults.time().mark(crate::run::WORLD);
        }
        match self.faults.enter(Port::Provider).await {
            Fate::Before if self.faults.below(2) == 0 => Err(silent()),
            Fate::Before => Err(broken()),
            Fate::Pass => {
                let answer = self.provider.serve(call);
                self.faults.leave(Port::Provider).await;
                answer
            }
            Fate::After => {
                self.provider.serve(call)?;
                self.faults.leave(Port::Provider).await;
                Err(if self.faults.below(2) == 0 { silent() } else { broken() })
            }
        }
    }
}

fn only_done<T>(answer: Operation<T>) -> Operation<()> {
    match answer {
        Operation::Pending => Operation::Pending,
        Operation::Done(_) => Operation::Done(()),
    }
}

#[async_trait]
impl ProviderClient for Reached {
    async fn describe(&self) -> Result<ProviderDescription> {
        let described = async {
            self.provider.call("describe", |state| {
                let taken: u64 = state.allocations.values().map(|held| held.quota).sum();
                Ok(ProviderDescription {
                    software: "sim".into(),
                    profiles: vec!["s3".into()],
                    free: Some(Bytes(state.capacity.saturating_sub(taken))),
                })
            })
        };
        through!(self.faults, Port::Provider, described, broken())
    }

    async fn allocate(&self, request: &AllocateRequest) -> Result<Operation<Routing>> {
        match self.send(Call::Allocate(request.clone())).await? {
            Operation::Pending | Operation::Done(None) => Ok(Operation::Pending),
            Operation::Done(Some(routing)) => Ok(Operation::Done(routing)),
        }
    }

    async fn deallocate(&self, allocation: AllocationId, generation: Generation) -> Result<Operation<()>> {
        Ok(only_done(self.send(Call::Deallocate(allocation, generation)).await?))
    }

    async fn issue_credential(&self, request: &IssueRequest) -> Result<()> {
        self.send(Call::Issue(request.clone())).await.map(drop)
    }

    async fn revoke_credential(
        &self,
        allocation: AllocationId,
        generation: Generation,
        access_key_id: &str,
    ) -> Result<()> {
        self.send(Call::Revoke(allocation, generation, access_key_id.to_owned())).await.map(drop)
    }

    async fn restrict(
        &self,
        allocation: AllocationId,
        generation: Generation,
        level: AccessLevel,
    ) -> Result<()> {
        self.send(Call::Restrict(allocation, generation, level)).await.map(drop)
    }

    async fn usage(&self, allocation: AllocationId) -> Result<Usage> {
        let now = self.provider.time.now();
        let read = async {
            self.provider.call("usage", |state| {
                let held = state.allocations.get_mut(&allocation).filter(|held| !held.gone);
                let held = held.ok_or(ProviderError::Unknown(allocation))?;
                held.meter(now);
                Ok(Usage {
                    stored: Bytes(held.stored),
                    byte_seconds: held.byte_seconds,
                    egress: Bytes(held.egress),
                    read_at: now,
                })
            })
        };
        through!(self.faults, Port::Provider, read, broken())
    }

    async fn allocations(&self) -> Result<Vec<AllocationId>> {
        let listed = async {
            self.provider.call("allocations", |state| {
                Ok(state.allocations.iter().filter(|(_, held)| !held.gone).map(|(id, _)| *id).collect())
            })
        };
        through!(self.faults, Port::Provider, listed, broken())
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

/// The directory as one process sees it.
pub struct SimDirectory {
    /// The providers.
    pub providers: Providers,
    /// The faults of the lane.
    pub faults: Faults,
    /// Where late calls wait.
    pub world: Handle,
}

#[async_trait]
impl ProviderDirectory for SimDirectory {
    async fn client(&self, provider: &Provider) -> Result<Arc<dyn ProviderClient>> {
        let known = self.providers.known.lock().get(&provider.id).cloned();
        let provider = known.ok_or_else(|| ProviderError::Refused("no such provider".into()))?;
        Ok(Arc::new(Reached { provider, faults: self.faults.clone(), world: self.world.clone() }))
    }
}

/// Probes of one process.
pub struct SimProbe {
    /// The providers.
    pub providers: Providers,
    /// The faults of the lane.
    pub faults: Faults,
}

impl SimProbe {
    async fn operation(
        &self,
        target: &ProbeTarget,
        bytes: u64,
    ) -> std::result::Result<ProbeReading, ProbeFailure> {
        let fail = |class, detail: &str| Err(ProbeFailure { class, detail: detail.to_owned() });
        let fate = self.faults.enter(Port::Probe).await;
        let holder = self.providers.holder(&target.routing.bucket);
        let Some(provider) = holder else { return fail(FailureClass::ClientError, "no such bucket") };
        let health = provider.state.lock().health;
        match (fate, health) {
            (Fate::Before | Fate::After, _) => fail(FailureClass::Timeout, "injected"),
            (Fate::Pass, Health::Down) => fail(FailureClass::ServerError, "down"),
            (Fate::Pass, health) => {
                let first = if health == Health::Slow { 400_000 } else { 5_000 };
                let first_byte = Micros(first + self.faults.below(first / 4));
                // 100 MB/s, or 1 MB/s in slow times.
                let per_second = if health == Health::Slow { 1_000_000 } else { 100_000_000 };
                let total = Micros(first_byte.get() + bytes.saturating_mul(1_000_000) / per_second);
                Ok(ProbeReading { first_byte, total, bytes, sha256: None })
            }
        }
    }
}

#[async_trait]
impl ProbeClient for SimProbe {
    async fn put(
        &self,
        target: &ProbeTarget,
        _: &str,
        body: Buffer,
    ) -> std::result::Result<ProbeReading, ProbeFailure> {
        self.operation(target, body.len() as u64).await
    }

    async fn get(
        &self,
        target: &ProbeTarget,
        object: &str,
    ) -> std::result::Result<ProbeReading, ProbeFailure> {
        let bytes = if object.ends_with("-bulk") { 8 << 20 } else { 4_096 };
        self.operation(target, bytes).await
    }

    async fn head(&self, target: &ProbeTarget, _: &str) -> std::result::Result<ProbeReading, ProbeFailure> {
        self.operation(target, 0).await
    }

    async fn delete(&self, target: &ProbeTarget, _: &str) -> std::result::Result<ProbeReading, ProbeFailure> {
        self.operation(target, 0).await
    }
}
