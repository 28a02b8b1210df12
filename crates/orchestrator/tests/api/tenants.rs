//! Who may see and do what: another tenant's ids do not exist, for every noun; wrong roles are told so.

use orchestrator::core::market::quantity::Micros;
use serde_json::{Value, json};

use super::harness::{Api, Tenant, reservation, unit};

/// One of everything, and strangers of every role.
struct Crowd {
    api: Api,
    provider: Tenant,
    consumer: Tenant,
    unit: String,
    allocation: String,
    credential: String,
    dispute: String,
    verdict: String,
    oracle: Tenant,
    strange_provider: Tenant,
    strange_consumer: Tenant,
    strange_oracle: Tenant,
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap().to_owned()
}

fn oracle(seed: u8) -> Value {
    let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    json!({"name": "o", "public_key": hex::encode(key.verifying_key().to_bytes()), "key_id": "k"})
}

impl Crowd {
    async fn new() -> Self {
        let api = Api::start().await;
        let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
        let unit = api.unit(&provider).await;
        let allocation = api.active(&consumer, &unit).await;
        let path = format!("/allocations/{allocation}");
        let issued = api.post(&consumer.key, &format!("{path}/credentials"), json!({})).await.ok(201);
        api.run_jobs().await;
        let claim = json!({"kind": "billing", "claim": "too much", "amount": "1"});
        let dispute = api.post(&consumer.key, &format!("{path}/dispute"), claim).await.ok(201);
        let month = Micros::from_days(30);
        api.pass(month).await;
        api.clock.advance(Micros::from_secs(3_600));
        api.fire("close_sla_windows").await;
        let verdicts = api.get(&consumer.key, &format!("{path}/verdicts")).await.ok(200);
        Self {
            credential: id(&issued["credential"]),
            dispute: id(&dispute),
            verdict: id(&verdicts["items"][0]),
            oracle: api.tenant("/oracles", oracle(1)).await,
            strange_provider: api.provider().await,
            strange_consumer: api.consumer().await,
            strange_oracle: api.tenant("/oracles", oracle(2)).await,
            api,
            provider,
            consumer,
            unit,
            allocation,
        }
    }

    async fn key_of(&self, tenant: &Tenant) -> String {
        id(&self.api.get(&tenant.key, "/keys").await.ok(200)["items"][0])
    }
}

#[tokio::test]
async fn what_belongs_to_others_does_not_exist_for_reading() {
    let crowd = Crowd::new().await;
    let Crowd { api, provider, consumer, unit, allocation, credential, dispute, verdict, .. } = &crowd;
    let paths = [
        format!("/allocations/{allocation}"),
        format!("/allocations/{allocation}/verdicts"),
        format!("/allocations/{allocation}/credentials"),
        format!("/credentials/{credential}"),
        format!("/disputes/{dispute}"),
        format!("/verdicts/{verdict}"),
        format!("/verdicts/{verdict}/proof"),
        format!("/accounts/consumer:{}", consumer.id),
        format!("/accounts/consumer:{}/transfers", consumer.id),
        format!("/accounts/consumer:{}/proof", consumer.id),
        format!("/accounts/provider:{}", provider.id),
        format!("/accounts/collateral:{}", provider.id),
        format!("/accounts/escrow:{allocation}"),
        format!("/accounts/held:{dispute}"),
        format!("/consumers/{}", consumer.id),
    ];
    for path in &paths {
        for stranger in [&crowd.strange_consumer, &crowd.strange_provider, &crowd.strange_oracle] {
            let answer = api.get(&stranger.key, path).await;
            assert_eq!((answer.status, &answer.body["code"]), (404, &json!("not_found")), "{path}");
        }
        // It is there for those whom it belongs to.
        let (mine, theirs) = (api.get(&consumer.key, path).await, api.get(&provider.key, path).await);
        assert!(
            mine.status == 200 || theirs.status == 200 || path.ends_with("/proof"),
            "{path}: {}",
            mine.body
        );
    }
    let path = format!("/units/{unit}/verdicts");
    api.get(&crowd.strange_provider.key, &path).await.problem(404, "not_found", None);
    api.get(&provider.key, &path).await.ok(200);
    let path = format!("/oracles/{}", crowd.oracle.id);
    api.get(&crowd.strange_oracle.key, &path).await.problem(404, "not_found", None);
    api.get(&crowd.oracle.key, &path).await.ok(200);
    for stranger in [&crowd.strange_consumer, &crowd.strange_provider] {
        for list in ["/allocations", "/disputes"] {
            assert_eq!(api.get(&stranger.key, list).await.ok(200)["items"], json!([]), "{list}");
        }
    }
}

#[tokio::test]
async fn what_belongs_to_others_does_not_exist_for_changing_and_stays_as_it_is() {
    let crowd = Crowd::new().await;
    let Crowd { api, provider, consumer, unit, allocation, credential, dispute, .. } = &crowd;
    let keys = (crowd.key_of(consumer).await, crowd.key_of(provider).await);
    let path = format!("/allocations/{allocation}");
    let money = json!({"amount": "1"});
    let consumers = [
        (format!("{path}/fund"), json!({})),
        (format!("{path}/cancel"), json!({})),
        (format!("{path}/close"), json!({})),
        (format!("{path}/renew"), json!({"period_ms": 86_400_000})),
        (format!("{path}/dispute"), json!({"kind": "billing", "claim": "x", "amount": "1"})),
        (format!("{path}/credentials"), json!({})),
        (format!("/credentials/{credential}/rotate"), json!({})),
        (format!("/credentials/{credential}/revoke"), json!({})),
        (format!("/accounts/consumer:{}/withdrawals", consumer.id), money.clone()),
        (format!("/accounts/consumer:{}/claims", consumer.id), json!({})),
        (format!("/keys/{}/revoke", keys.0), json!({})),
    ];
    let at = |days: i64| {
        let day = Micros::from_days(1);
        let mut time = api.work.now();
        (0..days).for_each(|_| time = time.plus(day));
        time.to_rfc3339()
    };
    let price = json!({"price": {"per_gib_month": "7", "per_gib_egress": "1"}});
    let providers = [
        (format!("/units/{unit}/price"), price),
        (format!("/units/{unit}/sla"), json!({})),
        (format!("/units/{unit}/maintenance"), json!({"from": at(2), "to": at(3)})),
        (format!("/units/{unit}/maintenance/begin"), json!({"until": at(1)})),
        (format!("/units/{unit}/maintenance/end"), json!({})),
        (format!("/units/{unit}/decommission"), json!({})),
        (format!("/accounts/provider:{}/collateral", provider.id), money.clone()),
        (format!("/accounts/provider:{}/withdrawals", provider.id), money.clone()),
        (format!("{path}/dispute"), json!({"kind": "violation", "claim": "x", "amount": "1"})),
        (format!("/keys/{}/revoke", keys.1), json!({})),
    ];
    let before = api.documents().await;
    for (stranger, all) in
        [(&crowd.strange_consumer, consumers.as_slice()), (&crowd.strange_provider, providers.as_slice())]
    {
        for (path, body) in all {
            let answer = api.post(&stranger.key, path, body.clone()).await;
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (404, &json!("not_found")),
                "{path}: {}",
                answer.body
            );
        }
    }
    let decide = format!("/disputes/{dispute}/decide");
    let decision = json!({"decision": "consumer", "reason": "x"});
    api.post(&consumer.key, &decide, decision).await.problem(403, "forbidden", None);
    assert_eq!(api.documents().await, before);
}

#[tokio::test]
async fn wrong_roles_are_told_so_for_every_noun() {
    let crowd = Crowd::new().await;
    let Crowd { api, provider, consumer, allocation, oracle, dispute, .. } = &crowd;
    let jobs = api.get(&api.operator, "/jobs").await.ok(200);
    let job = id(&jobs["items"][0]);
    let unit_of = &crowd.unit;
    let operators_only = [
        ("/providers".to_owned(), json!({"name": "x"})),
        ("/consumers".to_owned(), json!({"name": "x"})),
        ("/oracles".to_owned(), self::oracle(9)),
        (format!("/oracles/{}/disable", oracle.id), json!({})),
        (format!("/oracles/{}/enable", oracle.id), json!({})),
        (format!("/accounts/consumer:{}/deposits", consumer.id), json!({"amount": "1"})),
        (format!("/disputes/{dispute}/decide"), json!({"decision": "consumer", "reason": "x"})),
        (format!("/jobs/{job}/retry"), json!({})),
        (format!("/jobs/{job}/verify"), json!({})),
        (format!("/jobs/{job}/cancel"), json!({})),
        ("/triggers/reconcile/fire".to_owned(), json!({})),
        ("/keys".to_owned(), json!({"tenant": "operator", "label": "x"})),
    ];
    let before = api.documents().await;
    for (path, body) in &operators_only {
        for key in [&consumer.key, &provider.key, &oracle.key] {
            let answer = api.post(key, path, body.clone()).await;
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (403, &json!("forbidden")),
                "{path}: {}",
                answer.body
            );
        }
    }
    for path in ["/jobs", "/jobs/counts", "/triggers", "/audit", "/ledger", "/payouts"] {
        for key in [&consumer.key, &provider.key, &oracle.key] {
            api.get(key, path).await.problem(403, "forbidden", None);
        }
    }
    let decommission = format!("/units/{unit_of}/decommission");
    for (key, path, body) in [
        (&provider.key, "/allocations/reserve", reservation(unit_of)),
        (&oracle.key, "/allocations/reserve", reservation(unit_of)),
        (&consumer.key, "/units", unit()),
        (&oracle.key, "/units", unit()),
        (&consumer.key, decommission.as_str(), json!({})),
        (&api.operator, &format!("/allocations/{allocation}/credentials"), json!({})),
    ] {
        api.post(key, path, body).await.problem(403, "forbidden", None);
    }
    assert_eq!(api.documents().await, before);
}
