//! The key of whoever sends: in a key file, or in AWS KMS. Here it signs any hash; what it may sign is [`super::signer`]'s matter.

use std::path::Path;

use alloy::{
    primitives::{Address, B256, Signature},
    signers::{SignerSync as _, local::PrivateKeySigner},
};

#[cfg(feature = "kms")]
use super::kms::KmsKey;
use super::node::unavailable;
use crate::core::madara::settlement::SettlementError;

/// A key that signs.
#[derive(Clone)]
pub enum Key {
    /// One that this process holds.
    Held(PrivateKeySigner),
    /// One that AWS KMS holds.
    #[cfg(feature = "kms")]
    Kms(KmsKey),
}

impl From<PrivateKeySigner> for Key {
    fn from(key: PrivateKeySigner) -> Self {
        Self::Held(key)
    }
}

#[cfg(feature = "kms")]
impl From<KmsKey> for Key {
    fn from(key: KmsKey) -> Self {
        Self::Kms(key)
    }
}

impl Key {
    /// Whose key it is.
    #[must_use]
    pub const fn address(&self) -> Address {
        match self {
            Self::Held(key) => key.address(),
            #[cfg(feature = "kms")]
            Self::Kms(key) => key.address(),
        }
    }

    /// Signs a hash.
    ///
    /// # Errors
    /// [`SettlementError::Unavailable`] when the key is elsewhere and does not sign, whatever the reason: the same call may
    /// succeed later.
    pub(super) async fn sign(&self, hash: &B256) -> Result<Signature, SettlementError> {
        match self {
            Self::Held(key) => {
                key.sign_hash_sync(hash).map_err(|error| SettlementError::Refused(error.to_string()))
            }
            #[cfg(feature = "kms")]
            // Boxed: the SDK's future is large and deep, and would be part of that of everybody who sends.
            Self::Kms(key) => Box::pin(key.sign(hash)).await,
        }
    }
}

/// The key in a keystore file (JSON, version 3), whose password is in another file; white space at the password's end does not
/// count. Takes as long as its key derivation wants, on a thread where nobody waits for it.
///
/// # Errors
/// [`SettlementError::Refused`] when the files can't be read or don't fit each other.
pub async fn open_keystore(path: &Path, password_file: &Path) -> Result<PrivateKeySigner, SettlementError> {
    let (path, password_file) = (path.to_owned(), password_file.to_owned());
    let open = move || {
        let refused = |what: String| SettlementError::Refused(what);
        let password = std::fs::read_to_string(&password_file)
            .map(zeroize::Zeroizing::new)
            .map_err(|error| refused(format!("{}: {error}", password_file.display())))?;
        PrivateKeySigner::decrypt_keystore(&path, password.trim_end())
            .map_err(|error| refused(format!("{}: {error}", path.display())))
    };
    tokio::task::spawn_blocking(open).await.map_err(unavailable)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_keystore_opens_with_its_password_only() {
        let directory = tempfile::tempdir().unwrap();
        let (path, password_file) = (directory.path().join("key"), directory.path().join("password"));
        // Key 0x01…01, password `word`, with the least work that scrypt takes.
        std::fs::write(&path, include_str!("testdata/keystore.json")).unwrap();
        std::fs::write(&password_file, "word\n").unwrap();
        let opened = open_keystore(&path, &password_file).await.unwrap();
        let wanted = PrivateKeySigner::from_bytes(&B256::repeat_byte(1)).unwrap();
        assert_eq!(Key::from(opened).address(), wanted.address());
        std::fs::write(&password_file, "other").unwrap();
        let refused = open_keystore(&path, &password_file).await;
        assert!(matches!(refused, Err(SettlementError::Refused(_))));
    }
}
