//! The end of a run under load: what was acknowledged is held against what the daemon says, what took effect at the provider
//! and at the settlement layer against what was asked. What is there twice and what is missing are told apart.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use reqwest::Method;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    harness::{Api, Place, text, wait_for},
    load::{Consumer, amount, stubborn},
};

/// What a run came to.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// Answers that were acknowledged and held against the state.
    pub(crate) acknowledged: u64,
    /// What took effect at the provider and at the settlement layer.
    pub(crate) effects: u64,
    /// What is there more often than it was asked for.
    pub(crate) doubled: Vec<String>,
    /// What was acknowledged, or follows from it, and is not there.
    pub(crate) lost: Vec<String>,
}

impl Judged {
    pub(crate) fn is_good(&self) -> bool {
        self.doubled.is_empty() && self.lost.is_empty()
    }

    /// Fails the test unless everything is there once.
    pub(crate) fn expect_good(self) -> Self {
        assert!(self.is_good(), "doubled: {:#?}\nlost: {:#?}", self.doubled, self.lost);
        self
    }

    /// What should be there so many times.
    fn counted(&mut self, what: impl fmt::Display, found: u64, expected: u64) {
        match found.cmp(&expected) {
            std::cmp::Ordering::Greater => self.doubled.push(format!("{what}: {found} for {expected}")),
            std::cmp::Ordering::Less => self.lost.push(format!("{what}: {found} of {expected}")),
            std::cmp::Ordering::Equal => {}
        }
    }

    /// What should be there, each once; an item that is repeated in `found` is there twice.
    fn each_once<T: Ord + fmt::Debug>(
        &mut self,
        what: impl fmt::Display,
        found: Vec<T>,
        expected: &BTreeSet<T>,
    ) {
        let mut seen = BTreeSet::new();
        for item in found {
            if !expected.contains(&item) || seen.contains(&item) {
                self.doubled.push(format!("{what}: {item:?}"));
            }
            seen.insert(item);
        }
        let missing = expected.difference(&seen).map(|item| format!("{what}: {item:?}"));
        self.lost.extend(missing);
    }
}

/// Holds everything against everything, and fails the test when something is there twice or is missing.
pub(crate) async fn judge(operator: &Api, provider: &Api, consumers: &mut [Consumer]) -> Judged {
    examine(operator, provider, consumers).await.expect_good()
}

/// Holds everything that was acknowledged against what the daemon says, closes what is open, waits until nothing is left to
/// do, and does the accounts. Ends early when something is found.
pub(crate) async fn examine(operator: &Api, provider: &Api, consumers: &mut [Consumer]) -> Judged {
    let mut judged = Judged::default();
    for consumer in consumers.iter_mut() {
        consumer.hold_against_the_daemon(&mut judged).await;
    }
    let bought: usize = consumers.iter().map(|consumer| consumer.bought.len()).sum();
    let stored: usize = consumers.iter().flat_map(|c| &c.bought).map(|b| b.stored.len()).sum();
    assert!(bought > 0 && stored > 0, "the clients got nowhere: {bought} bought, {stored} stored");
    if !judged.is_good() {
        return judged;
    }
    for consumer in consumers.iter_mut() {
        while consumer.bought.iter().any(|b| !b.closed) {
            consumer.close_first().await;
        }
    }
    for consumer in consumers.iter() {
        for bought in &consumer.bought {
            consumer.api.until(&bought.id, "closed").await;
        }
        consumer.accounts_add_up().await;
    }
    everything_drains(operator).await;
    let unit = &operator.all("/units").await[0];
    assert_eq!(unit["state"], "available", "{unit}");
    assert_eq!(unit["free_bytes"], unit["capacity_bytes"], "{unit}");
    provider_agrees(operator, provider, consumers, &mut judged).await;
    let acknowledged = consumers.iter().map(|consumer| {
        let objects: usize = consumer.bought.iter().map(|bought| bought.stored.len()).sum();
        // Each purchase is reserved, funded, given a key and closed.
        consumer.deposits.len() + consumer.withdrawals.len() + 4 * consumer.bought.len() + objects
    });
    judged.acknowledged = acknowledged.sum::<usize>() as u64;
    judged
}

impl Consumer {
    async fn hold_against_the_daemon(&mut self, judged: &mut Judged) {
        for bought in &self.bought {
            let (id, body) = (&bought.id, Some(&bought.ask));
            let again =
                stubborn(&self.api, Method::POST, "/allocations/reserve", body, Some(&bought.key)).await;
            assert_eq!(again.0, 202, "{}", again.1);
            if text(&again.1, "id") != *id {
                judged.doubled.push(format!("{id} was reserved as {} again", again.1["id"]));
            }
            let Some(store) = bought.store.as_ref().filter(|_| !bought.closed) else { continue };
            for object in &bought.stored {
                let found = store.get(&object.key).await.map(|body| Sha256::digest(body).into());
                if found != Some(object.hash) {
                    judged.lost.push(format!("object {} of {id}", object.key));
                }
            }
        }
        let ids: BTreeSet<String> = self.bought.iter().map(|bought| bought.id.clone()).collect();
        judged.counted("allocations for reservations", self.bought.len() as u64, ids.len() as u64);
        let known = self.api.all("/allocations").await;
        judged.each_once("allocation", known.iter().map(|a| text(a, "id")).collect(), &ids);
        let transfers = self.api.all(&format!("{}/transfers", self.account())).await;
        let of = |kind: &'static str| transfers.iter().filter(move |transfer| transfer["kind"] == kind);
        let deposits = of("deposit").map(|transfer| {
            let subject = transfer["subject"].as_str();
            let index = subject.and_then(|subject| subject.strip_prefix("deposit:")).unwrap();
            (index.parse().unwrap(), amount(&transfer["amount"]))
        });
        let expected: BTreeSet<(u64, u128)> =
            self.deposits.iter().map(|(index, sum)| (*index, *sum)).collect();
        judged.each_once("deposit", deposits.collect(), &expected);
        let withdrawals = of("withdraw").map(|t| (text(t, "id"), amount(&t["amount"])));
        let expected = self.withdrawals.iter().map(|(id, sum)| (id.clone(), *sum)).collect();
        judged.each_once("withdrawal", withdrawals.collect(), &expected);
        let funded = of("fund").map(|transfer| text(transfer, "credit"));
        let escrows = ids.iter().map(|id| format!("escrow:{id}")).collect();
        judged.each_once("funding", funded.collect(), &escrows);
    }

    /// After everything is closed: what came in is what is there, what went out, and what the storage cost.
    async fn accounts_add_up(&self) {
        let (mut paid, mut credited) = (0, 0);
        for bought in &self.bought {
            let allocation = self.api.get(&format!("/allocations/{}", bought.id)).await;
            paid += amount(&allocation["paid"]);
            credited += amount(&allocation["credited"]);
            let escrow = self.operator.get(&format!("/accounts/escrow:{}", bought.id)).await;
            assert_eq!(escrow["balance"], "0", "{escrow}");
        }
        let balance = amount(&self.api.get(&self.account()).await["balance"]);
        let out: u128 = self.withdrawals.values().sum();
        assert_eq!(self.deposits.values().sum::<u128>() + credited, balance + out + paid);
    }
}

/// No job waits, none was given up, every change lies in a final block, and the accounts sum to zero.
async fn everything_drains(operator: &Api) {
    wait_for("the end of all jobs and final blocks", || async {
        let counts = operator.get("/jobs/counts").await;
        let waiting = counts["by_state"].as_object().unwrap().iter().any(|(state, count)| {
            !["completed", "failed", "cancelled"].contains(&state.as_str()) && count.as_u64() != Some(0)
        });
        let ledger = operator.get("/ledger").await;
        let blocks = operator.all("/blocks").await;
        let done =
            !waiting && ledger["unsealed"] == 0 && blocks.iter().all(|block| block["state"] == "final");
        (done && !blocks.is_empty()).then_some(())
    })
    .await;
    let failed = operator.all("/jobs?state=failed").await;
    assert!(failed.is_empty(), "jobs were given up: {failed:?}");
    let ledger = operator.get("/ledger").await;
    assert_eq!((&ledger["sum"], &ledger["balanced"]), (&json!("0"), &json!(true)), "{ledger}");
}

/// The provider has the prober's own allocation and no other, and did everything once.
async fn provider_agrees(operator: &Api, provider: &Api, consumers: &[Consumer], judged: &mut Judged) {
    let there = provider.get("/allocations").await;
    let there = there["allocations"].as_array().unwrap().iter().map(|id| hex_of(id.as_str().unwrap()));
    let probe = hex_of(&operator.unit().await);
    let orphans: Vec<_> = there.filter(|id| *id != probe).collect();
    assert!(orphans.is_empty(), "orphans: {orphans:?}");
    for consumer in consumers {
        for bought in &consumer.bought {
            let id = &bought.id;
            let keys = consumer.api.all(&format!("/allocations/{id}/credentials")).await.len() as u64;
            let effects = provider.get(&format!("/allocations/{id}/effects")).await;
            let count = |operation: &str| effects["effects"][operation].as_u64().unwrap_or_default();
            judged.counted(format!("allocate of {id}"), count("allocate"), 1);
            judged.counted(format!("deallocate of {id}"), count("deallocate"), 1);
            judged.counted(format!("put_key of {id}"), count("put_key"), keys);
            // Keys go with the allocation, at the latest; access is narrowed at most once and widened at most once.
            judged.counted(format!("delete_key of {id}"), count("delete_key").max(keys), keys);
            judged.counted(format!("restrict of {id}"), count("restrict").max(2), 2);
            let all = effects["effects"].as_object().unwrap().values().filter_map(Value::as_u64);
            judged.effects += all.sum::<u64>();
        }
    }
}

fn hex_of(id: &str) -> String {
    id.rsplit('_').next().unwrap_or_default().to_owned()
}

/// The settlement layer's own book, once the daemon has ended: each deposit came once, and each block was registered once
/// and settled once.
pub(crate) fn settlement_agrees(
    place: &Place,
    consumers: &[Consumer],
    blocks: &[Value],
    judged: &mut Judged,
) {
    let path = place.data().join("chain/settlement.db");
    let book = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut rows = book.prepare("SELECT row FROM log ORDER BY at").unwrap();
    let rows = rows.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let rows = rows.map(|row| serde_json::from_str::<Value>(&row.unwrap()).unwrap());
    let ours: BTreeSet<String> =
        consumers.iter().map(|consumer| consumer.account().replace("/accounts/", "")).collect();
    let (mut deposits, mut asked) = (Vec::new(), BTreeMap::<String, u64>::new());
    for row in rows {
        if let Some(deposit) = row.get("Deposit").filter(|deposit| ours.contains(&text(deposit, "account"))) {
            deposits.push(deposit["index"].as_u64().unwrap());
        }
        if let Some(transaction) = row.get("Transaction") {
            judged.effects += 1;
            let asked_for = text(transaction, "asked");
            if !asked_for.starts_with("deposit") {
                // What is asked, and of which block.
                let words: Vec<&str> = asked_for.split_whitespace().take(2).collect();
                *asked.entry(words.join(" ")).or_default() += 1;
            }
        }
    }
    let acknowledged = consumers.iter().flat_map(|consumer| consumer.deposits.keys().copied()).collect();
    judged.each_once("deposit at the settlement layer", deposits, &acknowledged);
    for block in blocks {
        for action in ["register", "update"] {
            let what = format!("{action} {}", text(block, "hash"));
            judged.counted(&what, asked.remove(&what).unwrap_or_default(), 1);
        }
    }
    // Of blocks that came after the look at the list.
    for (what, count) in asked {
        judged.counted(what, count, 1);
    }
}
