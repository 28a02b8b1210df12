//! Golden files: one stored document per entity and version, as it lies in the databases of those who run the daemon. A
//! field that is renamed, lost or read in another way fails here, and so does an entity without a golden file.

mod databases;

use std::{collections::BTreeSet, fs, path::PathBuf};

use orchestrator::{
    core::{
        client::database::{DatabaseError, Document, Entity},
        job::{Job, JobState},
        market::{
            account::{Account, AccountKey, Transfer},
            allocation::{AccessState, Allocation, AllocationState, RestrictReason},
            block::{Block, BlockState},
            dispute::{Dispute, DisputeKind, DisputeState},
            money::Amount,
            quantity::{Bytes, Micros, Ppm},
            score::Reputation,
            unit::DataUnit,
        },
    },
    metadata::{CODECS, ENTITIES},
};
use serde_json::Value;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden(name: &str, version: u32) -> String {
    let path = directory().join(format!("{name}.v{version}.json"));
    fs::read_to_string(&path).unwrap_or_else(|_| panic!("`{name}` has no golden file for version {version}"))
}

fn read<T: Entity>() -> T {
    let body = golden(T::NAME, T::VERSION);
    Document { id: "golden".into(), version: 1, body }.decode::<T>().unwrap().value
}

#[test]
fn every_version_of_every_entity_is_read_and_the_present_one_is_written_the_same() {
    for codec in CODECS {
        for version in 1..=codec.version {
            let body = golden(codec.name, version);
            let (id, written) =
                (codec.rewrite)(&body).unwrap_or_else(|error| panic!("{}: {error:?}", codec.name));
            assert!(!id.is_empty(), "{}", codec.name);
            let written: Value = serde_json::from_str(&written).unwrap();
            assert_eq!(written["v"], codec.version, "{}", codec.name);
            if version == codec.version {
                let body: Value = serde_json::from_str(&body).unwrap();
                assert_eq!(written, body, "{}", codec.name);
            }
        }
    }
}

#[test]
fn a_document_of_a_newer_release_is_refused() {
    for codec in CODECS {
        let mut body: Value = serde_json::from_str(&golden(codec.name, codec.version)).unwrap();
        body["v"] = (codec.version + 1).into();
        let refused = (codec.rewrite)(&body.to_string());
        assert!(matches!(refused, Err(DatabaseError::TooNew { .. })), "{}", codec.name);
    }
}

/// The names that the sources give to entities, outside of unit tests.
fn named_in_sources(directory: PathBuf, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            named_in_sources(path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        for part in code.split("const NAME: &'static str = \"").skip(1) {
            found.insert(part.split('"').next().unwrap().to_owned());
        }
    }
}

#[test]
fn the_list_of_entities_is_complete_and_so_are_the_files() {
    let listed: BTreeSet<String> = ENTITIES.iter().map(|entity| entity.name.to_owned()).collect();
    assert_eq!(listed.len(), ENTITIES.len());
    let read: BTreeSet<String> = CODECS.iter().map(|codec| codec.name.to_owned()).collect();
    assert_eq!(listed, read, "metadata::ENTITIES and metadata::CODECS differ");
    let mut named = BTreeSet::new();
    named_in_sources(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src"), &mut named);
    assert_eq!(listed, named, "an entity of the sources is in no list");
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = name.strip_suffix(".json") else { continue };
        let (entity, version) = name.rsplit_once(".v").unwrap();
        let known = ENTITIES.iter().find(|known| known.name == entity);
        assert!(known.is_some_and(|known| version.parse::<u32>().unwrap() <= known.version), "{name}");
    }
}

/// Units and meanings of what money, capacity and ownership hang on.
#[test]
fn the_fields_mean_what_they_meant() {
    let account: Account = read();
    assert_eq!(
        (account.key, account.balance, account.sequence),
        (AccountKey::Fees, Amount(681_833_510_500_388), 6)
    );
    let transfer: Transfer = read();
    assert!(matches!((transfer.debit, transfer.credit), (AccountKey::Escrow(_), AccountKey::Consumer(_))));
    assert_eq!((transfer.debit_sequence, transfer.credit_sequence), (Some(6), Some(7)));
    let allocation: Allocation = read();
    assert_eq!(allocation.bytes, Bytes(Bytes::GIB));
    assert_eq!(allocation.period, Micros::from_days(1));
    assert_eq!((allocation.state, allocation.access), (AllocationState::Restricted, AccessState::Restricted));
    assert_eq!(
        allocation.restrictions.iter().copied().collect::<Vec<_>>(),
        [RestrictReason::Quota, RestrictReason::Violation]
    );
    assert_eq!((allocation.sla.latency_avg, allocation.sla.uptime), (Micros::from_millis(60), Ppm(999_500)));
    assert_eq!(allocation.breached_in_a_row, 2);
    let unit: DataUnit = read();
    assert_eq!(unit.free, unit.capacity.signed());
    assert_eq!(unit.price.per_gib_month, Amount(20_000_000_000_000_000_000));
    let job: Job = read();
    assert_eq!((job.state, job.lease_token, job.losses), (JobState::Completed, 10, 2));
    assert!(job.effects["tx"].outcome.is_some() && job.failures[0].retryable);
    let block: Block = read();
    assert_eq!((block.header.number, block.state, block.header.last_deposit), (5, BlockState::Final, 6));
    let dispute: Dispute = read();
    assert_eq!((dispute.kind, dispute.state), (DisputeKind::Violation, DisputeState::ForProvider));
    assert_eq!(dispute.held, Amount(1_000));
    let reputation: Reputation = read();
    assert_eq!((reputation.millipoints, reputation.history[0].delta), (48_000, -2_000));
}
