//! Inclusion proofs of accounts and of the market's terms, and the claims on withdrawals that rest on them.

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
            allocation::Allocation,
            block::{Block, BlockHeader, BlockState, Hash32},
            ids::{AllocationId, UnitId},
            money::Amount,
            state::{
                AccountProof, MarketProof, account_key_hash, commitment::Commitment, header::header_hash,
                verify_account, verify_market,
            },
            terms::DomainId,
            unit::DataUnit,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{allocation::change::may_see, block::SharedStates},
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

/// What the market tree of a block holds of a unit or an allocation, with everything that is needed to check it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvedMarket {
    /// The block's header, which commits to the state root.
    pub header: BlockHeader,
    /// The header's hash, which the settlement layer holds.
    pub block_hash: Hash32,
    /// Where the block stood.
    pub block_state: BlockState,
    /// The canonical text that the digest is of; `None` when it has changed since that block.
    pub text: Option<String>,
    /// The inclusion proof.
    pub proof: MarketProof,
}

/// Whether a proof holds: digest and name lead to the header's state root, the header has that hash, and the text, if it
/// is there, has that digest.
#[must_use]
pub fn verify_market_proof(proved: &ProvedMarket) -> bool {
    let text = proved.text.as_ref().is_none_or(|text| {
        let named = Commitment { name: proved.proof.name.clone(), text: text.clone() };
        hex::encode(named.digest()) == proved.proof.digest
    });
    text && header_hash(&proved.header) == proved.block_hash
        && verify_market(&proved.header.domain, &proved.header.state_root, &proved.proof)
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

    /// What the last such block says of a unit's terms; open to everybody with a key.
    ///
    /// # Errors
    /// Not found for unknown units, and for those that no such block knows yet.
    pub async fn unit_proof(&self, _call: &Call, id: UnitId, at: ProofAt) -> Result<ProvedMarket> {
        let found = self.store.reader().load::<DataUnit>(&id.to_string()).await?;
        let unit = found.ok_or_else(|| Error::not_found("unit", id))?.value;
        self.market_proof(&unit.domain, Commitment::unit(&unit), at).await
    }

    /// What the last such block says of an allocation's frozen terms and its state; for its consumer, its provider and
    /// operators.
    ///
    /// # Errors
    /// Not found for unknown allocations and those of others, and for those that no such block knows yet.
    pub async fn allocation_proof(&self, call: &Call, id: AllocationId, at: ProofAt) -> Result<ProvedMarket> {
        let hidden = || Error::not_found("allocation", id);
        let found = self.store.reader().load::<Allocation>(&id.to_string()).await?;
        let seen = found.map(|stored| stored.value).filter(|allocation| may_see(call, allocation));
        let allocation = seen.ok_or_else(hidden)?;
        self.market_proof(&allocation.domain, Commitment::allocation(&allocation), at).await
    }

    async fn market_proof(
        &self,
        domain: &DomainId,
        present: Commitment,
        at: ProofAt,
    ) -> Result<ProvedMarket> {
        let none = || Error::new(ErrorCode::NotFound, "no such block knows this yet");
        let block = self.last(domain, at).await?.ok_or_else(none)?;
        let number = block.header.number;
        let proof = self.states.prove_market(&self.store, domain, number, &present.name).await?;
        let proof = proof.ok_or_else(none)?;
        let text = (hex::encode(present.digest()) == proof.digest).then_some(present.text);
        Ok(ProvedMarket {
            header: block.header,
            block_hash: block.hash,
            block_state: block.state,
            text,
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
