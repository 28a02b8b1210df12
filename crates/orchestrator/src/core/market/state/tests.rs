use proptest::prelude::*;

use super::{
    hash::{ShortHash, account_key_hash},
    ledger_state::{ApplyError, LedgerState},
    proof::verify_account,
    record::{Record, events_root},
    *,
};
use crate::core::market::{
    account::AccountKey,
    block::{BlockHeader, Hash32},
    money::Amount,
    terms::DomainId,
};

fn key(n: u8) -> ShortHash {
    [n; 30]
}

fn small_state() -> LedgerState {
    let mut state = LedgerState::new(DomainId::local());
    for record in [
        Record::OpenAccount { key: key(1) },
        Record::Deposit { index: 1, to: 0, amount: 1_000 },
        Record::OpenAccount { key: key(2) },
        Record::Transfer { kind: 4, from: 0, to: 1, amount: 300 },
        Record::Transfer { kind: 12, from: 1, to: 1, amount: 100 },
        Record::MarketOpen { key: key(3) },
        Record::MarketSet { index: 0, digest: [7; 26] },
    ] {
        state.apply(&record).unwrap();
    }
    state
}

#[test]
fn golden_roots_and_header() {
    let mut state = small_state();
    assert_eq!(
        state.root().to_string(),
        "0xa16cc580142da5445b550ceb34595c3dc5b4bdc7104383eb82e6bb2569647bf5"
    );
    let header = BlockHeader {
        domain: DomainId::local(),
        number: 1,
        parent: Hash32::default(),
        state_root: state.root(),
        total: state.total(),
        events_root: events_root(&[
            Record::OpenAccount { key: key(1) },
            Record::MarketOpen { key: key(2) },
            Record::MarketOpen { key: key(3) },
        ]),
        evidence_root: Hash32::default(),
        last_deposit: 1,
        records: 3,
        next_market: None,
    };
    let found = [
        header_hash(&header).to_string(),
        header::genesis_root(&DomainId::local()).to_string(),
        hex::encode(account_key_hash(&DomainId::local(), None, &AccountKey::Fees)),
    ];
    assert_eq!(
        found,
        [
            "0x04b9596c58310f14a1404f77252e05832f4bc065f0a2771326a3217ebcd338ed",
            "0xe3a6e10d24196bea5e5d691f62409bd48cab359bbd49c71e51622afbe51ebb3a",
            "1d84d5ebae47c855dd519447d5cfaa49de2bab692ecb925073980e2d2b9f"
        ]
    );
}

#[test]
fn every_broken_rule_is_refused_and_changes_nothing() {
    let cases = [
        (Record::OpenAccount { key: key(1) }, ApplyError::AccountExists),
        (Record::Transfer { kind: 4, from: 0, to: 1, amount: 701 }, ApplyError::Overdraft(0)),
        (Record::Transfer { kind: 4, from: 0, to: 9, amount: 1 }, ApplyError::UnknownAccount(9)),
        (Record::Transfer { kind: 4, from: 9, to: 0, amount: 1 }, ApplyError::UnknownAccount(9)),
        (Record::Transfer { kind: 4, from: 0, to: 1, amount: 0 }, ApplyError::ZeroAmount),
        (Record::Transfer { kind: 4, from: 0, to: 0, amount: 1 }, ApplyError::WrongKind),
        (Record::Transfer { kind: 12, from: 0, to: 1, amount: 1 }, ApplyError::WrongKind),
        (Record::Transfer { kind: 1, from: 0, to: 1, amount: 1 }, ApplyError::WrongKind),
        (Record::Transfer { kind: 15, from: 0, to: 1, amount: 1 }, ApplyError::WrongKind),
        (Record::Transfer { kind: 7, from: 0, to: 1, amount: 1 }, ApplyError::Credit),
        (Record::Transfer { kind: 8, from: 0, to: 1, amount: 1 }, ApplyError::Credit),
        (Record::Deposit { index: 1, to: 0, amount: 1 }, ApplyError::WrongDeposit { expected: 2, found: 1 }),
        (Record::Deposit { index: 3, to: 0, amount: 1 }, ApplyError::WrongDeposit { expected: 2, found: 3 }),
        (Record::Deposit { index: 2, to: 0, amount: u128::MAX }, ApplyError::Overflow),
        (Record::Deposit { index: 2, to: 9, amount: 1 }, ApplyError::UnknownAccount(9)),
        (Record::MarketOpen { key: key(3) }, ApplyError::MarketExists),
        (Record::MarketSet { index: 1, digest: [0; 26] }, ApplyError::UnknownMarket(1)),
        (Record::VerdictEvidence { root: key(1) }, ApplyError::BrokenVerdict),
    ];
    for (record, error) in cases {
        let mut state = small_state();
        let before = state.root();
        assert_eq!(state.apply(&record), Err(error), "{record:?}");
        assert_eq!(state.root(), before, "{record:?}");
        assert!(state.is_balanced());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Random records: those that apply keep the books balanced, a rollback restores the root, and proofs hold.
    #[test]
    fn the_books_balance_after_any_sequence(
        steps in prop::collection::vec((0_u8..8, any::<u8>(), any::<u8>(), any::<u64>()), 1..80), cut in any::<u8>(),
    ) {
        let mut state = LedgerState::new(DomainId::local());
        let mut applied = Vec::new();
        let cut = usize::from(cut) % steps.len();
        let mut marked = None;
        for (at, (what, a, b, n)) in steps.into_iter().enumerate() {
            if at == cut {
                state.settle();
                marked = Some((state.mark(), state.root(), applied.clone()));
            }
            let record = match what {
                0 | 1 => Record::OpenAccount { key: key(a) },
                2 => Record::Deposit { index: state.last_deposit() + 1, to: u32::from(a % 8), amount: n.into() },
                3 => Record::MarketOpen { key: key(a) },
                4 => Record::MarketSet { index: u32::from(a % 8), digest: [b; 26] },
                5 => Record::Transfer { kind: 12, from: u32::from(a % 8), to: u32::from(a % 8), amount: n.into() },
                _ => Record::Transfer { kind: 4, from: u32::from(a % 8), to: u32::from(b % 8), amount: (n >> 3).into() },
            };
            if state.apply(&record).is_ok() {
                applied.push(record);
            }
            prop_assert!(state.is_balanced());
        }
        let mut replayed = LedgerState::new(DomainId::local());
        for record in &applied {
            prop_assert_eq!(replayed.apply(record), Ok(()));
        }
        let root = replayed.root();
        prop_assert_eq!(state.root(), root);
        for leaf in state.accounts().to_vec() {
            let proof = state.prove_account(&leaf.key).unwrap();
            prop_assert!(verify_account(&DomainId::local(), &leaf.key, &root, &proof));
        }
        if let Some((mark, before, kept)) = marked {
            state.rollback(mark);
            prop_assert_eq!(state.root(), before);
            for record in applied.iter().skip(kept.len()) {
                prop_assert_eq!(state.apply(record), Ok(()));
            }
            prop_assert_eq!(state.root(), root);
        }
    }

    #[test]
    fn any_change_of_a_proof_breaks_it(what in 0_usize..8, at in 0_usize..32, bit in 0_usize..256) {
        let mut state = small_state();
        let root = state.root();
        let domain = DomainId::local();
        let good = state.prove_account(&key(2)).unwrap();
        prop_assert!(verify_account(&domain, &key(2), &root, &good));
        prop_assert!(!verify_account(&domain, &key(1), &root, &good));
        prop_assert!(!verify_account(&DomainId("other".into()), &key(2), &root, &good));
        let flip = |hash: &mut Hash32| hash.0[bit / 8] ^= 1 << (bit % 8);
        let mut bad = good;
        match what {
            0 => bad.index ^= 1 << at,
            1 => bad.balance = Amount(bad.balance.0 ^ 1 << (bit % 128)),
            2 => bad.withdrawable = Amount(bad.withdrawable.0 ^ 1 << (bit % 128)),
            3 => {
                let at = at % bad.siblings.len();
                flip(&mut bad.siblings[at]);
            }
            4 => flip(&mut bad.market_root),
            5 => bad.next_index ^= 1 << at,
            6 => bad.total = Amount(bad.total.0 ^ 1 << (bit % 128)),
            _ => flip(&mut bad.state_root),
        }
        prop_assert!(!verify_account(&domain, &key(2), &root, &bad));
        bad.siblings.pop();
        prop_assert!(!verify_account(&domain, &key(2), &root, &bad));
    }
}

/// The vectors that the contract, its tests and the plain JavaScript agree on.
mod vectors {
    use serde_json::Value;

    use super::*;
    use crate::core::market::{
        address::Address,
        block::BlockFormat,
        state::{
            hash::domain_hash,
            proof::{AccountsProof, ProvedLeaf, verify_accounts},
            step::{StepState, execute, steps_root},
        },
    };

    pub(super) const FORMAT: &str =
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../contracts/ethereum/vectors/format.json"));

    fn text<'a>(value: &'a Value, field: &str) -> &'a str {
        value[field].as_str().unwrap_or_else(|| panic!("{field} in {value}"))
    }

    fn hash(value: &Value, field: &str) -> Hash32 {
        text(value, field).parse().unwrap()
    }

    fn amount(value: &Value, field: &str) -> Amount {
        Amount(text(value, field).parse().unwrap())
    }

    fn hashes(value: &Value) -> Vec<Hash32> {
        value.as_array().unwrap().iter().map(|it| it.as_str().unwrap().parse().unwrap()).collect()
    }

    fn records(block: &Value) -> Vec<Record> {
        let cells = block["cells"].as_array().unwrap().iter();
        let data: Vec<u8> = cells.flat_map(|it| hex::decode(&it.as_str().unwrap()[2..]).unwrap()).collect();
        decode_records(block["header"]["number"].as_u64().unwrap(), &data).unwrap()
    }

    #[test]
    fn our_blocks_are_the_contracts() {
        let format: Value = serde_json::from_str(FORMAT).unwrap();
        let domain = DomainId(text(&format, "domainName").to_owned());
        assert_eq!(domain_hash(&domain), hash(&format, "domain"));
        assert_eq!(format["stepRecords"].as_u64(), Some(STEP_RECORDS as u64));
        let mut state = LedgerState::new(domain.clone());
        assert_eq!(state.root(), hash(&format, "genesisRoot"));
        assert_eq!(state.step_state().hash(), hash(&format, "genesisState"));
        for block in format["blocks"].as_array().unwrap() {
            let records = records(block);
            let steps = execute(&mut state, BlockFormat::Steps, &records).unwrap();
            let expected = block["steps"].as_array().unwrap();
            assert_eq!(steps.len(), expected.len());
            for (step, expected) in steps.iter().zip(expected) {
                assert_eq!(
                    (step.cells, step.state, step.leaf(), u64::from(step.count)),
                    (
                        hash(expected, "cells"),
                        hash(expected, "state"),
                        hash(expected, "leaf"),
                        expected["count"].as_u64().unwrap()
                    )
                );
            }
            let registered: Vec<u8> = steps.iter().flat_map(Step::registered).collect();
            assert_eq!(format!("0x{}", hex::encode(registered)), text(block, "registered"));
            let expected = &block["header"];
            let header = BlockHeader {
                domain: domain.clone(),
                number: expected["number"].as_u64().unwrap(),
                parent: hash(expected, "parent"),
                state_root: state.root(),
                total: state.total(),
                events_root: steps_root(&steps),
                evidence_root: evidence_root(&records),
                last_deposit: state.last_deposit(),
                records: records.len() as u32,
                next_market: Some(state.next_market_index()),
            };
            assert_eq!(header.state_root, hash(expected, "stateRoot"));
            assert_eq!(header.events_root, hash(expected, "eventsRoot"));
            assert_eq!(header.evidence_root, hash(expected, "evidenceRoot"));
            assert_eq!(header.total, amount(expected, "total"));
            assert_eq!(header_hash(&header), hash(block, "hash"));
            assert_eq!(StepState::end_of(&header), Some(state.step_state()));
            proofs(&domain, &mut state, block);
        }
    }

    fn proofs(domain: &DomainId, state: &mut LedgerState, block: &Value) {
        let root = state.root();
        let mut leaves = Vec::new();
        for account in block["accounts"].as_array().unwrap() {
            let owner: Address = text(account, "owner").parse().unwrap();
            let key = owned_key_hash(&domain_hash(domain), &owner, text(account, "name"));
            assert_eq!(format!("0x{}", hex::encode(key)), text(account, "key"));
            let proof = state.prove_account(&key).unwrap();
            assert_eq!(proof.siblings, hashes(&account["siblings"]));
            assert_eq!(
                (proof.balance, proof.withdrawable),
                (amount(account, "balance"), amount(account, "withdrawable"))
            );
            assert!(verify_account(domain, &key, &root, &proof));
            let (balance, withdrawable) = (proof.balance, proof.withdrawable);
            leaves.push((key, ProvedLeaf { key: proof.key, index: proof.index, balance, withdrawable }));
        }
        let picked = |at: &Value| leaves[at.as_u64().unwrap() as usize].clone();
        let many: Vec<_> = block["many"]["indexes"].as_array().unwrap().iter().map(picked).collect();
        // In any order, and twice.
        let keys: Vec<ShortHash> = many.iter().chain(&many).rev().map(|(key, _)| *key).collect();
        let proof = state.prove_accounts(&keys).unwrap();
        assert_eq!(proof.siblings, hashes(&block["many"]["siblings"]));
        assert_eq!(proof.leaves, many.into_iter().map(|(_, leaf)| leaf).collect::<Vec<_>>());
        assert!(verify_accounts(domain, &root, &proof));
        let mut wrong = proof.clone();
        wrong.leaves[0].balance = Amount(wrong.leaves[0].balance.0 + 1);
        assert!(!verify_accounts(domain, &root, &wrong));
        assert!(!verify_accounts(domain, &Hash32::default(), &proof));
        let none = AccountsProof { leaves: Vec::new(), ..proof };
        assert!(!verify_accounts(domain, &root, &none));
    }
}

/// What a challenger shows, against the witnesses of the vectors and against blocks that were made wrong.
mod fraud {
    use super::{
        super::{
            fraud::{Fraud, find_fraud},
            ledger_state::witness::{WrongCell, witness_of},
            record::{RECORD_BYTES, encode_records},
            step::{Step, execute, steps_root},
        },
        *,
    };
    use crate::core::market::block::BlockFormat;

    type Cells = Vec<Option<[u8; RECORD_BYTES]>>;

    fn cells(data: &[u8]) -> Cells {
        data.as_chunks::<RECORD_BYTES>().0.iter().copied().map(Some).collect()
    }

    #[test]
    fn witnesses_are_those_of_the_vectors() {
        let format: serde_json::Value = serde_json::from_str(vectors::FORMAT).unwrap();
        let mut state = LedgerState::new(DomainId(format["domainName"].as_str().unwrap().to_owned()));
        // What the vectors' deposits are; the contract reads them from its storage.
        let deposits = [(0, 1_000_000), (2, 50_000)];
        for block in format["blocks"].as_array().unwrap() {
            let names: Vec<ShortHash> = block["accounts"]
                .as_array()
                .unwrap()
                .iter()
                .map(|account| {
                    let mut key = ShortHash::default();
                    hex::decode_to_slice(&account["key"].as_str().unwrap()[2..], &mut key).unwrap();
                    key
                })
                .collect();
            let deposit = |index: u64| {
                let (account, amount) = deposits[index as usize - 1];
                Some((names[account], amount))
            };
            let all = block["cells"].as_array().unwrap();
            let own: Vec<[u8; RECORD_BYTES]> = all[1..]
                .iter()
                .map(|cell| hex::decode(&cell.as_str().unwrap()[2..]).unwrap().try_into().unwrap())
                .collect();
            for (cells, step) in own.chunks(STEP_RECORDS).zip(block["steps"].as_array().unwrap()) {
                let (witness, wrong) = witness_of(&mut state, cells, &deposit);
                assert_eq!(wrong, None);
                assert_eq!(format!("0x{}", hex::encode(witness)), step["witness"].as_str().unwrap());
            }
            state.end_block();
        }
    }

    /// A block of 100 records over three accounts, as it is registered, with its data.
    fn block(state: &mut LedgerState) -> (BlockHeader, Vec<Step>, Cells) {
        let mut records: Vec<Record> = (1..=3).map(|n| Record::OpenAccount { key: key(n) }).collect();
        records.push(Record::Deposit { index: 1, to: 0, amount: 10_000 });
        records.extend((0..96).map(|n| Record::Transfer { kind: 4, from: 0, to: 1 + n % 2, amount: 1 }));
        let steps = execute(state, BlockFormat::Steps, &records).unwrap();
        let header = BlockHeader {
            domain: DomainId::local(),
            number: 1,
            parent: Hash32::default(),
            state_root: state.root(),
            total: state.total(),
            events_root: steps_root(&steps),
            evidence_root: Hash32::default(),
            last_deposit: 1,
            records: 100,
            next_market: Some(0),
        };
        (header, steps, cells(&encode_records(1, &records)))
    }

    fn chain(index: u64) -> Option<(ShortHash, u128)> {
        (index == 1).then(|| (key(1), 10_000))
    }

    fn found(header: &BlockHeader, steps: &[Step], cells: &Cells) -> Option<Fraud> {
        find_fraud(&mut LedgerState::new(DomainId::local()), header, steps, cells, &chain)
    }

    /// Registers the steps for cells that were changed, with the states as they were.
    fn registered(steps: &[Step], cells: &Cells) -> Vec<Step> {
        let of = |(step, own): (&Step, &[Option<[u8; RECORD_BYTES]>])| {
            let own: Vec<u8> = own.iter().flat_map(|cell| cell.unwrap()).collect();
            Step { cells: Hash32(<sha3::Keccak256 as sha3::Digest>::digest(own).into()), ..*step }
        };
        steps.iter().zip(cells[1..].chunks(STEP_RECORDS)).map(of).collect()
    }

    #[test]
    fn a_right_block_has_none_and_each_wrong_one_its_own() {
        let mut after = LedgerState::new(DomainId::local());
        let (header, steps, cells) = block(&mut after);
        let mut state = LedgerState::new(DomainId::local());
        assert_eq!(find_fraud(&mut state, &header, &steps, &cells, &chain), None);
        assert_eq!(state.root(), after.root());

        let mut wrong = cells.clone();
        wrong[0].as_mut().unwrap()[9] ^= 1;
        assert_eq!(found(&header, &steps, &wrong), Some(Fraud::Head));

        // Other data than registered: changed, too wide, missing.
        let mut wide = cells.clone();
        wide[60] = None;
        let mut other = cells.clone();
        other[60].as_mut().unwrap()[26] ^= 1;
        let cut = cells[..60].to_vec();
        for wrong in [&wide, &other, &cut] {
            let Some(Fraud::Data(data)) = found(&header, &steps, wrong) else { panic!() };
            assert_eq!((data.step, data.registered), (1, steps[1]));
        }

        // The same records, with another state behind the second step.
        let mut lied = steps.clone();
        lied[1].state = Hash32([1; 32]);
        let Some(Fraud::Step(step)) = found(&header, &lied, &cells) else { panic!() };
        assert_eq!((step.step, step.wrong), (1, None));
        assert_eq!(step.state.step.hash(), steps[0].state);
        assert_eq!(step.before.as_ref().unwrap().0, steps[0].cells);

        // Records that can't be applied.
        let put = |at: usize, record: Record| {
            let mut wrong = cells.clone();
            wrong[at + 1] = Some(record.encode());
            let Some(Fraud::Step(step)) = found(&header, &registered(&steps, &wrong), &wrong) else {
                panic!()
            };
            (step.step, step.wrong)
        };
        let refused = |at, error| Some(WrongCell::Refused(at, error));
        assert_eq!(put(50, Record::OpenAccount { key: key(2) }), (1, refused(2, ApplyError::AccountExists)));
        let overdraft = Record::Transfer { kind: 4, from: 0, to: 1, amount: 10_001 };
        assert_eq!(put(99, overdraft), (2, refused(3, ApplyError::Overdraft(0))));
        let credit = Record::Transfer { kind: 7, from: 0, to: 1, amount: 1 };
        assert_eq!(put(99, credit), (2, refused(3, ApplyError::Credit)));
        let more = Record::Deposit { index: 1, to: 0, amount: 10_001 };
        assert_eq!(put(3, more), (0, Some(WrongCell::OtherDeposit(3))));
        let elsewhere = Record::Deposit { index: 1, to: 1, amount: 10_000 };
        assert_eq!(put(3, elsewhere), (0, Some(WrongCell::OtherDeposit(3))));
    }
}
