//! Seal and prove a block of 100,000 accounts, beside bare keccak hashing in the same run.

use std::time::Instant;

use orchestrator::{
    core::market::{
        account::AccountKey,
        block::{BlockFormat, BlockHeader, Hash32},
        ids::{ConsumerId, Id},
        state::{
            LedgerState, Record, STEP_RECORDS, decode_records, encode_records, evidence_root, execute,
            hash::{Tag, account_key_hash_in, domain_hash, keccak, keccak_each, message},
            steps_root, tree,
        },
        terms::DomainId,
    },
    service::block::prove::reexecute,
};

use crate::{process, row::Row};

const ACCOUNTS: u32 = 100_000;

/// The records of a block that opens 100,000 accounts and credits each with a deposit.
fn records(domain: &DomainId, keys: &[AccountKey]) -> Vec<Record> {
    let hash = domain_hash(domain);
    let both = |(key, index): (&AccountKey, u32)| {
        let open = Record::OpenAccount { key: account_key_hash_in(&hash, None, key) };
        [open, Record::Deposit { index: u64::from(index) + 1, to: index, amount: 1_000_000 }]
    };
    keys.iter().zip(0_u32..).flat_map(both).collect()
}

/// How many bare hashes of two children the machine makes in a second, one after the other.
pub fn bare_hashes(count: u32) -> f64 {
    let start = Instant::now();
    let mut hash = Hash32::default();
    for _ in 0..count {
        hash = keccak(Tag::Node, &[&hash.0, &hash.0]);
    }
    std::hint::black_box(hash);
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// How many it makes when none waits for another, as many at once as the processor can: the nodes of a level of a step.
pub fn bare_hashes_at_once(count: u32) -> f64 {
    const LEVEL: u32 = 96;
    let mut hashes = [Hash32::default(); LEVEL as usize];
    let start = Instant::now();
    for _ in 0..count / LEVEL {
        let above = keccak_each(&hashes, |hash| message::<65>(Tag::Node, &[&hash.0, &hash.0]));
        hashes.copy_from_slice(&above);
    }
    std::hint::black_box(hashes);
    f64::from(count / LEVEL * LEVEL) / start.elapsed().as_secs_f64()
}

/// Runs it.
///
/// # Errors
/// When the block can't be sealed or its proof does not hold.
pub fn run() -> Result<Vec<Row>, Box<dyn std::error::Error>> {
    let domain = DomainId::local();
    let keys: Vec<AccountKey> = (0..u128::from(ACCOUNTS))
        .map(|n| AccountKey::Consumer(ConsumerId::from_uuid(uuid::Uuid::from_u128(n))))
        .collect();
    let bare = bare_hashes(1_000_000);

    let start = Instant::now();
    let mut sealer = LedgerState::new(domain.clone());
    let records = records(&domain, &keys);
    let steps = execute(&mut sealer, BlockFormat::Steps, &records)?;
    let header = BlockHeader {
        domain: domain.clone(),
        number: 1,
        parent: Hash32::default(),
        state_root: sealer.root(),
        total: sealer.total(),
        events_root: steps_root(&steps),
        evidence_root: evidence_root(&records),
        last_deposit: sealer.last_deposit(),
        records: u32::try_from(records.len())?,
        next_market: Some(0),
    };
    let data = encode_records(1, &records);
    let sealed = start.elapsed().as_secs_f64();
    drop((sealer, records));

    let start = Instant::now();
    let mut prover = LedgerState::new(domain);
    let records = decode_records(1, &data)?;
    reexecute(&mut prover, &header, &records)?;
    let proved = start.elapsed().as_secs_f64();

    // Leaves and nodes of the accounts tree; for each step the way to the root, its cells (eleven blocks of the hash), the roots
    // and its leaf with a node above; and one name per account, which the prover does not hash.
    let accounts = f64::from(ACCOUNTS);
    let steps = accounts * 2.0 / STEP_RECORDS as f64;
    let hashes = (accounts * 2.0 + steps * (tree::DEPTH as f64 + 15.0)) * 2.0 + accounts;
    let mut rows = vec![
        Row::new("seal 100,000 accounts", sealed, "s"),
        Row::new("prove 100,000 accounts", proved, "s"),
        Row::new("seal and prove 100,000 accounts", sealed + proved, "s").beside(hashes / bare).at_most(1.0),
        Row::new("bare keccak-256 of two children", bare, "1/s"),
    ];
    if let Some(peak) = process::memory("self", "VmHWM") {
        rows.push(Row::new("peak memory of seal and prove", peak, "MB").at_most(200.0));
    }
    Ok(rows)
}
