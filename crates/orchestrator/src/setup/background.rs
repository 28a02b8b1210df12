//! The loops of the background: job engine, hints, relay, triggers, schedules, prober. Where replicas share a database,
//! the relay and the prober run in the one that leads.

use std::sync::Arc;

use futures::FutureExt as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    clients::{self, Clients},
    services::Services,
};
use crate::{
    config::Config,
    controller::worker::{
        ChangeFollower, Driver, DriverSettings, HintConsumer, HintSettings, Leader, Relay, RelayPorts,
        RelaySettings, TriggerConsumer, TriggerRegistry, TriggerSettings, depths, leader, prober,
    },
    core::{
        client::lease::Lease,
        market::quantity::{Bytes, Micros},
    },
    error::{Error, Result},
    service::{
        job::{Engine, EnginePorts, EngineSettings},
        sla::prober::{Prober, ProberPorts, ProberSettings},
    },
};

/// Length of the probe allocation's quota over the bulk size: room for the object that is being replaced.
const PROBE_ROOM: u64 = 4;
/// How long the lease of the replica that relays lasts; another one takes over when it is not renewed for so long.
const RELAY_LEADERSHIP: Micros = Micros::from_secs(60);
/// The same for the one that probes, once a minute.
const PROBER_LEADERSHIP: Micros = Micros::from_secs(60);
/// Pause before another replica may try a prober that could not start.
const PROBER_RETRY: Micros = Micros::from_secs(5);
/// How often a replica among others looks for jobs that nobody told it of.
const SHARED_LOOK: Micros = Micros::from_secs(30);
/// How often a replica among others looks for leases that ran out.
const SHARED_REAP: Micros = Micros::from_secs(15);

/// Starts every loop of the background.
pub(super) async fn start(
    config: &Config,
    clients: &Clients,
    services: &Services,
    registry: Arc<TriggerRegistry>,
    canary: &prober::Canary,
    stop: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>> {
    let engine = engine(config, clients, services);
    if !clients.shared {
        // Nobody else can be at this database, so whoever holds a lease is gone.
        engine.release_leases_of_previous_process().await?;
    }
    clients.events.create_bus(clients::BUS).await.map_err(Error::internal)?;
    registry.load().await?;
    let consumer =
        TriggerConsumer::new(registry, clients.queue.clone(), clients.cron.clone(), clients.clock.clone())
            .with_settings(TriggerSettings {
                visibility: config.queue.visibility.0,
                ..TriggerSettings::default()
            });
    consumer.declare().await?;

    let mut tasks = vec![tokio::spawn(driver(config, clients, engine.clone()).run(stop.clone()))];
    if clients.hinted {
        let settings = HintSettings { visibility: config.queue.visibility.0, ..HintSettings::default() };
        let committer = clients.committer.clone();
        let hints = HintConsumer::new(engine, clients.job_queue.clone(), committer, settings);
        tasks.push(tokio::spawn(hints.run(stop.clone())));
    }
    let relay = relay(clients);
    tasks.push(lead(
        clients,
        ("relay", RELAY_LEADERSHIP),
        stop,
        Box::new(move |stop| {
            let relay = relay.clone();
            async move { relay.run(stop).await }.boxed()
        }),
    ));
    tasks.push(tokio::spawn({
        let stop = stop.clone();
        async move { consumer.run(stop).await }
    }));
    tasks.push(tokio::spawn({
        let (stop, schedules) = (stop.clone(), clients.schedules.clone());
        async move { schedules.run(stop).await }
    }));
    if let Some((queue, names)) = clients.watched.clone() {
        tasks.push(tokio::spawn(depths::watch(queue, names, clients.clock.clone(), stop.clone())));
    }
    if let Some(source) = &clients.change_source {
        let (offerings, wake) = (clients.changes.clone(), clients.wake.clone());
        let follower =
            ChangeFollower::new(source.clone(), offerings, wake, clients.clock.clone(), clients.hinted);
        tasks.push(tokio::spawn(follower.run(stop.clone())));
    }
    if let Some(feed) = &clients.feed_task {
        tasks.push(tokio::spawn(feed.clone().run(stop.clone())));
    }
    let sla = services.sla.clone();
    tasks.push(tokio::spawn(
        stop.clone()
            .run_until_cancelled_owned(async move {
                match sla.name_records().await {
                    Ok(0) => {}
                    Ok(named) => {
                        tracing::info!(named, "verdicts of before can now be found by their records")
                    }
                    Err(error) => {
                        tracing::warn!(
                            error = crate::error::chain(&error),
                            "not all verdicts can be found by their records"
                        );
                    }
                }
            })
            .map(|_| ()),
    ));
    tasks.push(tokio::spawn(watch_canary(config, clients, services, canary.clone(), stop.clone())));
    if config.prober.enabled {
        tasks.push(prober_task(config, clients, services, canary.clone(), stop).await?);
    }
    Ok(tasks)
}

/// Runs work always when this process is alone, else while it leads.
fn lead(
    clients: &Clients,
    (what, length): (&'static str, Micros),
    stop: &CancellationToken,
    work: leader::Work,
) -> JoinHandle<()> {
    if !clients.shared {
        return tokio::spawn(work(stop.clone()));
    }
    let (reader, committer) = (clients.database.clone(), clients.database.clone());
    let lease = Lease::new(reader, committer, what, &clients.node, length);
    let (leader, stop) = (Leader::new(what, lease, clients.clock.clone()), stop.clone());
    tokio::spawn(async move { leader.run(work, stop).await })
}

fn engine(config: &Config, clients: &Clients, services: &Services) -> Engine {
    let ports = EnginePorts {
        reader: clients.database.clone(),
        claimer: clients.database.clone(),
        committer: clients.engine_committer.clone(),
        ids: clients.work.ids.clone(),
        clock: clients.clock.clone(),
        entropy: clients.entropy.clone(),
        wake: clients.wake.clone(),
    };
    let defaults = EngineSettings::default();
    let settings = EngineSettings {
        node: clients.node.clone(),
        lease: config.jobs.lease.0,
        look_ahead: if clients.shared { SHARED_LOOK } else { defaults.look_ahead },
        ..defaults
    };
    Engine::new(ports, settings, services.handlers.clone())
}

fn driver(config: &Config, clients: &Clients, engine: Engine) -> Driver {
    let defaults = DriverSettings::default();
    let fallbacks = match clients.shared {
        true => (Micros::from_secs(2), SHARED_LOOK, SHARED_REAP),
        false => (defaults.fallback, defaults.idle_fallback, defaults.reap_every),
    };
    let settings = DriverSettings {
        heartbeat: config.jobs.heartbeat.0,
        drain: config.jobs.drain.0,
        fallback: fallbacks.0,
        idle_fallback: fallbacks.1,
        reap_every: fallbacks.2,
    };
    Driver::new(engine, settings)
}

fn relay(clients: &Clients) -> Arc<Relay> {
    let ports = RelayPorts {
        reader: clients.database.clone(),
        committer: clients.database.clone(),
        ids: clients.work.ids.clone(),
        clock: clients.clock.clone(),
        events: clients.events.clone(),
        queue: clients.queue.clone(),
        job_queue: clients.job_queue.clone(),
        notification: clients.notification.clone(),
        scheduler: clients.one_time.clone(),
        wake: clients.wake.clone(),
    };
    let defaults = RelaySettings { bus: clients::BUS.into(), ..RelaySettings::default() };
    let settings = match clients.shared {
        // Rows of other replicas are told by the database's changes.
        true => RelaySettings { fallback: Micros::from_secs(5), idle_fallback: SHARED_LOOK, ..defaults },
        false => defaults,
    };
    Arc::new(Relay::new(ports, settings))
}

/// Asks the canary again and again, in every replica. That most providers fail at once is more likely our network than
/// theirs.
fn watch_canary(
    config: &Config,
    clients: &Clients,
    services: &Services,
    canary: prober::Canary,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    let (clock, every) = (clients.clock.clone(), config.dependencies.canary_interval.0);
    let (health, breakers) = (services.own_health.clone(), clients.breakers.clone());
    async move {
        loop {
            let answers = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                answers = canary() => answers,
            };
            health.report(answers && !breakers.are_most_away("provider"));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = clock.sleep(every) => {}
            }
        }
    }
}

/// The prober of this market. It is made anew with each leadership, so that it goes on from what the last one wrote.
async fn prober_task(
    config: &Config,
    clients: &Clients,
    services: &Services,
    canary: prober::Canary,
    stop: &CancellationToken,
) -> Result<JoinHandle<()>> {
    let ports = ProberPorts {
        client: clients.probe.clone(),
        providers: clients.providers.clone(),
        vault: clients.vault.clone(),
        entropy: clients.entropy.clone(),
    };
    let bulk = config.prober.bulk_size.0.get();
    let settings = ProberSettings {
        interval: config.prober.interval.0,
        bulk_interval: config.prober.bulk_interval.0,
        quota: Bytes(bulk.saturating_mul(PROBE_ROOM)),
        ..ProberSettings::default()
    };
    let (work, evidence) = (clients.work.clone(), services.evidence.clone());
    let (sla, clock) = (services.sla_settings.clone(), clients.clock.clone());
    let make =
        move || Prober::start(work.clone(), evidence.clone(), ports.clone(), sla.clone(), settings.clone());
    // Once at the start, so that a market without a prober is told at once.
    make().await?;
    let work: leader::Work = Box::new(move |stop| {
        let (started, clock, canary) = (make(), clock.clone(), canary.clone());
        async move {
            match started.await {
                Ok(prober) => prober::run(Arc::new(prober), clock, Some(canary), stop).await,
                Err(error) => {
                    tracing::error!(error = crate::error::chain(&error), "the prober can't start");
                    clock.sleep(PROBER_RETRY).await;
                }
            }
        }
        .boxed()
    });
    Ok(lead(clients, ("prober", PROBER_LEADERSHIP), stop, work))
}
