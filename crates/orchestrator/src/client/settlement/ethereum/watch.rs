//! Watches an operator: executes every block that stands on the chain from what everybody can read, and says what is wrong with the
//! first wrong one, with the call that makes it fall.

use alloy::{primitives::Bytes, rpc::types::Filter, sol_types::SolEvent as _};

use super::{
    abi::Settlement,
    blocks::{Place, RegisteredBlock},
    challenge::{call, cells},
    logs,
    node::{Node, not_now, unavailable},
};
use crate::{
    client::da::ethereum::EthereumDa,
    core::{
        madara::settlement::SettlementError,
        market::state::{
            LedgerState,
            fraud::{Fraud, find_fraud},
            ledger_state::witness::ChainDeposit,
        },
    },
};

type Result<T> = std::result::Result<T, SettlementError>;

/// A wrong block.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The block.
    pub block: RegisteredBlock,
    /// What is wrong with it.
    pub fraud: Fraud,
    /// Call data that shows it to the contract.
    pub call: Bytes,
}

/// What a look at the chain came to.
#[derive(Debug, Clone)]
pub struct Look {
    /// Blocks that are right.
    pub right: u64,
    /// The first wrong one, if there is one.
    pub finding: Option<Finding>,
}

/// Executes every block that stands.
///
/// # Errors
/// [`SettlementError::Unavailable`] when node or beacon node do not answer, or do not have the blobs any more.
pub async fn look(place: &Place, node: &Node, da: &EthereumDa) -> Result<Look> {
    let deposits = deposits(place, node).await?;
    let deposit = |index: u64| {
        let at = usize::try_from(index.checked_sub(1)?).ok()?;
        deposits.get(at).copied()
    };
    let mut state = LedgerState::new(place.domain.clone());
    let mut right = 0;
    for (number, block) in place.blocks(node).await? {
        let blobs = da.blobs(number, &block.blobs).await.map_err(unavailable)?;
        let blobs = blobs.ok_or_else(|| not_now(format!("the blobs of block {number} are not to be had")))?;
        let cells = cells(&blobs, block.header.records);
        let Some(fraud) = find_fraud(&mut state, &block.header, &block.steps, &cells, &deposit) else {
            state.settle();
            right += 1;
            continue;
        };
        let call = call(&block, &blobs, &fraud).map_err(unavailable)?;
        return Ok(Look { right, finding: Some(Finding { block, fraud, call }) });
    }
    Ok(Look { right, finding: None })
}

/// Every deposit, in the order of their indexes.
async fn deposits(place: &Place, node: &Node) -> Result<Vec<ChainDeposit>> {
    let filter = Filter::new().address(place.contract).event_signature(Settlement::Deposited::SIGNATURE_HASH);
    let logs = logs::all(node, &filter, place.from_block, place.log_range).await?;
    let mut deposits = Vec::with_capacity(logs.len());
    for (log, index) in logs.iter().zip(1..) {
        let event = Settlement::Deposited::decode_log(&log.inner).map_err(unavailable)?;
        if event.index != index {
            return Err(not_now(format!(
                "the node's events have deposit {} where {index} is due",
                event.index
            )));
        }
        deposits.push((event.key.0, event.amount));
    }
    Ok(deposits)
}
