//! The same through the engine: jobs and their hints by one commit, workers that take hints, claim, run and complete.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use orchestrator::{
    client::{
        aws::{AwsClients, AwsSettings},
        clock::{SystemClock, SystemEntropy},
        db::mongodb::{MongoDatabase, MongoSettings},
        job_queue::{SqsJobQueue, SqsJobQueueSettings},
        queue::{QueueAttributes, SqsQueue},
    },
    controller::worker::{HintConsumer, HintSettings},
    core::{
        client::{
            clock::Clock,
            database::{Changeset, Committer, DatabaseClient},
            schema,
        },
        job::{JobKind, NewJob},
        madara::job_queue::JobQueueClient,
        market::ids::IdGenerator,
    },
    service::job::{
        Engine, EnginePorts, EngineSettings, HintingCommitter, JobContext, JobError, JobHandler, Policy,
        Processed, Wake, hints,
    },
};
use tokio_util::sync::CancellationToken;

use super::{Args, BATCH, Fault, Round, measured};

/// Does nothing.
struct Noop {
    workers: usize,
    done: AtomicUsize,
}

#[async_trait]
impl JobHandler for Noop {
    fn kind(&self) -> JobKind {
        JobKind::SyncAccess
    }

    fn policy(&self) -> Policy {
        Policy { concurrency: self.workers, ..Policy::default() }
    }

    async fn process(&self, _: &dyn JobContext) -> Result<Processed, JobError> {
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(Processed::Done(Changeset::new()))
    }
}

/// One round.
pub(super) async fn round(args: &Args, name: &str, workers: usize) -> Result<Round, Fault> {
    let database =
        MongoDatabase::open(MongoSettings::new(&args.mongodb, format!("{name}-{workers}"))).await?;
    database.connect(schema::ALL).await?;
    let aws = AwsSettings {
        endpoint: args.aws_endpoint.clone(),
        prefix: format!("{name}-{workers}"),
        ..AwsSettings::default()
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let queue =
        Arc::new(SqsQueue::new(AwsClients::new(&aws).await?, clock.clone(), QueueAttributes::default()));
    let queue = Arc::new(SqsJobQueue::new(queue, "jobs", SqsJobQueueSettings::default()));
    queue.create_queues().await?;
    let entropy = Arc::new(SystemEntropy);
    let ids = IdGenerator::new(clock.clone(), entropy.clone());
    let ports = EnginePorts {
        reader: database.clone(),
        claimer: database.clone(),
        committer: database.clone(),
        ids: ids.clone(),
        clock: clock.clone(),
        entropy,
        wake: Arc::new(Wake::default()),
    };
    let noop = Arc::new(Noop { workers, done: AtomicUsize::new(0) });
    let engine = Engine::new(ports, EngineSettings::default(), vec![noop.clone()]);
    let stop = CancellationToken::new();
    let consumer =
        HintConsumer::new(engine.clone(), queue.clone(), database.clone(), HintSettings::default());
    let consuming = tokio::spawn(consumer.run(stop.clone()));
    let (hints, sender) = hints(queue, clock);
    tokio::spawn(sender.run());
    let committer = HintingCommitter::new(database.clone(), hints);
    let jobs = args.jobs;
    let round = measured(jobs, async {
        for first in (0..jobs).step_by(BATCH) {
            let mut changes = Changeset::new();
            for number in first..jobs.min(first + BATCH) {
                let key = format!("job-{number}");
                NewJob::now(JobKind::SyncAccess, &key, &key, ids.now()).enqueue(&mut changes, &ids);
            }
            committer.commit(changes).await?;
        }
        while noop.done.load(Ordering::Relaxed) < jobs || engine.running() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        Ok(())
    })
    .await;
    stop.cancel();
    consuming.await?;
    database.disconnect().await?;
    let client = mongodb::Client::with_uri_str(&args.mongodb).await?;
    client.database(&format!("{name}-{workers}")).drop().await?;
    round
}
