//! Bad input: what every GET refuses, what every POST refuses, and that a refusal leaves nothing behind.

use orchestrator::{controller::route::openapi, core::market::quantity::Micros};
use serde_json::{Value, json};

use super::harness::{Api, reservation, unit};

const RESERVE: &str = "/allocations/reserve";
const LARGEST: &str = "340282366920938463463374607431768211455";

/// The described GETs, with ids that are well formed, and the query parameters that each takes.
fn reads() -> Vec<(String, Vec<String>)> {
    let described = serde_json::to_value(openapi()).unwrap();
    let id = |prefix: &str| format!("{prefix}_{:032x}", 1);
    let mut all = Vec::new();
    for (path, item) in described["paths"].as_object().unwrap() {
        if item["get"].is_null() {
            continue;
        }
        let named = match path.split('/').nth(1).unwrap() {
            "units" => id("unit"),
            "allocations" => id("alloc"),
            "credentials" => id("cred"),
            "verdicts" => id("sla"),
            "disputes" => id("disp"),
            "jobs" => id("job"),
            "oracles" => id("orcl"),
            "providers" => id("prov"),
            "consumers" => id("cons"),
            "accounts" => format!("consumer:{}", id("cons")),
            _ => "x".into(),
        };
        let parameters = item["get"]["parameters"].as_array().cloned().unwrap_or_default();
        let query = parameters.iter().filter(|one| one["in"] == "query");
        let names = query.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        let address = path.replace("{id}", &named).replace("{domain}", "local").replace("{number}", "1");
        all.push((address, names));
    }
    assert!(all.len() > 30);
    all
}

#[tokio::test]
async fn every_get_refuses_unknown_parameters_by_name() {
    let api = Api::start().await;
    for (path, _) in reads() {
        let answer = api.get(&api.operator, &format!("{path}?colour=red")).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        answer.problem(400, "invalid_parameter", Some("colour"));
    }
}

#[tokio::test]
async fn every_list_refuses_limits_out_of_range_and_cursors_that_are_none() {
    let api = Api::start().await;
    let mut lists = 0;
    for (path, names) in reads() {
        let has = |name: &str| names.iter().any(|known| known == name);
        if has("limit") {
            lists += 1;
            for limit in ["0", "1001", "-1", "many", "99999999999", ""] {
                let answer = api.get(&api.operator, &format!("{path}?limit={limit}")).await;
                assert_eq!(answer.status, 400, "{path} {limit}: {}", answer.body);
                answer.problem(400, "invalid_parameter", Some("limit"));
            }
        }
        if has("cursor") {
            for cursor in ["junk", "%00", "e30", "bnVsbA", "eyJrZXkiOnt9LCJpZCI6IngifQ"] {
                let answer = api.get(&api.operator, &format!("{path}?cursor={cursor}")).await;
                assert_eq!(answer.status, 400, "{path} {cursor}: {}", answer.body);
                answer.problem(400, "invalid_parameter", Some("cursor"));
            }
            // Well formed, but of another list: {"key":"zzz","id":"nothing"}. Never a fault of ours.
            let foreign = "eyJrZXkiOiJ6enoiLCJpZCI6Im5vdGhpbmcifQ";
            let answer = api.get(&api.operator, &format!("{path}?cursor={foreign}")).await;
            assert!(answer.status < 500, "{path}: {}", answer.body);
        }
    }
    assert!(lists > 10, "{lists}");
}

#[tokio::test]
async fn numbers_out_of_range_are_refused_by_field_and_leave_nothing_behind() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
    let unit_id = api.unit(&provider).await;
    let allocation = api.active(&consumer, &unit_id).await;
    let renew = format!("/allocations/{allocation}/renew");
    let (account, earner) =
        (format!("/accounts/consumer:{}", consumer.id), format!("/accounts/provider:{}", provider.id));
    let reserve = |field: &str, value: Value| {
        let mut body = reservation(&unit_id);
        body[field] = value;
        (RESERVE.to_owned(), body)
    };
    let offer = |pointer: &str, value: Value| {
        let mut body = unit();
        body["sla"] = json!({});
        match pointer.rsplit_once('/') {
            Some((parent, field)) => body[parent][field] = value,
            None => body[pointer] = value,
        }
        ("/units".to_owned(), body)
    };
    let large = json!(u64::MAX);
    let before = api.documents().await;
    let (ours, theirs) = (&consumer.key, &provider.key);
    for (key, (path, body), field) in [
        (ours, reserve("bytes", json!(0)), "bytes"),
        (ours, reserve("bytes", large.clone()), "bytes"),
        (ours, reserve("period_ms", json!(0)), "period"),
        (ours, reserve("period_ms", json!(u64::MAX / 1_000)), "period"),
        (ours, reserve("egress_allowance_bytes", large.clone()), "egress_allowance"),
        (ours, (renew.clone(), json!({"period_ms": 0})), "period"),
        (ours, (renew.clone(), json!({"period_ms": u64::MAX / 1_000})), "period"),
        (
            ours,
            (renew.clone(), json!({"period_ms": 86_400_000, "egress_allowance_bytes": large})),
            "egress_allowance",
        ),
        (&api.operator, (format!("{account}/deposits"), json!({"amount": "0"})), "amount"),
        (ours, (format!("{account}/withdrawals"), json!({"amount": "0"})), "amount"),
        (theirs, (format!("{earner}/collateral"), json!({"amount": "0"})), "amount"),
        (theirs, offer("capacity_bytes", json!(0)), "capacity"),
        (theirs, offer("capacity_bytes", large.clone()), "capacity"),
        (theirs, offer("sla/uptime_ppm", json!(1_000_001)), "sla"),
        (theirs, offer("sla/error_rate_ppm", json!(1_000_001)), "sla"),
        (theirs, offer("sla/min_coverage_ppm", json!(1_000_001)), "sla"),
        (theirs, offer("country", json!("Germany")), "country"),
        (theirs, offer("name", json!(" ")), "name"),
        (theirs, offer("name", json!("x".repeat(1_000))), "name"),
    ] {
        let answer = api.post(key, &path, body.clone()).await;
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (422, &json!("invalid_field")),
            "{path} {body}: {}",
            answer.body
        );
        let named = answer.body["field"].as_str().unwrap_or_default();
        assert!(named.starts_with(field), "{path} {body}: {named}");
    }
    // Amounts that nobody has are a matter of the lifecycle of money, not of a field.
    for (key, path) in [(ours, format!("{account}/withdrawals")), (theirs, format!("{earner}/collateral"))] {
        let answer = api.post(key, &path, json!({"amount": LARGEST})).await;
        answer.problem(409, "insufficient_funds", None);
    }
    let deposit = api.post(&api.operator, &format!("{account}/deposits"), json!({"amount": LARGEST})).await;
    deposit.problem(422, "overflow", Some("amount"));
    assert_eq!(api.documents().await, before);
}

#[tokio::test]
async fn an_sla_that_no_unit_meets_names_the_filters_and_the_one_to_loosen() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.consumer().await);
    for (name, region, latency) in [("a", "eu-1", 50), ("b", "eu-1", 60), ("c", "us-1", 70)] {
        let mut body = unit();
        (body["name"], body["region"]) = (json!(name), json!(region));
        body["sla"] = json!({"latency_avg_ms": latency});
        api.post(&provider.key, "/units", body).await.ok(201);
    }
    let before = api.documents().await;
    let page = api.get(&consumer.key, "/market/offerings?max_latency_ms=40&region=eu-1").await.ok(200);
    assert_eq!((&page["items"], &page["matching"], &page["considered"]), (&json!([]), &json!(0), &json!(3)));
    assert_eq!(page["loosest"], "max_latency");
    let removed = |answer: &Value, filter: &str| {
        let all = answer["removed"].as_array().unwrap().clone();
        let one = all.into_iter().find(|one| one["filter"] == filter).unwrap();
        (one["removed"].as_u64().unwrap(), one["would_add"].as_u64().unwrap())
    };
    assert_eq!(removed(&page, "max_latency"), (3, 2));
    assert_eq!(removed(&page, "region"), (1, 0));
    let filter = json!({"max_latency_ms": 40, "region": "eu-1"});
    let body = json!({"filter": filter, "bytes": 1024, "period_ms": 86_400_000});
    let answer = api.post(&consumer.key, RESERVE, body).await;
    answer.problem(422, "no_matching_offering", None);
    assert_eq!(removed(&answer.body["extra"], "max_latency"), (3, 2), "{}", answer.body);
    assert_eq!(removed(&answer.body["extra"], "region"), (1, 0));
    assert_eq!(answer.body["extra"]["loosest"], "max_latency");
    assert_eq!(api.documents().await, before);
}

#[tokio::test]
async fn an_expired_reservation_is_not_funded_and_gives_its_room_back() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
    let unit_id = api.unit(&provider).await;
    let made = api.post(&consumer.key, RESERVE, reservation(&unit_id)).await.ok(202);
    let path = format!("/allocations/{}", made["id"].as_str().unwrap());
    api.clock.advance(Micros::from_secs(15 * 60 + 1));
    let before = api.documents().await;
    let late = api.post(&consumer.key, &format!("{path}/fund"), json!({})).await;
    late.problem(409, "reservation_expired", None);
    assert_eq!(api.documents().await, before);
    assert_eq!(api.fire("expire_reservations").await["changed"], 1);
    assert_eq!(api.get(&consumer.key, &path).await.ok(200)["state"], "expired");
    let unit = api.get(&provider.key, &format!("/units/{unit_id}")).await.ok(200);
    assert_eq!(unit["free_bytes"], unit["capacity_bytes"]);
    let account = api.get(&consumer.key, &format!("/accounts/consumer:{}", consumer.id)).await.ok(200);
    assert_eq!(account["balance"], "1000000000");
}

#[tokio::test]
async fn malformed_bodies_are_refused_by_every_post() {
    let api = Api::start().await;
    let described = serde_json::to_value(openapi()).unwrap();
    let before = api.documents().await;
    let mut posts = 0;
    for (path, item) in described["paths"].as_object().unwrap() {
        if item["post"].is_null() {
            continue;
        }
        posts += 1;
        let id = match path.split('/').nth(1).unwrap() {
            "providers" => "prov_00000000000000000000000000000001",
            "units" => "unit_00000000000000000000000000000001",
            "allocations" => "alloc_00000000000000000000000000000001",
            "credentials" => "cred_00000000000000000000000000000001",
            "disputes" => "disp_00000000000000000000000000000001",
            "jobs" => "job_00000000000000000000000000000001",
            "oracles" => "orcl_00000000000000000000000000000001",
            "keys" => "key_00000000000000000000000000000001",
            "accounts" => "fees",
            _ => "reconcile",
        };
        let address = format!("{}{}", api.url, path.replace("{id}", id).replace("{domain}", "local"));
        let post = |kind: &str, body: &str| {
            let request = api.http.post(&address).bearer_auth(&api.operator);
            api.send(request.header("content-type", kind.to_owned()).body(body.to_owned()))
        };
        for body in ["{", "[", "nul", "{} {}", "\u{0}", "{\"surely_unknown\": 1}", "[]", "7"] {
            let answer = post("application/json", body).await;
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (400, &json!("malformed_body")),
                "{path} {body}: {}",
                answer.body
            );
        }
        let answer = post("application/json", "{\"surely_unknown\": 1}").await;
        assert_eq!(answer.body["field"], "surely_unknown", "{path}");
        post("text/plain", "{}").await.problem(415, "unsupported_media_type", None);
        let keyed = api.http.post(&address).bearer_auth(&api.operator).header("idempotency-key", "two words");
        api.send(keyed).await.problem(400, "invalid_header", Some("idempotency-key"));
        let large = api.http.post(&address).bearer_auth(&api.operator).body("x".repeat((1 << 20) + 1));
        api.send(large).await.problem(413, "body_too_large", None);
    }
    assert!(posts > 25, "{posts}");
    assert_eq!(api.documents().await, before);
}

#[tokio::test]
async fn a_deeply_nested_body_is_refused_and_the_service_goes_on() {
    let api = Api::start().await;
    let deep = format!("{{\"name\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let request = api.http.post(format!("{}/consumers", api.url)).bearer_auth(&api.operator);
    let answer = api.send(request.header("content-type", "application/json").body(deep)).await;
    assert_eq!(answer.status, 400, "{}", answer.body);
    api.get(&api.operator, "/me").await.ok(200);
}

#[tokio::test]
async fn a_key_used_with_another_body_is_refused_by_every_kind_of_change() {
    let api = Api::start().await;
    let (provider, consumer) = (api.provider().await, api.rich_consumer().await);
    let unit_id = api.unit(&provider).await;
    let allocation = api.active(&consumer, &unit_id).await;
    let account = format!("/accounts/consumer:{}", consumer.id);
    let mut smaller = reservation(&unit_id);
    smaller["bytes"] = json!(1024);
    let (mut one, mut two) = (unit(), unit());
    (one["name"], two["name"]) = (json!("one"), json!("two"));
    let amounts = (json!({"amount": "5"}), json!({"amount": "6"}));
    let contest = |claim: &str| json!({"kind": "billing", "claim": claim, "amount": "1"});
    let price = |price: &str| json!({"price": {"per_gib_month": price, "per_gib_egress": "1"}});
    for (key, path, first, other) in [
        (&consumer.key, RESERVE.to_owned(), reservation(&unit_id), smaller),
        (
            &consumer.key,
            format!("/allocations/{allocation}/renew"),
            json!({"period_ms": 86_400_000}),
            json!({"period_ms": 86_400_001}),
        ),
        (&consumer.key, format!("/allocations/{allocation}/dispute"), contest("a"), contest("b")),
        (&api.operator, format!("{account}/deposits"), amounts.0.clone(), amounts.1.clone()),
        (&consumer.key, format!("{account}/withdrawals"), amounts.0, amounts.1),
        (&provider.key, "/units".into(), one, two),
        (&provider.key, format!("/units/{unit_id}/price"), price("7"), price("8")),
        (
            &provider.key,
            format!("/units/{unit_id}/sla"),
            json!({"latency_avg_ms": 40}),
            json!({"latency_avg_ms": 41}),
        ),
        (&api.operator, "/consumers".into(), json!({"name": "a"}), json!({"name": "b"})),
        (&api.operator, "/providers".into(), json!({"name": "a"}), json!({"name": "b"})),
        (&consumer.key, format!("/allocations/{allocation}/close"), json!({}), json!(null)),
    ] {
        let made = api.post_once(key, &path, "same", first.clone()).await;
        assert!(made.status < 300, "{path}: {}", made.body);
        let before = api.documents().await;
        let again = api.post_once(key, &path, "same", first).await;
        assert_eq!((again.status, &again.body), (made.status, &made.body), "{path}");
        if !other.is_null() {
            let answer = api.post_once(key, &path, "same", other).await;
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (409, &json!("idempotency_key_reused")),
                "{path}"
            );
        }
        assert_eq!(api.documents().await, before, "{path}");
    }
}
