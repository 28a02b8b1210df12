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
    };
    let found = [
        header_hash(&header).to_string(),
        header::genesis_root(&DomainId::local()).to_string(),
        hex::encode(account_key_hash(&DomainId::local(), &AccountKey::Fees)),
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
        (Record::Transfer { kind: 14, from: 0, to: 1, amount: 1 }, ApplyError::WrongKind),
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
            3 => flip(&mut bad.siblings[at]),
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
