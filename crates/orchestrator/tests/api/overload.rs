//! More than can be done: refused at once, with the time to come again, and nothing of it done.

use orchestrator::{
    controller::route::ApiSettings,
    core::{
        client::{
            database::{Changeset, Committer as _, Expect},
            schema,
        },
        market::quantity::Micros,
    },
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    harness::{Answer, Api},
    world::MAX_BACKLOG,
};

fn refused(answer: &Answer) -> u64 {
    answer.problem(429, "rate_limited", None);
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    seconds
}

/// A request whose body has not come yet.
async fn begun(api: &Api, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(api.address).await.unwrap();
    let head = format!(
        "POST /consumers HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
        api.operator,
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body when the request is being worked on.
    let mut go_on = [0; 21];
    stream.read_exact(&mut go_on).await.unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue");
    stream
}

#[tokio::test]
async fn requests_beyond_those_that_are_worked_on_are_refused_until_there_is_room() {
    let api = Api::with(ApiSettings { max_in_flight: 3, ..ApiSettings::default() }).await;
    let body = r#"{"name": "slow"}"#;
    let mut slow = Vec::new();
    for _ in 0..3 {
        slow.push(begun(&api, body).await);
    }
    for _ in 0..10 {
        assert_eq!(refused(&api.post(&api.operator, "/consumers", json!({"name": "more"})).await), 1);
        assert_eq!(refused(&api.get(&api.operator, "/me").await), 1);
    }
    // What tells how it stands is always answered.
    for path in ["/health/live", "/health/ready", "/metrics"] {
        api.get(&api.operator, path).await.ok(200);
    }
    // One who goes away makes room, too.
    drop(slow.pop());
    for stream in &mut slow {
        stream.write_all(body.as_bytes()).await.unwrap();
    }
    for mut stream in slow {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("201 Created"), "{answer}");
    }
    while api.get(&api.operator, "/me").await.status == 429 {}
    let known = api.get(&api.operator, "/consumers").await.ok(200);
    assert_eq!(known["items"].as_array().unwrap().len(), 2, "what was refused left nothing: {known}");
}

#[tokio::test]
async fn while_too_many_jobs_wait_customers_come_again_and_operators_may_mend_it() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
    let unit = api.unit(&provider).await;
    let ask = || json!({"unit": unit, "bytes": 1_048_576, "period_ms": 86_400_000_u64});
    api.clock.advance(Micros::from_secs(2));
    let mut changes = Changeset::new();
    for number in 0..=MAX_BACKLOG {
        changes.insert_json(schema::JOBS, number.to_string(), &json!({"dedup": number, "due": 1}));
    }
    api.database.commit(changes).await.unwrap();
    let seconds = refused(&api.post(&consumer.key, "/allocations/reserve", ask()).await);
    assert!((1..=60).contains(&seconds), "{seconds}");
    let known = api.get(&consumer.key, "/allocations").await.ok(200);
    assert_eq!(known["items"], json!([]), "reading goes on, and nothing was done");
    api.post(&api.operator, "/consumers", json!({"name": "by the operator"})).await.ok(201);
    let mut done = Changeset::new();
    for number in 0..=MAX_BACKLOG {
        done.delete(schema::JOBS, number.to_string(), Expect::Version(1));
    }
    api.database.commit(done).await.unwrap();
    refused(&api.post(&consumer.key, "/allocations/reserve", ask()).await);
    api.clock.advance(Micros::from_secs(1));
    api.post(&consumer.key, "/allocations/reserve", ask()).await.ok(202);
}
