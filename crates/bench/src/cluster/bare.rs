//! What the bare servers do: the same documents inserted, the same messages sent, and workers that take messages, claim each
//! job by one guarded update, complete it by another, and delete the message. No engine, no retries, no fencing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, SendMessageBatchRequestEntry};
use mongodb::{
    Collection,
    bson::{Document, doc},
};

use super::{Args, BATCH, Fault, Round, measured};

/// Messages of one SQS call.
const MESSAGES: usize = 10;

struct Bare {
    jobs: Collection<Document>,
    sqs: aws_sdk_sqs::Client,
    queue: String,
    done: AtomicUsize,
}

/// One round.
pub(super) async fn round(args: &Args, name: &str, workers: usize) -> Result<Round, Fault> {
    let client = mongodb::Client::with_uri_str(&args.mongodb).await?;
    let database = client.database(&format!("{name}-bare-{workers}"));
    let jobs: Collection<Document> = database.collection("jobs");
    jobs.create_index(mongodb::IndexModel::builder().keys(doc! { "due": 1 }).build()).await?;
    let mut loader = aws_config::defaults(aws_config::BehaviorVersion::latest()).http_client(
        aws_smithy_http_client::Builder::new()
            .tls_provider(aws_smithy_http_client::tls::Provider::Rustls(
                aws_smithy_http_client::tls::rustls_provider::CryptoMode::Ring,
            ))
            .build_https(),
    );
    if !args.aws_endpoint.is_empty() {
        loader = loader.endpoint_url(&args.aws_endpoint);
    }
    let sqs = aws_sdk_sqs::Client::new(&loader.load().await);
    let made = sqs.create_queue().queue_name(format!("{name}-bare-{workers}")).send().await?;
    let queue = made.queue_url().ok_or("the queue has no address")?.to_owned();
    let bare = Arc::new(Bare { jobs, sqs, queue, done: AtomicUsize::new(0) });
    let round = measured(args.jobs, bare.clone().run(args.jobs, workers)).await;
    bare.sqs.delete_queue().queue_url(&bare.queue).send().await?;
    database.drop().await?;
    round
}

impl Bare {
    async fn run(self: Arc<Self>, jobs: usize, workers: usize) -> Result<(), Fault> {
        let enqueuer = tokio::spawn(self.clone().enqueue(jobs));
        // One call takes ten messages, as the engine's does: more receivers than that would find nothing.
        let receivers = workers.div_ceil(MESSAGES);
        let at_once = workers.min(MESSAGES);
        let tasks: Vec<_> =
            (0..receivers).map(|_| tokio::spawn(self.clone().receive(jobs, at_once))).collect();
        enqueuer.await??;
        for task in tasks {
            task.await??;
        }
        Ok(())
    }

    async fn enqueue(self: Arc<Self>, jobs: usize) -> Result<(), Fault> {
        let body = "x".repeat(600);
        for first in (0..jobs).step_by(BATCH) {
            let numbers: Vec<usize> = (first..jobs.min(first + BATCH)).collect();
            let documents = numbers
                .iter()
                .map(|n| doc! { "_id": n.to_string(), "due": 1_i64, "state": "created", "token": 0_i64, "body": &body });
            self.jobs.insert_many(documents).await?;
            for chunk in numbers.chunks(MESSAGES) {
                let entries = chunk
                    .iter()
                    .map(|n| {
                        SendMessageBatchRequestEntry::builder()
                            .id(n.to_string())
                            .message_body(n.to_string())
                            .build()
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                self.sqs
                    .send_message_batch()
                    .queue_url(&self.queue)
                    .set_entries(Some(entries))
                    .send()
                    .await?;
            }
        }
        Ok(())
    }

    async fn receive(self: Arc<Self>, jobs: usize, at_once: usize) -> Result<(), Fault> {
        while self.done.load(Ordering::Relaxed) < jobs {
            let received = self
                .sqs
                .receive_message()
                .queue_url(&self.queue)
                .max_number_of_messages(i32::try_from(at_once)?)
                .wait_time_seconds(1)
                .send()
                .await?;
            let messages = received.messages.unwrap_or_default();
            let work: Vec<_> = messages
                .iter()
                .filter_map(|message| message.body().map(str::to_owned))
                .map(|id| tokio::spawn(self.clone().complete(id)))
                .collect();
            for task in work {
                task.await??;
            }
            let entries = messages
                .iter()
                .filter_map(|message| Some((message.message_id()?, message.receipt_handle()?)))
                .map(|(id, receipt)| {
                    DeleteMessageBatchRequestEntry::builder().id(id).receipt_handle(receipt).build()
                })
                .collect::<Result<Vec<_>, _>>()?;
            if !entries.is_empty() {
                self.sqs
                    .delete_message_batch()
                    .queue_url(&self.queue)
                    .set_entries(Some(entries))
                    .send()
                    .await?;
            }
        }
        Ok(())
    }

    async fn complete(self: Arc<Self>, id: String) -> Result<(), Fault> {
        let claim =
            doc! { "$set": { "state": "running" }, "$unset": { "due": "" }, "$inc": { "token": 1_i64 } };
        self.jobs.update_one(doc! { "_id": &id, "state": "created" }, claim).await?;
        let done = doc! { "$set": { "state": "completed" } };
        self.jobs.update_one(doc! { "_id": &id, "token": 1_i64 }, done).await?;
        self.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
