//! Accounts, transfers and disputes.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    common::{Money, Time, word},
    payout::{LayerView, PayoutView},
};
use crate::{
    core::{
        madara::settlement::{CallToSign, Deposit},
        market::{
            account::Transfer,
            block::BlockHeader,
            dispute::{Dispute, DisputeKind},
            ids::AllocationId,
            state::{AccountProof, AccountsProof, MarketProof},
        },
    },
    service::ledger::{
        accounts::{AccountView as Known, DepositReceipt},
        audit::LedgerAudit,
        dispute::{Decision, OpenDispute},
        funding::{Funding, PayingIn},
    },
    service::proof::{
        ClaimReceipt, NamedAccount, ProvedAccount, ProvedAccounts, ProvedMarket, verify_account_proof,
        verify_accounts_proof, verify_market_proof,
    },
};

/// An account with its balances.
#[derive(Debug, Serialize, ToSchema)]
pub struct AccountView {
    /// Its name.
    #[schema(example = "consumer:cons_01890a5d96e27e3bbd1a2f3c4d5e6f70")]
    pub id: String,
    /// Its domain.
    pub domain: String,
    /// Money that can be moved inside the ledger.
    pub balance: Money,
    /// For `external` only: what deposits ever credited.
    pub deficit: Money,
    /// Money ever released for withdrawal.
    pub withdrawable: Money,
    /// Whether the balance is up to date; only of `fees` it may not be, while very much waits for the next block.
    pub complete: bool,
    /// Transfers that touched it.
    pub sequence: u64,
}

impl From<Known> for AccountView {
    fn from(account: Known) -> Self {
        Self {
            id: account.id.to_string(),
            domain: account.domain.0,
            balance: account.balance.into(),
            deficit: account.deficit.into(),
            withdrawable: account.withdrawable.into(),
            complete: account.complete,
            sequence: account.sequence,
        }
    }
}

/// A movement of money.
#[derive(Debug, Serialize, ToSchema)]
pub struct TransferView {
    /// Its id.
    pub id: String,
    /// Its domain.
    pub domain: String,
    /// What it is for.
    #[schema(example = "fund")]
    pub kind: String,
    /// Where the money comes from.
    pub debit: String,
    /// Where it goes.
    pub credit: String,
    /// How much.
    pub amount: Money,
    /// What caused it.
    pub subject: String,
    /// When.
    pub created_at: Time,
}

impl From<Transfer> for TransferView {
    fn from(transfer: Transfer) -> Self {
        Self {
            id: transfer.id.to_string(),
            domain: transfer.domain.0,
            kind: word(&transfer.kind),
            debit: transfer.debit.to_string(),
            credit: transfer.credit.to_string(),
            amount: transfer.amount.into(),
            subject: transfer.subject,
            created_at: transfer.created_at.into(),
        }
    }
}

/// A deposit on the chain, and its booking.
#[derive(Debug, Serialize, ToSchema)]
pub struct DepositView {
    /// The deposit's index on the chain.
    pub index: u64,
    /// The booked transfer; `null` while it waits for confirmations.
    pub transfer: Option<TransferView>,
}

impl From<DepositReceipt> for DepositView {
    fn from(receipt: DepositReceipt) -> Self {
        Self { index: receipt.index, transfer: receipt.transfer.map(TransferView::from) }
    }
}

/// What an account held after a block, with everything that is needed to check it.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProofView {
    /// The account.
    pub account: String,
    /// Its owner's address, a part of what the proof's key is the hash of; only in domains whose accounts have owners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The block's header, which commits to the state root.
    #[schema(value_type = Object)]
    pub header: BlockHeader,
    /// The header's hash, which the settlement layer holds.
    pub block_hash: String,
    /// Where the block stood.
    #[schema(example = "final")]
    pub block_state: String,
    /// The leaf and the hashes that lead from it to the state root.
    #[schema(value_type = Object)]
    pub proof: AccountProof,
    /// Whether it holds, as checked here; check it yourself all the same.
    pub holds: bool,
}

impl From<ProvedAccount> for ProofView {
    fn from(proved: ProvedAccount) -> Self {
        Self {
            holds: verify_account_proof(&proved),
            account: proved.account.to_string(),
            owner: proved.owner.map(|owner| owner.to_string()),
            block_hash: proved.block_hash.to_string(),
            block_state: word(&proved.block_state),
            header: proved.header,
            proof: proved.proof,
        }
    }
}

/// What several accounts held after a block, in one proof.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProofsView {
    /// The accounts, in the order of the proof's leaves: each with its name and, where it has one, its owner's address.
    #[schema(value_type = Vec<Object>)]
    pub accounts: Vec<NamedAccount>,
    /// The block's header, which commits to the state root.
    #[schema(value_type = Object)]
    pub header: BlockHeader,
    /// The header's hash, which the settlement layer holds.
    pub block_hash: String,
    /// Where the block stood.
    #[schema(example = "final")]
    pub block_state: String,
    /// The leaves and the hashes that lead from them to the state root.
    #[schema(value_type = Object)]
    pub proof: AccountsProof,
    /// Whether it holds, as checked here; check it yourself all the same.
    pub holds: bool,
}

impl From<ProvedAccounts> for ProofsView {
    fn from(proved: ProvedAccounts) -> Self {
        Self {
            holds: verify_accounts_proof(&proved),
            accounts: proved.accounts,
            block_hash: proved.block_hash.to_string(),
            block_state: word(&proved.block_state),
            header: proved.header,
            proof: proved.proof,
        }
    }
}

/// What the market tree of a block says of a unit or an allocation.
#[derive(Debug, Serialize, ToSchema)]
pub struct MarketProofView {
    /// The block's header, which commits to the state root.
    #[schema(value_type = Object)]
    pub header: BlockHeader,
    /// The header's hash, which the settlement layer holds.
    pub block_hash: String,
    /// Where the block stood.
    #[schema(example = "final")]
    pub block_state: String,
    /// The canonical text that the digest is of; `null` when it has changed since that block.
    pub text: Option<String>,
    /// The leaf and the hashes that lead from it to the state root.
    #[schema(value_type = Object)]
    pub proof: MarketProof,
    /// Whether it holds, as checked here; check it yourself all the same.
    pub holds: bool,
}

impl From<ProvedMarket> for MarketProofView {
    fn from(proved: ProvedMarket) -> Self {
        Self {
            holds: verify_market_proof(&proved),
            block_hash: proved.block_hash.to_string(),
            block_state: word(&proved.block_state),
            header: proved.header,
            text: proved.text,
            proof: proved.proof,
        }
    }
}

/// How to pay in to an account, and what is on its way.
#[derive(Debug, Serialize, ToSchema)]
pub struct PayingInView {
    /// The account.
    pub account: String,
    /// Calls that the owner signs and sends, in this order: each with `what` it does, `chain_id`, `to` and `data`. None where the
    /// operator books deposits, and without an amount.
    #[schema(value_type = Vec<Object>)]
    pub calls: Vec<CallToSign>,
    /// Deposits for the account that the chain has, and that are not booked yet.
    pub waiting: Vec<WaitingView>,
}

/// A deposit on its way.
#[derive(Debug, Serialize, ToSchema)]
pub struct WaitingView {
    /// Its index on the chain.
    pub index: u64,
    /// How much.
    pub amount: Money,
    /// Whether it has enough confirmations; it is booked at the next look.
    pub confirmed: bool,
    /// When it was made.
    pub at: Time,
}

impl From<PayingIn> for PayingInView {
    fn from(paying_in: PayingIn) -> Self {
        let waiting = |deposit: Deposit| WaitingView {
            index: deposit.index,
            amount: deposit.amount.into(),
            confirmed: deposit.confirmed,
            at: deposit.at.into(),
        };
        Self {
            account: paying_in.account.to_string(),
            calls: paying_in.calls,
            waiting: paying_in.waiting.into_iter().map(waiting).collect(),
        }
    }
}

/// What funding an allocation takes.
#[derive(Debug, Serialize, ToSchema)]
pub struct FundingView {
    /// What its escrow needs; zero when it is not reserved any more.
    pub required: Money,
    /// What its consumer can spend.
    pub balance: Money,
    /// How much must come in before it can be funded.
    pub missing: Money,
    /// How that comes in.
    pub paying_in: PayingInView,
}

impl From<Funding> for FundingView {
    fn from(funding: Funding) -> Self {
        Self {
            required: funding.required.into(),
            balance: funding.balance.into(),
            missing: funding.missing.into(),
            paying_in: funding.paying_in.into(),
        }
    }
}

/// What a claim came to.
#[derive(Debug, Serialize, ToSchema)]
pub struct ClaimView {
    /// What the settlement layer paid now; zero when all was paid before.
    pub paid: Money,
    /// The final block that the claim was proved by.
    pub block: u64,
    /// What was released ever.
    pub cumulative: Money,
    /// On a chain where the daemon pays out: how far that is. Nothing is paid within the request there.
    pub payout: Option<PayoutView>,
}

impl From<ClaimReceipt> for ClaimView {
    fn from(receipt: ClaimReceipt) -> Self {
        Self {
            payout: receipt.payout.map(PayoutView::from),
            paid: receipt.paid.into(),
            block: receipt.claim.block,
            cumulative: receipt.claim.cumulative.into(),
        }
    }
}

/// The sum over a domain's ledger.
#[derive(Debug, Serialize, ToSchema)]
pub struct LedgerView {
    /// The domain.
    pub domain: String,
    /// Stored accounts.
    pub accounts: u64,
    /// What is owed to accounts.
    pub liabilities: Money,
    /// What deposits ever credited.
    pub deposited: Money,
    /// Liabilities less deposits: zero, or something is wrong. A decimal string, with a sign if it is below zero.
    #[schema(example = "0")]
    pub sum: String,
    /// Whether the sum is zero.
    pub balanced: bool,
    /// Changes that wait for the next block.
    pub unsealed: u64,
    /// What the settlement layer has; `null` while it does not answer.
    pub layer: Option<LayerView>,
}

impl LedgerView {
    /// An audit, with what waits.
    #[must_use]
    pub fn new(audit: LedgerAudit, unsealed: u64) -> Self {
        let (owed, paid) = (audit.liabilities, audit.deposited);
        let sum = owed
            .checked_sub(paid)
            .map_or_else(|| format!("-{}", paid.saturating_sub(owed)), |above| above.to_string());
        Self {
            domain: audit.domain.0,
            accounts: audit.accounts,
            liabilities: owed.into(),
            deposited: paid.into(),
            sum,
            balanced: audit.balanced,
            unsealed,
            layer: audit.layer.map(LayerView::from),
        }
    }
}

/// A sum of money to move.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveMoney {
    /// How much; not zero.
    pub amount: Money,
}

/// Collateral to post or to take back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MoveCollateral {
    /// How much; not zero.
    pub amount: Money,
    /// Takes it back.
    #[serde(default)]
    pub release: bool,
}

/// A dispute.
#[derive(Debug, Serialize, ToSchema)]
pub struct DisputeView {
    /// Its id.
    pub id: String,
    /// Its domain.
    pub domain: String,
    /// The allocation.
    pub allocation: String,
    /// Who pays.
    pub consumer: String,
    /// Who earns.
    pub provider: String,
    /// `metering`, `billing` or `violation`.
    pub kind: String,
    /// The claim in words.
    pub claim: String,
    /// What it rests on.
    pub evidence: Vec<String>,
    /// What is held back.
    pub held: Money,
    /// `open`, `for_provider`, `for_consumer` or `lapsed`.
    pub state: String,
    /// Why it was decided as it was.
    pub reason: Option<String>,
    /// Who opened it.
    pub opened_by: String,
    /// Until when the operator may decide.
    pub deadline: Time,
    /// When it was opened.
    pub created_at: Time,
    /// When it was decided.
    pub decided_at: Option<Time>,
}

impl From<Dispute> for DisputeView {
    fn from(dispute: Dispute) -> Self {
        Self {
            id: dispute.id.to_string(),
            domain: dispute.domain.0,
            allocation: dispute.allocation.to_string(),
            consumer: dispute.consumer.to_string(),
            provider: dispute.provider.to_string(),
            kind: word(&dispute.kind),
            claim: dispute.claim,
            evidence: dispute.evidence,
            held: dispute.held.into(),
            state: word(&dispute.state),
            reason: dispute.reason,
            opened_by: dispute.opened_by,
            deadline: dispute.deadline.into(),
            created_at: dispute.created_at.into(),
            decided_at: dispute.decided_at.map(Time),
        }
    }
}

/// A dispute to open.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Contest {
    /// `billing` or `metering` by a consumer, `violation` by a provider.
    #[schema(value_type = String, example = "billing")]
    pub kind: DisputeKind,
    /// The claim in words, 1 to 2,000 characters.
    pub claim: String,
    /// What it rests on: at most 50 ids or hashes.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// What is contested.
    pub amount: Money,
}

impl Contest {
    /// For the service.
    #[must_use]
    pub fn about(self, allocation: AllocationId) -> OpenDispute {
        OpenDispute {
            allocation,
            kind: self.kind,
            claim: self.claim,
            evidence: self.evidence,
            amount: self.amount.0,
        }
    }
}

/// The operator's decision.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decide {
    /// In whose favour: `provider` or `consumer`.
    #[schema(value_type = String, example = "consumer")]
    pub decision: Decision,
    /// Why.
    pub reason: String,
}
