//! Providers as one process reaches them: the network in front of them loses answers and delivers calls a second time, late.

use std::sync::Arc;

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
        ids::AllocationId,
        party::Provider,
        quantity::{Bytes, Micros},
    },
};
use tokio::runtime::Handle;

use super::{Call, Health, Providers, Result, SimProvider};
use crate::faults::{Fate, Faults, Injected, Port, through};

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
