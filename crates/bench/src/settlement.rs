//! Settlement, as far as it needs no chain: a million transfers over 100,000 accounts in a hundred blocks, sealed, proved and
//! encoded, then rebuilt from what was published; on one core, beside bare keccak hashing, one by one and several at once, in
//! the same run. What the contract takes is in `contracts/ethereum/gas.json`, which its tests measure.

#[cfg(feature = "ethereum")]
mod gas;

use std::{collections::BTreeSet, process::Command, sync::Arc, time::Instant};

use orchestrator::{
    client::{
        clock::ManualClock,
        da::LocalDa,
        settlement::{LocalRules, LocalSettlement},
    },
    core::{
        madara::{
            da::DaClient as _,
            settlement::{BlockProof, SettlementClient as _},
        },
        market::{
            account::AccountKey,
            block::{BlockFormat, BlockHeader, Hash32},
            ids::{ConsumerId, Id},
            money::Amount,
            quantity::{Micros, Timestamp},
            state::{
                LedgerState, Record, STEP_RECORDS, decode_records, encode_records, evidence_root, execute,
                hash::{account_key_hash_in, domain_hash},
                header::header_hash,
                steps_root, tree,
            },
            terms::DomainId,
        },
    },
    service::{block::prove::reexecute, settlement::verify_ledger},
};

use crate::{
    BenchResult,
    row::Row,
    seal::{bare_hashes, bare_hashes_at_once},
};

const ACCOUNTS: u32 = 100_000;
const BLOCKS: u64 = 100;
const TRANSFERS: u32 = 10_000;
/// Tells the process that it has one core only.
const ALONE: &str = "ORCHESTRATOR_BENCH_ALONE";

/// Numbers that look like chance and are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(end)).unwrap_or(0)
    }
}

/// The first block: all accounts, one deposit, and its money handed out.
fn opening(domain: &DomainId) -> Vec<Record> {
    let hash = domain_hash(domain);
    let open = |n: u32| {
        let account = account(n);
        Record::OpenAccount { key: account_key_hash_in(&hash, None, &account) }
    };
    let amount = 1_000_000;
    let mut records: Vec<Record> = (0..ACCOUNTS).map(open).collect();
    records.push(Record::Deposit { index: 1, to: 0, amount: amount * u128::from(ACCOUNTS) });
    records.extend((1..ACCOUNTS).map(|to| Record::Transfer { kind: 4, from: 0, to, amount }));
    records
}

fn account(n: u32) -> AccountKey {
    AccountKey::Consumer(ConsumerId::from_uuid(uuid::Uuid::from_u128(n.into())))
}

/// A block of payments from random accounts to others.
fn payments(chance: &mut Chance) -> Vec<Record> {
    let one = |_| {
        let from = chance.below(ACCOUNTS);
        let to = (from + 1 + chance.below(ACCOUNTS - 1)) % ACCOUNTS;
        Record::Transfer { kind: 5, from, to, amount: 7 }
    };
    (0..TRANSFERS).map(one).collect()
}

/// Permutations of the hash that the steps of a block need: the leaves and nodes that change, the cells, and five for
/// roots and the step's leaf.
fn hashes(records: &[Record]) -> usize {
    let mut all = 0;
    for step in records.chunks(STEP_RECORDS) {
        let mut places: BTreeSet<u32> = BTreeSet::new();
        for record in step {
            if let Record::Transfer { from, to, .. } = record {
                places.extend([*from, *to]);
            }
        }
        for _ in 0..=tree::DEPTH {
            all += places.len();
            places = places.into_iter().map(|place| place >> 1).collect();
        }
        all += 31 * step.len() / 136 + 1 + 5;
    }
    all
}

/// A sealed block.
struct Sealed {
    header: BlockHeader,
    proof: BlockProof,
    data: Vec<u8>,
}

/// As the daemon seals: executes, roots, header, and the bytes that are published.
fn seal(
    state: &mut LedgerState,
    parent: Option<&BlockHeader>,
    records: &[Record],
) -> Result<Sealed, Box<dyn std::error::Error>> {
    let pre_state = state.root();
    let steps = execute(state, BlockFormat::Steps, records)?;
    let header = BlockHeader {
        domain: state.domain().clone(),
        number: parent.map_or(1, |parent| parent.number + 1),
        parent: parent.map_or(Hash32::default(), header_hash),
        state_root: state.root(),
        total: state.total(),
        events_root: steps_root(&steps),
        evidence_root: evidence_root(records),
        last_deposit: state.last_deposit(),
        records: u32::try_from(records.len())?,
        next_market: Some(state.next_market_index()),
    };
    state.settle();
    let data = encode_records(header.number, records);
    let (post_state, events_root) = (header.state_root, header.events_root);
    let proof =
        BlockProof::Reexecution { pre_state, post_state, events_root, steps, attestations: Vec::new() };
    Ok(Sealed { header, proof, data })
}

/// The layers that the blocks go to.
struct Layers {
    settlement: LocalSettlement,
    da: LocalDa,
}

impl Layers {
    async fn take(&self, block: &Sealed) -> Result<(), Box<dyn std::error::Error>> {
        let header = &block.header;
        let reference = self.da.publish_state_diff(&header.domain, header.number, &block.data).await?;
        let key = |what: &str| format!("{what} {}", header.number);
        self.settlement.register_proof(&key("register"), header, &block.proof, &reference).await?;
        self.settlement.update_state(&key("update"), header).await?;
        Ok(())
    }

    /// Seconds that a rebuild of everything takes.
    async fn verify(&self) -> Result<f64, Box<dyn std::error::Error>> {
        let start = Instant::now();
        let report = verify_ledger(&self.settlement, &self.da).await?;
        let seconds = start.elapsed().as_secs_f64();
        if report.holds() { Ok(seconds) } else { Err(report.problems.join("; ").into()) }
    }
}

/// Runs it, on one core.
///
/// # Errors
/// When a block can't be sealed, or what comes out does not agree.
pub fn run() -> BenchResult {
    if std::thread::available_parallelism()?.get() > 1 && std::env::var_os(ALONE).is_none() {
        let own = std::env::current_exe()?;
        let output = Command::new("taskset")
            .args(["--cpu-list", "0"])
            .arg(own)
            .args(["settlement", "--json"])
            .env(ALONE, "1")
            .stderr(std::process::Stdio::inherit())
            .output()?;
        if !output.status.success() {
            return Err("the run on one core failed".into());
        }
        return Ok(serde_json::from_slice(&output.stdout)?);
    }
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> BenchResult {
    let domain = DomainId::local();
    let bare = bare_hashes(1_000_000);
    let at_once = bare_hashes_at_once(4_000_000);
    let clock = ManualClock::new(Timestamp(1_000_000));
    let rules = LocalRules { confirm_after: Micros::ZERO, final_after: Micros::ZERO };
    let settlement = LocalSettlement::in_memory(domain.clone(), rules, Arc::new(clock));
    let layers = Layers { settlement, da: LocalDa::in_memory() };
    let total = Amount(1_000_000 * u128::from(ACCOUNTS));
    layers.settlement.deposit("first", account(0), total).await?;

    let (mut sealer, mut prover) = (LedgerState::new(domain.clone()), LedgerState::new(domain));
    let first = seal(&mut sealer, None, &opening(prover.domain()))?;
    reexecute(&mut prover, &first.header, &decode_records(1, &first.data)?)?;
    prover.settle();
    layers.take(&first).await?;
    let opened = layers.verify().await?;

    let (mut chance, mut parent) = (Chance(7), first.header);
    let (mut sealed, mut proved, mut wanted, mut bytes) = (0.0, 0.0, 0, 0);
    for _ in 0..BLOCKS {
        let records = payments(&mut chance);
        wanted += 2 * hashes(&records);
        let start = Instant::now();
        let block = seal(&mut sealer, Some(&parent), &records)?;
        sealed += start.elapsed().as_secs_f64();
        let start = Instant::now();
        reexecute(&mut prover, &block.header, &decode_records(block.header.number, &block.data)?)?;
        prover.settle();
        proved += start.elapsed().as_secs_f64();
        layers.take(&block).await?;
        // An element of a blob has 32 bytes for each cell of 31; the first cell is the block's own.
        bytes += (block.data.len() / 31 - 1) * 32;
        parent = block.header;
    }
    let verified = layers.verify().await? - opened;
    let transfers = f64::from(TRANSFERS) * BLOCKS as f64;
    let speed = wanted as f64 / (sealed + proved);
    #[cfg_attr(not(feature = "ethereum"), expect(unused_mut, reason = "a chain adds to it"))]
    let mut rows = vec![
        Row::new("seal and encode 1,000,000 transfers", sealed, "s"),
        Row::new("prove 1,000,000 transfers", proved, "s"),
        Row::new("seal, prove and encode 1,000,000 transfers over 100,000 accounts", sealed + proved, "s")
            .at_most(15.0),
        // What has to be hashed, however it is done; a processor without vectors does it one by one.
        Row::new("permutations that it needs, beside bare hashes one by one", speed, "1/s")
            .beside(bare)
            .at_least(bare * 0.6),
        Row::new("the same, beside bare hashes as many at once as the processor can", speed, "1/s")
            .beside(at_once),
        Row::new("bytes of blob per transfer, beside 32 for each block", bytes as f64 / transfers, "B")
            .at_most(32.0),
        Row::new("verify blocks of 10,000 transfers", BLOCKS as f64 / verified, "1/s").at_least(5.0),
    ];
    #[cfg(feature = "ethereum")]
    rows.extend(gas::rows().await?);
    Ok(rows)
}
