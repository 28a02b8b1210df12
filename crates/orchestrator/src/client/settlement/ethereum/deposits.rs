//! Deposits, from the contract's `Deposited` events: in the order of their indexes and without a gap, whatever the chain does while
//! they are read.

use alloy::{
    primitives::{B256, U256},
    rpc::types::{Filter, Log},
    sol_types::SolEvent as _,
};
use parking_lot::Mutex;

use super::{abi::Settlement, logs, node::not_now, sender::Sender};
use crate::core::{
    madara::settlement::{Deposit, SettlementError},
    market::{account::AccountKey, address::Address, block::Hash32, money::Amount, quantity::Timestamp},
};

type Result<T> = std::result::Result<T, SettlementError>;

/// Deposits asked for at once, at most: each is a word in the question.
const AT_ONCE: usize = 128;

/// Where to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// The block in which the contract was made.
    pub from_block: u64,
    /// Blocks in one question for events, at most.
    pub log_range: u64,
    /// Blocks on top of a deposit until it counts.
    pub confirmations: u64,
}

/// Reads deposits, and remembers where it was.
pub struct Deposits {
    settings: LogSettings,
    /// A confirmed deposit and its block: nothing after it is earlier, while that block stays.
    reached: Mutex<Option<Reached>>,
}

#[derive(Debug, Clone, Copy)]
struct Reached {
    index: u64,
    block: u64,
    hash: Hash32,
}

impl Deposits {
    /// A reader that begins with the contract.
    #[must_use]
    pub const fn new(settings: LogSettings) -> Self {
        Self { settings, reached: Mutex::new(None) }
    }

    /// Up to `limit` deposits after the one with index `after`.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`], also when the node's events have a gap.
    pub async fn after(&self, sender: &Sender, after: u64, limit: usize) -> Result<Vec<Deposit>> {
        let limit = limit.min(AT_ONCE);
        if limit == 0 {
            return Ok(Vec::new());
        }
        // As a rule there is none, and then nothing need be searched.
        let head = sender.node().head().await?.number;
        let count = sender.node().read(sender.contract(), &Settlement::depositCountCall {}, head).await?;
        if count <= after {
            return Ok(Vec::new());
        }
        let limit = limit.min(usize::try_from(count - after).unwrap_or(usize::MAX));
        let wanted: Vec<B256> =
            (1..=limit as u64).map(|step| B256::from(U256::from(after.saturating_add(step)))).collect();
        let filter = Filter::new()
            .address(sender.contract())
            .event_signature(Settlement::Deposited::SIGNATURE_HASH)
            .topic1(wanted);
        let LogSettings { from_block, log_range, confirmations } = self.settings;
        let from = self.begin(sender, after).await?.unwrap_or(from_block);
        let (found, head) =
            logs::until(sender.node(), &filter, from, log_range, |found| found.len() >= limit).await?;
        let confirmed = head.number.checked_sub(confirmations);
        let mut deposits = Vec::new();
        for (log, index) in found.iter().zip(after + 1..) {
            let block = log.block_number.unwrap_or(u64::MAX);
            let is_confirmed = confirmed.is_some_and(|confirmed| block <= confirmed);
            match read(sender, log, index, is_confirmed).await {
                Ok(deposit) => deposits.push(deposit),
                Err(error) if deposits.is_empty() => return Err(error),
                // Those before it can be had.
                Err(_) => break,
            }
            if let (true, Some(hash)) = (is_confirmed, log.block_hash) {
                *self.reached.lock() = Some(Reached { index, block, hash: Hash32(hash.0) });
            }
        }
        Ok(deposits)
    }

    /// The block to begin with, when it is known better than by the contract's age.
    async fn begin(&self, sender: &Sender, after: u64) -> Result<Option<u64>> {
        let known = self.reached.lock().filter(|reached| reached.index <= after);
        let Some(known) = known else { return Ok(None) };
        let there = sender.node().block(known.block).await?.is_some_and(|block| block.hash == known.hash);
        Ok(there.then_some(known.block))
    }
}

/// The deposit that an event tells of, which must be the one with this index.
async fn read(sender: &Sender, log: &Log, index: u64, confirmed: bool) -> Result<Deposit> {
    let event = Settlement::Deposited::decode_log(&log.inner).map_err(|error| not_now(error.to_string()))?;
    if event.index != index {
        return Err(not_now(format!("the node's events have deposit {} where {index} is due", event.index)));
    }
    let named = event.name.parse::<AccountKey>().ok().filter(|account| account.to_string() == event.name);
    // Under another spelling the chain's account is another one.
    let account = named.unwrap_or(AccountKey::Unclaimed(event.key.0));
    let owner = Some(Address(event.owner.into_array()));
    let seconds = match (log.block_timestamp, log.block_number) {
        (Some(time), _) => time,
        (None, Some(number)) => {
            sender.node().block(number).await?.ok_or_else(|| not_now("the deposit's block went"))?.time
        }
        (None, None) => return Err(not_now("the deposit is in no block")),
    };
    let micros = i64::try_from(seconds.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    Ok(Deposit { index, account, owner, amount: Amount(event.amount), confirmed, at: Timestamp(micros) })
}
