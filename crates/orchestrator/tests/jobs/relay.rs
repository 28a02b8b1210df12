//! The outbox relay and the triggers, against an outside world that fails when it is told to.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use async_trait::async_trait;
use orchestrator::{
    controller::worker::{
        Relay, RelayPorts, RelaySettings, ScheduledTrigger, TriggerConsumer, TriggerRegistry,
        trigger::TRIGGER_QUEUE,
    },
    core::{
        client::{
            database::{Changeset, Committer, Filter, ReaderExt},
            event_bus::{EventBusClient, EventBusError, EventRule},
            notification::{Notification, NotificationClient, NotificationError},
            queue::{Message, NewMessage, QueueClient, QueueError},
            scheduler::{OneTimeSchedule, SchedulerClient, SchedulerError},
        },
        job::{JobKind, Phase},
        madara::{
            cron::{CronClient, CronError, CronSchedule, CronTarget},
            job_queue::{JobMessage, JobQueueClient},
        },
        market::{
            event::{Audience, DomainEvent},
            ids::JobId,
            quantity::Micros,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        job::{Trigger, TriggerReport, Wake},
        outbox::{self, OutboxRow, Outgoing, QUARANTINED},
    },
};
use parking_lot::Mutex;
use serde_json::json;

use super::harness::World;

/// Everything outside: it notes what it is told.
#[derive(Default)]
pub struct Outside {
    pub told: Mutex<Vec<String>>,
    pub bus_is_down: AtomicBool,
    alerts_are_left_alone: AtomicBool,
    poison: Mutex<Option<String>>,
    messages: Mutex<Vec<String>>,
    schedules: Mutex<Vec<CronSchedule>>,
}

impl Outside {
    fn tell(&self, text: String) {
        self.told.lock().push(text);
    }
}

#[async_trait]
impl EventBusClient for Outside {
    async fn create_bus(&self, _: &str) -> Result<(), EventBusError> {
        Ok(())
    }
    async fn put_rule(&self, _: &str, _: EventRule) -> Result<(), EventBusError> {
        Ok(())
    }
    async fn delete_rule(&self, _: &str, _: &str) -> Result<(), EventBusError> {
        Ok(())
    }
    async fn publish(&self, _: &str, events: &[DomainEvent]) -> Result<(), EventBusError> {
        let poison = self.poison.lock().clone();
        let poisoned = events.iter().any(|event| Some(&event.kind) == poison.as_ref());
        if self.bus_is_down.load(Ordering::SeqCst) || poisoned {
            return Err(EventBusError::Unavailable("down".into()));
        }
        events.iter().for_each(|event| self.tell(format!("event {}", event.kind)));
        Ok(())
    }
}

#[async_trait]
impl NotificationClient for Outside {
    async fn create_topic(&self, _: &str) -> Result<(), NotificationError> {
        Ok(())
    }
    async fn topics(&self) -> Result<Vec<String>, NotificationError> {
        Ok(Vec::new())
    }
    async fn subscribe(&self, _: &str, _: &str) -> Result<(), NotificationError> {
        Ok(())
    }
    async fn unsubscribe(&self, _: &str, _: &str) -> Result<(), NotificationError> {
        Ok(())
    }
    async fn publish(&self, topic: &str, notification: &Notification) -> Result<(), NotificationError> {
        if self.alerts_are_left_alone.load(Ordering::SeqCst) {
            return Err(NotificationError::Deferred(Micros::from_secs(7)));
        }
        self.tell(format!("{topic} {}", notification.subject));
        Ok(())
    }
}

#[async_trait]
impl SchedulerClient for Outside {
    async fn create(&self, schedule: OneTimeSchedule) -> Result<(), SchedulerError> {
        self.tell(format!("schedule {}", schedule.name));
        Ok(())
    }
    async fn set_enabled(&self, _: &str, _: bool) -> Result<(), SchedulerError> {
        Ok(())
    }
    async fn list(&self) -> Result<Vec<OneTimeSchedule>, SchedulerError> {
        Ok(Vec::new())
    }
    async fn delete(&self, _: &str) -> Result<(), SchedulerError> {
        Ok(())
    }
}

#[async_trait]
impl JobQueueClient for Outside {
    async fn create_queues(&self) -> Result<(), QueueError> {
        Ok(())
    }
    async fn send(&self, _: JobKind, _: Phase, _: &[JobId], _: Micros) -> Result<(), QueueError> {
        Ok(())
    }
    async fn receive(
        &self,
        _: JobKind,
        _: Phase,
        _: usize,
        _: Micros,
        _: Micros,
    ) -> Result<Vec<JobMessage>, QueueError> {
        Ok(Vec::new())
    }
    async fn extend(&self, _: JobKind, _: Phase, _: &Message, _: Micros) -> Result<(), QueueError> {
        Ok(())
    }
    async fn acknowledge(&self, _: JobKind, _: Phase, _: &Message) -> Result<(), QueueError> {
        Ok(())
    }
    async fn dead_letter(&self, kind: JobKind, body: &str) -> Result<(), QueueError> {
        self.tell(format!("dead {kind} {body}"));
        Ok(())
    }
    async fn dead_letters(&self) -> Result<u64, QueueError> {
        Ok(0)
    }
    async fn redrive(&self, _: usize) -> Result<usize, QueueError> {
        Ok(0)
    }
}

#[async_trait]
impl QueueClient for Outside {
    async fn create(&self, _: &str) -> Result<(), QueueError> {
        Ok(())
    }
    async fn send(&self, queue: &str, messages: Vec<NewMessage>) -> Result<(), QueueError> {
        for message in messages {
            self.tell(format!("{queue} {}", message.body));
            self.messages.lock().push(message.body);
        }
        Ok(())
    }
    async fn receive(&self, _: &str, _: usize, _: Micros, _: Micros) -> Result<Vec<Message>, QueueError> {
        let bodies = std::mem::take(&mut *self.messages.lock());
        let message = |body| Message { id: "1".into(), receipt: "1".into(), body, deliveries: 1 };
        Ok(bodies.into_iter().map(message).collect())
    }
    async fn delete(&self, _: &str, _: &str) -> Result<(), QueueError> {
        Ok(())
    }
    async fn change_visibility(&self, _: &str, _: &str, _: Micros) -> Result<(), QueueError> {
        Ok(())
    }
    async fn purge(&self, _: &str) -> Result<(), QueueError> {
        Ok(())
    }
    async fn depth(&self, _: &str) -> Result<u64, QueueError> {
        Ok(0)
    }
}

#[async_trait]
impl CronClient for Outside {
    async fn create(&self, name: &str, every: Micros) -> Result<(), CronError> {
        let schedule = CronSchedule { name: name.into(), every, enabled: false, targets: Vec::new() };
        self.schedules.lock().push(schedule);
        Ok(())
    }
    async fn add_target(&self, name: &str, target: CronTarget) -> Result<(), CronError> {
        self.schedules
            .lock()
            .iter_mut()
            .filter(|s| s.name == name)
            .for_each(|s| s.targets.push(target.clone()));
        Ok(())
    }
    async fn set_enabled(&self, name: &str, enabled: bool) -> Result<(), CronError> {
        self.schedules.lock().iter_mut().filter(|s| s.name == name).for_each(|s| s.enabled = enabled);
        Ok(())
    }
    async fn list(&self) -> Result<Vec<CronSchedule>, CronError> {
        Ok(self.schedules.lock().clone())
    }
    async fn delete(&self, _: &str) -> Result<(), CronError> {
        Ok(())
    }
}

pub fn ports(world: &World, outside: &Arc<Outside>) -> RelayPorts {
    RelayPorts {
        reader: world.db.clone(),
        committer: world.db.clone(),
        ids: world.ids.clone(),
        clock: Arc::new(world.clock.clone()),
        events: outside.clone(),
        queue: outside.clone(),
        job_queue: outside.clone(),
        notification: outside.clone(),
        scheduler: outside.clone(),
        wake: Arc::new(Wake::default()),
    }
}

fn relay(world: &World, outside: &Arc<Outside>) -> Relay {
    let settings = RelaySettings { batch: 2, max_attempts: 4, ..RelaySettings::default() };
    Relay::new(ports(world, outside), settings)
}

pub async fn put(world: &World, kinds: &[&str]) {
    for kind in kinds {
        let mut changes = Changeset::new();
        outbox::event(&mut changes, &world.ids, kind, "s", Audience::Public, json!({}));
        world.db.commit(changes).await.unwrap();
        world.clock.advance(Micros::from_millis(1));
    }
}

#[tokio::test]
async fn each_row_goes_where_it_belongs_in_order_and_once() {
    let world = World::new(50);
    let outside = Arc::new(Outside::default());
    let relay = relay(&world, &outside);
    put(&world, &["one", "two", "three"]).await;
    let mut changes = Changeset::new();
    outbox::send(&mut changes, &world.ids, Outgoing::Message { queue: "q".into(), body: "m".into() });
    world.db.commit(changes).await.unwrap();
    world.clock.advance(Micros::from_millis(1));
    let mut changes = Changeset::new();
    outbox::send(&mut changes, &world.ids, Outgoing::DeadLetter { kind: JobKind::Purge, body: "j".into() });
    world.db.commit(changes).await.unwrap();
    world.clock.advance(Micros::from_millis(1));
    let mut changes = Changeset::new();
    outbox::alert(&mut changes, &world.ids, "fire".into(), json!({}));
    world.db.commit(changes).await.unwrap();
    assert_eq!(relay.pass().await.unwrap().sent, 6);
    assert_eq!(relay.pass().await.unwrap().sent, 0);
    let expected = ["event one", "event two", "event three", "q m", "dead purge j", "alerts fire"];
    assert_eq!(*outside.told.lock(), expected);
}

#[tokio::test]
async fn a_poisoned_row_is_set_aside_and_holds_up_nobody() {
    let world = World::new(51);
    let outside = Arc::new(Outside::default());
    *outside.poison.lock() = Some("bad".into());
    let relay = relay(&world, &outside);
    put(&world, &["bad", "one", "two", "three"]).await;
    let report = relay.pass().await.unwrap();
    assert_eq!((report.sent, report.failed), (3, 1));
    assert_eq!(relay.pass().await.unwrap().failed, 0, "it pauses");
    for _ in 0..10 {
        world.clock.advance(Micros::from_secs(61));
        relay.pass().await.unwrap();
    }
    let rows = world.db.list_all::<OutboxRow>(Filter::eq("unsent", QUARANTINED)).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].value.attempts, 4);
}

#[tokio::test]
async fn an_alert_for_a_service_that_is_left_alone_waits_and_spends_no_attempt() {
    let world = World::new(53);
    let outside = Arc::new(Outside::default());
    outside.alerts_are_left_alone.store(true, Ordering::SeqCst);
    let relay = relay(&world, &outside);
    let mut changes = Changeset::new();
    outbox::alert(&mut changes, &world.ids, "fire".into(), json!({}));
    world.db.commit(changes).await.unwrap();
    for _ in 0..20 {
        relay.pass().await.unwrap();
        world.clock.advance(Micros::from_secs(7));
    }
    let rows = world.db.list_all::<OutboxRow>(Filter::All).await.unwrap();
    assert_eq!((rows.len(), rows[0].value.attempts), (1, 0));
    outside.alerts_are_left_alone.store(false, Ordering::SeqCst);
    assert_eq!(relay.pass().await.unwrap().sent, 1);
    assert_eq!(*outside.told.lock(), ["alerts fire"]);
}

#[tokio::test]
async fn an_outage_ends_and_everything_is_sent() {
    let world = World::new(52);
    let outside = Arc::new(Outside::default());
    outside.bus_is_down.store(true, Ordering::SeqCst);
    let relay = relay(&world, &outside);
    put(&world, &["one", "two", "three"]).await;
    assert_eq!(relay.pass().await.unwrap().failed, 3);
    outside.bus_is_down.store(false, Ordering::SeqCst);
    world.clock.advance(Micros::from_secs(1));
    assert_eq!(relay.pass().await.unwrap().sent, 3);
    assert_eq!(*outside.told.lock(), ["event one", "event two", "event three"]);
}

struct Counting(AtomicU32);

#[async_trait]
impl Trigger for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }
    async fn fire(&self) -> Result<TriggerReport> {
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(TriggerReport { changed: 7, ..TriggerReport::default() }),
            1 => Err(Error::new(ErrorCode::Unavailable, "not today")),
            _ => panic!("scripted"),
        }
    }
}

#[tokio::test]
async fn triggers_are_declared_fired_by_message_and_tell_what_they_did() {
    let world = World::new(53);
    let outside = Arc::new(Outside::default());
    let registry = || {
        let scheduled = ScheduledTrigger::new(Arc::new(Counting(AtomicU32::new(0))), Micros::from_secs(5));
        let clock = Arc::new(world.clock.clone());
        Arc::new(TriggerRegistry::new(world.db.clone(), world.db.clone(), clock, vec![scheduled]))
    };
    let known = registry();
    let clock = Arc::new(world.clock.clone());
    let consumer = TriggerConsumer::new(known.clone(), outside.clone(), outside.clone(), clock);
    consumer.declare().await.unwrap();
    let schedules = CronClient::list(outside.as_ref()).await.unwrap();
    assert_eq!((schedules.len(), schedules[0].enabled), (1, true));
    assert_eq!(schedules[0].targets, [CronTarget { queue: TRIGGER_QUEUE.into(), body: "counting".into() }]);

    let message = |body: &str| NewMessage { body: body.into(), delay: Micros::ZERO };
    let batch = vec![message("counting"), message("counting"), message("unknown")];
    QueueClient::send(outside.as_ref(), TRIGGER_QUEUE, batch).await.unwrap();
    assert_eq!(consumer.step().await.unwrap(), 1);
    let status = known.statuses().remove(0);
    assert_eq!((status.runs, status.last_report.unwrap().changed, status.running), (1, 7, false));

    assert_eq!(known.fire("counting").await.unwrap_err().code, ErrorCode::Unavailable);
    assert_eq!(known.fire("counting").await.unwrap_err().code, ErrorCode::Internal);
    let status = known.statuses().remove(0);
    assert_eq!((status.runs, status.failures_in_a_row), (3, 2));
    assert_eq!(known.fire("nothing").await.unwrap_err().code, ErrorCode::NotFound);

    let next = registry();
    next.load().await.unwrap();
    let status = next.statuses().remove(0);
    assert_eq!((status.runs, status.last_error.as_deref()), (2, Some("not today")));
}
