//! One replica on its lane: the daemon's own wiring over the ports of the world, seen through the faults of the lane.

use std::{convert::Infallible, sync::Arc};

use futures::{FutureExt, future::BoxFuture};
use orchestrator::{
    client::{
        breaker::{Breakers, GuardedDa, GuardedProviders, GuardedSettlement, GuardedStorage},
        cache::{MemoryCache, MemoryCacheSettings},
        cron::{LocalCron, LocalOneTime, LocalScheduler, LocalSchedulerSettings},
        event_bus::LocalEventBus,
        job_queue::OverQueue,
        queue::{DatabaseQueue, DatabaseQueueSettings},
    },
    controller::worker::prober::Canary,
    core::{
        client::{
            clock::{Clock, Entropy},
            database::DatabaseClient,
            provider::ProviderDirectory,
            queue::QueueClient,
            storage::StorageClient,
        },
        madara::{da::DaClient, job_queue::JobQueueClient, settlement::SettlementClient},
        market::quantity::Micros,
    },
    service::answers::SharedAnswers,
    setup::{Ports, Replica},
};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, oneshot},
};

use crate::{
    chance::{Dice, Seeded},
    faults::{Faults, Port},
    lane::Lane,
    port::{
        database::SimDatabase,
        messages::{FaultyAlerts, FaultyCron, FaultyEvents, FaultyOnce, FaultyQueue},
        provider::{SimDirectory, SimProbe},
        settlement::{FaultyDa, FaultySettlement},
        small::{FaultyCache, FaultyStorage},
    },
    time::{LaneClock, LaneId},
    world::World,
};

/// The replica of a lane as its clients find it: nothing while the process is down or starts.
#[derive(Default)]
pub struct Door {
    open: Mutex<Option<(Handle, Arc<Replica>)>>,
    /// Lines to those who wait for answers, in the order in which they asked.
    lines: Mutex<Vec<oneshot::Sender<Infallible>>>,
}

impl Door {
    /// Has the replica carry a request out. `None` when it does not answer; the answer is `None` when the process dies with
    /// the request.
    #[must_use]
    pub fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(Arc<Replica>) -> BoxFuture<'static, T>,
    ) -> Option<BoxFuture<'static, Option<T>>> {
        let (handle, replica) = self.open.lock().clone()?;
        let (line, dead) = oneshot::channel();
        {
            let mut lines = self.lines.lock();
            lines.retain(|line| !line.is_closed());
            lines.push(line);
        }
        let answer = handle.spawn(request(replica));
        Some(Box::pin(async move {
            tokio::select! {
                biased;
                answer = answer => answer.ok(),
                _ = dead => None,
            }
        }))
    }

    /// Lets nobody in any more, and tells those who wait, in the order in which they asked: the runtime drops its tasks in an
    /// order that hangs on how many tasks the whole program has spawned, on other threads, too.
    fn close(&self) {
        *self.open.lock() = None;
        self.lines.lock().drain(..).for_each(drop);
    }
}

/// One replica.
pub struct Node {
    /// Its lane.
    pub id: LaneId,
    /// Where it runs.
    pub lane: Lane,
    /// Where it is found.
    pub door: Arc<Door>,
    /// The faults of the process that runs, or ran last.
    pub faults: Faults,
    boots: u64,
}

impl Node {
    /// A replica that is down.
    ///
    /// # Errors
    /// When its runtime can't be made.
    pub fn new(world: &World, id: LaneId) -> std::io::Result<Self> {
        let mut lane = Lane::new()?;
        lane.kill();
        let faults = world.faults((id, lane.fuse()), Dice::new(world.plan.seed, 100 + id as u64));
        Ok(Self { id, lane, door: Arc::default(), faults, boots: 0 })
    }

    /// Starts a new process.
    ///
    /// # Errors
    /// When its runtime can't be made.
    pub fn boot(&mut self, world: &World, outside: &Handle) -> std::io::Result<()> {
        self.boots += 1;
        let salt = 1_000 * (self.id as u64 + 1) + self.boots;
        let mut dice = Dice::new(world.plan.seed, salt);
        self.lane = Lane::new()?;
        self.faults = world.faults((self.id, self.lane.fuse()), Dice::new(world.plan.seed, salt << 20));
        let Some(handle) = self.lane.handle() else { return Ok(()) };
        let skew = u64::from(world.weather.profile().skew_ms) * 1_000;
        let error = i64::try_from(dice.below(2 * skew + 1)).unwrap_or(0) - i64::try_from(skew).unwrap_or(0);
        let start = Start {
            world: world.clone(),
            faults: self.faults.clone(),
            outside: outside.clone(),
            node: format!("replica-{}-{}", self.id, self.boots),
            error,
            dice,
        };
        let (door, inside) = (self.door.clone(), handle.clone());
        handle.spawn(async move {
            loop {
                start.faults.set_starting(true);
                match start.replica().await {
                    Ok(replica) => {
                        start.faults.set_starting(false);
                        *door.open.lock() = Some((inside, Arc::new(replica)));
                        return;
                    }
                    // What supervises a daemon starts it again.
                    Err(error) => {
                        tracing::warn!(error = %orchestrator::error::chain(&error), "a replica did not start");
                        start.wait().await;
                    }
                }
            }
        });
        world.time.mark(self.id);
        Ok(())
    }

    /// Ends the process, wherever it stands.
    pub fn kill(&mut self, world: &World) {
        self.door.close();
        world.store.break_streams(self.id);
        self.lane.kill();
        world.time.clear(self.id);
    }
}

/// What a process starts with.
struct Start {
    world: World,
    faults: Faults,
    outside: Handle,
    node: String,
    /// What is wrong with its clock, in microseconds.
    error: i64,
    dice: Dice,
}

impl Start {
    async fn wait(&self) {
        let until = self.world.time.now().plus(Micros::from_secs(1));
        self.world.time.sleep_until(self.faults.lane(), until).await;
    }

    async fn replica(&self) -> orchestrator::error::Result<Replica> {
        // Whoever is cut off from the database does not reach itself either.
        let faults = self.faults.clone();
        let canary: Canary = Arc::new(move || {
            let well = !faults.is_cut();
            async move { well }.boxed()
        });
        Replica::start(&self.world.config, self.ports().await?, &canary).await
    }

    async fn ports(&self) -> orchestrator::error::Result<Ports> {
        let (world, faults) = (&self.world, &self.faults);
        let mut dice = self.dice.clone();
        let clock: Arc<dyn Clock> = Arc::new(LaneClock::new(world.time.clone(), faults.lane(), self.error));
        let entropy: Arc<dyn Entropy> = Arc::new(Seeded::new(Dice::new(dice.draw(), 1)));
        let sim = SimDatabase::new(world.store.clone(), faults.clone());
        let database: Arc<dyn DatabaseClient> = Arc::new(sim.clone());
        let queue: Arc<dyn QueueClient> = match world.hinted {
            true => Arc::new(world.broker.of(faults.lane())),
            false => {
                let settings = DatabaseQueueSettings { poll: Micros::from_secs(20) };
                Arc::new(DatabaseQueue::new(database.clone(), clock.clone(), entropy.clone(), settings))
            }
        };
        let faulty = |port| Arc::new(FaultyQueue::new(queue.clone(), faults.clone(), port));
        let (triggers, jobs): (Arc<dyn QueueClient>, _) = (faulty(Port::Queue), faulty(Port::Jobs));
        let job_queue: Arc<dyn JobQueueClient> = Arc::new(OverQueue::new(jobs, "jobs"));
        job_queue.create_queues().await.map_err(orchestrator::error::Error::internal)?;
        let timer = Arc::new(Notify::new());
        let settings = LocalSchedulerSettings { lease: Micros::from_secs(60), look: Micros::from_secs(30) };
        let schedules = LocalScheduler::new(
            database.clone(),
            triggers.clone(),
            clock.clone(),
            timer.clone(),
            &self.node,
            settings,
        );
        let cron = Arc::new(LocalCron::new(database.clone(), clock.clone(), timer.clone()));
        let once = Arc::new(LocalOneTime::new(database.clone(), timer));
        let bus = Arc::new(LocalEventBus::new(triggers.clone(), 64));
        let cache = Arc::new(MemoryCache::new(clock.clone(), &MemoryCacheSettings::default()));
        let outside = self.dependencies(&clock, &entropy);
        Ok(Ports {
            node: self.node.clone(),
            shared: true,
            hinted: world.hinted,
            clock,
            entropy,
            database,
            change_source: Some(Arc::new(sim)),
            vault: world.vault(Dice::new(dice.draw(), 2)),
            cache: Arc::new(FaultyCache(cache, faults.clone())),
            answers: SharedAnswers::none(),
            storage: outside.storage,
            queue: triggers,
            watched: None,
            job_queue,
            events: Arc::new(FaultyEvents(bus.clone(), faults.clone())),
            local_feed: Some(bus),
            notification: Arc::new(FaultyAlerts(world.alerts.clone(), faults.clone())),
            cron: Arc::new(FaultyCron(cron, faults.clone())),
            one_time: Arc::new(FaultyOnce(once, faults.clone())),
            schedules: Arc::new(schedules),
            settlement: outside.settlement,
            da: outside.da,
            providers: outside.providers,
            probe: Arc::new(SimProbe { providers: world.providers.clone(), faults: faults.clone() }),
            breakers: outside.breakers,
        })
    }

    /// What lies outside: behind breakers, as in the daemon, or with the faults reaching the services as they are.
    fn dependencies(&self, clock: &Arc<dyn Clock>, entropy: &Arc<dyn Entropy>) -> Dependencies {
        let (world, faults) = (&self.world, &self.faults);
        let breakers = Breakers::new(world.config.dependencies.breaker(), clock.clone(), entropy.clone());
        let layer = FaultySettlement {
            layer: world.settlement.clone(),
            effects: world.settled.clone(),
            faults: faults.clone(),
            sabotage: world.plan.sabotage,
        };
        let directory = SimDirectory {
            providers: world.providers.clone(),
            faults: faults.clone(),
            world: self.outside.clone(),
        };
        let bare = Dependencies {
            storage: Arc::new(FaultyStorage(world.storage.clone(), faults.clone())),
            settlement: Arc::new(layer),
            da: Arc::new(FaultyDa(world.da.clone(), faults.clone())),
            providers: Arc::new(directory),
            breakers,
        };
        if !world.guarded {
            return bare;
        }
        let Dependencies { storage, settlement, da, providers, breakers } = bare;
        Dependencies {
            storage: Arc::new(GuardedStorage::new(storage, breakers.of("storage", "storage"))),
            settlement: Arc::new(GuardedSettlement::new(
                settlement,
                breakers.of("settlement", "settlement layer"),
            )),
            da: Arc::new(GuardedDa::new(da, breakers.of("da", "data availability"))),
            providers: Arc::new(GuardedProviders::new(providers, breakers.clone())),
            breakers,
        }
    }
}

/// The ports of what lies outside.
struct Dependencies {
    storage: Arc<dyn StorageClient>,
    settlement: Arc<dyn SettlementClient>,
    da: Arc<dyn DaClient>,
    providers: Arc<dyn ProviderDirectory>,
    breakers: Breakers,
}
