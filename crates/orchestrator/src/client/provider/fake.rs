//! A provider in memory, by the rules of the port, with scripted faults and a count of what took effect.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::core::{
    client::provider::{
        AccessLevel, AllocateRequest, Generation, IssueRequest, IssuedKey, Operation, ProviderClient,
        ProviderDescription, ProviderDirectory, ProviderError,
    },
    market::{
        allocation::{Routing, Usage},
        credential::Permissions,
        ids::AllocationId,
        party::Provider,
        quantity::Bytes,
    },
};

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptedFault {
    /// Not served, answered with a 5xx.
    Unavailable,
    /// Served, and the answer is lost.
    LostAnswer,
    /// Not served, no answer.
    Timeout,
    /// Refused with a 4xx.
    Refused,
}

#[derive(Debug, Default)]
struct Held {
    generation: u64,
    gone: bool,
    quota: u64,
    polls_left: u32,
    level: Option<AccessLevel>,
    keys: BTreeMap<String, (IssuedKey, Permissions)>,
    usage: Usage,
}

#[derive(Debug, Default)]
struct State {
    capacity: u64,
    polls: u32,
    away: bool,
    allocations: BTreeMap<AllocationId, Held>,
    effects: BTreeMap<(AllocationId, &'static str), u64>,
    faults: VecDeque<(&'static str, ScriptedFault)>,
    calls: BTreeMap<&'static str, u64>,
}

/// The fake. Clones share their state.
#[derive(Debug, Clone, Default)]
pub struct FakeProvider {
    state: Arc<Mutex<State>>,
}

impl FakeProvider {
    /// A provider with so many bytes.
    #[must_use]
    pub fn new(capacity: Bytes) -> Self {
        let this = Self::default();
        this.state.lock().capacity = capacity.get();
        this
    }

    /// New allocations answer `Pending` this many times.
    pub fn set_polls(&self, polls: u32) {
        self.state.lock().polls = polls;
    }

    /// While it is away, every call is answered with a 5xx and not served.
    pub fn set_away(&self, away: bool) {
        self.state.lock().away = away;
    }

    /// The next call of `operation` (the port's method name) goes wrong; several are taken in order.
    pub fn script(&self, operation: &'static str, fault: ScriptedFault) {
        self.state.lock().faults.push_back((operation, fault));
    }

    /// Forgets the faults that were scripted and did not happen yet.
    pub fn forgive(&self) {
        self.state.lock().faults.clear();
    }

    /// Forgets an allocation with its keys and its data, as a provider does that lost a disk.
    pub fn lose(&self, allocation: AllocationId) {
        self.state.lock().allocations.remove(&allocation);
    }

    /// Sets what the meter shows.
    pub fn set_usage(&self, allocation: AllocationId, usage: Usage) {
        if let Some(held) = self.state.lock().allocations.get_mut(&allocation) {
            held.usage = usage;
        }
    }

    /// How often an operation changed something of the allocation: `allocate`, `deallocate`, `put_key`, `delete_key`,
    /// `restrict`.
    #[must_use]
    pub fn effects(&self, allocation: AllocationId, operation: &'static str) -> u64 {
        self.state.lock().effects.get(&(allocation, operation)).copied().unwrap_or(0)
    }

    /// How often a method of the port was called.
    #[must_use]
    pub fn calls(&self, operation: &'static str) -> u64 {
        self.state.lock().calls.get(operation).copied().unwrap_or(0)
    }

    /// The keys that open the allocation now, with what each may do.
    #[must_use]
    pub fn keys(&self, allocation: AllocationId) -> Vec<(IssuedKey, Permissions)> {
        let state = self.state.lock();
        state
            .allocations
            .get(&allocation)
            .map(|held| held.keys.values().cloned().collect())
            .unwrap_or_default()
    }

    /// How wide the allocation is open.
    #[must_use]
    pub fn level(&self, allocation: AllocationId) -> Option<AccessLevel> {
        let state = self.state.lock();
        let held = state.allocations.get(&allocation).filter(|held| !held.gone)?;
        Some(held.level.unwrap_or(AccessLevel::Full))
    }

    fn call<T>(
        &self,
        operation: &'static str,
        serve: impl FnOnce(&mut State) -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        let mut state = self.state.lock();
        *state.calls.entry(operation).or_default() += 1;
        if state.away {
            return Err(ProviderError::Unavailable("away".into()));
        }
        let at = state.faults.iter().position(|(scripted, _)| *scripted == operation);
        match at.and_then(|at| state.faults.remove(at)).map(|(_, fault)| fault) {
            None => serve(&mut state),
            Some(ScriptedFault::Unavailable) => Err(ProviderError::Unavailable("scripted".into())),
            Some(ScriptedFault::Timeout) => Err(ProviderError::Timeout("scripted".into())),
            Some(ScriptedFault::Refused) => Err(ProviderError::Refused("scripted".into())),
            Some(ScriptedFault::LostAnswer) => {
                serve(&mut state)?;
                Err(ProviderError::Unavailable("scripted: the answer was lost".into()))
            }
        }
    }
}

impl State {
    fn count(&mut self, allocation: AllocationId, operation: &'static str) {
        *self.effects.entry((allocation, operation)).or_default() += 1;
    }

    fn fenced(&mut self, id: AllocationId, generation: Generation) -> Result<&mut Held, ProviderError> {
        let held = self.allocations.get_mut(&id).ok_or(ProviderError::Unknown(id))?;
        if generation.0 < held.generation {
            return Err(ProviderError::Stale(generation));
        }
        held.generation = generation.0;
        if held.gone { Err(ProviderError::Unknown(id)) } else { Ok(held) }
    }
}

fn routing(id: AllocationId) -> Routing {
    Routing {
        endpoint: "http://fake.invalid".into(),
        region: "local".into(),
        bucket: id.to_string().replace('_', "-"),
        profile: "s3".into(),
        path_style: true,
    }
}

#[async_trait]
impl ProviderClient for FakeProvider {
    async fn describe(&self) -> Result<ProviderDescription, ProviderError> {
        self.call("describe", |state| {
            let taken: u64 = state.allocations.values().map(|held| held.quota).sum();
            Ok(ProviderDescription {
                software: "fake".into(),
                profiles: vec!["s3".into()],
                free: Some(Bytes(state.capacity.saturating_sub(taken))),
            })
        })
    }

    async fn allocate(&self, request: &AllocateRequest) -> Result<Operation<Routing>, ProviderError> {
        self.call("allocate", |state| {
            let id = request.allocation;
            if !state.allocations.contains_key(&id) {
                let taken: u64 = state.allocations.values().map(|held| held.quota).sum();
                if taken.saturating_add(request.bytes.get()) > state.capacity {
                    return Err(ProviderError::NoCapacity);
                }
                let held = Held {
                    generation: request.generation.0,
                    quota: request.bytes.get(),
                    polls_left: state.polls,
                    ..Held::default()
                };
                state.allocations.insert(id, held);
                state.count(id, "allocate");
            }
            let held = state.fenced(id, request.generation)?;
            if held.quota != request.bytes.get() {
                return Err(ProviderError::Refused("the allocation exists with another size".into()));
            }
            if held.polls_left > 0 {
                held.polls_left -= 1;
                return Ok(Operation::Pending);
            }
            Ok(Operation::Done(routing(id)))
        })
    }

    async fn deallocate(
        &self,
        allocation: AllocationId,
        generation: Generation,
    ) -> Result<Operation<()>, ProviderError> {
        self.call("deallocate", |state| {
            match state.fenced(allocation, generation) {
                Ok(held) => {
                    *held = Held { generation: generation.0, gone: true, ..Held::default() };
                    state.count(allocation, "deallocate");
                }
                Err(ProviderError::Unknown(_)) => {
                    let tombstone = Held { generation: generation.0, gone: true, ..Held::default() };
                    state.allocations.insert(allocation, tombstone);
                }
                Err(error) => return Err(error),
            }
            Ok(Operation::Done(()))
        })
    }

    async fn issue_credential(&self, request: &IssueRequest) -> Result<(), ProviderError> {
        self.call("issue_credential", |state| {
            let name = request.key.access_key_id.clone();
            let taken = state
                .allocations
                .iter()
                .any(|(id, held)| *id != request.allocation && held.keys.contains_key(&name));
            let held = state.fenced(request.allocation, request.generation)?;
            if held.polls_left > 0 {
                return Err(ProviderError::Unavailable("not ready".into()));
            }
            if taken || held.keys.get(&name).is_some_and(|(key, _)| key.secret != request.key.secret) {
                return Err(ProviderError::Refused(
                    "the access key id is taken, or has another secret".into(),
                ));
            }
            let new = (request.key.clone(), request.permissions);
            let old = held.keys.insert(name, new.clone());
            if old.is_none_or(|old| old != new) {
                state.count(request.allocation, "put_key");
            }
            Ok(())
        })
    }

    async fn revoke_credential(
        &self,
        allocation: AllocationId,
        generation: Generation,
        access_key_id: &str,
    ) -> Result<(), ProviderError> {
        self.call("revoke_credential", |state| match state.fenced(allocation, generation) {
            Ok(held) => {
                if held.keys.remove(access_key_id).is_some() {
                    state.count(allocation, "delete_key");
                }
                Ok(())
            }
            Err(ProviderError::Unknown(_)) => Ok(()),
            Err(error) => Err(error),
        })
    }

    async fn restrict(
        &self,
        allocation: AllocationId,
        generation: Generation,
        level: AccessLevel,
    ) -> Result<(), ProviderError> {
        self.call("restrict", |state| {
            let held = state.fenced(allocation, generation)?;
            let old = held.level.replace(level).unwrap_or(AccessLevel::Full);
            if old != level {
                state.count(allocation, "restrict");
            }
            Ok(())
        })
    }

    async fn usage(&self, allocation: AllocationId) -> Result<Usage, ProviderError> {
        self.call("usage", |state| {
            let held = state.allocations.get(&allocation).filter(|held| !held.gone);
            held.map(|held| held.usage).ok_or(ProviderError::Unknown(allocation))
        })
    }

    async fn allocations(&self) -> Result<Vec<AllocationId>, ProviderError> {
        self.call("allocations", |state| {
            Ok(state.allocations.iter().filter(|(_, held)| !held.gone).map(|(id, _)| *id).collect())
        })
    }
}

/// A directory in which one fake serves every provider.
#[derive(Debug, Clone, Default)]
pub struct FakeProviders(pub FakeProvider);

#[async_trait]
impl ProviderDirectory for FakeProviders {
    async fn client(&self, _: &Provider) -> Result<Arc<dyn ProviderClient>, ProviderError> {
        Ok(Arc::new(self.0.clone()))
    }
}
