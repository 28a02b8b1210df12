//! The call that pays several accounts out by one proof. Anybody may make it: the contract pays the owners, and each token once.

use alloy::sol_types::SolCall as _;

use super::abi::Settlement;
use crate::core::market::{
    account::AccountKey,
    address::Address,
    state::{AccountsProof, proof::ProvedLeaf},
};

/// The call data for accounts in the order of the proof's leaves, each with its owner, by their state after block `number`; `None`
/// when an account has no owner or no name, or there is not one for each leaf.
#[must_use]
pub fn call(
    number: u64,
    accounts: &[(AccountKey, Option<Address>)],
    proof: &AccountsProof,
) -> Option<Vec<u8>> {
    if accounts.len() != proof.leaves.len() {
        return None;
    }
    let claim = |((account, owner), leaf): (&(AccountKey, Option<Address>), &ProvedLeaf)| {
        // Of money that nobody claimed, only whoever paid it in knows under which name.
        let named = !matches!(account, AccountKey::Unclaimed(_));
        Some(Settlement::Claim {
            owner: owner.filter(|_| named)?.0.into(),
            index: leaf.index,
            balance: leaf.balance.0,
            withdrawable: leaf.withdrawable.0,
            name: account.to_string(),
        })
    };
    let call = Settlement::withdrawManyCall {
        number,
        parts: Settlement::StateParts {
            market: proof.market_root.0.into(),
            nextIndex: proof.next_index,
            total: proof.total.0,
        },
        claims: accounts.iter().zip(&proof.leaves).map(claim).collect::<Option<_>>()?,
        siblings: proof.siblings.iter().map(|hash| hash.0.into()).collect(),
    };
    Some(call.abi_encode())
}
