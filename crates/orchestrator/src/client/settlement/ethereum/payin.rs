//! The calls by which an owner pays in: the token is told that the contract may take so much, and the contract takes it.

use alloy::{
    primitives::{Address as ChainAddress, U256},
    sol_types::SolCall,
};

use super::abi::Settlement;
use crate::core::{
    madara::settlement::CallToSign,
    market::{account::AccountKey, address::Address, money::Amount},
};

#[allow(missing_docs, reason = "the macro writes it")]
mod bindings {
    alloy::sol! {
        function approve(address spender, uint256 amount) external returns (bool);
    }
}

/// Both calls, in their order.
#[must_use]
pub fn calls(
    (chain_id, contract, token): (u64, ChainAddress, ChainAddress),
    owner: Address,
    account: AccountKey,
    amount: Amount,
) -> Vec<CallToSign> {
    let call = |what: &str, to: ChainAddress, data: Vec<u8>| CallToSign {
        what: what.to_owned(),
        chain_id,
        to: to.to_string(),
        data: format!("0x{}", hex::encode(data)),
    };
    let approve = bindings::approveCall { spender: contract, amount: U256::from(amount.0) };
    let deposit =
        Settlement::depositCall { owner: owner.0.into(), name: account.to_string(), amount: amount.0 };
    vec![
        call("lets the settlement contract take the tokens", token, approve.abi_encode()),
        call("pays them in for the account and its owner", contract, deposit.abi_encode()),
    ]
}
