//! Inclusion proofs of accounts, and the claims on withdrawals that rest on them.

use serde::{Deserialize, Serialize};

use super::{block::BlockStore, ledger::AccountService, settlement::SettlementDomains, work::Call};
use crate::{
    core::{
        client::{
            database::{Filter, Query, ReaderExt, Sort},
            schema,
        },
        madara::settlement::WithdrawalClaim,
        market::{
            account::AccountKey,
            block::{Block, BlockHeader, BlockState, Hash32},
            money::Amount,
            state::{AccountProof, account_key_hash, header::header_hash, verify_account},
            terms::DomainId,
        },
    },
    error::{Error, ErrorCode, Result},
    service::block::SharedStates,
};

/// Which block a proof is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofAt {
    /// The last final one.
    #[default]
    Final,
    /// The last sealed one, which may still be refused.
    Sealed,
}

/// What an account held after a block, with everything that is needed to check it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvedAccount {
    /// The account.
    pub account: AccountKey,
    /// The block's header, which commits to the state root.
    pub header: BlockHeader,
    /// The header's hash, which the settlement layer holds.
    pub block_hash: Hash32,
    /// Where the block stood.
    pub block_state: BlockState,
    /// The inclusion proof.
    pub proof: AccountProof,
}

/// What a claim came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimReceipt {
    /// What the settlement layer paid now; zero when all was paid before.
    pub paid: Amount,
    /// The claim that it checked.
    pub claim: WithdrawalClaim,
}

/// The service.
#[derive(Clone)]
pub struct ProofService {
    accounts: AccountService,
    store: BlockStore,
    domains: SettlementDomains,
    states: SharedStates,
}

/// Whether a proof holds: the leaf leads to the header's state root, and the header has that hash. Whoever checks it
/// compares `block_hash` with what the settlement layer says.
#[must_use]
pub fn verify_account_proof(proved: &ProvedAccount) -> bool {
    let domain = &proved.header.domain;
    let key = account_key_hash(domain, &proved.account);
    header_hash(&proved.header) == proved.block_hash
        && verify_account(domain, &key, &proved.header.state_root, &proved.proof)
}

impl ProofService {
    /// A service over these parts.
    #[must_use]
    pub fn new(accounts: AccountService, store: BlockStore, domains: SettlementDomains) -> Self {
        Self { accounts, store, domains, states: SharedStates::default() }
    }

    /// The inclusion proof of an account.
    ///
    /// # Errors
    /// Not found for accounts that the caller may not see, and for those that no such block knows yet.
    pub async fn account_proof(
        &self,
        call: &Call,
        account: AccountKey,
        at: ProofAt,
    ) -> Result<ProvedAccount> {
        let domain = self.accounts.visible(call, account).await?;
        let none = || Error::new(ErrorCode::NotFound, "no such block knows this account yet");
        let block = self.last(&domain, at).await?.ok_or_else(none)?;
        let key = account_key_hash(&domain, &account);
        let proof =
            self.states.prove(&self.store, &domain, block.header.number, &key).await?.ok_or_else(none)?;
        Ok(ProvedAccount {
            account,
            header: block.header,
            block_hash: block.hash,
            block_state: block.state,
            proof,
        })
    }

    /// Claims what an account may withdraw, with a proof against the last final block. Claiming twice pays once.
    ///
    /// # Errors
    /// As [`ProofService::account_proof`]; what the settlement layer refuses.
    pub async fn claim(&self, call: &Call, account: AccountKey) -> Result<ClaimReceipt> {
        self.accounts.owner_only(call, account)?;
        let proved = self.account_proof(call, account, ProofAt::Final).await?;
        let claim = WithdrawalClaim {
            account,
            block: proved.header.number,
            balance: proved.proof.balance,
            cumulative: proved.proof.withdrawable,
            index: proved.proof.index,
            siblings: proved.proof.siblings,
            market_root: proved.proof.market_root,
            next_index: proved.proof.next_index,
            total: proved.proof.total,
        };
        let paid = self.domains.get(&proved.header.domain)?.withdraw(&claim).await?;
        Ok(ClaimReceipt { paid, claim })
    }

    async fn last(&self, domain: &DomainId, at: ProofAt) -> Result<Option<Block>> {
        let mut filter = Filter::eq("header.domain", domain.as_str());
        if at == ProofAt::Final {
            filter = filter.and(Filter::eq("state", "final"));
        }
        let query = Query::new(schema::BLOCKS).filter(filter).sort(Sort::IdDescending).limit(1);
        let (found, _) = self.store.reader().list::<Block>(query).await?;
        Ok(found.into_iter().next().map(|stored| stored.value))
    }
}
