//! `/events`: live, filtered by audience, and replayed after a break.

use futures::StreamExt;
use orchestrator::{
    core::{
        client::database::{Changeset, Committer},
        market::{
            event::{Audience, DomainEvent},
            ids::EventId,
        },
    },
    service::outbox::{OutboxRow, Outgoing},
};
use serde_json::json;

use super::harness::Api;

fn event(api: &Api, kind: &str, audience: Audience) -> DomainEvent {
    let (id, at) = (api.work.ids.next::<EventId>(), api.work.now());
    DomainEvent { id, kind: kind.into(), subject: "unit_1".into(), audience, data: json!({"a": 1}), at }
}

/// Reads a stream until a text has come, and returns all that came.
async fn until(response: reqwest::Response, text: &str) -> String {
    let mut stream = response.bytes_stream();
    let mut all = String::new();
    while !all.contains(text) {
        let chunk = stream.next().await.expect("the stream ended early").unwrap();
        all.push_str(std::str::from_utf8(&chunk).unwrap());
    }
    all
}

async fn open(api: &Api, key: &str, last: Option<EventId>) -> reqwest::Response {
    let mut request = api.http.get(format!("{}/events", api.url)).bearer_auth(key);
    if let Some(last) = last {
        request = request.header("last-event-id", last.to_string());
    }
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_client_sees_live_what_is_meant_for_it() {
    let api = Api::start().await;
    let consumer = api.consumer().await;
    let response = open(&api, &consumer.key, None).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    for (kind, audience) in [
        ("secret.one", Audience::Operators),
        ("other.tenant", Audience::Tenants(vec!["cons_x".into()])),
        ("own.tenant", Audience::Tenants(vec![consumer.id.clone()])),
        ("for.all", Audience::Public),
    ] {
        api.events.send(event(&api, kind, audience)).unwrap();
    }
    let text = until(response, "for.all\n").await;
    assert!(text.contains("event: own.tenant"));
    assert!(!text.contains("secret.one") && !text.contains("other.tenant"), "{text}");
}

#[tokio::test]
async fn after_a_break_the_missed_events_come_first_and_none_twice() {
    let api = Api::start().await;
    let consumer = api.consumer().await;
    let mut ids = Vec::new();
    for kind in ["first", "second", "third"] {
        api.clock.advance(orchestrator::core::market::quantity::Micros::from_millis(5));
        let event = event(&api, kind, Audience::Public);
        ids.push(event.clone());
        let row = OutboxRow {
            id: event.id,
            unsent: Some(1),
            sent_at: None,
            attempts: 0,
            created_at: event.at,
            outgoing: Outgoing::Event(event),
        };
        let mut changes = Changeset::new();
        changes.insert(&row);
        api.database.commit(changes).await.unwrap();
    }
    let response = open(&api, &consumer.key, Some(ids[0].id)).await;
    api.clock.advance(orchestrator::core::market::quantity::Micros::from_millis(5));
    // The relay publishes what was replayed, too.
    api.events.send(ids[2].clone()).unwrap();
    api.events.send(event(&api, "fourth", Audience::Public)).unwrap();
    let text = until(response, "event: fourth").await;
    let order: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(order, ["second", "third", "fourth"]);
}

#[tokio::test]
async fn a_wrong_last_id_is_refused_and_a_shutdown_ends_the_stream() {
    let api = Api::start().await;
    let request = api.http.get(format!("{}/events", api.url)).bearer_auth(&api.operator);
    let answer = api.send(request.header("last-event-id", "7")).await;
    answer.problem(400, "invalid_header", Some("last-event-id"));
    let response = open(&api, &api.operator, None).await;
    api.closing.cancel();
    let rest = response.bytes_stream().count().await;
    assert_eq!(rest, 0);
}
