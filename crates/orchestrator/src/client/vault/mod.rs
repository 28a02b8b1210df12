//! Sealing with AES-256-GCM: `v1.` and base64 of nonce, ciphertext and tag; the record id is the associated data.

use std::sync::Arc;

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::core::client::{
    clock::Entropy,
    vault::{Vault, VaultError},
};

const NONCE: usize = 12;
const PREFIX: &str = "v1.";

/// A vault with one key.
pub struct AesVault {
    cipher: Aes256Gcm,
    entropy: Arc<dyn Entropy>,
}

impl AesVault {
    /// A vault over a 256-bit key.
    #[must_use]
    pub fn new(key: &Zeroizing<[u8; 32]>, entropy: Arc<dyn Entropy>) -> Self {
        Self { cipher: Aes256Gcm::new(&(**key).into()), entropy }
    }
}

impl Vault for AesVault {
    fn seal(&self, record: &str, secret: &[u8]) -> Result<String, VaultError> {
        let mut nonce = [0_u8; NONCE];
        self.entropy.fill(&mut nonce);
        let payload = Payload { msg: secret, aad: record.as_bytes() };
        let sealed = self.cipher.encrypt(&nonce.into(), payload).map_err(|_| VaultError::Seal)?;
        Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat())))
    }

    fn open(&self, record: &str, sealed: &str) -> Result<Vec<u8>, VaultError> {
        let text = sealed.strip_prefix(PREFIX).ok_or(VaultError::Unsealable)?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| VaultError::Unsealable)?;
        let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE>().ok_or(VaultError::Unsealable)?;
        let payload = Payload { msg: ciphertext, aad: record.as_bytes() };
        self.cipher.decrypt(&(*nonce).into(), payload).map_err(|_| VaultError::Unsealable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::clock::SeededEntropy;

    #[test]
    fn a_seal_opens_for_its_record_and_key_only() {
        let entropy = Arc::new(SeededEntropy::new(1));
        let vault = AesVault::new(&Zeroizing::new([7; 32]), entropy.clone());
        let sealed = vault.seal("cred_1", b"secret").unwrap();
        assert_ne!(sealed, vault.seal("cred_1", b"secret").unwrap());
        assert_eq!(vault.open("cred_1", &sealed).unwrap(), b"secret");
        assert!(vault.open("cred_2", &sealed).is_err());
        assert!(vault.open("cred_1", &sealed[..sealed.len() - 2]).is_err());
        assert!(vault.open("cred_1", "v1.").is_err());
        assert!(AesVault::new(&Zeroizing::new([8; 32]), entropy).open("cred_1", &sealed).is_err());
    }
}
