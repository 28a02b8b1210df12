//! How one transaction gets on. Each look compares the journal with the chain and does the next thing:
//!
//! ```text
//! prepared → sent → included → final            a receipt, whose block stays until it is there for good
//!             ↑________|                        the block went: it is sent again
//! sent: not mined for a while, and next in line → a dearer form with the same nonce; at the caps it is paused
//!       gone from the node                      → the same bytes again
//!       nonce used up by somebody else, for good → the same call with a new nonce
//! included without effect, for good → failed;  an empty one took its nonce, for good → abandoned
//! ```
//! Every change is guarded by the version that was read, so that two replicas that look at once don't both bump; and a form is
//! journalled before a node gets it.

use alloy::{
    consensus::{Signed, Transaction as _, TxEip4844Variant, TxEnvelope, transaction::PooledTransaction},
    eips::{BlockId, eip2718::Encodable2718 as _},
};

use super::{
    fees::Fees,
    journal::Saved,
    node::{Broadcast, Receipt},
    sender::{Result, Sender, Status},
    signer::{self, Call},
};
use crate::core::{
    client::database::Stored,
    madara::{
        settlement::SettlementError,
        transaction::{Attempt, ChainTransaction, TransactionState as State},
    },
    market::quantity::Micros,
};

type Entry = Stored<ChainTransaction>;

/// How often a transaction is looked at anew, because somebody else wrote first.
const TRIES: usize = 8;
/// When to come again after that.
const A_MOMENT: Micros = Micros::from_millis(100);

fn damaged() -> SettlementError {
    SettlementError::Refused("the journal holds bytes that are no transaction".to_owned())
}

fn envelope(attempt: &Attempt) -> Result<TxEnvelope> {
    let raw = hex::decode(&attempt.raw).map_err(|_| damaged())?;
    signer::read(&raw).ok_or_else(damaged)
}

/// What is offered by a form that was signed.
fn fees_of(attempt: &Attempt) -> Fees {
    Fees { gas: attempt.gas_fee.0, tip: attempt.tip.0, blob: attempt.blob_fee.map(|fee| fee.0) }
}

impl Sender {
    /// Does the next thing for a transaction, and says how far it is.
    pub(super) async fn advance(&self, mut entry: Entry) -> Result<Status> {
        for _ in 0..TRIES {
            let key = entry.value.key.clone();
            match self.advance_once(entry).await {
                // Another task or replica was faster: what it wrote is looked at.
                Err(SettlementError::Deferred(_)) => {
                    let found = self.journal.load(&key).await?;
                    entry = found.ok_or_else(|| SettlementError::NoTransaction(key))?;
                }
                outcome => return outcome,
            }
        }
        Err(SettlementError::Deferred(A_MOMENT))
    }

    async fn advance_once(&self, entry: Entry) -> Result<Status> {
        match &entry.value.state {
            State::Final { block, .. } => Ok(Status::Final(*block)),
            State::Failed { reason } => Ok(Status::Rejected(reason.clone())),
            State::Abandoned => Ok(Status::Abandoned),
            State::Prepared | State::Sent | State::Included { .. } => match self.receipt(&entry.value).await?
            {
                Some((receipt, empty)) => self.included(entry, receipt, empty).await,
                None => self.missing(entry).await,
            },
        }
    }

    /// Where any of its forms was executed, and whether that form was an empty one.
    async fn receipt(&self, transaction: &ChainTransaction) -> Result<Option<(Receipt, bool)>> {
        for attempt in transaction.attempts.iter().rev() {
            let Some(receipt) = self.node.receipt(attempt.hash).await? else { continue };
            // Some nodes still have receipts of blocks that went.
            let there = self.node.block(receipt.block).await?;
            if there.is_some_and(|block| block.hash == receipt.hash) {
                return Ok(Some((receipt, attempt.empty)));
            }
        }
        Ok(None)
    }

    async fn included(&self, mut entry: Entry, receipt: Receipt, empty: bool) -> Result<Status> {
        let settled = self.node.settled(self.rules.finality).await?;
        let is_final = settled.is_some_and(|block| block.number >= receipt.block);
        let reverted = match &entry.value.state {
            _ if receipt.success => None,
            State::Included { hash, reverted: Some(reason), .. } if *hash == receipt.hash => {
                Some(reason.clone())
            }
            _ => Some(self.why(&entry.value, receipt).await),
        };
        let Receipt { block, hash, .. } = receipt;
        let state = match (is_final, empty, reverted) {
            (true, true, _) => State::Abandoned,
            (true, false, Some(reason)) => State::Failed { reason },
            (true, false, None) => State::Final { block, hash },
            (false, _, reverted) => State::Included { block, hash, reverted },
        };
        if entry.value.state != state {
            self.set(&mut entry, state).await?;
        }
        Ok(match &entry.value.state {
            State::Final { block, .. } => Status::Final(*block),
            State::Failed { reason } => Status::Rejected(reason.clone()),
            State::Abandoned => Status::Abandoned,
            // What had no effect is no success, and no failure before it is there for good.
            State::Included { reverted: None, block, .. } if !empty => Status::Included(*block),
            _ => Status::Pending,
        })
    }

    /// Why it had no effect.
    async fn why(&self, transaction: &ChainTransaction, receipt: Receipt) -> String {
        let call = transaction.attempts.iter().rev().find(|attempt| !attempt.empty).map(envelope);
        match call {
            Some(Ok(call)) => {
                let (from, input) = (self.signer.address(), call.input().clone());
                self.node.reason(from, self.contract(), input, receipt.block).await
            }
            _ => "reverted".to_owned(),
        }
    }

    /// No form of it is in a block.
    async fn missing(&self, mut entry: Entry) -> Result<Status> {
        if let State::Included { block, .. } = entry.value.state {
            tracing::warn!(key = entry.value.key, block, "a transaction's block went: it is sent again");
            self.set(&mut entry, State::Sent).await?;
        }
        let address = self.signer.address();
        let mined = self.node.count(address, BlockId::latest()).await?;
        if mined > entry.value.nonce {
            return self.overtaken(entry).await;
        }
        let newest = newest(&entry.value)?.clone();
        if entry.value.unwanted && !newest.empty {
            return self.empty(entry).await;
        }
        let waited = self.clock.now().since(newest.at) >= self.rules.bump_after;
        if self.node.knows(newest.hash).await? {
            self.mark_sent(&mut entry).await?;
            // Those behind the next in line wait for it, not for a better offer.
            return match waited && mined == entry.value.nonce {
                true => self.bump(entry).await,
                false => Ok(Status::Pending),
            };
        }
        match self.hand_over(&mut entry).await? {
            Handed::Taken => Ok(Status::Pending),
            Handed::NoBlobs => Ok(Status::Needs),
            Handed::Refused(Refusal::TooCheap) => self.bump(entry).await,
            Handed::Refused(Refusal::Nonce) => Ok(Status::Pending),
            Handed::Refused(Refusal::Other(reason)) => {
                tracing::warn!(key = entry.value.key, reason, "the node refuses a transaction");
                Ok(Status::Paused(format!("the node refuses it: {reason}")))
            }
        }
    }

    /// Another transaction of this signer has the nonce, or receipts are late.
    async fn overtaken(&self, entry: Entry) -> Result<Status> {
        let Some(settled) = self.node.settled(self.rules.finality).await? else { return Ok(Status::Pending) };
        let done = self.node.count(self.signer.address(), settled.number).await?;
        // The receipt again: it may have come between the two looks.
        if done <= entry.value.nonce || self.receipt(&entry.value).await?.is_some() {
            return Ok(Status::Pending);
        }
        if entry.value.unwanted {
            let mut entry = entry;
            self.set(&mut entry, State::Abandoned).await?;
            return Ok(Status::Abandoned);
        }
        tracing::warn!(key = entry.value.key, nonce = entry.value.nonce, "somebody else used the nonce up");
        let newest = entry.value.attempts.iter().rev().find(|attempt| !attempt.empty).ok_or_else(damaged)?;
        let fees = self.node.fees(newest.blob_fee.is_some()).await?.capped(self.signer.policy().caps);
        let (call, before) = (&call_of(newest)?, &entry.value);
        let make = |nonce| async move {
            let attempt = self.sign(nonce, call, fees).await?;
            let mut next = before.clone();
            (next.nonce, next.state, next.changed_at) = (nonce, State::Prepared, attempt.at);
            next.attempts.push(attempt);
            Ok(next)
        };
        let pending = self.node.count(self.signer.address(), BlockId::pending()).await?;
        let mut entry = self.journal.reserve(pending, Some(entry.version), make).await?;
        match self.hand_over(&mut entry).await? {
            Handed::NoBlobs => Ok(Status::Needs),
            _ => Ok(Status::Pending),
        }
    }

    /// Offers more for it.
    async fn bump(&self, mut entry: Entry) -> Result<Status> {
        let newest = newest(&entry.value)?.clone();
        let market = self.node.fees(newest.blob_fee.is_some()).await?;
        let Some(fees) = fees_of(&newest).bumped(market, self.signer.policy().caps) else {
            let reason =
                format!("not mined with {} for a unit of gas, and the caps allow no more", newest.gas_fee);
            tracing::warn!(
                key = entry.value.key,
                nonce = entry.value.nonce,
                reason,
                "a transaction is paused"
            );
            return Ok(Status::Paused(reason));
        };
        let dearer = match newest.empty {
            true => self.sign_empty(newest.nonce, fees).await?,
            false => self.sign(newest.nonce, &call_of(&newest)?, fees).await?,
        };
        tracing::info!(key = entry.value.key, nonce = newest.nonce, gas_fee = fees.gas, "more is offered");
        self.replace(&mut entry, dearer).await
    }

    /// Tries to use its nonce up with nothing.
    async fn empty(&self, mut entry: Entry) -> Result<Status> {
        let newest = newest(&entry.value)?.clone();
        let market = Fees { blob: None, ..self.node.fees(false).await? };
        let caps = self.signer.policy().caps;
        let plain = Fees { blob: None, ..fees_of(&newest) };
        let Some(fees) = plain.bumped(market, caps) else { return self.bump(entry).await };
        let empty = self.sign_empty(newest.nonce, fees).await?;
        self.replace(&mut entry, empty).await
    }

    /// Journals another form, then hands it over.
    async fn replace(&self, entry: &mut Entry, attempt: Attempt) -> Result<Status> {
        let mut next = entry.value.clone();
        next.changed_at = attempt.at;
        next.attempts.push(attempt);
        match self.journal.save(entry.version, &next).await? {
            // Another replica was faster: whatever it did, this one looks again the next time.
            Saved::Changed => Ok(Status::Pending),
            Saved::Yes(version) => {
                *entry = Stored { version, value: next };
                match self.hand_over(entry).await? {
                    Handed::NoBlobs => Ok(Status::Needs),
                    Handed::Taken => Ok(Status::Pending),
                    // The next look decides.
                    Handed::Refused(_) => Ok(Status::Pending),
                }
            }
        }
    }

    /// Gives the newest form to the node.
    async fn hand_over(&self, entry: &mut Entry) -> Result<Handed> {
        let newest = newest(&entry.value)?;
        let raw = match envelope(newest)? {
            TxEnvelope::Eip4844(signed) => {
                let Some(sidecar) = self.sidecar(&entry.value.key) else { return Ok(Handed::NoBlobs) };
                let (transaction, signature, hash) = signed.into_parts();
                let transaction = match transaction {
                    TxEip4844Variant::TxEip4844(plain) => plain,
                    TxEip4844Variant::TxEip4844WithSidecar(with) => with.tx,
                };
                let with = transaction.with_sidecar((*sidecar).clone());
                PooledTransaction::Eip4844(Signed::new_unchecked(with, signature, hash)).encoded_2718()
            }
            plain => plain.encoded_2718(),
        };
        match self.node.broadcast(&raw).await? {
            Broadcast::Taken => {
                self.mark_sent(entry).await?;
                Ok(Handed::Taken)
            }
            Broadcast::Refused(reason) => {
                tracing::info!(key = entry.value.key, reason, "the node did not take a transaction");
                Ok(Handed::Refused(Refusal::of(reason)))
            }
        }
    }

    async fn mark_sent(&self, entry: &mut Entry) -> Result<()> {
        if entry.value.state == State::Prepared { self.set(entry, State::Sent).await } else { Ok(()) }
    }

    async fn set(&self, entry: &mut Entry, state: State) -> Result<()> {
        entry.value.state = state;
        entry.value.changed_at = self.clock.now();
        match self.journal.save(entry.version, &entry.value).await? {
            Saved::Yes(version) => entry.version = version,
            Saved::Changed => return Err(SettlementError::Deferred(A_MOMENT)),
        }
        if entry.value.state.is_terminal() {
            self.forget(&entry.value.key);
        }
        Ok(())
    }
}

enum Handed {
    Taken,
    Refused(Refusal),
    NoBlobs,
}

/// Why a node does not take a transaction. There are no codes for it, only words that the nodes more or less share.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// It offers less than the block, or what waits with its nonce.
    TooCheap,
    /// Its nonce is used up: the next look finds by whom.
    Nonce,
    /// More fees would not help.
    Other(String),
}

impl Refusal {
    fn of(reason: String) -> Self {
        let said = reason.to_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
        if has(&["insufficient"]) {
            Self::Other(reason)
        } else if has(&["nonce too low"]) {
            Self::Nonce
        } else if has(&["underpriced", "fee"]) {
            Self::TooCheap
        } else {
            Self::Other(reason)
        }
    }
}

fn newest(transaction: &ChainTransaction) -> Result<&Attempt> {
    transaction.attempts.last().ok_or_else(damaged)
}

/// What a form calls.
fn call_of(attempt: &Attempt) -> Result<Call> {
    let envelope = envelope(attempt)?;
    Ok(Call {
        input: envelope.input().clone(),
        gas: envelope.gas_limit(),
        blobs: envelope.blob_versioned_hashes().unwrap_or_default().to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_too_cheap_is_made_dearer() {
        let of = |reason: &str| Refusal::of(reason.to_owned());
        assert_eq!(of("replacement transaction underpriced"), Refusal::TooCheap);
        assert_eq!(of("max fee per gas less than block base fee"), Refusal::TooCheap);
        assert_eq!(of("nonce too low: next nonce 4"), Refusal::Nonce);
        let poor = "insufficient funds for gas * price + value: fee is too high";
        assert_eq!(of(poor), Refusal::Other(poor.to_owned()));
    }
}
