//! The people of a run: consumers who buy, use, renew and close, providers who contest, an operator who decides. Each sends
//! its requests to some replica and repeats a request with the same idempotency key until somebody answers; what was
//! acknowledged is written down.

mod on_call;

use std::sync::Arc;

use futures::future::BoxFuture;
use orchestrator::{
    core::market::{
        account::AccountKey,
        credential::Permissions,
        dispute::DisputeKind,
        ids::{AllocationId, ConsumerId, CredentialId, DisputeId, Id, OperatorId, ProviderId, UnitId},
        money::Amount,
        offering::OfferingFilter,
        party::Principal,
        quantity::{Bytes, Micros, Timestamp},
    },
    error::{Error, ErrorCode, Result},
    service::{
        access::IssueCredential,
        allocation::{RenewRequest, ReserveRequest, Target},
        ledger::dispute::{Decision, OpenDispute},
        work::{Call, RequestKey},
    },
    setup::Replica,
};
use parking_lot::Mutex;

use crate::{
    chance::Dice,
    faults::{Faults, Port},
    lane::Fuse,
    node::Door,
    run::WORLD,
    world::{Cast, World},
};

/// Longest that a client waits for an answer.
const PATIENCE: Micros = Micros::from_secs(40);
/// How often a request is sent before its client gives up.
const TRIES: u32 = 25;

/// What tells by the seed whether consumers leave at the end.
const LEAVING: u64 = 9_000;

/// Something that was acknowledged to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acknowledged {
    /// A reservation, with the key of its request.
    Reserved(AllocationId, ConsumerId, String),
    /// A funding.
    Funded(AllocationId),
    /// A cancellation.
    Cancelled(AllocationId),
    /// The begin of closing.
    Closing(AllocationId),
    /// A renewal, with the key of its request.
    Renewed(AllocationId, String),
    /// A key.
    Issued(CredentialId),
    /// A dispute, with the key of its request.
    Disputed(DisputeId, String),
    /// A decision.
    Decided(DisputeId, Decision),
    /// A withdrawal of so much, with the key of its request.
    Withdrawn(AccountKey, Amount, String),
    /// A deposit of so much, with the key of its request.
    Deposited(AccountKey, Amount, String),
}

/// What actors share.
#[derive(Clone)]
pub struct Stage {
    world: World,
    doors: Arc<Vec<Arc<Door>>>,
    cast: Arc<Cast>,
    /// What was acknowledged, in order.
    pub acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    /// Refusals that no caller should ever see.
    pub outrages: Arc<Mutex<Vec<String>>>,
    disputes: Arc<Mutex<Vec<DisputeId>>>,
    until: Timestamp,
}

/// One actor.
pub struct Actor {
    stage: Stage,
    name: String,
    principal: Principal,
    dice: Dice,
    faults: Faults,
    requests: u64,
}

impl Stage {
    /// A stage on which everything ends at `until`.
    #[must_use]
    pub fn new(world: World, doors: Arc<Vec<Arc<Door>>>, cast: Arc<Cast>, until: Timestamp) -> Self {
        Self {
            world,
            doors,
            cast,
            acknowledged: Arc::default(),
            outrages: Arc::default(),
            disputes: Arc::default(),
            until,
        }
    }

    fn actor(&self, name: String, principal: Principal, salt: u64) -> Actor {
        let seed = self.world.plan.seed;
        let faults = self.world.faults((WORLD, Fuse::endless()), Dice::new(seed, salt + 1));
        Actor { stage: self.clone(), name, principal, dice: Dice::new(seed, salt), faults, requests: 0 }
    }

    /// Everybody, as tasks to be spawned.
    #[must_use]
    pub fn everybody(&self) -> Vec<BoxFuture<'static, ()>> {
        let mut tasks: Vec<BoxFuture<'static, ()>> = Vec::new();
        for (n, id) in self.cast.consumers.clone().into_iter().enumerate() {
            let actor = self.actor(format!("c{n}"), Principal::Consumer(id), 10_000 + 10 * n as u64);
            tasks.push(Box::pin(actor.consume(id)));
        }
        for (n, (id, _)) in self.cast.providers.clone().into_iter().enumerate() {
            let actor = self.actor(format!("p{n}"), Principal::Provider(id), 20_000 + 10 * n as u64);
            tasks.push(Box::pin(actor.provide(id)));
        }
        let operator: OperatorId = Id::from_uuid(uuid::Uuid::from_u128(1));
        let actor = self.actor("op".into(), Principal::Operator(operator), 30_000);
        tasks.push(Box::pin(actor.operate()));
        let actor = self.actor("call".into(), Principal::Operator(operator), 40_000);
        tasks.push(Box::pin(actor.stand_by()));
        tasks
    }
}

impl Actor {
    async fn sleep(&self, duration: Micros) {
        let time = &self.stage.world.time;
        time.sleep_until(WORLD, time.now().plus(duration)).await;
    }

    /// Thinks for a while, and says whether the play goes on.
    async fn thinks(&mut self, mean_seconds: u64) -> bool {
        let pause = Micros(self.dice.below(2 * mean_seconds * 1_000_000));
        self.sleep(pause).await;
        self.stage.world.time.now() < self.stage.until
    }

    fn key(&mut self) -> String {
        self.requests += 1;
        format!("{}/{}", self.name, self.requests)
    }

    fn call(&self, key: &str) -> Call {
        let request = Some(RequestKey { id: key.to_owned(), fingerprint: key.to_owned() });
        Call { principal: self.principal, request, trace_id: key.to_owned() }
    }

    fn acknowledge(&self, what: Acknowledged) {
        let text = format!("{what:?}");
        let world = &self.stage.world;
        world.journal.note(world.time.now(), WORLD, &[&text]);
        self.stage.acknowledged.lock().push(what);
    }

    /// Sends a request until it is answered; `None` when its client gave up, so that nobody knows.
    async fn ask<T: Send + 'static>(
        &mut self,
        request: impl Fn(Arc<Replica>) -> BoxFuture<'static, Result<T>>,
    ) -> Option<Result<T>> {
        for attempt in 0..TRIES {
            if attempt > 0 {
                let pause = Micros::from_millis(200 << attempt.min(6));
                self.sleep(pause).await;
            }
            let at = self.dice.index(self.stage.doors.len());
            if self.faults.drops(Port::Api) {
                continue;
            }
            let twice = self.faults.doubles(Port::Api).then(|| self.dice.index(self.stage.doors.len()));
            if let Some(other) = twice {
                drop(self.send(other, &request));
            }
            let Some(answer) = self.send(at, &request) else { continue };
            let time = self.stage.world.time.clone();
            let until = time.now().plus(PATIENCE);
            let answer = tokio::select! {
                biased;
                answer = answer => answer,
                () = time.sleep_until(WORLD, until) => continue,
            };
            if self.faults.drops(Port::Api) {
                continue;
            }
            match answer {
                Some(Ok(value)) => return Some(Ok(value)),
                Some(Err(error)) if error.retryable() => self.complain(&error),
                Some(Err(error)) => {
                    self.complain(&error);
                    return Some(Err(error));
                }
                // The process died with the request.
                None => {}
            }
        }
        None
    }

    fn send<T: Send + 'static>(
        &self,
        at: usize,
        request: &impl Fn(Arc<Replica>) -> BoxFuture<'static, Result<T>>,
    ) -> Option<BoxFuture<'static, Option<Result<T>>>> {
        let answer = self.stage.doors.get(at)?.ask(request)?;
        // Lane 0 is the world; the replicas follow.
        self.stage.world.time.mark(at + 1);
        Some(answer)
    }

    /// Notes answers that a caller of a sound service never gets.
    fn complain(&self, error: &Error) {
        if matches!(error.code, ErrorCode::Internal | ErrorCode::Overflow) {
            let text = orchestrator::error::chain(error);
            if !text.contains("injected") {
                self.stage.outrages.lock().push(format!("{}: {text}", self.name));
            }
        }
    }

    /// Reserves, funds, uses, renews, contests, closes.
    async fn consume(mut self, me: ConsumerId) {
        let mut mine: Vec<(AllocationId, ProviderId)> = Vec::new();
        while self.thinks(40).await {
            let one = self.dice.pick(&mine);
            let choice = self.dice.below(16);
            match (choice, one) {
                (0..=3, _) | (_, None) => {
                    if let Some(made) = self.reserve(me).await {
                        mine.push(made);
                        // Most are funded at once; the others are cancelled, funded late, or left to expire.
                        if self.dice.below(4) > 0 {
                            self.fund(made.0).await;
                        }
                    }
                }
                (4, Some((id, _))) => self.fund(id).await,
                (5, Some((id, _))) => {
                    let key = self.key();
                    let call = self.call(&key);
                    let answer = self.ask(move |replica| {
                        let call = call.clone();
                        Box::pin(async move { replica.services.allocations.cancel(&call, id).await })
                    });
                    if let Some(Ok(_)) = answer.await {
                        self.acknowledge(Acknowledged::Cancelled(id));
                    }
                }
                (6, Some((id, _))) => self.close(id).await,
                (7, Some((id, _))) => self.renew(id).await,
                (8 | 9, Some((id, _))) => self.issue(id).await,
                (10, Some((id, _))) => self.contest(id, DisputeKind::Billing).await,
                (11, _) => self.withdraw(AccountKey::Consumer(me)).await,
                (_, Some((id, provider))) => self.store(id, provider),
            }
        }
        // In most runs everybody leaves when the play is over, and the market is soon at rest; in the others it lives on until
        // all that was paid for has ended by itself.
        if Dice::new(self.stage.world.plan.seed, LEAVING).below(4) > 0 {
            for (id, _) in mine {
                self.close(id).await;
            }
        }
    }

    /// Stores and fetches data, straight at the provider.
    fn store(&mut self, id: AllocationId, provider: ProviderId) {
        let (stored, egress) = (self.dice.below(2 * Bytes::GIB), self.dice.spread(28));
        let all = self.stage.world.providers.all();
        if let Some((_, found)) = all.into_iter().find(|(known, _)| *known == provider) {
            found.store(id, stored, egress);
        }
    }

    async fn reserve(&mut self, me: ConsumerId) -> Option<(AllocationId, ProviderId)> {
        let units: Vec<UnitId> = self.stage.cast.providers.iter().flat_map(|(_, u)| u.clone()).collect();
        let target = match self.dice.below(4) {
            0 => Target::Best(OfferingFilter::default()),
            1 => Target::Unit(self.dice.pick(&units)?),
            // Most want the same one: room is short, and taken by several at once.
            _ => Target::Unit(*units.first()?),
        };
        let request = ReserveRequest {
            consumer: None,
            target,
            bytes: Bytes(Bytes::GIB * self.dice.between(1, 2)),
            period: Micros::from_secs(self.dice.between(100, 600)),
            egress_allowance: Bytes(Bytes::GIB * self.dice.below(3)),
        };
        let key = self.key();
        let call = self.call(&key);
        let answer = self.ask(move |replica| {
            let (call, request) = (call.clone(), request.clone());
            Box::pin(async move { replica.services.allocations.reserve(&call, request).await })
        });
        let made = answer.await?.ok()?.value;
        self.acknowledge(Acknowledged::Reserved(made.id, me, key));
        Some((made.id, made.provider))
    }

    async fn fund(&mut self, id: AllocationId) {
        let key = self.key();
        let call = self.call(&key);
        let answer = self.ask(move |replica| {
            let call = call.clone();
            Box::pin(async move { replica.services.allocations.fund(&call, id).await })
        });
        if let Some(Ok(_)) = answer.await {
            self.acknowledge(Acknowledged::Funded(id));
        }
    }

    async fn close(&mut self, id: AllocationId) {
        let key = self.key();
        let call = self.call(&key);
        let answer = self.ask(move |replica| {
            let call = call.clone();
            Box::pin(async move { replica.services.allocations.close(&call, id).await })
        });
        if let Some(Ok(_)) = answer.await {
            self.acknowledge(Acknowledged::Closing(id));
        }
    }

    async fn renew(&mut self, id: AllocationId) {
        let key = self.key();
        let call = self.call(&key);
        let period = Micros::from_secs(self.dice.between(60, 300));
        let request = RenewRequest { period, egress_allowance: Bytes(self.dice.below(Bytes::GIB)) };
        let answer = self.ask(move |replica| {
            let call = call.clone();
            Box::pin(async move { replica.services.allocations.renew(&call, id, request).await })
        });
        if let Some(Ok(_)) = answer.await {
            self.acknowledge(Acknowledged::Renewed(id, key));
        }
    }

    async fn issue(&mut self, id: AllocationId) {
        let key = self.key();
        let call = self.call(&key);
        let wanted = IssueCredential { permissions: Permissions::ReadWrite, expires_at: None };
        let answer = self.ask(move |replica| {
            let call = call.clone();
            Box::pin(async move { replica.services.credentials.issue(&call, id, wanted).await })
        });
        if let Some(Ok(issued)) = answer.await {
            self.acknowledge(Acknowledged::Issued(issued.credential.id));
        }
    }

    async fn contest(&mut self, id: AllocationId, kind: DisputeKind) {
        let key = self.key();
        let call = self.call(&key);
        let open = OpenDispute {
            allocation: id,
            kind,
            claim: "it was not so".into(),
            evidence: Vec::new(),
            amount: Amount(1 + u128::from(self.dice.spread(19))),
        };
        let answer = self.ask(move |replica| {
            let (call, open) = (call.clone(), open.clone());
            Box::pin(async move { replica.services.disputes.open(&call, open).await })
        });
        if let Some(Ok(made)) = answer.await {
            self.stage.disputes.lock().push(made.value.id);
            self.acknowledge(Acknowledged::Disputed(made.value.id, key));
        }
    }

    async fn withdraw(&mut self, account: AccountKey) {
        let key = self.key();
        let call = self.call(&key);
        let amount = Amount(u128::from(self.dice.spread(18)));
        let answer = self.ask(move |replica| {
            let call = call.clone();
            Box::pin(async move { replica.services.accounts.withdraw(&call, account, amount).await })
        });
        if let Some(Ok(_)) = answer.await {
            self.acknowledge(Acknowledged::Withdrawn(account, amount, key));
        }
    }

    /// Takes money out, and claims that consumers violated their terms.
    async fn provide(mut self, me: ProviderId) {
        while self.thinks(150).await {
            let known: Vec<AllocationId> = {
                let acknowledged = self.stage.acknowledged.lock();
                let made = acknowledged.iter().filter_map(|a| match a {
                    Acknowledged::Reserved(id, ..) => Some(*id),
                    _ => None,
                });
                made.collect()
            };
            match self.dice.below(3) {
                0 => self.withdraw(AccountKey::Provider(me)).await,
                _ => {
                    if let Some(id) = self.dice.pick(&known) {
                        self.contest(id, DisputeKind::Violation).await;
                    }
                }
            }
        }
    }

    /// Decides disputes, and books deposits.
    async fn operate(mut self) {
        while self.thinks(90).await {
            let open = self.stage.disputes.lock().pop();
            match open {
                // Some lapse.
                Some(id) if self.dice.below(4) > 0 => {
                    let decision = match self.dice.below(2) {
                        0 => Decision::Provider,
                        _ => Decision::Consumer,
                    };
                    let key = self.key();
                    let call = self.call(&key);
                    let answer = self.ask(move |replica| {
                        let call = call.clone();
                        Box::pin(async move {
                            replica.services.disputes.decide(&call, id, decision, "so it is").await
                        })
                    });
                    if let Some(Ok(_)) = answer.await {
                        self.acknowledge(Acknowledged::Decided(id, decision));
                    }
                }
                _ => self.deposit().await,
            }
        }
    }

    async fn deposit(&mut self) {
        let consumers = self.stage.cast.consumers.clone();
        let Some(consumer) = self.dice.pick(&consumers) else { return };
        let account = AccountKey::Consumer(consumer);
        let amount = Amount(u128::from(self.dice.spread(20)));
        let key = self.key();
        let call = self.call(&key);
        let answer = self.ask(move |replica| {
            let call = call.clone();
            Box::pin(async move { replica.services.accounts.deposit(&call, account, amount).await })
        });
        if let Some(Ok(_)) = answer.await {
            self.acknowledge(Acknowledged::Deposited(account, amount, key));
        }
    }
}
