//! A provider that keeps its state in memory, checks generations as a real one must, and fails on demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::core::{
    client::provider::{
        AccessLevel, AllocateRequest, Generation, IssueRequest, Operation, ProviderClient,
        ProviderDescription, ProviderDirectory, ProviderError,
    },
    market::{
        allocation::{Routing, Usage},
        ids::AllocationId,
        party::Provider,
    },
};

/// How a call goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A time-out before it happened.
    Before,
    /// A time-out after it happened.
    After,
    /// A 5xx answer.
    Unavailable,
    /// A 4xx answer.
    Refused,
    /// A higher generation was seen.
    Stale,
}

#[derive(Default)]
pub(super) struct Held {
    pub(super) level: Option<AccessLevel>,
    pub(super) keys: BTreeSet<String>,
    pub(super) polls: u32,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) held: BTreeMap<AllocationId, Held>,
    pub(super) generations: BTreeMap<AllocationId, Generation>,
    pub(super) tombstones: BTreeSet<AllocationId>,
    pub(super) usage: BTreeMap<AllocationId, Usage>,
    pub(super) faults: BTreeMap<&'static str, VecDeque<Fault>>,
    pub(super) calls: BTreeMap<&'static str, u32>,
    /// How often an allocation is `Pending` before it is done.
    pub(super) pending: u32,
}

#[derive(Clone, Default)]
pub(super) struct Fake(pub(super) Arc<Mutex<State>>);

impl Fake {
    pub(super) fn fail(&self, call: &'static str, faults: impl IntoIterator<Item = Fault>) {
        self.0.lock().faults.entry(call).or_default().extend(faults);
    }

    pub(super) fn calls(&self, call: &str) -> u32 {
        self.0.lock().calls.get(call).copied().unwrap_or(0)
    }

    fn call<T>(
        &self,
        name: &'static str,
        id: AllocationId,
        generation: Option<Generation>,
        act: impl FnOnce(&mut State) -> Result<T, ProviderError>,
    ) -> Result<T, ProviderError> {
        let mut state = self.0.lock();
        *state.calls.entry(name).or_default() += 1;
        let fault = state.faults.get_mut(name).and_then(VecDeque::pop_front);
        match fault {
            Some(Fault::Before) => return Err(ProviderError::Timeout("before".into())),
            Some(Fault::Unavailable) => return Err(ProviderError::Unavailable("503".into())),
            Some(Fault::Refused) => return Err(ProviderError::Refused("400".into())),
            Some(Fault::Stale) => return Err(ProviderError::Stale(Generation(0))),
            Some(Fault::After) | None => {}
        }
        if let Some(generation) = generation {
            let highest = state.generations.entry(id).or_insert(generation);
            if *highest > generation {
                return Err(ProviderError::Stale(generation));
            }
            *highest = generation;
        }
        let result = act(&mut state)?;
        if fault == Some(Fault::After) { Err(ProviderError::Timeout("after".into())) } else { Ok(result) }
    }
}

fn held(state: &mut State, id: AllocationId) -> Result<&mut Held, ProviderError> {
    state.held.get_mut(&id).ok_or(ProviderError::Unknown(id))
}

#[async_trait]
impl ProviderClient for Fake {
    async fn describe(&self) -> Result<ProviderDescription, ProviderError> {
        Ok(ProviderDescription { software: "fake".into(), profiles: vec!["s3".into()], free: None })
    }

    async fn allocate(&self, request: &AllocateRequest) -> Result<Operation<Routing>, ProviderError> {
        let id = request.allocation;
        self.call("allocate", id, Some(request.generation), |state| {
            if state.tombstones.contains(&id) {
                return Err(ProviderError::Refused("deallocated".into()));
            }
            let pending = state.pending;
            let held = state.held.entry(id).or_default();
            held.polls += 1;
            if held.polls <= pending {
                return Ok(Operation::Pending);
            }
            Ok(Operation::Done(Routing {
                endpoint: "http://127.0.0.1:1".into(),
                region: request.region.clone(),
                bucket: id.to_string().replace('_', "-"),
                profile: "s3".into(),
                path_style: true,
            }))
        })
    }

    async fn deallocate(
        &self,
        id: AllocationId,
        generation: Generation,
    ) -> Result<Operation<()>, ProviderError> {
        self.call("deallocate", id, Some(generation), |state| {
            state.held.remove(&id);
            state.tombstones.insert(id);
            Ok(Operation::Done(()))
        })
    }

    async fn issue_credential(&self, request: &IssueRequest) -> Result<(), ProviderError> {
        self.call("issue", request.allocation, Some(request.generation), |state| {
            assert_eq!(request.key.secret.len(), 40);
            held(state, request.allocation)?.keys.insert(request.key.access_key_id.clone());
            Ok(())
        })
    }

    async fn revoke_credential(
        &self,
        id: AllocationId,
        generation: Generation,
        access_key_id: &str,
    ) -> Result<(), ProviderError> {
        self.call("revoke", id, Some(generation), |state| {
            held(state, id)?.keys.remove(access_key_id);
            Ok(())
        })
    }

    async fn restrict(
        &self,
        id: AllocationId,
        generation: Generation,
        level: AccessLevel,
    ) -> Result<(), ProviderError> {
        self.call("restrict", id, Some(generation), |state| {
            held(state, id)?.level = Some(level);
            Ok(())
        })
    }

    async fn usage(&self, id: AllocationId) -> Result<Usage, ProviderError> {
        self.call("usage", id, None, |state| {
            held(state, id)?;
            Ok(state.usage.get(&id).copied().unwrap_or_default())
        })
    }

    async fn allocations(&self) -> Result<Vec<AllocationId>, ProviderError> {
        let mut state = self.0.lock();
        match state.faults.get_mut("allocations").and_then(VecDeque::pop_front) {
            Some(_) => Err(ProviderError::Unavailable("503".into())),
            None => Ok(state.held.keys().copied().collect()),
        }
    }
}

#[async_trait]
impl ProviderDirectory for Fake {
    async fn client(&self, _provider: &Provider) -> Result<Arc<dyn ProviderClient>, ProviderError> {
        Ok(Arc::new(self.clone()))
    }
}
