//! `VisibilityKeeper` over every queue: messages in work stay hidden, and come back when their work is lost.

use std::sync::Arc;

use orchestrator::{
    controller::worker::{QueueMessage, VisibilityKeeper},
    core::{
        client::queue::{Message, NewMessage, QueueClient, QueueError},
        market::quantity::Micros,
    },
};
use tokio_util::sync::CancellationToken;

use super::support::{Bed, Time};

async fn one(queue: &dyn QueueClient) {
    queue.create("q").await.unwrap();
    queue.send("q", vec![NewMessage { body: "a".into(), delay: Micros::ZERO }]).await.unwrap();
}

fn in_work(queue: &Arc<dyn QueueClient>, message: &Message) -> QueueMessage {
    QueueMessage { client: queue.clone(), queue: "q".into(), receipt: message.receipt.clone() }
}

async fn work_that_outlasts_the_visibility_keeps_its_message(time: &Time, queue: Arc<dyn QueueClient>) {
    one(&*queue).await;
    // SQS counts whole seconds: a third is more than one.
    let visibility = Micros::from_secs(4);
    let keeper = VisibilityKeeper::new(time.clock(), visibility);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn({
        let (keeper, shutdown) = (keeper.clone(), shutdown.clone());
        async move { keeper.run(shutdown).await }
    });
    let message = queue.receive("q", 1, visibility, time.patience()).await.unwrap().remove(0);
    let kept = keeper.keep(in_work(&queue, &message));
    // Twice as long as it is hidden for, in steps that leave the keeper its turn.
    for _ in 0..16 {
        time.pass(Micros(visibility.get() / 8)).await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        assert_eq!(queue.receive("q", 1, visibility, Micros::ZERO).await.unwrap(), []);
    }
    assert!(!kept.is_lost());
    // Its work is given up: nothing keeps it any more.
    drop(kept);
    assert_eq!(keeper.kept(), 0);
    time.pass(visibility).await;
    let again = queue.receive("q", 1, visibility, time.patience()).await.unwrap().remove(0);
    assert_eq!((again.id, again.deliveries), (message.id, 2));
    shutdown.cancel();
    running.await.unwrap();
}

async fn a_message_that_is_gone_is_told(time: &Time, queue: Arc<dyn QueueClient>) {
    one(&*queue).await;
    let visibility = Micros::from_secs(4);
    let keeper = VisibilityKeeper::new(time.clock(), visibility);
    let message = queue.receive("q", 1, visibility, time.patience()).await.unwrap().remove(0);
    let kept = keeper.keep(in_work(&queue, &message));
    assert!(keeper.step().await.is_some(), "nothing is due yet");
    assert!(!kept.is_lost());
    queue.delete("q", &message.receipt).await.unwrap();
    time.pass(Micros(visibility.get() / 2)).await;
    assert_eq!(keeper.step().await, None);
    assert!(kept.is_lost());
    assert!(matches!(
        queue.change_visibility("q", &message.receipt, visibility).await,
        Err(QueueError::StaleReceipt)
    ));
}

async fn suite<G, F: Future<Output = (G, Time, Arc<dyn QueueClient>)>>(make: impl Fn() -> F) {
    tokio::join!(
        async {
            let (_guard, time, queue) = make().await;
            work_that_outlasts_the_visibility_keeps_its_message(&time, queue).await;
        },
        async {
            let (_guard, time, queue) = make().await;
            a_message_that_is_gone_is_told(&time, queue).await;
        },
    );
}

async fn over(bed: Bed) -> (Bed, Time, Arc<dyn QueueClient>) {
    let (time, queue) = (bed.time(), bed.queue(1));
    (bed, time, queue)
}

#[tokio::test]
async fn over_the_memory_database() {
    suite(|| async { over(Bed::memory().await).await }).await;
}

#[tokio::test]
async fn over_the_sqlite_database() {
    suite(|| async { over(Bed::sqlite().await).await }).await;
}

#[cfg(feature = "sqs")]
#[tokio::test]
async fn at_sqs() {
    use super::aws;
    suite(|| async {
        let queue = aws::queue(&aws::clients("keeper").await);
        ((), Time::Real(Default::default()), queue as Arc<dyn QueueClient>)
    })
    .await;
}
