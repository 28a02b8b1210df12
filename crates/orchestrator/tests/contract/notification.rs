//! The contract of `NotificationClient`, and what webhooks add.

use std::{net::SocketAddr, sync::Arc};

use axum::{Json, Router, extract::State, http::StatusCode, routing::post};
use orchestrator::{
    client::{
        clock::SystemClock,
        network::http::{HttpClient, HttpSettings},
        notification::{LocalNotifier, MemoryNotifier, NotifierSettings},
    },
    core::{
        client::notification::{Notification, NotificationClient, NotificationError},
        market::quantity::Micros,
    },
};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::support::Bed;

fn notification() -> Notification {
    Notification { id: "n1".into(), subject: "disk full".into(), body: json!({ "free": 0 }) }
}

/// `address` is one that the service can deliver to.
async fn suite(client: &impl NotificationClient, address: &str) {
    let no_topic = |result: Result<(), NotificationError>| {
        assert!(matches!(result, Err(NotificationError::NoTopic(_))));
    };
    no_topic(client.subscribe("alerts", address).await);
    no_topic(client.unsubscribe("alerts", address).await);
    no_topic(client.publish("alerts", &notification()).await);
    for topic in ["b", "alerts", "b"] {
        client.create_topic(topic).await.unwrap();
    }
    assert_eq!(client.topics().await.unwrap(), ["alerts", "b"]);
    client.publish("alerts", &notification()).await.unwrap();
    client.subscribe("alerts", address).await.unwrap();
    client.subscribe("alerts", address).await.unwrap();
    client.create_topic("alerts").await.unwrap();
    client.publish("alerts", &notification()).await.unwrap();
    let bad = client.subscribe("alerts", "nonsense").await;
    assert!(matches!(bad, Err(NotificationError::InvalidAddress { .. })));
    client.unsubscribe("alerts", address).await.unwrap();
    client.unsubscribe("alerts", address).await.unwrap();
}

fn notifier(bed: &Bed, allow_private: bool) -> LocalNotifier {
    let http = HttpClient::new(HttpSettings { allow_private, ..HttpSettings::default() }).unwrap();
    let settings = NotifierSettings { backoff: Micros::from_millis(1), ..NotifierSettings::default() };
    LocalNotifier::new(bed.database.clone(), http, Arc::new(SystemClock::new()), settings)
}

type Seen = Arc<Mutex<Vec<Value>>>;

/// A webhook that answers with these statuses in turn, then with 200.
async fn webhook(statuses: Vec<u16>) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let answer = move |State(seen): State<Seen>, Json(body): Json<Value>| async move {
        let mut seen = seen.lock();
        seen.push(body);
        StatusCode::from_u16(statuses.get(seen.len() - 1).copied().unwrap_or(200)).unwrap()
    };
    let router = Router::new().route("/hook", post(answer)).with_state(seen.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, seen)
}

#[tokio::test]
async fn in_memory() {
    let client = Arc::new(MemoryNotifier::new());
    suite(&MemoryNotifier::new(), "log:").await;
    client.create_topic("t").await.unwrap();
    client.subscribe("t", "log:").await.unwrap();
    client.publish("t", &notification()).await.unwrap();
    assert_eq!(client.delivered(), [("log:".to_owned(), notification())]);
}

#[tokio::test]
async fn over_the_memory_database() {
    suite(&notifier(&Bed::memory().await, false), "log:").await;
}

#[tokio::test]
async fn over_the_sqlite_database() {
    suite(&notifier(&Bed::sqlite().await, false), "log:").await;
}

#[cfg(feature = "mongodb")]
#[tokio::test]
async fn over_mongodb() {
    suite(&notifier(&Bed::mongodb().await, false), "log:").await;
}

#[tokio::test]
async fn webhooks_get_json_after_a_restart_and_a_bounded_number_of_attempts() {
    let bed = Bed::sqlite().await;
    let (address, seen) = webhook(vec![503, 429, 200, 500, 500, 500, 400]).await;
    let first = notifier(&bed, true);
    first.create_topic("t").await.unwrap();
    first.subscribe("t", &format!("http://{address}/hook")).await.unwrap();
    drop(first);
    let client = notifier(&bed, true);
    client.publish("t", &notification()).await.unwrap();
    assert_eq!(seen.lock().len(), 3, "two failures that may pass, then success");
    let expected = json!({ "topic": "t", "id": "n1", "subject": "disk full", "body": { "free": 0 } });
    assert!(seen.lock().iter().all(|body| *body == expected));
    let failed = client.publish("t", &notification()).await;
    assert!(matches!(failed, Err(NotificationError::Undelivered(_))));
    assert_eq!(seen.lock().len(), 6, "three attempts and no more");
    assert!(client.publish("t", &notification()).await.is_err());
    assert_eq!(seen.lock().len(), 7, "a refusal is not tried again");
    client.publish("t", &notification()).await.unwrap();
}

#[tokio::test]
async fn private_webhooks_are_refused_at_subscription_and_at_delivery() {
    let bed = Bed::memory().await;
    let (address, seen) = webhook(vec![]).await;
    let url = format!("http://localhost:{}/hook", address.port());
    let strict = notifier(&bed, false);
    strict.create_topic("t").await.unwrap();
    for bad in [format!("http://{address}/hook"), "http://[::1]/".into(), "http://u:p@example.com/".into()] {
        let result = strict.subscribe("t", &bad).await;
        assert!(matches!(result, Err(NotificationError::InvalidAddress { .. })), "{bad}");
    }
    // A name is only known by what it resolves to when it is called.
    strict.subscribe("t", &url).await.unwrap();
    assert!(matches!(strict.publish("t", &notification()).await, Err(NotificationError::Undelivered(_))));
    assert_eq!(seen.lock().len(), 0);
}

#[cfg(all(feature = "sns", feature = "sqs"))]
mod at_sns {
    use orchestrator::{
        client::{notification::SnsNotifier, queue::SqsQueue},
        core::client::queue::QueueClient,
    };

    use super::*;
    use crate::contract::aws::{self, clients};

    async fn subscriber() -> (SnsNotifier, Arc<SqsQueue>, String) {
        let clients = clients("sns").await;
        let queue = aws::queue(&clients);
        queue.create("alerts").await.unwrap();
        let arn = queue.arn("alerts").await.unwrap();
        queue.allow("alerts", "sns.amazonaws.com", "alerts", "arn:aws:sns:*:*:*").await.unwrap();
        (SnsNotifier::new(clients), queue, arn)
    }

    #[tokio::test]
    async fn at_sns() {
        let (client, queue, address) = subscriber().await;
        suite(&client, &address).await;
        // Of the two that were published one had a subscriber.
        let came = queue.receive("alerts", 10, Micros::from_secs(30), Micros::from_secs(20)).await.unwrap();
        let bodies: Vec<Value> = came.iter().map(|m| serde_json::from_str(&m.body).unwrap()).collect();
        let expected =
            json!({ "topic": "alerts", "id": "n1", "subject": "disk full", "body": { "free": 0 } });
        assert_eq!(bodies, [expected]);
        client.publish("alerts", &notification()).await.unwrap();
        assert_eq!(
            queue.receive("alerts", 10, Micros::from_secs(30), Micros::from_secs(1)).await.unwrap(),
            []
        );
    }

    #[tokio::test]
    async fn alerts_with_any_subject_and_of_any_length_arrive() {
        let (client, queue, address) = subscriber().await;
        client.create_topic("alerts").await.unwrap();
        client.subscribe("alerts", &address).await.unwrap();
        let odd = Notification {
            id: "n2".into(),
            subject: "\u{e4}\n".repeat(200),
            body: json!("\"".repeat(300 << 10)),
        };
        client.publish("alerts", &odd).await.unwrap();
        let came = queue.receive("alerts", 10, Micros::from_secs(30), Micros::from_secs(20)).await.unwrap();
        let body: Value = serde_json::from_str(&came[0].body).unwrap();
        assert_eq!((&body["id"], &body["subject"]), (&json!("n2"), &json!(odd.subject)));
        assert!(body["body"]["truncated"].as_str().unwrap().len() > 10_000);
    }

    #[tokio::test]
    async fn a_topic_of_somebody_elses_is_used_and_never_made() {
        let clients = clients("theirs").await;
        let arn = clients.arn("sns", &clients.name("by-hand")).await.unwrap();
        let ours = SnsNotifier::new(clients.clone()).with_existing("alerts", arn);
        assert!(matches!(ours.create_topic("alerts").await, Err(NotificationError::NoTopic(_))));
        SnsNotifier::new(clients).create_topic("by-hand").await.unwrap();
        ours.create_topic("alerts").await.unwrap();
        ours.publish("alerts", &notification()).await.unwrap();
    }
}
