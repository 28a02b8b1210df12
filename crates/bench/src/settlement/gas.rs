//! Gas of settling 10,000 deals to 100 providers, on anvil with the daemon's own clients: a block whose data is in blobs, registered
//! and made final, and what pays the providers. Storage was written before: they have been paid once, as in any later block.

use std::{path::PathBuf, time::Duration};

use orchestrator::{
    core::{
        madara::{
            payout::PayoutBatch,
            settlement::{BlockProof, SettlementClient, SettlementError, TransactionStatus},
        },
        market::{
            account::AccountKey,
            address::Address,
            block::BlockHeader,
            ids::{ConsumerId, Id, ProviderId},
            money::Amount,
            state::{
                LedgerState, Record, ShortHash,
                hash::{account_key_hash_in, domain_hash},
            },
            terms::DomainId,
        },
    },
    setup::{DEV_DOMAIN, DevChain, OperatorGas},
};
use serde_json::json;

use super::{Sealed, seal};
use crate::row::Row;

type Fault = Box<dyn std::error::Error>;

/// Gas of settling by one transaction for each deal, as it was measured on anvil: what the goals are shares of.
const ONE_EACH: f64 = 52_761.0;
const DEALS: u32 = 10_000;
const PROVIDERS: u32 = 100;
/// Accounts beside theirs, so that a proof of all has as many hashes as in a real market.
const ACCOUNTS: u32 = 10_200;
/// What each provider releases in each block.
const RELEASED: u128 = 1_000;

/// Where the providers' accounts are among the others.
const fn place(provider: u32) -> u32 {
    50 + provider * 101
}

fn provider(n: u32) -> AccountKey {
    AccountKey::Provider(ProviderId::from_uuid(uuid::Uuid::from_u128(n.into())))
}

fn consumer(n: u32) -> AccountKey {
    AccountKey::Consumer(ConsumerId::from_uuid(uuid::Uuid::from_u128(n.into())))
}

/// The owner of a provider: an address of its own.
fn owner(n: u32) -> Address {
    let mut address = [0x11; 20];
    address[16..].copy_from_slice(&n.to_be_bytes());
    Address(address)
}

/// The chain with its ledger.
struct Ledger {
    chain: DevChain,
    layers:
        (std::sync::Arc<dyn SettlementClient>, std::sync::Arc<dyn orchestrator::core::madara::da::DaClient>),
    state: LedgerState,
    last: Option<BlockHeader>,
    payer: Address,
}

/// Asks until something is so, for a minute.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<Option<T>, Fault>) -> Result<T, Fault> {
    for _ in 0..1_200 {
        if let Some(found) = ask().await? {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(format!("not within a minute: {what}").into())
}

/// What may pass by itself is asked for again.
fn waits<T>(answer: Result<T, SettlementError>) -> Result<Option<T>, Fault> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.retryable() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Ledger {
    async fn open(chain: DevChain) -> Result<Self, Fault> {
        let layers = chain.layers().await?;
        let state = LedgerState::new(DomainId(DEV_DOMAIN.to_owned()));
        let payer: Address = chain.owner(1)?.parse()?;
        // Enough for two rounds of payments.
        let amount = Amount(u128::from(DEALS) * 4_000_000_000);
        let calls = json!(layers.0.deposit_calls(payer, consumer(0), amount));
        chain.pay_in(&chain.owner(1)?, amount.0, &calls).await?;
        Ok(Self { chain, layers, state, last: None, payer })
    }

    fn key(&self, n: u32) -> ShortHash {
        let hash = domain_hash(self.state.domain());
        let of = |owner: Address, key| account_key_hash_in(&hash, Some(&owner), &key);
        match n {
            0 => of(self.payer, consumer(0)),
            n if n >= place(0) && (n - place(0)).is_multiple_of(101) && n < place(PROVIDERS) => {
                let n = (n - place(0)) / 101;
                of(owner(n), provider(n))
            }
            n => of(self.payer, consumer(n)),
        }
    }

    /// The first block: everybody's account, the deposit, and some money for each provider.
    fn opening(&self) -> Vec<Record> {
        let mut records: Vec<Record> =
            (0..ACCOUNTS).map(|n| Record::OpenAccount { key: self.key(n) }).collect();
        let amount = u128::from(DEALS) * 4_000_000_000;
        records.push(Record::Deposit { index: 1, to: 0, amount });
        let fund = |n| Record::Transfer { kind: 4, from: 0, to: place(n), amount: 123_456_789 };
        records.extend((0..PROVIDERS).map(fund));
        records.extend((0..PROVIDERS).map(release));
        records
    }

    /// Brings a block to finality; answers what the operator's transactions for it took.
    async fn settle(&mut self, records: &[Record]) -> Result<u64, Fault> {
        let before = self.gas().await?.blocks;
        let Sealed { header, proof, data } = seal(&mut self.state, self.last.as_ref(), records)?;
        let (settlement, da) = (&self.layers.0, &self.layers.1);
        let reference = da.publish_state_diff(&header.domain, header.number, &data).await?;
        until("the data is in the chain", async || Ok(da.verify_inclusion(&reference).await.ok())).await?;
        let BlockProof::Reexecution { pre_state, post_state, events_root, steps, .. } = proof;
        let attestations = settlement.oracles().and_then(|it| it.own(&header)).into_iter().collect();
        let proof = BlockProof::Reexecution { pre_state, post_state, events_root, steps, attestations };
        let key = format!("register {}", header.number);
        until("the block is registered", async || {
            waits(settlement.register_proof(&key, &header, &proof, &reference).await)
        })
        .await?;
        let id =
            until("the block stands", async || waits(settlement.update_state(&key, &header).await)).await?;
        self.done(&id).await?;
        self.last = Some(header);
        Ok(self.gas().await?.blocks - before)
    }

    /// Waits until a transaction is there for good.
    async fn done(&self, id: &str) -> Result<(), Fault> {
        until("a transaction is final", async || match waits(self.layers.0.transaction(id).await)? {
            Some(TransactionStatus::Final) => Ok(Some(())),
            Some(TransactionStatus::Rejected(reason)) => Err(reason.into()),
            _ => Ok(None),
        })
        .await
    }

    /// Pays providers by one transaction; answers what it took.
    async fn pay(&mut self, key: &str, providers: impl IntoIterator<Item = u32>) -> Result<u64, Fault> {
        let before = self.gas().await?.paying;
        let providers: Vec<u32> = providers.into_iter().collect();
        let keys: Vec<ShortHash> = providers.iter().map(|n| self.key(place(*n))).collect();
        let proof = self.state.prove_accounts(&keys).ok_or("an account is missing")?;
        // Their places ascend as they do, so this is the order of the leaves.
        let accounts = providers.iter().map(|n| (provider(*n), Some(owner(*n)))).collect();
        let block = self.last.as_ref().map_or(0, |header| header.number);
        let layer = self.layers.0.payouts().ok_or("the layer pays nobody out")?;
        layer.pay_out(key, &PayoutBatch { block, accounts, proof }).await?;
        self.done(key).await?;
        Ok(self.gas().await?.paying - before)
    }

    async fn gas(&self) -> Result<OperatorGas, Fault> {
        Ok(self.chain.operators_gas().await?)
    }
}

fn release(n: u32) -> Record {
    Record::Transfer { kind: 12, from: place(n), to: place(n), amount: RELEASED }
}

/// A payment for each deal, and one release for each provider.
fn deals() -> Vec<Record> {
    let deal = |n| Record::Transfer {
        kind: 5,
        from: 0,
        to: place(n % PROVIDERS),
        amount: 1_000_000 + u128::from(n),
    };
    (0..DEALS).map(deal).chain((0..PROVIDERS).map(release)).collect()
}

/// Runs it on the anvil that `ORCHESTRATOR_TEST_ANVIL` names.
///
/// # Errors
/// When there is none, or something does not settle.
pub async fn rows() -> Result<Vec<Row>, Fault> {
    let anvil = std::env::var_os("ORCHESTRATOR_TEST_ANVIL").map(PathBuf::from);
    let anvil =
        anvil.ok_or("name anvil in ORCHESTRATOR_TEST_ANVIL, as `cargo xtask bench settlement` does")?;
    let directory = tempfile::tempdir()?;
    let mut ledger = Ledger::open(DevChain::start(&anvil, directory.path()).await?).await?;
    let opening = ledger.opening();
    ledger.settle(&opening).await?;
    ledger.pay("first", 0..PROVIDERS).await?;

    let block = ledger.settle(&deals()).await?;
    let together = ledger.pay("together", 0..PROVIDERS).await?;
    let again = ledger.settle(&deals()).await?;
    let alone = ledger.pay("alone", [PROVIDERS / 2]).await?;
    let per_deal = |block: u64, claims: u64| (block + claims) as f64 / f64::from(DEALS);
    Ok(vec![
        Row::new("gas of a block of 10,000 deals: blobs, registration, finality", block as f64, "gas"),
        Row::new("gas of one claim for 100 providers", together as f64, "gas"),
        Row::new("gas of a claim alone", alone as f64, "gas"),
        Row::new(
            "gas per deal, 10,000 deals to 100 providers, one claim for all",
            per_deal(block, together),
            "gas",
        )
        .beside(ONE_EACH)
        .at_most(ONE_EACH * 0.01),
        Row::new("gas per deal, claimed singly", per_deal(again, u64::from(PROVIDERS) * alone), "gas")
            .beside(ONE_EACH)
            .at_most(ONE_EACH * 0.02),
    ])
}
