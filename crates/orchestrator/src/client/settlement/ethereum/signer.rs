//! The operator's key, behind a policy: it signs calls of a few functions of one contract, without money, below limits on gas
//! and fees, and empty transactions to itself that use a nonce up. Nothing else can be had from it.

use alloy::{
    consensus::{SignableTransaction, Signed, TxEip1559, TxEip4844, TxEnvelope},
    eips::eip2718::{Decodable2718 as _, Encodable2718 as _},
    primitives::{Address, B256, Bytes, Signature, TxKind, U256},
};

use super::{
    abi,
    fees::{Caps, Fees},
    key::Key,
};
use crate::core::{madara::settlement::SettlementError, market::block::Hash32};

/// What an empty transaction takes.
const EMPTY_GAS: u64 = 21_000;

/// The functions that a daemon calls.
pub const METHODS: &[&str] = &[
    "publish",
    "register",
    "finalise",
    "postBond",
    "withdrawMany",
    "challengeStep",
    "challengeData",
    "challengeHead",
];

/// What may be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The chain.
    pub chain: u64,
    /// The only contract.
    pub contract: Address,
    /// The only functions.
    pub methods: &'static [&'static str],
    /// Most gas in one transaction.
    pub gas: u64,
    /// Highest fees.
    pub caps: Caps,
}

/// What the policy forbids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A function that is not on the list.
    #[error("the signer's policy does not allow `{0}`")]
    Method(String),
    /// Too much gas.
    #[error("the call takes {0} gas, and the signer's policy allows {1}")]
    Gas(u64, u64),
    /// Fees above the caps.
    #[error("the fees are above the caps of the signer's policy")]
    Fees,
}

impl Policy {
    /// Whether a call may be signed with these fees.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn allows(&self, call: &Call, fees: Fees) -> Result<(), PolicyError> {
        let method = abi::method(&call.input);
        if !method.is_some_and(|method| self.methods.contains(&method)) {
            return Err(PolicyError::Method(method.unwrap_or("an unknown function").to_owned()));
        }
        if call.gas > self.gas {
            return Err(PolicyError::Gas(call.gas, self.gas));
        }
        self.affords(fees)
    }

    /// Whether so much may be paid.
    fn affords(&self, fees: Fees) -> Result<(), PolicyError> {
        if fees.fit(self.caps) { Ok(()) } else { Err(PolicyError::Fees) }
    }
}

impl From<PolicyError> for SettlementError {
    fn from(error: PolicyError) -> Self {
        Self::Refused(error.to_string())
    }
}

/// A signed transaction, without its blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCall {
    /// Its hash.
    pub hash: Hash32,
    /// Its bytes, as they will stand in a block.
    pub raw: Vec<u8>,
}

/// What a stored transaction calls, read back from its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Call data.
    pub input: Bytes,
    /// Limit on gas.
    pub gas: u64,
    /// Versioned hashes of its blobs.
    pub blobs: Vec<B256>,
}

/// The key with its policy.
#[derive(Clone)]
pub struct PolicySigner {
    key: Key,
    policy: Policy,
}

impl std::fmt::Debug for PolicySigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicySigner").field("address", &self.key.address()).finish_non_exhaustive()
    }
}

impl PolicySigner {
    /// A key behind a policy.
    #[must_use]
    pub fn new(key: impl Into<Key>, policy: Policy) -> Self {
        Self { key: key.into(), policy }
    }

    /// Who signs.
    #[must_use]
    pub const fn address(&self) -> Address {
        self.key.address()
    }

    /// What may be signed.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Signs a call of the contract. The key is asked only for what the policy allows.
    ///
    /// # Errors
    /// [`SettlementError::Refused`] with the [`PolicyError`]; [`SettlementError::Unavailable`] when the key is elsewhere and
    /// does not sign.
    pub async fn sign(&self, nonce: u64, call: &Call, fees: Fees) -> Result<SignedCall, SettlementError> {
        self.policy.allows(call, fees)?;
        let Some(blob_fee) = fees.blob else {
            let plain = self.plain(nonce, self.policy.contract, call.input.clone(), call.gas, fees);
            return self.finish(plain).await;
        };
        let with_blobs = TxEip4844 {
            chain_id: self.policy.chain,
            nonce,
            gas_limit: call.gas,
            max_fee_per_gas: fees.gas,
            max_priority_fee_per_gas: fees.tip,
            to: self.policy.contract,
            value: U256::ZERO,
            input: call.input.clone(),
            blob_versioned_hashes: call.blobs.clone(),
            max_fee_per_blob_gas: blob_fee,
            ..TxEip4844::default()
        };
        self.finish(with_blobs).await
    }

    /// Signs a transaction to oneself that does nothing but use the nonce up.
    ///
    /// # Errors
    /// As [`PolicySigner::sign`].
    pub async fn sign_empty(&self, nonce: u64, fees: Fees) -> Result<SignedCall, SettlementError> {
        self.policy.affords(fees)?;
        self.finish(self.plain(nonce, self.address(), Bytes::new(), EMPTY_GAS, fees)).await
    }

    fn plain(&self, nonce: u64, to: Address, input: Bytes, gas: u64, fees: Fees) -> TxEip1559 {
        TxEip1559 {
            chain_id: self.policy.chain,
            nonce,
            gas_limit: gas,
            max_fee_per_gas: fees.gas,
            max_priority_fee_per_gas: fees.tip,
            to: TxKind::Call(to),
            value: U256::ZERO,
            input,
            ..TxEip1559::default()
        }
    }

    async fn finish<T>(&self, transaction: T) -> Result<SignedCall, SettlementError>
    where
        T: SignableTransaction<Signature>,
        TxEnvelope: From<Signed<T>>,
    {
        let signed = self.key.sign(&transaction.signature_hash()).await?;
        let envelope = TxEnvelope::from(transaction.into_signed(signed));
        Ok(SignedCall { hash: Hash32(envelope.tx_hash().0), raw: envelope.encoded_2718() })
    }
}

/// The transaction that bytes of a journal are.
pub(super) fn read(raw: &[u8]) -> Option<TxEnvelope> {
    TxEnvelope::decode_2718(&mut &*raw).ok()
}

#[cfg(test)]
mod tests {
    use alloy::{consensus::Transaction as _, signers::local::PrivateKeySigner, sol_types::SolCall as _};

    use super::{super::abi::Settlement, *};

    fn signer() -> PolicySigner {
        let policy = Policy {
            chain: 31_337,
            contract: Address::repeat_byte(7),
            methods: METHODS,
            gas: 1_000_000,
            caps: Caps { gas: 100, blob: 10 },
        };
        PolicySigner::new(PrivateKeySigner::from_bytes(&B256::repeat_byte(1)).unwrap(), policy)
    }

    fn publish(gas: u64) -> Call {
        let input = Settlement::publishCall { number: 1, part: 0 }.abi_encode().into();
        Call { input, gas, blobs: vec![B256::repeat_byte(1)] }
    }

    #[tokio::test]
    async fn only_what_the_policy_allows_is_signed() {
        let signer = signer();
        let fees = Fees { gas: 100, tip: 1, blob: Some(10) };
        let signed = signer.sign(4, &publish(500), fees).await.unwrap();
        let read = read(&signed.raw).unwrap();
        assert_eq!((read.nonce(), read.to(), read.value()), (4, Some(Address::repeat_byte(7)), U256::ZERO));
        assert_eq!((read.chain_id(), read.tx_hash().0), (Some(31_337), signed.hash.0));

        let refused = async |call: &Call, fees| {
            let problem = signer.policy().allows(call, fees).unwrap_err();
            match signer.sign(4, call, fees).await {
                Err(SettlementError::Refused(reason)) => assert_eq!(reason, problem.to_string()),
                other => panic!("{other:?}"),
            }
            problem
        };
        let too_dear = Fees { blob: Some(11), ..fees };
        assert_eq!(refused(&publish(500), too_dear).await, PolicyError::Fees);
        assert_eq!(refused(&publish(1_000_001), fees).await, PolicyError::Gas(1_000_001, 1_000_000));
        let deposit = Settlement::depositCall { owner: Address::ZERO, name: String::new(), amount: 1 };
        let deposit = Call { input: deposit.abi_encode().into(), ..publish(1) };
        assert_eq!(refused(&deposit, fees).await, PolicyError::Method("deposit".into()));
        let unknown = Call { input: Bytes::new(), ..publish(1) };
        assert!(matches!(refused(&unknown, fees).await, PolicyError::Method(_)));

        let empty = signer.sign_empty(5, Fees { blob: None, ..fees }).await.unwrap();
        let empty = super::read(&empty.raw).unwrap();
        assert_eq!((empty.to(), empty.value(), empty.input().len()), (Some(signer.address()), U256::ZERO, 0));
        let dear = signer.sign_empty(5, Fees { gas: 101, ..fees }).await;
        assert!(matches!(dear, Err(SettlementError::Refused(_))), "{dear:?}");
        assert!(!format!("{signer:?}").contains("0101"));
    }
}
