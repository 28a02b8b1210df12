//! A key in AWS KMS. It never leaves KMS, which is asked for every signature; each answer is checked against the key's address,
//! so that a wrong one is found here and not by a node.
//!
//! (`alloy-signer-aws` does the same, but holds `aws-smithy-types` at a version that the other AWS clients are past.)

use alloy::primitives::{Address, B256, Signature, eip191_hash_message};
use aws_sdk_kms::{
    primitives::Blob,
    types::{MessageType, SigningAlgorithmSpec},
};
use k256::{
    ecdsa::{Signature as Pair, VerifyingKey},
    pkcs8::DecodePublicKey as _,
};

use crate::{
    client::aws::{AwsClients, AwsError, Fault},
    core::madara::settlement::SettlementError,
};

/// What a key signs when it is opened. A message of this kind is never a transaction.
const TRIAL: &str = "orchestrator: this key can sign";

/// The kind of key that Ethereum wants.
const KIND: &str = "name a key of kind ECC_SECG_P256K1 for SIGN_VERIFY in `ethereum.kms_key`";

/// Why a key in KMS did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("the key `{key}` in AWS KMS: {} failed: {}; {}", .cause.operation, .cause.detail, fix(.cause))]
pub struct KmsError {
    /// The key's id or ARN.
    key: String,
    /// What went wrong.
    #[source]
    cause: AwsError,
}

/// What mends it.
fn fix(cause: &AwsError) -> &'static str {
    let code = cause.code.as_deref().unwrap_or_default();
    match code.trim_end_matches("Exception") {
        "Disabled" => "enable it",
        "KMSInvalidState" => "it must be enabled, and not on its way to be deleted",
        "InvalidKeyUsage" | "UnsupportedOperation" => KIND,
        _ => match cause.fault {
            Fault::Missing => "name a key of this account and of `aws.region` in `ethereum.kms_key`",
            Fault::Invalid => KIND,
            fault => fault.fix(),
        },
    }
}

/// A key that signs.
#[derive(Clone)]
pub struct KmsKey {
    clients: AwsClients,
    id: String,
    address: Address,
}

impl KmsKey {
    /// Asks KMS for the public half of a key, given by its id or ARN, and lets it sign a message once: what is in the way of
    /// that is told now, and not when the first block is due.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`] when KMS does not answer; [`SettlementError::Refused`] when there is no such key, it is
    /// of another kind, disabled, or not for these credentials.
    pub async fn open(clients: AwsClients, id: &str) -> Result<Self, SettlementError> {
        let opened = Self::try_open(clients, id).await;
        opened.map_err(|cause| {
            let error = KmsError { key: id.to_owned(), cause };
            match error.cause.retryable() {
                true => SettlementError::Unavailable(Box::new(error)),
                false => SettlementError::Refused(error.to_string()),
            }
        })
    }

    async fn try_open(clients: AwsClients, id: &str) -> Result<Self, AwsError> {
        const CALL: &str = "kms:GetPublicKey";
        let answer = clients.kms().get_public_key().key_id(id).send().await;
        let answer = answer.map_err(|error| AwsError::new(CALL, error))?;
        let der = answer.public_key.unwrap_or_else(|| Blob::new([]));
        // Names the curve, too.
        let public = VerifyingKey::from_public_key_der(der.as_ref());
        let public = public.map_err(|_| AwsError::odd(CALL, "it is no key on the curve secp256k1"))?;
        let key = Self { clients, id: id.to_owned(), address: Address::from_public_key(&public) };
        key.try_sign(&eip191_hash_message(TRIAL)).await?;
        Ok(key)
    }

    /// Whose key it is.
    #[must_use]
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Signs a hash.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`], whatever KMS says: the key could sign when it was opened, so that it can't now, because
    /// it was disabled or a right was taken away, is nothing that another transaction would mend.
    pub async fn sign(&self, hash: &B256) -> Result<Signature, SettlementError> {
        let signed = self.try_sign(hash).await;
        signed
            .map_err(|cause| SettlementError::Unavailable(Box::new(KmsError { key: self.id.clone(), cause })))
    }

    async fn try_sign(&self, hash: &B256) -> Result<Signature, AwsError> {
        const CALL: &str = "kms:Sign";
        let ask = self.clients.kms().sign().key_id(&self.id).message(Blob::new(hash.as_slice()));
        // KMS names the algorithm after the hash that it would make itself; a digest is taken as it is.
        let ask = ask.message_type(MessageType::Digest).signing_algorithm(SigningAlgorithmSpec::EcdsaSha256);
        let answer = ask.send().await.map_err(|error| AwsError::new(CALL, error))?;
        let der = answer.signature.unwrap_or_else(|| Blob::new([]));
        let pair = Pair::from_der(der.as_ref());
        let pair = pair.map_err(|_| AwsError::odd(CALL, "the answer is no signature"))?;
        // The chain takes the lower of both forms only.
        let pair = pair.normalize_s().unwrap_or(pair);
        [false, true]
            .map(|parity| Signature::from_signature_and_parity(pair, parity))
            .into_iter()
            .find(|signature| signature.recover_address_from_prehash(hash).ok() == Some(self.address))
            .ok_or_else(|| AwsError::odd(CALL, "the signature is another key's"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::aws::AwsSettings;

    #[tokio::test]
    async fn a_kms_that_does_not_answer_is_asked_again_later() {
        let settings = AwsSettings {
            region: "eu-central-1".into(),
            endpoint: "http://127.0.0.1:9".into(),
            ..AwsSettings::default()
        };
        let clients = AwsClients::with_key(&settings, "key", "secret").await.unwrap();
        let silent = KmsKey { clients, id: "1".into(), address: Address::ZERO };
        let error = silent.sign(&B256::ZERO).await.unwrap_err();
        assert!(error.retryable(), "{error:?}");
        let told = crate::error::chain(&error);
        assert!(told.contains("the key `1` in AWS KMS: kms:Sign failed"), "{told}");
        assert!(KmsKey::open(silent.clients, "1").await.err().unwrap().retryable());
    }

    #[test]
    fn what_mends_it_is_told_by_the_code() {
        let cause = |code: &str, fault| AwsError { fault, code: Some(code.into()), ..AwsError::odd("x", "") };
        assert_eq!(fix(&cause("DisabledException", Fault::Invalid)), "enable it");
        assert!(fix(&cause("NotFoundException", Fault::Missing)).contains("`aws.region`"));
        assert!(fix(&cause("AccessDeniedException", Fault::Forbidden)).contains("setup --policy"));
        assert_eq!(fix(&AwsError::odd("x", "it is no key on the curve secp256k1")), KIND);
    }
}
