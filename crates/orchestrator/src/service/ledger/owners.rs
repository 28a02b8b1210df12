//! Who owns accounts on a chain, and how records name them. The owner's address is a part of an account's name there, so
//! nobody has to look it up, and nobody can redirect money.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    core::{
        client::database::{Entity, Filter, Reader, ReaderExt},
        market::{
            account::AccountKey,
            address::Address,
            allocation::Allocation,
            dispute::Dispute,
            ids::{ConsumerId, ProviderId},
            party::{Consumer, Provider},
            state::{
                ShortHash,
                hash::{account_key_hash_in, domain_hash},
            },
            terms::DomainId,
        },
    },
    error::Result,
};

/// Documents read at once.
const PAGE: usize = 500;

/// Finds the owners of a domain's accounts.
#[derive(Clone, Copy)]
pub struct Owners<'a> {
    reader: &'a dyn Reader,
    domain: &'a DomainId,
    treasury: Option<Address>,
}

impl<'a> Owners<'a> {
    /// Over a database. `treasury` owns the fees; without one, no account of the domain has an owner.
    #[must_use]
    pub const fn new(reader: &'a dyn Reader, domain: &'a DomainId, treasury: Option<Address>) -> Self {
        Self { reader, domain, treasury }
    }

    /// How records name these accounts. Those whose owner has no address on the chain are left out.
    ///
    /// # Errors
    /// Database errors.
    pub async fn names(&self, keys: &BTreeSet<AccountKey>) -> Result<BTreeMap<AccountKey, ShortHash>> {
        let hash = domain_hash(self.domain);
        if self.treasury.is_none() {
            return Ok(keys.iter().map(|key| (*key, account_key_hash_in(&hash, None, key))).collect());
        }
        let owners = self.of(keys).await?;
        let name = |key: &AccountKey| match key {
            // Its name is its hash.
            AccountKey::Unclaimed(hash) => Some((*key, *hash)),
            _ => Some((*key, account_key_hash_in(&hash, Some(owners.get(key)?), key))),
        };
        Ok(keys.iter().filter_map(name).collect())
    }

    /// How records name one account; `None` when its owner has no address on the chain.
    ///
    /// # Errors
    /// Database errors.
    pub async fn name(&self, key: AccountKey) -> Result<Option<ShortHash>> {
        Ok(self.names(&BTreeSet::from([key])).await?.get(&key).copied())
    }

    /// The owner of one account; `None` in a domain without owners, or when the owner has no address.
    ///
    /// # Errors
    /// Database errors.
    pub async fn owner(&self, key: AccountKey) -> Result<Option<Address>> {
        match self.treasury {
            None => Ok(None),
            Some(_) => Ok(self.of(&BTreeSet::from([key])).await?.get(&key).copied()),
        }
    }

    async fn of(&self, keys: &BTreeSet<AccountKey>) -> Result<BTreeMap<AccountKey, Address>> {
        let of_kind =
            |pick: fn(&AccountKey) -> Option<String>| keys.iter().filter_map(pick).collect::<BTreeSet<_>>();
        let allocations = self.find::<Allocation>(of_kind(|key| match key {
            AccountKey::Escrow(id) => Some(id.to_string()),
            _ => None,
        }));
        let disputes = self.find::<Dispute>(of_kind(|key| match key {
            AccountKey::Held(id) => Some(id.to_string()),
            _ => None,
        }));
        let (allocations, disputes) = (allocations.await?, disputes.await?);
        let consumer_of = |key: &AccountKey| match key {
            AccountKey::Consumer(id) => Some(*id),
            AccountKey::Escrow(id) => allocations.get(&id.to_string()).map(|found| found.consumer),
            AccountKey::Held(id) => disputes.get(&id.to_string()).map(|found| found.consumer),
            _ => None,
        };
        let provider_of = |key: &AccountKey| match key {
            AccountKey::Provider(id) | AccountKey::Collateral(id) => Some(*id),
            _ => None,
        };
        let text = |id: ConsumerId| id.to_string();
        let consumers =
            self.find::<Consumer>(keys.iter().filter_map(consumer_of).map(text).collect()).await?;
        let text = |id: ProviderId| id.to_string();
        let providers =
            self.find::<Provider>(keys.iter().filter_map(provider_of).map(text).collect()).await?;
        let owner = |key: &AccountKey| match key {
            AccountKey::Fees | AccountKey::External => self.treasury,
            // Whose it is stands in the deposit, and nowhere here.
            AccountKey::Unclaimed(_) => None,
            _ => match (consumer_of(key), provider_of(key)) {
                (Some(id), _) => consumers.get(&id.to_string()).and_then(|found| found.owner),
                (None, Some(id)) => providers.get(&id.to_string()).and_then(|found| found.owner),
                (None, None) => None,
            },
        };
        Ok(keys.iter().filter_map(|key| Some((*key, owner(key)?))).collect())
    }

    async fn find<T: Entity>(&self, ids: BTreeSet<String>) -> Result<BTreeMap<String, T>> {
        let ids: Vec<String> = ids.into_iter().collect();
        let mut found = BTreeMap::new();
        for chunk in ids.chunks(PAGE) {
            let page = self.reader.list_all::<T>(Filter::Ids(chunk.to_vec())).await?;
            found.extend(page.into_iter().map(|stored| (stored.value.document_id(), stored.value)));
        }
        Ok(found)
    }
}
