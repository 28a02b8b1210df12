//! Ethereum as the settlement layer: the contract of `contracts/ethereum`, through a node's JSON-RPC.
//!
//! A block counts as settled when it is registered, which is one transaction, and as final when the contract has finalised it
//! and that is there for good. The id of a transaction is the key that it was sent under: hashes change when fees are bumped.

pub mod abi;
mod advance;
pub mod blocks;
pub mod challenge;
pub mod deposits;
pub mod fees;
pub mod journal;
pub mod key;
#[cfg(feature = "kms")]
pub mod kms;
pub mod logs;
pub mod node;
pub mod oracles;
pub mod payin;
pub mod payout;
mod registry;
pub mod sender;
pub mod signer;
pub mod watch;

use std::sync::Arc;

use alloy::{primitives::Address as ChainAddress, sol_types::SolCall as _};
use async_trait::async_trait;

use self::{
    abi::Settlement,
    blocks::{Place, RegisteredBlock, header_for},
    deposits::{Deposits, LogSettings},
    node::not_now,
    oracles::Oracles,
    registry::Registry,
    sender::{Sender, Status},
};
use crate::{
    client::da::ethereum::Reference,
    core::{
        madara::{
            attestation::EvidenceOracles,
            payout::PayoutClient,
            settlement::{
                BlockProof, CallToSign, Deposit, Holdings, SettledBlock, SettlementClient, SettlementError,
                TransactionStatus, WithdrawalClaim,
            },
        },
        market::{
            account::AccountKey,
            address::Address,
            block::{BlockHeader, Hash32},
            money::Amount,
            state::{Step, hash::domain_hash, header::header_hash},
            terms::DomainId,
        },
    },
};

type Result<T> = std::result::Result<T, SettlementError>;

/// Transactions that may fail to make a block final before it is left to the next block, which finalises those before it, too.
const FINALISE_ROUNDS: u32 = 8;

/// The layer.
pub struct EthereumSettlement {
    domain: DomainId,
    sender: Arc<Sender>,
    deposits: Deposits,
    treasury: Address,
    oracles: Oracles,
    /// Whether this daemon pays owners out by itself.
    pays_out: bool,
    token: ChainAddress,
    registry: Registry,
}

impl EthereumSettlement {
    /// The layer of a domain; the contract at the sender's address must be that domain's.
    ///
    /// # Errors
    /// [`SettlementError::Refused`] when there is no contract, or one of another domain; [`SettlementError::Unavailable`].
    pub async fn connect(
        domain: DomainId,
        sender: Arc<Sender>,
        settings: LogSettings,
        (treasury, oracles): (Address, Oracles),
    ) -> Result<Self> {
        let head = sender.node().head().await?;
        let call = Settlement::DOMAINCall {};
        let found = sender.node().read(sender.contract(), &call, head.number).await?;
        if found.0 != domain_hash(&domain).0 {
            return Err(SettlementError::Refused(format!("the contract is not that of domain `{domain}`")));
        }
        let token = sender.node().read(sender.contract(), &Settlement::TOKENCall {}, head.number).await?;
        oracles.refresh(sender.node()).await?;
        let place = Place {
            domain: domain.clone(),
            contract: sender.contract(),
            from_block: settings.from_block,
            log_range: settings.log_range,
        };
        let (deposits, registry) = (Deposits::new(settings), Registry::new(place));
        Ok(Self { domain, sender, deposits, treasury, oracles, pays_out: true, token, registry })
    }

    /// As it is, but owners claim by themselves.
    #[must_use]
    pub fn without_payouts(self) -> Self {
        Self { pays_out: false, ..self }
    }
}

/// How a block's way to finality is named where a transaction is.
fn finality_id(number: u64, hash: &Hash32) -> String {
    format!("final/{number}/{hash}")
}

fn finality_of(id: &str) -> Option<(u64, Hash32)> {
    let (number, hash) = id.strip_prefix("final/")?.split_once('/')?;
    Some((number.parse().ok()?, hash.parse().ok()?))
}

impl EthereumSettlement {
    /// The node that it asks.
    #[must_use]
    pub fn node(&self) -> &node::Node {
        self.sender.node()
    }

    /// A block that stands, as it was registered.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`].
    pub async fn registered(&self, number: u64) -> Result<Option<RegisteredBlock>> {
        let node = self.sender.node();
        let head = node.head().await?.number;
        let there = node.read(self.sender.contract(), &Settlement::blockAtCall { number }, head).await?;
        if number == 0 || there.hash.is_zero() {
            return Ok(None);
        }
        self.registry.block(node, self.sender.finality(), number, Hash32(there.hash.0)).await
    }

    /// Whether a block that is not there fell, for good. If not, its registration went with a block of the chain, and will be
    /// sent again.
    async fn fell(&self, number: u64, hash: &Hash32) -> Result<bool> {
        self.registry.fell(self.sender.node(), self.sender.finality(), number, *hash).await
    }

    /// How far a registered block is on its way to finality; makes it final as soon as the contract lets it.
    async fn finality(&self, number: u64, hash: Hash32) -> Result<TransactionStatus> {
        let (node, contract) = (self.sender.node(), self.sender.contract());
        let head = node.head().await?;
        let found = node.read(contract, &Settlement::blockAtCall { number }, head.number).await?;
        if found.hash.0 != hash.0 {
            return Ok(match self.fell(number, &hash).await? {
                true => TransactionStatus::Rejected("the block fell".to_owned()),
                // The chain changed its mind, and will hear of the registration again.
                false => TransactionStatus::Pending,
            });
        }
        if let Some(settled) = node.settled(self.sender.finality()).await? {
            match node.read(contract, &Settlement::lastFinalCall {}, settled.number).await {
                Ok(last) if last >= number => return Ok(TransactionStatus::Final),
                // The contract is younger than that block.
                Ok(_) | Err(SettlementError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let last = node.read(contract, &Settlement::lastFinalCall {}, head.number).await?;
        let window = node.read(contract, &Settlement::CHALLENGE_WINDOWCall {}, head.number).await?;
        if last < number && head.time >= u64::from(found.registeredAt) + u64::from(window) {
            self.finalise(number, &hash).await?;
        }
        Ok(TransactionStatus::Included)
    }
}

impl EthereumSettlement {
    /// Asks the contract to make a block final. A transaction that had no effect for good, as when somebody paused the contract in
    /// between, is followed by another one.
    async fn finalise(&self, number: u64, hash: &Hash32) -> Result<()> {
        let call = Settlement::finaliseCall { number }.abi_encode();
        for round in 0..FINALISE_ROUNDS {
            let key = match round {
                0 => format!("finalise/{}/{hash}", self.domain),
                round => format!("finalise/{}/{hash}.{round}", self.domain),
            };
            match self.sender.send(&key, call.clone().into(), None).await {
                Ok(Status::Rejected(reason)) => {
                    tracing::warn!(number, round, reason, "the block could not be made final");
                }
                Ok(_) => return Ok(()),
                // Somebody else was faster, or the clocks differ a little.
                Err(SettlementError::Refused(reason)) => {
                    tracing::debug!(number, reason, "not final yet");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl SettlementClient for EthereumSettlement {
    fn domain(&self) -> &DomainId {
        &self.domain
    }

    fn treasury(&self) -> Option<Address> {
        Some(self.treasury)
    }

    fn oracles(&self) -> Option<&dyn EvidenceOracles> {
        Some(&self.oracles)
    }

    fn payouts(&self) -> Option<&dyn PayoutClient> {
        self.pays_out.then_some(self)
    }

    async fn holdings(&self) -> Result<Holdings> {
        self.what_it_holds().await
    }

    async fn register_proof(
        &self,
        key: &str,
        header: &BlockHeader,
        proof: &BlockProof,
        da_reference: &str,
    ) -> Result<String> {
        let refused = |what: &str| SettlementError::Refused(what.to_owned());
        let reference: Reference =
            da_reference.parse().map_err(|_| refused("the block's data is not in blobs of this chain"))?;
        let own =
            header_for(header).ok_or_else(|| refused("the block is of a format that no chain takes"))?;
        let BlockProof::Reexecution { steps, attestations, .. } = proof;
        let signatures = attestations.iter().map(|text| text.parse()).collect::<std::result::Result<_, _>>();
        let call = Settlement::registerCall {
            header: own,
            blobs: reference.hashes.iter().map(|hash| hash.0.into()).collect(),
            steps: steps.iter().flat_map(Step::registered).collect::<Vec<u8>>().into(),
            signatures: signatures.map_err(|_| refused("an attestation is no signature"))?,
        };
        match self.sender.send(key, call.abi_encode().into(), None).await {
            Ok(_) => Ok(key.to_owned()),
            Err(error) => {
                // The oracles may have changed; whoever gathers signatures must know the present ones.
                self.oracles.refresh(self.sender.node()).await?;
                let head = self.sender.node().head().await?.number;
                let last =
                    self.sender.node().read(self.sender.contract(), &Settlement::lastRegisteredCall {}, head);
                match error {
                    // The block before it went with a block of the chain, and comes again.
                    SettlementError::Refused(reason) if last.await?.saturating_add(1) < header.number => {
                        Err(not_now(format!("the block before it is not registered: {reason}")))
                    }
                    error => Err(error),
                }
            }
        }
    }

    /// Nothing is sent yet: what is settled by its registration becomes final by a transaction that the contract takes behind the
    /// challenge window only, and [`SettlementClient::transaction`] sees to it.
    async fn update_state(&self, _key: &str, header: &BlockHeader) -> Result<String> {
        let hash = header_hash(header);
        let head = self.sender.node().head().await?.number;
        let number = header.number;
        let found = self
            .sender
            .node()
            .read(self.sender.contract(), &Settlement::blockAtCall { number }, head)
            .await?;
        if found.hash.0 == hash.0 {
            return Ok(finality_id(number, &hash));
        }
        match self.fell(number, &hash).await? {
            true => Err(SettlementError::Refused(format!("block {number} fell"))),
            false => Err(not_now(format!("block {number} is not registered just now"))),
        }
    }

    async fn transaction(&self, id: &str) -> Result<TransactionStatus> {
        if let Some((number, hash)) = finality_of(id) {
            return self.finality(number, hash).await;
        }
        Ok(match self.sender.status(id).await? {
            Status::Pending | Status::Paused(_) | Status::Needs => TransactionStatus::Pending,
            Status::Included(_) => TransactionStatus::Included,
            Status::Final(_) => TransactionStatus::Final,
            Status::Rejected(reason) => TransactionStatus::Rejected(reason),
            Status::Abandoned => TransactionStatus::Rejected("given up".to_owned()),
        })
    }

    async fn last_settled(&self) -> Result<SettledBlock> {
        let (node, contract) = (self.sender.node(), self.sender.contract());
        // All out of one block, so that it fits together.
        let head = node.head().await?.number;
        let number = node.read(contract, &Settlement::lastRegisteredCall {}, head).await?;
        let block = node.read(contract, &Settlement::blockAtCall { number }, head).await?;
        let last_final = match node.settled(self.sender.finality()).await? {
            Some(settled) => match node.read(contract, &Settlement::lastFinalCall {}, settled.number).await {
                // The contract is younger than that block.
                Err(SettlementError::Refused(_)) => 0,
                answer => answer?,
            },
            None => 0,
        };
        Ok(SettledBlock {
            number,
            hash: Hash32(block.hash.0),
            state_root: Hash32(block.stateRoot.0),
            is_final: number <= last_final,
        })
    }

    async fn block(&self, number: u64) -> Result<Option<(BlockHeader, String)>> {
        Ok(self.registered(number).await?.map(|block| {
            let reference = Reference {
                chain: self.sender.chain(),
                contract: self.sender.contract(),
                domain: self.domain.clone(),
                number,
                hashes: block.blobs,
            };
            (block.header, reference.to_string())
        }))
    }

    async fn deposits(&self, after: u64, limit: usize) -> Result<Vec<Deposit>> {
        self.deposits.after(&self.sender, after, limit).await
    }

    fn deposit_calls(&self, owner: Address, account: AccountKey, amount: Amount) -> Vec<CallToSign> {
        payin::calls((self.sender.chain(), self.sender.contract(), self.token), owner, account, amount)
    }

    async fn deposit(&self, _key: &str, _account: AccountKey, _amount: Amount) -> Result<Deposit> {
        Err(SettlementError::NotSupported("paying in for somebody"))
    }

    async fn withdraw(&self, _claim: &WithdrawalClaim) -> Result<Amount> {
        Err(SettlementError::NotSupported("paying out for somebody"))
    }

    async fn tend(&self) -> Result<Vec<String>> {
        let report = self.sender.tend().await?;
        let paused = report.paused.into_iter().map(|(key, reason)| format!("`{key}` waits: {reason}"));
        let needs = report.needs.into_iter().map(|key| {
            format!(
                "`{key}` waits: no node has it any more, and whoever asked for it must bring its blobs again"
            )
        });
        Ok(paused.chain(needs).collect())
    }

    async fn nonce(&self) -> Result<u64> {
        self.sender.nonce().await
    }
}
