//! What the daemon asks of a node, in one place: every call has a timeout, a node that is down is an error that may pass, and a
//! contract that refuses says why.

use std::time::Duration;

use alloy::{
    consensus::{BlockHeader as _, Transaction as _},
    eips::{BlockId, BlockNumberOrTag},
    network::{Ethereum, TransactionResponse as _},
    primitives::{Address, B256, Bytes},
    providers::{Provider as _, RootProvider},
    rpc::{
        client::RpcClient,
        json_rpc::RpcError,
        types::{Filter, Log, TransactionInput, TransactionRequest},
    },
    sol_types::SolCall,
    transports::TransportErrorKind,
};

use super::{abi, fees::Fees};
use crate::{
    client::network::http::build_client,
    core::{
        madara::settlement::SettlementError,
        market::{block::Hash32, quantity::Micros},
    },
};

type Result<T> = std::result::Result<T, SettlementError>;
type Failure = RpcError<TransportErrorKind>;

/// When a block counts as being there for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finality {
    /// When the chain's consensus says so.
    Finalized,
    /// A little earlier: only a large part of the validators could undo it.
    Safe,
    /// With so many blocks on top: for chains of one's own.
    Depth(u64),
}

/// Why a node did not answer as it should.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NodeError(String);

pub(super) fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> SettlementError {
    SettlementError::Unavailable(Box::new(error))
}

/// Something that may pass by itself.
pub(super) fn not_now(problem: impl Into<String>) -> SettlementError {
    unavailable(NodeError(problem.into()))
}

/// A block, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRef {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: Hash32,
    /// Hash of the block before.
    pub parent: Hash32,
    /// Seconds since 1970.
    pub time: u64,
    /// What a unit of gas costs at least.
    pub base_fee: u64,
}

/// Where a transaction was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// Number of the block.
    pub block: u64,
    /// Hash of the block.
    pub hash: Hash32,
    /// Whether it took effect.
    pub success: bool,
}

/// What a node did with a transaction that it was handed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broadcast {
    /// It has it.
    Taken,
    /// It won't have it, for this reason.
    Refused(String),
}

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    provider: RootProvider<Ethereum>,
}

/// Failures of the way, and refusals of the node that say nothing about the call.
fn failed(error: Failure) -> SettlementError {
    // The text of a transport error may hold the node's address with a key in it.
    match error {
        RpcError::ErrorResp(payload) => {
            not_now(format!("the node refused: {} (code {})", payload.message, payload.code))
        }
        RpcError::Transport(TransportErrorKind::HttpError(error)) => {
            not_now(format!("the node answered with status {}", error.status))
        }
        RpcError::Transport(_) => not_now("the node does not answer"),
        RpcError::DeserError { err, .. } => unavailable(err),
        other => not_now(other.to_string()),
    }
}

/// Failures of a call to the contract: what it refuses for good is told apart from what may pass.
fn call_failed(error: Failure) -> SettlementError {
    let RpcError::ErrorResp(payload) = &error else { return failed(error) };
    let Some(data) = payload.as_revert_data() else {
        // Code 3 is a revert; some nodes leave its data out.
        let reverted = payload.code == 3 || payload.message.contains("revert");
        return if reverted { SettlementError::Refused(payload.message.to_string()) } else { failed(error) };
    };
    let reason = abi::reason(&data);
    if abi::passes(&data) { not_now(format!("not yet: {reason}")) } else { SettlementError::Refused(reason) }
}

impl Node {
    /// A node at an address; nothing is asked yet.
    ///
    /// # Errors
    /// [`SettlementError::Refused`] for an address that is none.
    pub fn new(url: &str, timeout: Micros) -> Result<Self> {
        let url =
            url.parse().map_err(|_| SettlementError::Refused("the node's address is none".to_owned()))?;
        let timeout: Duration = timeout.to_std();
        let builder = || reqwest::Client::builder().timeout(timeout).connect_timeout(timeout);
        let client = build_client(builder).map_err(unavailable)?;
        Ok(Self { provider: RootProvider::new(RpcClient::new_http_with_client(client, url)) })
    }

    /// The chain's id.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`], as for every question here.
    pub async fn chain_id(&self) -> Result<u64> {
        self.provider.get_chain_id().await.map_err(failed)
    }

    /// A block; `None` when the chain has none such.
    ///
    /// # Errors
    /// As [`Node::chain_id`].
    pub async fn block(&self, id: impl Into<BlockId>) -> Result<Option<BlockRef>> {
        let found = self.provider.get_block(id.into()).await.map_err(failed)?;
        Ok(found.map(|block| BlockRef {
            number: block.header.number(),
            hash: Hash32(block.header.hash.0),
            parent: Hash32(block.header.parent_hash().0),
            time: block.header.timestamp(),
            base_fee: block.header.base_fee_per_gas().unwrap_or_default(),
        }))
    }

    /// The newest block.
    ///
    /// # Errors
    /// As [`Node::chain_id`].
    pub async fn head(&self) -> Result<BlockRef> {
        self.block(BlockNumberOrTag::Latest).await?.ok_or_else(|| not_now("the chain has no block"))
    }

    /// The newest block that is there for good; `None` while there is none.
    ///
    /// # Errors
    /// As [`Node::chain_id`].
    pub async fn settled(&self, finality: Finality) -> Result<Option<BlockRef>> {
        let tag = match finality {
            Finality::Finalized => BlockNumberOrTag::Finalized,
            Finality::Safe => BlockNumberOrTag::Safe,
            Finality::Depth(depth) => match self.head().await?.number.checked_sub(depth) {
                Some(number) => BlockNumberOrTag::Number(number),
                None => return Ok(None),
            },
        };
        self.block(tag).await
    }

    /// How many transactions of an address there are up to a block: its next nonce there.
    ///
    /// # Errors
    /// As [`Node::chain_id`].
    pub async fn count(&self, address: Address, at: impl Into<BlockId>) -> Result<u64> {
        self.provider.get_transaction_count(address).block_id(at.into()).await.map_err(failed)
    }

    /// What an address has, in wei; at most what fits 128 bits.
    ///
    /// # Errors
    /// As [`Node::chain_id`].
    pub async fn balance(&self, address: Address) -> Result<u128> {
        let balance = self.provider.get_balance(address).await.map_err(failed)?;
        Ok(u128::try_from(balance).unwrap_or(u128::MAX))
    }

    /// Where a transaction was executed.
    ///
    /// # Errors
    /// As [`Node::chain_id`].
    pub async fn receipt(&self, hash: Hash32) -> Result<Option<Receipt>> {
        let found = self.provider.get_transaction_receipt(B256::from(hash.0)).await.map_err(failed)?;
        let Some(receipt) = found else { return Ok(None) };
        let (Some(block), Some(hash)) = (receipt.block_number, receipt.block_hash) else { return Ok(None) };
        Ok(Some(Receipt { block, hash: Hash32(hash.0), success: receipt.status() }))
    }

    /// Whether the node has a transaction, mined or waiting.
    ///
    /// # Errors
    /// As [`Node::chain_id`].
    pub async fn knows(&self, hash: Hash32) -> Result<bool> {
        let found = self.provider.get_transaction_by_hash(B256::from(hash.0)).await.map_err(failed)?;
        Ok(found.is_some_and(|transaction| transaction.tx_hash().0 == hash.0))
    }

    /// What a transaction called a contract with; `None` when the node does not have it, or it called another address.
    ///
    /// # Errors
    /// As [`Node::chain_id`].
    pub async fn input(&self, hash: Hash32, contract: Address) -> Result<Option<Bytes>> {
        let found = self.provider.get_transaction_by_hash(B256::from(hash.0)).await.map_err(failed)?;
        Ok(found.filter(|it| it.to() == Some(contract)).map(|it| it.input().clone()))
    }

    /// What the market asks now.
    ///
    /// # Errors
    /// As [`Node::chain_id`].
    pub async fn fees(&self, with_blobs: bool) -> Result<Fees> {
        let base = self.head().await?.base_fee;
        let tip = self.provider.get_max_priority_fee_per_gas().await.map_err(failed)?;
        let blob = match with_blobs {
            true => Some(self.provider.get_blob_base_fee().await.map_err(failed)?),
            false => None,
        };
        Ok(Fees::of_market(base.into(), tip, blob))
    }

    /// Hands a signed transaction over.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`] when it is open whether the node has it.
    pub async fn broadcast(&self, raw: &[u8]) -> Result<Broadcast> {
        match self.provider.send_raw_transaction(raw).await {
            Ok(_) => Ok(Broadcast::Taken),
            Err(RpcError::ErrorResp(payload)) => {
                let said = payload.message.to_lowercase();
                let known = said.contains("already known") || said.contains("already imported");
                Ok(if known { Broadcast::Taken } else { Broadcast::Refused(payload.message.to_string()) })
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The gas that a call of the contract takes if it is mined next.
    ///
    /// # Errors
    /// [`SettlementError::Refused`] when the contract refuses it for good, [`SettlementError::Unavailable`] when it
    /// refuses it now.
    pub async fn estimate(&self, request: TransactionRequest) -> Result<u64> {
        self.provider.estimate_gas(request).block(BlockId::pending()).await.map_err(call_failed)
    }

    /// What a call of the contract takes if it is mined next, or what it gives back when it reverts; `None` when it takes more
    /// than `most`.
    ///
    /// # Errors
    /// As [`Node::chain_id`].
    pub async fn try_out(
        &self,
        call: TransactionRequest,
        most: u64,
    ) -> Result<Option<std::result::Result<u64, Bytes>>> {
        let call = TransactionRequest { gas: Some(most), ..call };
        let error = match self.provider.estimate_gas(call).block(BlockId::pending()).await {
            Ok(gas) => return Ok(Some(Ok(gas))),
            Err(error) => error,
        };
        let RpcError::ErrorResp(payload) = &error else { return Err(failed(error)) };
        if let Some(data) = payload.as_revert_data() {
            return Ok(Some(Err(data)));
        }
        // There are no codes for it. Nodes differ in the words, and all of them speak of gas.
        let said = payload.message.to_lowercase();
        match said.contains("gas") {
            true => Ok(None),
            false if payload.code == 3 || said.contains("revert") => Ok(Some(Err(Bytes::new()))),
            false => Err(failed(error)),
        }
    }

    /// Reads the contract at a block.
    ///
    /// # Errors
    /// As [`Node::estimate`].
    pub async fn read<C: SolCall>(
        &self,
        contract: Address,
        call: &C,
        at: impl Into<BlockId>,
    ) -> Result<C::Return> {
        let request = request(None, contract, call.abi_encode().into());
        let answer = self.provider.call(request).block(at.into()).await.map_err(call_failed)?;
        // An address without code answers with nothing.
        C::abi_decode_returns(&answer).map_err(|_| {
            SettlementError::Refused("there is no settlement contract at this address".to_owned())
        })
    }

    /// Why a transaction that was executed had no effect: it is called again on the state before its block.
    pub async fn reason(&self, from: Address, to: Address, input: Bytes, block: u64) -> String {
        let request = request(Some(from), to, input);
        match self.provider.call(request).block(block.saturating_sub(1).into()).await.map_err(call_failed) {
            Ok(_) => "reverted, or ran out of gas".to_owned(),
            Err(SettlementError::Refused(reason)) => reason,
            Err(SettlementError::Unavailable(error)) => error.to_string(),
            Err(error) => error.to_string(),
        }
    }

    /// Events.
    ///
    /// # Errors
    /// As [`Node::chain_id`].
    pub async fn logs(&self, filter: &Filter) -> Result<Vec<Log>> {
        self.provider.get_logs(filter).await.map_err(failed)
    }
}

/// A call of the contract.
pub(super) fn request(from: Option<Address>, to: Address, input: Bytes) -> TransactionRequest {
    TransactionRequest {
        from,
        to: Some(to.into()),
        input: TransactionInput::new(input),
        ..TransactionRequest::default()
    }
}
