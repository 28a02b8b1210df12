//! `/events`: live, filtered by audience, and replayed after a break.

use futures::StreamExt;
use orchestrator::{
    core::{
        client::{
            database::{Changeset, Committer, Expect},
            schema,
        },
        market::{
            event::{Audience, DomainEvent},
            ids::EventId,
            quantity::Micros,
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

/// An event in the outbox, published or not.
async fn keep(api: &Api, event: &DomainEvent, sent_at: Option<i64>) {
    let row = OutboxRow {
        id: event.id,
        unsent: sent_at.is_none().then_some(1),
        sent_at,
        attempts: 0,
        created_at: event.at,
        outgoing: Outgoing::Event(event.clone()),
    };
    let mut changes = Changeset::new();
    changes.insert(&row);
    api.database.commit(changes).await.unwrap();
}

/// The kinds of the test's own events, in the order in which they came.
fn kinds(text: &str) -> Vec<&str> {
    let all = text.lines().filter_map(|line| line.strip_prefix("event: "));
    all.filter(|kind| !kind.contains('.')).collect()
}

const MILLI: Micros = Micros::from_millis(1);

#[tokio::test]
async fn after_a_break_the_missed_events_come_first_and_none_twice() {
    let api = Api::start().await;
    let consumer = api.consumer().await;
    let mut events = Vec::new();
    for (kind, is_sent) in [("first", true), ("second", true), ("third", false)] {
        api.clock.advance(MILLI);
        let event = event(&api, kind, Audience::Public);
        keep(&api, &event, is_sent.then(|| api.work.now().as_micros())).await;
        events.push(event);
    }
    let response = open(&api, &consumer.key, Some(events[0].id)).await;
    api.clock.advance(MILLI);
    // The relay publishes what was replayed, too.
    api.events.send(events[2].clone()).unwrap();
    api.events.send(event(&api, "fourth", Audience::Public)).unwrap();
    let text = until(response, "event: fourth").await;
    assert_eq!(kinds(&text), ["second", "third", "fourth"]);
}

#[tokio::test]
async fn an_event_that_was_committed_after_a_later_one_is_not_missed() {
    let api = Api::start().await;
    let consumer = api.consumer().await;
    // Both ids are of one millisecond; the greater one was committed and published first, and seen.
    let (one, two) = (event(&api, "one", Audience::Public), event(&api, "two", Audience::Public));
    let (early, late) = if one.id < two.id { (one, two) } else { (two, one) };
    let now = api.work.now().as_micros();
    for sent_at in [now + 10, now, now - 500_000] {
        keep(&api, &late, Some(now)).await;
        keep(&api, &early, Some(sent_at)).await;
        let end = event(&api, "end", Audience::Public);
        let response = open(&api, &consumer.key, Some(late.id)).await;
        api.events.send(end).unwrap();
        let text = until(response, "event: end").await;
        assert_eq!(kinds(&text), [early.kind.as_str(), "end"], "{sent_at}");
        let mut gone = Changeset::new();
        for id in [late.id, early.id] {
            gone.delete(schema::OUTBOX, id, Expect::Version(1));
        }
        api.database.commit(gone).await.unwrap();
    }
}

#[tokio::test]
async fn a_last_event_that_is_kept_no_more_lets_everything_later_come() {
    let api = Api::start().await;
    let consumer = api.consumer().await;
    let gone = event(&api, "gone", Audience::Public);
    api.clock.advance(Micros::from_secs(5));
    let kept = event(&api, "kept", Audience::Public);
    keep(&api, &kept, Some(api.work.now().as_micros())).await;
    let response = open(&api, &consumer.key, Some(gone.id)).await;
    api.events.send(event(&api, "end", Audience::Public)).unwrap();
    let text = until(response, "event: end").await;
    assert_eq!(kinds(&text), ["kept", "end"]);
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
