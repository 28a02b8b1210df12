//! Inclusion proofs of accounts and of the market's terms, and the claims on withdrawals that rest on them.

mod payouts;

use std::collections::BTreeMap;

pub use payouts::{PayoutService, PayoutSettings};
use serde::{Deserialize, Serialize};

use super::{
    block::BlockStore,
    ledger::{AccountService, Owners},
    settlement::SettlementDomains,
    work::Call,
};
use crate::{
    core::{
        client::{
            database::{Filter, Query, ReaderExt, Sort},
            schema,
        },
        madara::settlement::WithdrawalClaim,
        market::{
            account::AccountKey,
            address::Address,
            allocation::Allocation,
            block::{Block, BlockHeader, BlockState, Hash32},
            ids::{AllocationId, UnitId},
            money::Amount,
            payout::Payout,
            state::{
                AccountProof, AccountsProof, MarketProof, ShortHash, account_key_hash,
                commitment::Commitment, header::header_hash, verify_account, verify_accounts, verify_market,
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
    /// Its owner, in a domain whose accounts have owners: a part of the name that the proof's key is the hash of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Address>,
    /// The block's header, which commits to the state root.
    pub header: BlockHeader,
    /// The header's hash, which the settlement layer holds.
    pub block_hash: Hash32,
    /// Where the block stood.
    pub block_state: BlockState,
    /// The inclusion proof.
    pub proof: AccountProof,
}

/// An account of a proof of several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedAccount {
    /// The account.
    pub account: AccountKey,
    /// Its owner, in a domain whose accounts have owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Address>,
}

/// What several accounts held after a block, in one proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvedAccounts {
    /// The accounts, in the order of the proof's leaves.
    pub accounts: Vec<NamedAccount>,
    /// The block's header, which commits to the state root.
    pub header: BlockHeader,
    /// The header's hash, which the settlement layer holds.
    pub block_hash: Hash32,
    /// Where the block stood.
    pub block_state: BlockState,
    /// The inclusion proof.
    pub proof: AccountsProof,
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
    /// Where the daemon pays out: how far that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payout: Option<Payout>,
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
    let key = account_key_hash(domain, proved.owner.as_ref(), &proved.account);
    header_hash(&proved.header) == proved.block_hash
        && verify_account(domain, &key, &proved.header.state_root, &proved.proof)
}

/// Whether a proof of several accounts holds, as [`verify_account_proof`].
#[must_use]
pub fn verify_accounts_proof(proved: &ProvedAccounts) -> bool {
    let domain = &proved.header.domain;
    let key =
        |named: &NamedAccount| hex::encode(account_key_hash(domain, named.owner.as_ref(), &named.account));
    proved.accounts.iter().map(key).eq(proved.proof.leaves.iter().map(|leaf| leaf.key.clone()))
        && header_hash(&proved.header) == proved.block_hash
        && verify_accounts(domain, &proved.header.state_root, &proved.proof)
}

/// Accounts in one proof, at most.
pub const MAX_PROVED: usize = 1_000;

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
        let (owner, key) = self.name(&domain, account).await?;
        let proof =
            self.states.prove(&self.store, &domain, block.header.number, &key).await?.ok_or_else(none)?;
        Ok(ProvedAccount {
            account,
            owner,
            header: block.header,
            block_hash: block.hash,
            block_state: block.state,
            proof,
        })
    }

    /// One inclusion proof of several accounts of one domain, as a batch of claims needs it.
    ///
    /// # Errors
    /// As [`ProofService::account_proof`]; an invalid field for none, too many, or accounts of several domains.
    pub async fn accounts_proof(
        &self,
        call: &Call,
        accounts: &[AccountKey],
        at: ProofAt,
    ) -> Result<ProvedAccounts> {
        let wrong = |detail: String| Error::field("accounts", detail);
        let Some(first) = accounts.first() else { return Err(wrong("name at least one account".to_owned())) };
        if accounts.len() > MAX_PROVED {
            return Err(wrong(format!("name at most {MAX_PROVED} accounts")));
        }
        let domain = self.accounts.visible(call, *first).await?;
        let mut named: BTreeMap<ShortHash, NamedAccount> = BTreeMap::new();
        for account in accounts {
            if self.accounts.visible(call, *account).await? != domain {
                return Err(wrong("one proof is of one settlement domain".to_owned()));
            }
            let (owner, key) = self.name(&domain, *account).await?;
            named.insert(key, NamedAccount { account: *account, owner });
        }
        let none = || Error::new(ErrorCode::NotFound, "no such block knows all of these accounts yet");
        let block = self.last(&domain, at).await?.ok_or_else(none)?;
        let keys: Vec<ShortHash> = named.keys().copied().collect();
        let proof = self.states.prove_many(&self.store, &domain, block.header.number, &keys).await?;
        let proof = proof.ok_or_else(none)?;
        let by_text: BTreeMap<String, NamedAccount> =
            named.into_iter().map(|(key, named)| (hex::encode(key), named)).collect();
        Ok(ProvedAccounts {
            accounts: proof.leaves.iter().filter_map(|leaf| by_text.get(&leaf.key).cloned()).collect(),
            header: block.header,
            block_hash: block.hash,
            block_state: block.state,
            proof,
        })
    }

    /// The owner of an account and how records name it.
    async fn name(&self, domain: &DomainId, account: AccountKey) -> Result<(Option<Address>, ShortHash)> {
        if let AccountKey::Unclaimed(hash) = account {
            return Ok((None, hash));
        }
        let treasury = self.domains.treasury(domain)?;
        let owner = Owners::new(self.store.reader(), domain, treasury).owner(account).await?;
        if treasury.is_some() && owner.is_none() {
            return Err(Error::not_found("owner on the chain of account", account));
        }
        Ok((owner, account_key_hash(domain, owner.as_ref(), &account)))
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

    /// Claims what an account may withdraw, with a proof against the last final block. Claiming twice pays once. Where the daemon
    /// pays out, this only makes the claim: [`PayoutService::ask`] asks for it.
    ///
    /// # Errors
    /// As [`ProofService::account_proof`]; what the settlement layer refuses.
    pub async fn claim(&self, call: &Call, account: AccountKey) -> Result<(ClaimReceipt, DomainId)> {
        self.accounts.owner_only(call, account)?;
        let proved = self.account_proof(call, account, ProofAt::Final).await?;
        let claim = WithdrawalClaim {
            account,
            owner: proved.owner,
            block: proved.header.number,
            balance: proved.proof.balance,
            cumulative: proved.proof.withdrawable,
            index: proved.proof.index,
            siblings: proved.proof.siblings,
            market_root: proved.proof.market_root,
            next_index: proved.proof.next_index,
            total: proved.proof.total,
        };
        let client = self.domains.get(&proved.header.domain)?;
        let paid = match client.payouts() {
            // Its transaction is no part of the request: it may take minutes.
            Some(_) => Amount::ZERO,
            None => client.withdraw(&claim).await?,
        };
        Ok((ClaimReceipt { paid, claim, payout: None }, proved.header.domain))
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
