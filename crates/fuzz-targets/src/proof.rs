//! Inclusion proofs: as texts from outside, and genuine ones with something changed.

use std::sync::LazyLock;

use arbitrary::{Result, Unstructured};
use orchestrator::core::market::{
    account::AccountKey,
    block::Hash32,
    ids::{ConsumerId, Id},
    money::Amount,
    state::{
        AccountProof, LedgerState, MarketProof, Record, account_key_hash, market_key_hash, verify_account,
        verify_market,
    },
    terms::DomainId,
};
use uuid::Uuid;

/// A committed state with all that it can prove.
#[derive(Debug)]
pub(crate) struct Known {
    root: Hash32,
    pub(crate) accounts: Vec<(AccountKey, AccountProof)>,
    pub(crate) market: Vec<MarketProof>,
}

/// A state of up to seven accounts and five names in the market tree; the amounts are the caller's.
fn known(accounts: u8, names: u8, amounts: impl Fn(u8) -> u128) -> Known {
    let domain = DomainId::local();
    let mut state = LedgerState::new(domain.clone());
    let keys: Vec<AccountKey> = (0..accounts).map(account).collect();
    for (at, key) in (0_u8..).zip(&keys) {
        state.apply(&Record::OpenAccount { key: account_key_hash(&domain, None, key) }).unwrap();
        let (index, to) = (state.last_deposit() + 1, u32::from(at));
        // Too much is refused, and the account stays empty.
        let _ = state.apply(&Record::Deposit { index, to, amount: amounts(at) });
        let _ = state.apply(&Record::Transfer { kind: 12, from: to, to, amount: amounts(at) / 3 });
    }
    let names: Vec<String> = (0..names).map(|at| format!("unit:{at}")).collect();
    for (at, name) in (0_u8..).zip(&names) {
        state.apply(&Record::MarketOpen { key: market_key_hash(&domain, name) }).unwrap();
        state.apply(&Record::MarketSet { index: at.into(), digest: [at.wrapping_mul(37); 26] }).unwrap();
    }
    let root = state.root();
    let of = |key: AccountKey, state: &mut LedgerState| {
        let hash = account_key_hash(&domain, None, &key);
        (key, state.prove_account(&hash).unwrap())
    };
    let accounts = keys.into_iter().map(|key| of(key, &mut state)).collect();
    let market = names.iter().map(|name| state.prove_market(name).unwrap()).collect();
    Known { root, accounts, market }
}

fn account(at: u8) -> AccountKey {
    match at {
        0 => AccountKey::Fees,
        at => AccountKey::Consumer(ConsumerId::from_uuid(Uuid::from_u128(at.into()))),
    }
}

/// The state that the seeds prove things of.
pub(crate) static KNOWN: LazyLock<Known> = LazyLock::new(|| known(5, 3, |at| u128::from(at) * 1_000 + 7));

/// The text of a proof shows what is so, or is not believed.
///
/// The input is JSON of an account's or of a market proof.
pub fn proof(data: &[u8]) {
    if let Ok(read) = serde_json::from_slice::<AccountProof>(data) {
        let text = serde_json::to_vec(&read).unwrap();
        assert_eq!(serde_json::from_slice::<AccountProof>(&text).unwrap(), read);
        believed_account(&KNOWN, &read);
    }
    if let Ok(read) = serde_json::from_slice::<MarketProof>(data) {
        let text = serde_json::to_vec(&read).unwrap();
        assert_eq!(serde_json::from_slice::<MarketProof>(&text).unwrap(), read);
        believed_market(&KNOWN, &read);
    }
}

/// A proof is believed of an account exactly when it is the genuine one.
fn believed_account(known: &Known, proof: &AccountProof) {
    let (domain, other) = (DomainId::local(), DomainId("other".into()));
    for (key, genuine) in &known.accounts {
        let hash = account_key_hash(&domain, None, key);
        assert_eq!(verify_account(&domain, &hash, &known.root, proof), proof == genuine, "{key} {proof:?}");
        assert!(!verify_account(&other, &hash, &known.root, proof));
        assert!(!verify_account(&domain, &hash, &Hash32::default(), proof));
    }
    let nobody = account_key_hash(&domain, None, &account(99));
    assert!(!verify_account(&domain, &nobody, &known.root, proof), "{proof:?}");
}

fn believed_market(known: &Known, proof: &MarketProof) {
    let genuine = known.market.contains(proof);
    assert_eq!(verify_market(&DomainId::local(), &known.root, proof), genuine, "{proof:?}");
    assert!(!verify_market(&DomainId("other".into()), &known.root, proof));
    assert!(!verify_market(&DomainId::local(), &Hash32::default(), proof));
}

/// No change of a genuine proof is believed, nor one proof in place of another.
///
/// The input says which state, which proofs, and what is changed.
pub fn proof_mutated(data: &[u8]) {
    let _ = changed(&mut Unstructured::new(data));
}

fn changed(input: &mut Unstructured<'_>) -> Result<()> {
    let (accounts, names) = (input.int_in_range(1..=7)?, input.int_in_range(1..=5)?);
    let amounts: [u128; 7] = input.arbitrary()?;
    let known = known(accounts, names, |at| amounts.get(usize::from(at)).copied().unwrap_or(0));
    let (_, mut proof) = input.choose(&known.accounts)?.clone();
    let (_, other) = input.choose(&known.accounts)?.clone();
    believed_account(&known, &proof);
    let mut entry = input.choose(&known.market)?.clone();
    let foreign = input.choose(&known.market)?.clone();
    believed_market(&known, &entry);
    for _ in 0..input.int_in_range(1..=4)? {
        change_account(input, &mut proof, &other, &entry)?;
        change_market(input, &mut entry, &foreign, &proof)?;
    }
    believed_account(&known, &proof);
    believed_market(&known, &entry);
    Ok(())
}

fn change_account(
    input: &mut Unstructured<'_>,
    proof: &mut AccountProof,
    other: &AccountProof,
    entry: &MarketProof,
) -> Result<()> {
    match input.int_in_range(0..=10_u8)? {
        0 => proof.index = number(input, proof.index, other.index)?,
        1 => proof.balance = amount(input, proof.balance, other.balance)?,
        2 => proof.withdrawable = amount(input, proof.withdrawable, other.withdrawable)?,
        3 => siblings(input, &mut proof.siblings, &other.siblings)?,
        4 => hash(input, &mut proof.market_root)?,
        5 => proof.next_index = number(input, proof.next_index, other.index)?,
        6 => proof.total = amount(input, proof.total, other.total)?,
        7 => hash(input, &mut proof.state_root)?,
        8 => text(input, &mut proof.key, &other.key)?,
        9 => std::mem::swap(&mut proof.balance, &mut proof.withdrawable),
        _ => proof.market_root = entry.accounts_root,
    }
    Ok(())
}

fn change_market(
    input: &mut Unstructured<'_>,
    proof: &mut MarketProof,
    other: &MarketProof,
    account: &AccountProof,
) -> Result<()> {
    match input.int_in_range(0..=8_u8)? {
        0 => proof.index = number(input, proof.index, other.index)?,
        1 => siblings(input, &mut proof.siblings, &other.siblings)?,
        2 => hash(input, &mut proof.accounts_root)?,
        3 => proof.next_index = number(input, proof.next_index, other.index)?,
        4 => proof.total = amount(input, proof.total, account.balance)?,
        5 => hash(input, &mut proof.state_root)?,
        6 => text(input, &mut proof.digest, &other.digest)?,
        7 => text(input, &mut proof.name, &other.name)?,
        _ => proof.accounts_root = account.market_root,
    }
    Ok(())
}

fn number(input: &mut Unstructured<'_>, now: u32, other: u32) -> Result<u32> {
    Ok(match input.int_in_range(0..=2_u8)? {
        0 => now ^ (1 << input.int_in_range(0..=31_u32)?),
        1 => other,
        _ => input.arbitrary()?,
    })
}

fn amount(input: &mut Unstructured<'_>, now: Amount, other: Amount) -> Result<Amount> {
    Ok(match input.int_in_range(0..=2_u8)? {
        0 => Amount(now.0 ^ (1 << input.int_in_range(0..=127_u32)?)),
        1 => other,
        _ => Amount(input.arbitrary()?),
    })
}

fn hash(input: &mut Unstructured<'_>, hash: &mut Hash32) -> Result<()> {
    if let Some(byte) = hash.0.get_mut(input.int_in_range(0..=31_usize)?) {
        *byte = input.arbitrary()?;
    }
    Ok(())
}

fn siblings(input: &mut Unstructured<'_>, siblings: &mut Vec<Hash32>, other: &[Hash32]) -> Result<()> {
    let at = input.int_in_range(0..=31_usize)?;
    match input.int_in_range(0..=4_u8)? {
        0 => siblings.truncate(at),
        1 => siblings.push(Hash32::default()),
        2 => other.clone_into(siblings),
        3 if at + 1 < siblings.len() => siblings.swap(at, at + 1),
        _ => {
            if let Some(sibling) = siblings.get_mut(at) {
                hash(input, sibling)?;
            }
        }
    }
    Ok(())
}

fn text(input: &mut Unstructured<'_>, text: &mut String, other: &str) -> Result<()> {
    match input.int_in_range(0..=3_u8)? {
        0 => text.make_ascii_uppercase(),
        1 => other.clone_into(text),
        2 => drop(text.pop()),
        _ => text.push(input.arbitrary()?),
    }
    Ok(())
}
