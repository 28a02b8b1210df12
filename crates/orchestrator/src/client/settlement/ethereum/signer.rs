//! The operator's key, behind a policy: it signs calls of a few functions of one contract, without money, below limits on gas
//! and fees, and empty transactions to itself that use a nonce up. Nothing else can be had from it.

use std::path::{Path, PathBuf};

use alloy::{
    consensus::{SignableTransaction, Signed, TxEip1559, TxEip4844, TxEnvelope},
    eips::eip2718::{Decodable2718 as _, Encodable2718 as _},
    primitives::{Address, B256, Bytes, Signature, TxKind, U256},
    signers::{SignerSync as _, local::PrivateKeySigner},
};

use super::{
    abi,
    fees::{Caps, Fees},
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

/// Where the key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A keystore file (JSON, version 3) and a file with its password.
    Keystore {
        /// The keystore.
        path: PathBuf,
        /// The password; white space at its end does not count.
        password_file: PathBuf,
    },
    /// A key in AWS KMS; for later.
    Kms {
        /// The key's id.
        key_id: String,
    },
}

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
    /// The key did not sign.
    #[error("the key did not sign")]
    Key,
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
    key: PrivateKeySigner,
    policy: Policy,
}

impl std::fmt::Debug for PolicySigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicySigner").field("address", &self.key.address()).finish_non_exhaustive()
    }
}

/// The key in a keystore file, whose password is in another file. Takes as long as its key derivation wants.
///
/// # Errors
/// [`SettlementError::Refused`] when the files can't be read or don't fit each other.
pub fn open_keystore(path: &Path, password_file: &Path) -> Result<PrivateKeySigner, SettlementError> {
    let refused = |what: String| SettlementError::Refused(what);
    let password = std::fs::read_to_string(password_file)
        .map(zeroize::Zeroizing::new)
        .map_err(|error| refused(format!("{}: {error}", password_file.display())))?;
    PrivateKeySigner::decrypt_keystore(path, password.trim_end())
        .map_err(|error| refused(format!("{}: {error}", path.display())))
}

impl PolicySigner {
    /// Opens the key. Takes as long as the keystore's key derivation wants.
    ///
    /// # Errors
    /// [`SettlementError::Refused`] when the files can't be read or don't fit each other, [`SettlementError::NotSupported`] for
    /// KMS.
    pub fn open(source: &KeySource, policy: Policy) -> Result<Self, SettlementError> {
        let KeySource::Keystore { path, password_file } = source else {
            return Err(SettlementError::NotSupported("a key in AWS KMS"));
        };
        Ok(Self::new(open_keystore(path, password_file)?, policy))
    }

    /// A key that is at hand.
    #[must_use]
    pub const fn new(key: PrivateKeySigner, policy: Policy) -> Self {
        Self { key, policy }
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

    /// Signs a call of the contract.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn sign(&self, nonce: u64, call: &Call, fees: Fees) -> Result<SignedCall, PolicyError> {
        let method = abi::method(&call.input);
        if !method.is_some_and(|method| self.policy.methods.contains(&method)) {
            return Err(PolicyError::Method(method.unwrap_or("an unknown function").to_owned()));
        }
        if call.gas > self.policy.gas {
            return Err(PolicyError::Gas(call.gas, self.policy.gas));
        }
        self.check(fees)?;
        match fees.blob {
            None => self.finish(self.plain(nonce, self.policy.contract, call.input.clone(), call.gas, fees)),
            Some(blob_fee) => self.finish(TxEip4844 {
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
            }),
        }
    }

    /// Signs a transaction to oneself that does nothing but use the nonce up.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn sign_empty(&self, nonce: u64, fees: Fees) -> Result<SignedCall, PolicyError> {
        self.check(fees)?;
        self.finish(self.plain(nonce, self.address(), Bytes::new(), EMPTY_GAS, fees))
    }

    fn check(&self, fees: Fees) -> Result<(), PolicyError> {
        if fees.fit(self.policy.caps) { Ok(()) } else { Err(PolicyError::Fees) }
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

    fn finish<T>(&self, transaction: T) -> Result<SignedCall, PolicyError>
    where
        T: SignableTransaction<Signature>,
        TxEnvelope: From<Signed<T>>,
    {
        let signed = self.key.sign_hash_sync(&transaction.signature_hash()).map_err(|_| PolicyError::Key)?;
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
    use alloy::{consensus::Transaction as _, sol_types::SolCall as _};

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

    #[test]
    fn only_what_the_policy_allows_is_signed() {
        let signer = signer();
        let fees = Fees { gas: 100, tip: 1, blob: Some(10) };
        let signed = signer.sign(4, &publish(500), fees).unwrap();
        let read = read(&signed.raw).unwrap();
        assert_eq!((read.nonce(), read.to(), read.value()), (4, Some(Address::repeat_byte(7)), U256::ZERO));
        assert_eq!((read.chain_id(), read.tx_hash().0), (Some(31_337), signed.hash.0));

        let too_dear = Fees { blob: Some(11), ..fees };
        assert_eq!(signer.sign(4, &publish(500), too_dear), Err(PolicyError::Fees));
        assert!(matches!(signer.sign(4, &publish(1_000_001), fees), Err(PolicyError::Gas(..))));
        let deposit = Settlement::depositCall { owner: Address::ZERO, name: String::new(), amount: 1 };
        let deposit = Call { input: deposit.abi_encode().into(), ..publish(1) };
        assert_eq!(signer.sign(4, &deposit, fees), Err(PolicyError::Method("deposit".into())));
        let unknown = Call { input: Bytes::new(), ..publish(1) };
        assert!(matches!(signer.sign(4, &unknown, fees), Err(PolicyError::Method(_))));

        let empty = signer.sign_empty(5, Fees { blob: None, ..fees }).unwrap();
        let empty = super::read(&empty.raw).unwrap();
        assert_eq!((empty.to(), empty.value(), empty.input().len()), (Some(signer.address()), U256::ZERO, 0));
    }

    #[test]
    fn a_keystore_opens_with_its_password_and_kms_is_for_later() {
        let directory = tempfile::tempdir().unwrap();
        let (path, password_file) = (directory.path().join("key"), directory.path().join("password"));
        // Key 0x01…01, password `word`, with the least work that scrypt takes.
        std::fs::write(&path, include_str!("testdata/keystore.json")).unwrap();
        std::fs::write(&password_file, "word\n").unwrap();
        let source = KeySource::Keystore { path, password_file: password_file.clone() };
        let opened = PolicySigner::open(&source, signer().policy().clone()).unwrap();
        assert_eq!(opened.address(), signer().address());
        assert!(!format!("{opened:?}").contains("0101"));
        std::fs::write(&password_file, "other").unwrap();
        let refused = PolicySigner::open(&source, signer().policy().clone());
        assert!(matches!(refused, Err(SettlementError::Refused(_))));
        let kms = KeySource::Kms { key_id: "1".into() };
        let refused = PolicySigner::open(&kms, signer().policy().clone());
        assert!(matches!(refused, Err(SettlementError::NotSupported(_))));
    }
}
