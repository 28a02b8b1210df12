//! Messages of queues: hints and their receipts, dead letters and their way back.

use std::sync::Arc;

use orchestrator::{
    client::{
        clock::{ManualClock, SeededEntropy},
        db::memory::MemoryDatabase,
        job_queue::OverQueue,
        queue::{DatabaseQueue, DatabaseQueueSettings},
    },
    core::{
        client::queue::{NewMessage, QueueClient, QueueError},
        job::{JobKind, Phase},
        madara::job_queue::JobQueueClient,
        market::{
            ids::JobId,
            quantity::{Micros, Timestamp},
        },
    },
};

use crate::market::block_on;

const KIND: JobKind = JobKind::Provision;
const HIDDEN: Micros = Micros::from_secs(60);

/// A message comes out as it went in, names a job only if it says so, and ends only by the receipt that came with it.
///
/// The input is a receipt, a line feed, and the body.
pub fn queue(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((receipt, body)) = text.split_once('\n') else { return };
    block_on(one_message(receipt, body));
}

async fn one_message(receipt: &str, body: &str) {
    let clock = Arc::new(ManualClock::new(Timestamp(1_790_000_000_000_000)));
    let entropy = Arc::new(SeededEntropy::new(5));
    let database = MemoryDatabase::with_schema();
    let raw = Arc::new(DatabaseQueue::new(database, clock, entropy, DatabaseQueueSettings::default()));
    let jobs = OverQueue::new(raw.clone(), "jobs");
    jobs.create_queues().await.unwrap();
    let name = jobs.queue_name(KIND, Phase::Process);
    raw.send(&name, vec![NewMessage { body: body.to_owned(), delay: Micros::ZERO }]).await.unwrap();

    let taken = jobs.receive(KIND, Phase::Process, 10, HIDDEN, Micros::ZERO).await.unwrap();
    let [taken] = taken.as_slice() else { panic!("{} messages instead of one", taken.len()) };
    assert_eq!((taken.message.body.as_str(), taken.message.deliveries), (body, 1));
    named(body, taken.job);

    if receipt != taken.message.receipt {
        let forged = raw.change_visibility(&name, receipt, Micros::ZERO).await;
        assert!(matches!(forged, Err(QueueError::StaleReceipt)), "{receipt:?}: {forged:?}");
        let _ = raw.delete(&name, receipt).await;
        assert_eq!(raw.depth(&name).await.unwrap(), 1, "{receipt:?} removed it");
    }
    jobs.dead_letter(KIND, body).await.unwrap();
    jobs.acknowledge(KIND, Phase::Process, &taken.message).await.unwrap();
    assert_eq!((raw.depth(&name).await.unwrap(), jobs.dead_letters().await.unwrap()), (0, 1));

    assert_eq!(jobs.redrive(10).await.unwrap(), 1);
    let back = jobs.receive(KIND, Phase::Process, 10, HIDDEN, Micros::ZERO).await.unwrap();
    let [back] = back.as_slice() else { panic!("{} letters instead of one", back.len()) };
    match body.parse::<JobId>() {
        Ok(job) => assert_eq!(back.job, Some(job)),
        Err(_) => {
            assert_eq!(back.message.body, body);
            named(body, back.job);
        }
    }
}

/// A text names the job whose id it carries, and a hint as we write it always does.
fn named(body: &str, job: Option<JobId>) {
    use serde_json::Value;
    let members = match serde_json::from_str(body) {
        Ok(Value::Object(fields)) => fields.into_values().collect(),
        Ok(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    let ids: Vec<JobId> = members.iter().filter_map(|v| v.as_str()?.parse().ok()).collect();
    match job {
        Some(job) => assert!(ids.contains(&job), "{body} does not name {job}"),
        None => assert!(ids.iter().all(|id| body != format!(r#"{{"job":"{id}"}}"#)), "{body} names no job"),
    }
}
