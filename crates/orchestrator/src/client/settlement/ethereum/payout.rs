//! The call that pays several accounts out by one proof, and who makes it. Anybody may: the contract pays the owners, and each
//! token once.

use alloy::{primitives::Bytes, sol_types::SolCall as _};
use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _};

use super::{
    EthereumSettlement, Result,
    abi::{self, Settlement, Token},
    node::{not_now, request},
};
use crate::core::{
    madara::{
        payout::{PayoutBatch, PayoutClient, Trial},
        settlement::{Holdings, SettlementError},
    },
    market::{
        account::AccountKey,
        address::Address,
        money::Amount,
        state::{AccountsProof, ShortHash, proof::ProvedLeaf},
    },
};

/// Questions that a node is asked at once.
const QUESTIONS: usize = 8;
/// What a payment takes beyond its part in a call that pays all or none: a call of its own.
const OWN_CALL: u64 = 6_000;
/// What must be left when the last payment begins, so that it gets the 300,000 that the contract lets it take: a call gets at most
/// 63 of 64 parts of what there is.
const LAST_CALL: u64 = 310_000;

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

fn refused(what: &str) -> SettlementError {
    SettlementError::Refused(what.to_owned())
}

/// The call that pays all or none: what it takes and why it fails says something about the payments. That which leaves out whom it
/// can't pay always succeeds, with too little gas, too.
fn all_or_none(call: &[u8]) -> Vec<u8> {
    let arguments = call.get(4..).unwrap_or_default();
    [Settlement::withdrawCall::SELECTOR.as_slice(), arguments].concat()
}

impl EthereumSettlement {
    /// The gas that a batch needs; or why it can't be.
    async fn needs(&self, batch: &PayoutBatch, call: &[u8]) -> Result<std::result::Result<u64, Trial>> {
        let sender = &self.sender;
        let question = request(Some(sender.address()), sender.contract(), all_or_none(call).into());
        let most = sender.most_gas();
        match sender.node().try_out(question, most).await? {
            None => Ok(Err(Trial::TooLarge)),
            Some(Ok(gas)) => {
                let calls = OWN_CALL.saturating_mul(batch.accounts.len() as u64);
                // States differ by the time that it is mined.
                let needed = gas.saturating_add(gas / 10).saturating_add(calls).saturating_add(LAST_CALL);
                Ok(if needed > most { Err(Trial::TooLarge) } else { Ok(needed) })
            }
            Some(Err(data)) => match abi::unpaid(&data) {
                Some(reason) => Ok(Err(Trial::Fails(reason))),
                None if abi::passes(&data) => Err(not_now(format!("not yet: {}", abi::reason(&data)))),
                None => Err(SettlementError::Refused(abi::reason(&data))),
            },
        }
    }
}

fn call_of(batch: &PayoutBatch) -> Result<Bytes> {
    let call = call(batch.block, &batch.accounts, &batch.proof);
    Ok(call.ok_or_else(|| refused("an account of the batch has no owner on the chain"))?.into())
}

#[async_trait]
impl PayoutClient for EthereumSettlement {
    async fn paid(&self, accounts: &[ShortHash]) -> Result<Vec<Amount>> {
        let (node, contract) = (self.sender.node(), self.sender.contract());
        let Some(settled) = node.settled(self.sender.finality()).await? else {
            return Ok(vec![Amount::ZERO; accounts.len()]);
        };
        let ask = |key: ShortHash| async move {
            let call = Settlement::paidCall { key: key.into() };
            match node.read(contract, &call, settled.number).await {
                Ok(paid) => Ok(Amount(paid)),
                // The contract is younger than that block.
                Err(SettlementError::Refused(_)) => Ok(Amount::ZERO),
                Err(error) => Err(error),
            }
        };
        futures::stream::iter(accounts.to_vec()).map(ask).buffered(QUESTIONS).try_collect().await
    }

    async fn try_out(&self, batch: &PayoutBatch) -> Result<Trial> {
        let call = call_of(batch)?;
        Ok(self.needs(batch, &call).await?.map_or_else(|trial| trial, |_| Trial::Works))
    }

    async fn pay_out(&self, key: &str, batch: &PayoutBatch) -> Result<()> {
        let call = call_of(batch)?;
        let gas = match self.needs(batch, &call).await? {
            Ok(gas) => gas,
            Err(Trial::Fails(reason)) => return Err(SettlementError::Refused(reason)),
            Err(_) => return Err(refused("the batch is too large")),
        };
        self.sender.send_with_gas(key, call, gas).await?;
        Ok(())
    }
}

impl EthereumSettlement {
    /// What the contract has and what it paid, as of one block.
    pub(super) async fn what_it_holds(&self) -> Result<Holdings> {
        let (node, contract) = (self.sender.node(), self.sender.contract());
        let head = node.head().await?.number;
        let balance = node.read(self.token, &Token::balanceOfCall { who: contract }, head).await?;
        let paid = node.read(contract, &Settlement::totalPaidCall {}, head).await?;
        let operator = node.read(contract, &Settlement::operatorCall {}, head).await?;
        let bond = node.read(contract, &Settlement::bondsCall { operator }, head).await?;
        let balance = Amount(u128::try_from(balance).unwrap_or(u128::MAX));
        Ok(Holdings { held: balance.saturating_sub(Amount(bond)), paid: Amount(paid) })
    }
}
