//! Keys: made, shown once, revoked; who may do what; the audit log.

use orchestrator::core::{client::schema, market::quantity::Micros};
use serde_json::json;

use super::harness::Api;

#[tokio::test]
async fn a_key_opens_until_it_is_revoked_and_its_secret_is_stored_nowhere() {
    let api = Api::start().await;
    let consumer = api.consumer().await;
    let me = api.get(&consumer.key, "/me").await.ok(200);
    assert_eq!((me["role"].as_str(), me["tenant"].as_str()), (Some("consumer"), Some(consumer.id.as_str())));
    let listed = api.get(&consumer.key, "/keys").await.ok(200);
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let secret = consumer.key.rsplit('_').next().unwrap();
    assert!(!listed.to_string().contains(secret));
    let id = listed["items"][0]["id"].as_str().unwrap().to_owned();
    let revoked = api.post(&consumer.key, &format!("/keys/{id}/revoke"), json!({})).await.ok(200);
    assert!(revoked["revoked_at"].is_string());
    // At once, although it was remembered a moment ago.
    api.get(&consumer.key, "/me").await.problem(401, "unauthenticated", None);
}

#[tokio::test]
async fn a_revocation_elsewhere_counts_when_the_memory_runs_out() {
    use orchestrator::core::{
        client::database::{Changeset, Committer, ReaderExt},
        market::party::ApiKey,
    };
    let api = Api::start().await;
    let me = api.get(&api.operator, "/me").await.ok(200);
    let id = me["key"].as_str().unwrap();
    let mut stored = api.database.load::<ApiKey>(id).await.unwrap().unwrap();
    stored.value.revoked_at = Some(api.work.now());
    let mut changes = Changeset::new();
    changes.replace(stored.version, &stored.value);
    api.database.commit(changes).await.unwrap();
    api.get(&api.operator, "/me").await.ok(200);
    api.clock.advance(Micros::from_secs(3));
    api.get(&api.operator, "/me").await.problem(401, "unauthenticated", None);
}

#[tokio::test]
async fn a_replayed_creation_makes_no_second_key_and_shows_no_secret() {
    let api = Api::start().await;
    let body = json!({"label": "mine"});
    let first = api.post_once(&api.operator, "/keys", "k", body.clone()).await.ok(201);
    let keys = api.count(schema::API_KEYS).await;
    let again = api.post_once(&api.operator, "/keys", "k", body).await;
    again.problem(410, "secret_gone", None);
    assert_eq!(again.body["extra"]["key"], first["id"]);
    api.post_once(&api.operator, "/keys", "k", json!({"label": "other"})).await.problem(
        409,
        "idempotency_key_reused",
        None,
    );
    assert_eq!(api.count(schema::API_KEYS).await, keys);
}

#[tokio::test]
async fn only_operators_make_keys_for_others_and_only_for_those_that_exist() {
    let api = Api::start().await;
    let (one, other) = (api.consumer().await, api.consumer().await);
    let before = api.documents().await;
    let for_other = json!({"tenant": other.id, "label": "x"});
    api.post(&one.key, "/keys", for_other).await.problem(403, "forbidden", None);
    api.post(&one.key, "/keys", json!({"tenant": "operator", "label": "x"})).await.problem(
        403,
        "forbidden",
        None,
    );
    let nobody = json!({"tenant": "cons_00000000000000000000000000000001", "label": "x"});
    api.post(&api.operator, "/keys", nobody).await.problem(422, "invalid_field", Some("tenant"));
    let junk = json!({"tenant": "me", "label": "x"});
    api.post(&api.operator, "/keys", junk).await.problem(422, "invalid_field", Some("tenant"));
    api.post(&one.key, "/keys", json!({"label": " "})).await.problem(422, "invalid_field", Some("label"));
    let keys = api.get(&other.key, "/keys").await.ok(200);
    let path = format!("/keys/{}/revoke", keys["items"][0]["id"].as_str().unwrap());
    api.post(&one.key, &path, json!({})).await.problem(404, "not_found", None);
    assert_eq!(api.documents().await, before);
    api.post(&one.key, "/keys", json!({"label": "second"})).await.ok(201);
}

#[tokio::test]
async fn operators_alone_see_jobs_triggers_and_the_audit_log() {
    let api = Api::start().await;
    let consumer = api.consumer().await;
    for path in ["/jobs", "/jobs/counts", "/triggers", "/audit"] {
        api.get(&consumer.key, path).await.problem(403, "forbidden", None);
        api.get(&api.operator, path).await.ok(200);
    }
    api.post(&consumer.key, "/triggers/reconcile/fire", json!({})).await.problem(403, "forbidden", None);
    let log = api.get(&api.operator, &format!("/audit?subject={}", consumer.id)).await.ok(200);
    assert_eq!(log["items"][0]["subject"], consumer.id);
    assert_eq!(log["items"][0]["principal"]["role"], "operator");
}
