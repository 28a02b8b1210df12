//! The acts of the demo, each through the HTTP API.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    Chain, Progress, Started,
    report::{AllocationLine, BalanceLine, OfferingLine, Report, Settled, VerdictCounts},
    storage::Store,
};
use crate::{
    cli::{
        Failure,
        api::{Api, text},
    },
    setup::Daemon,
};

/// One whole token, in base units.
const TOKEN: u128 = 1_000_000_000_000_000_000;
/// What each consumer brings.
const DEPOSIT: u128 = 1_000 * TOKEN;
/// What each provider stands in with.
const COLLATERAL: u128 = 100 * TOKEN;
/// What is reserved each time.
const RESERVED: u64 = 1 << 30;
/// Sizes of the files that each consumer stores.
const FILES: [usize; 4] = [1_000, 200_000, 3_000_000, 9_000_000];
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(90);

/// A consumer with its allocation.
struct Buyer {
    name: &'static str,
    id: String,
    api: Api,
    allocation: String,
    unit: String,
    store: Option<Store>,
}

/// The market while it is played.
pub struct Market<'a> {
    api: Api,
    chain: Option<&'a Chain>,
    progress: &'a Progress,
    /// Unit id → provider's name.
    units: BTreeMap<String, String>,
    /// Provider's name → id.
    providers: BTreeMap<String, String>,
    buyers: Vec<Buyer>,
    before: BTreeMap<String, u128>,
    bytes_stored: u64,
    bytes_verified: u64,
}

impl<'a> Market<'a> {
    /// Connects to the daemon as its operator.
    pub async fn open(
        daemon: &Daemon,
        chain: Option<&'a Chain>,
        progress: &'a Progress,
    ) -> Result<Self, Failure> {
        let api = Api::with(&format!("http://{}", daemon.api_addr), &daemon.operator_key)?;
        Ok(Self {
            api,
            chain,
            progress,
            units: BTreeMap::new(),
            providers: BTreeMap::new(),
            buyers: Vec::new(),
            before: BTreeMap::new(),
            bytes_stored: 0,
            bytes_verified: 0,
        })
    }

    /// Registers two more providers beside the built-in one; all three post collateral.
    pub async fn gather_providers(
        &mut self,
        daemon: &Daemon,
        others: &[(&'static str, Started)],
    ) -> Result<(), Failure> {
        let default =
            daemon.default_market.ok_or_else(|| Failure::Failed("the first market is missing".into()))?;
        self.units.insert(default.unit.to_string(), "built-in".into());
        self.providers.insert("built-in".into(), default.provider.to_string());
        for (name, (handle, token)) in others {
            let adapter =
                json!({ "kind": "embedded", "admin_url": handle.admin_url(), "admin_token": token });
            let mut provider = json!({ "name": name, "adapter": adapter });
            self.give_owner(&mut provider)?;
            let provider = self.api.post("/providers", provider).await?;
            let provider = text(&provider, "id");
            let unit = json!({
                "provider": provider, "name": format!("{name}'s disks"), "region": format!("{name}-1"), "country": "CH",
                "capacity_bytes": 40_u64 << 30,
                "price": { "per_gib_month": (20 * TOKEN).to_string(), "per_gib_egress": TOKEN.to_string() },
                "sla": { "latency_avg_ms": 60, "upload_bytes_per_s": 1_000_000, "download_bytes_per_s": 1_000_000,
                         "uptime_ppm": 999_500, "error_rate_ppm": 100, "min_coverage_ppm": 500_000 },
            });
            let unit = self.api.post("/units", unit).await?;
            self.units.insert(text(&unit, "id"), (*name).to_owned());
            self.providers.insert((*name).to_owned(), provider);
        }
        for provider in self.providers.values() {
            let account = format!("/accounts/provider:{provider}");
            let owner = text(&self.api.get(&format!("/providers/{provider}")).await?, "owner");
            self.pay_in(&owner, &format!("provider:{provider}"), COLLATERAL).await?;
            // Deposits come from the chain, which the operator stands in for here; the rest only the owner may do.
            let key = json!({ "role": "provider", "tenant": provider, "label": "demo" });
            let own = self.api.with_key(&text(&self.api.post("/keys", key).await?, "text"));
            own.post(&format!("{account}/collateral"), json!({ "amount": COLLATERAL.to_string() })).await?;
        }
        self.progress.say("three providers offer a unit each and stand in with collateral");
        Ok(())
    }

    /// Registers a consumer for each provider, with money and a key of its own.
    pub async fn gather_consumers(&mut self) -> Result<(), Failure> {
        for name in ["ada", "ben", "cleo"] {
            let mut consumer = json!({ "name": name });
            self.give_owner(&mut consumer)?;
            let consumer = self.api.post("/consumers", consumer).await?;
            let owner = text(&consumer, "owner");
            let id = text(&consumer, "id");
            let key = json!({ "role": "consumer", "tenant": id, "label": "demo" });
            let key = text(&self.api.post("/keys", key).await?, "text");
            self.pay_in(&owner, &format!("consumer:{id}"), DEPOSIT).await?;
            let api = self.api.with_key(&key);
            self.buyers.push(Buyer {
                name,
                id,
                api,
                allocation: String::new(),
                unit: String::new(),
                store: None,
            });
        }
        self.progress.say("three consumers have paid in");
        for account in self.accounts() {
            let balance = self.balance(&account).await?;
            self.before.insert(account, balance);
        }
        Ok(())
    }

    /// The consumers read the offerings, and each takes another one.
    pub async fn buy(&mut self) -> Result<(), Failure> {
        self.read_offerings().await?;
        let mut units: Vec<_> = self.units.iter().map(|(unit, name)| (name.clone(), unit.clone())).collect();
        units.sort();
        for (buyer, (provider, unit)) in self.buyers.iter_mut().zip(units) {
            let ask = json!({ "unit": unit, "bytes": RESERVED, "period_ms": 86_400_000_u64, "egress_allowance_bytes": RESERVED });
            let allocation = buyer.api.post("/allocations/reserve", ask).await?;
            buyer.allocation = text(&allocation, "id");
            buyer.unit = unit;
            buyer.api.post(&format!("/allocations/{}/fund", buyer.allocation), json!({})).await?;
            let active = buyer.until_state("active").await?;
            let issued =
                buyer.api.post(&format!("/allocations/{}/credentials", buyer.allocation), json!({})).await?;
            let mut keys = issued["credential"].clone();
            keys["secret_access_key"] = issued["secret_access_key"].clone();
            buyer.store = Some(Store::new(&active["routing"], &keys)?);
            self.progress
                .say(&format!("{} reserved 1 GiB at {provider}, funded it, and has S3 keys", buyer.name));
        }
        Ok(())
    }

    async fn read_offerings(&self) -> Result<Vec<OfferingLine>, Failure> {
        let reader = &self.buyers.first().ok_or_else(|| Failure::Failed("there is no consumer".into()))?.api;
        // The projection of offerings may be up to a second old.
        let page = wait_for("the offerings", || async {
            let page = reader.get("/market/offerings?limit=20").await?;
            let complete = page["items"].as_array().is_some_and(|items| items.len() >= self.units.len());
            Ok(complete.then_some(page))
        })
        .await?;
        let offerings = page["items"].as_array().into_iter().flatten();
        Ok(offerings.map(|offering| OfferingLine::of(offering, &self.units)).collect())
    }

    /// Real files over HTTP to the S3 endpoints, read back and compared by their hashes.
    pub async fn store(&mut self) -> Result<(), Failure> {
        for buyer in &self.buyers {
            let Some(store) = &buyer.store else { continue };
            for (number, size) in FILES.into_iter().enumerate() {
                let body = crate::utils::random::bytes(size);
                let hash: [u8; 32] = Sha256::digest(&body).into();
                let key = format!("files/{number}.bin");
                store.put(&key, body).await?;
                self.bytes_stored += size as u64;
                let (length, read) = store.get_hash(&key).await?;
                if read != hash || length != size {
                    return Err(Failure::Difference(format!("{key} of {} came back different", buyer.name)));
                }
                self.bytes_verified += length as u64;
            }
        }
        self.progress.say(&format!(
            "stored {} MB and read them back with equal hashes",
            self.bytes_stored / 1_000_000
        ));
        Ok(())
    }

    /// One provider becomes slow, another fails.
    pub async fn break_providers(&self, others: &[(&'static str, Started)]) -> Result<(), Failure> {
        let client = reqwest::Client::new();
        for (name, (handle, token)) in others {
            let faults =
                if *name == "flaky" { json!({ "error_ppm": 600_000 }) } else { json!({ "latency_ms": 250 }) };
            let answer = client
                .put(format!("{}/faults", handle.admin_url()))
                .bearer_auth(token)
                .json(&faults)
                .send()
                .await;
            answer
                .and_then(reqwest::Response::error_for_status)
                .map_err(|error| Failure::Failed(error.to_string()))?;
        }
        self.progress.say("slowpoke now takes 250 ms longer, flaky answers 503 to most requests; the prober goes on measuring");
        Ok(())
    }

    /// Waits until each allocation has been judged at least once, the broken ones as breached.
    pub async fn await_verdicts(&self) -> Result<(), Failure> {
        for buyer in &self.buyers {
            let broken = self.units.get(&buyer.unit).is_some_and(|name| name != "built-in");
            let path = format!("/allocations/{}/verdicts?limit=100", buyer.allocation);
            let verdict = wait_for("a verdict", || async {
                let page = buyer.api.get(&path).await?;
                let verdicts = page["items"].as_array().cloned().unwrap_or_default();
                let wanted =
                    |v: &&Value| if broken { v["status"] == "breached" } else { v["status"] != "unknown" };
                Ok(verdicts.iter().find(wanted).cloned())
            })
            .await?;
            let (status, credited) = (text(&verdict, "status"), text(&verdict, "credited"));
            self.progress.say(&format!("{}'s period was judged: {status}, {credited} credited", buyer.name));
        }
        Ok(())
    }

    /// The consumers close: the last partial period is settled, the rest of the escrow comes back, the data is purged.
    pub async fn close(&self) -> Result<(), Failure> {
        for buyer in &self.buyers {
            buyer.api.post(&format!("/allocations/{}/close", buyer.allocation), json!({})).await?;
        }
        for buyer in &self.buyers {
            buyer.until_state("closed").await?;
        }
        self.progress.say("all allocations are closed: settled, refunded, purged");
        Ok(())
    }

    /// Waits until everything that happened lies in final blocks.
    pub async fn await_blocks(&self) -> Result<(), Failure> {
        wait_for("final blocks", || async {
            let audit = self.api.get("/ledger").await?;
            let pending = audit["unsealed"].as_u64().unwrap_or(u64::MAX);
            let blocks = self.api.get("/blocks?limit=1000").await?;
            let blocks = blocks["items"].as_array().cloned().unwrap_or_default();
            let done =
                pending == 0 && !blocks.is_empty() && blocks.iter().all(|block| block["state"] == "final");
            Ok(done.then_some(()))
        })
        .await?;
        self.progress.say("every transfer and verdict lies in a final block");
        Ok(())
    }

    /// Gathers what is told at the end.
    pub async fn report(&self) -> Result<Report, Failure> {
        let mut report = Report { offerings: self.read_offerings().await?, ..Report::default() };
        for buyer in &self.buyers {
            let allocation = buyer.api.get(&format!("/allocations/{}", buyer.allocation)).await?;
            let provider = self.units.get(&buyer.unit).cloned().unwrap_or_default();
            report.allocation_list.push(AllocationLine::of(buyer.name, provider, &allocation));
            let page =
                buyer.api.get(&format!("/allocations/{}/verdicts?limit=1000", buyer.allocation)).await?;
            for verdict in page["items"].as_array().into_iter().flatten() {
                report.verdicts.count(verdict);
            }
        }
        report.allocations = report.allocation_list.len() as u64;
        report.bytes_stored = self.bytes_stored;
        report.bytes_verified = self.bytes_verified;
        let credits: u128 =
            report.allocation_list.iter().filter_map(|a| a.credited.parse::<u128>().ok()).sum();
        report.credits_total = credits.to_string();
        for account in self.accounts() {
            let after = self.balance(&account).await?;
            let before = self.before.get(&account).copied().unwrap_or_default();
            report.balances.push(BalanceLine {
                account: self.name_of(&account),
                before: before.to_string(),
                after: after.to_string(),
            });
        }
        let audit = self.api.get("/ledger").await?;
        report.ledger_sum = text(&audit, "sum");
        let blocks = self.api.get("/blocks?limit=1000").await?;
        let blocks = blocks["items"].as_array().cloned().unwrap_or_default();
        report.blocks_final = blocks.iter().filter(|block| block["state"] == "final").count() as u64;
        report.last_block =
            blocks.into_iter().max_by_key(|block| block["number"].as_u64()).unwrap_or_default();
        let account = format!(
            "/accounts/consumer:{}/proof",
            self.buyers.first().map(|b| b.id.as_str()).unwrap_or_default()
        );
        let proof = self.api.get(&account).await?;
        report.proof_verified = crate::setup::check_account_proof(&proof)?;
        Ok(report)
    }

    /// On a chain, whoever takes part needs an address there: the next one that is free.
    fn give_owner(&self, party: &mut Value) -> Result<(), Failure> {
        let taken = self.providers.len() + self.buyers.len();
        if let (Some(owner), Some(fields)) = (self.owner(taken + 1)?, party.as_object_mut()) {
            fields.insert("owner".to_owned(), owner.into());
        }
        Ok(())
    }

    #[cfg(feature = "ethereum")]
    fn owner(&self, at: usize) -> Result<Option<String>, Failure> {
        Ok(self.chain.map(|chain| chain.owner(at)).transpose()?)
    }

    #[cfg(not(feature = "ethereum"))]
    fn owner(&self, _: usize) -> Result<Option<String>, Failure> {
        Ok(self.chain.map(|chain| match *chain {}))
    }

    /// Money comes in: on a chain by its owner's transaction, which the daemon notices by itself; elsewhere the operator stands in.
    async fn pay_in(&self, owner: &str, account: &str, amount: u128) -> Result<(), Failure> {
        #[cfg(feature = "ethereum")]
        if let Some(chain) = self.chain {
            let paying_in = self.api.get(&format!("/accounts/{account}/deposits?amount={amount}")).await?;
            chain.pay_in(owner, amount, &paying_in["calls"]).await?;
            return wait_for("the deposit", || async {
                Ok((self.balance(account).await? >= amount).then_some(()))
            })
            .await;
        }
        let _ = owner;
        let deposit = json!({ "amount": amount.to_string() });
        self.api.post(&format!("/accounts/{account}/deposits"), deposit).await?;
        Ok(())
    }

    /// On a chain: everybody releases what is left, and the daemon pays them, as many as it can by one transaction.
    #[cfg(not(feature = "ethereum"))]
    pub async fn withdraw(&self) -> Result<Option<Settled>, Failure> {
        Ok(None)
    }

    /// On a chain: everybody releases what is left, and the daemon pays them, as many as it can by one transaction.
    #[cfg(feature = "ethereum")]
    pub async fn withdraw(&self) -> Result<Option<Settled>, Failure> {
        let Some(chain) = self.chain else { return Ok(None) };
        let mut owed: BTreeMap<String, (String, u128)> = BTreeMap::new();
        for buyer in &self.buyers {
            let account = format!("consumer:{}", buyer.id);
            let balance = self.release(&buyer.api, &account).await?;
            let owner = text(&self.api.get(&format!("/consumers/{}", buyer.id)).await?, "owner");
            owed.insert(account, (owner, balance));
        }
        for provider in self.providers.values() {
            let key = json!({ "role": "provider", "tenant": provider, "label": "demo" });
            let own = self.api.with_key(&text(&self.api.post("/keys", key).await?, "text"));
            let account = format!("provider:{provider}");
            let balance = self.release(&own, &account).await?;
            let owner = text(&self.api.get(&format!("/providers/{provider}")).await?, "owner");
            owed.insert(account, (owner, balance));
        }
        self.progress.say("consumers and providers have released what they have");
        self.await_blocks().await?;
        let accounts = owed.values().filter(|(_, sum)| *sum > 0).count();
        wait_for("payouts", || async {
            let paid = self.api.get("/payouts?state=paid&limit=1000").await?;
            let paid = paid["items"].as_array().map_or(0, Vec::len);
            Ok((paid >= accounts).then_some(()))
        })
        .await?;
        let (mut paid, mut due) = (0, BTreeMap::<&str, u128>::new());
        for (owner, sum) in owed.values() {
            *due.entry(owner).or_default() += sum;
        }
        for (owner, sum) in due {
            let tokens = chain.tokens(owner).await?;
            if tokens != sum {
                return Err(Failure::Difference(format!(
                    "{owner} has {tokens} tokens and should have {sum}"
                )));
            }
            paid += sum;
        }
        let gas = chain.operators_gas().await?;
        self.progress.say(&format!(
            "{accounts} accounts were paid by {} transactions: each owner's tokens are what the ledger says",
            gas.payouts
        ));
        let blocks = self.api.get("/blocks?limit=1000").await?;
        let records: u64 =
            blocks["items"].as_array().into_iter().flatten().filter_map(|it| it["records"].as_u64()).sum();
        Ok(Some(Settled {
            accounts_paid: accounts as u64,
            paid: paid.to_string(),
            records,
            operator_gas: gas.blocks,
            payouts: gas.payouts,
            payout_gas: gas.paying,
        }))
    }

    /// Releases all that an account has; answers how much.
    #[cfg(feature = "ethereum")]
    async fn release(&self, own: &Api, account: &str) -> Result<u128, Failure> {
        let balance = self.balance(account).await?;
        if balance > 0 {
            own.post(&format!("/accounts/{account}/withdrawals"), json!({ "amount": balance.to_string() }))
                .await?;
        }
        Ok(balance)
    }

    fn accounts(&self) -> Vec<String> {
        let consumers = self.buyers.iter().map(|buyer| format!("consumer:{}", buyer.id));
        let providers =
            self.providers.values().flat_map(|id| [format!("provider:{id}"), format!("collateral:{id}")]);
        consumers.chain(providers).chain(["fees".to_owned()]).collect()
    }

    /// An account as people know its owner.
    fn name_of(&self, account: &str) -> String {
        let (kind, id) = account.split_once(':').unwrap_or((account, ""));
        let buyer = self.buyers.iter().find(|buyer| buyer.id == id).map(|buyer| buyer.name.to_owned());
        let provider = || self.providers.iter().find(|(_, known)| *known == id).map(|(name, _)| name.clone());
        buyer.or_else(provider).map_or_else(|| kind.to_owned(), |name| format!("{kind} {name}"))
    }

    async fn balance(&self, account: &str) -> Result<u128, Failure> {
        let view = self.api.get(&format!("/accounts/{account}")).await?;
        text(&view, "balance")
            .parse()
            .map_err(|_| Failure::Failed(format!("the balance of {account} is no number")))
    }
}

impl Buyer {
    async fn until_state(&self, state: &str) -> Result<Value, Failure> {
        wait_for(&format!("{}'s allocation to be {state}", self.name), || async {
            let allocation = self.api.get(&format!("/allocations/{}", self.allocation)).await?;
            match text(&allocation, "state") {
                found if found == state => Ok(Some(allocation)),
                found if found == "failed" => {
                    Err(Failure::Failed(format!("the allocation failed: {}", text(&allocation, "failure"))))
                }
                _ => Ok(None),
            }
        })
        .await
    }
}

/// Asks every 50 ms until there is an answer.
async fn wait_for<T, Fut>(what: &str, ask: impl Fn() -> Fut) -> Result<T, Failure>
where
    Fut: Future<Output = Result<Option<T>, Failure>>,
{
    let asked = async {
        loop {
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .unwrap_or_else(|_| Err(Failure::Failed(format!("waited {} s for {what}", PATIENCE.as_secs()))))
}

impl VerdictCounts {
    fn count(&mut self, verdict: &Value) {
        match verdict["status"].as_str() {
            Some("met") => self.met += 1,
            Some("breached") => self.breached += 1,
            _ => self.unknown += 1,
        }
    }
}
