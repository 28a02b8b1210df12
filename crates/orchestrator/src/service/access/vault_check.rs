//! Whether the vault's key is the one that sealed what the database holds. Without this look a daemon with another key, as
//! a replica with a key of its own is one, would start well and fail at the first secret.

use serde::{Deserialize, Serialize};

use crate::{
    core::client::{
        database::{Changeset, Committer, DatabaseError, Entity, Reader, ReaderExt},
        schema::{self, Collection},
        vault::Vault,
    },
    error::{Error, ErrorCode, Result},
};

const RECORD: &str = "vault_check";
const WORD: &[u8] = b"the key that seals";

/// A word that was sealed at the first start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct VaultCheck {
    sealed: String,
}

impl Entity for VaultCheck {
    const NAME: &'static str = "vault_check";
    const COLLECTION: Collection = schema::META;
    fn document_id(&self) -> String {
        RECORD.into()
    }
}

/// Seals the word at the first start, and opens it at every other.
///
/// # Errors
/// [`ErrorCode::InvalidConfig`] when the key is another one; database errors.
pub async fn check_vault(reader: &dyn Reader, committer: &dyn Committer, vault: &dyn Vault) -> Result<()> {
    for _ in 0..2 {
        if let Some(known) = reader.load::<VaultCheck>(RECORD).await? {
            return match vault.open(RECORD, &known.value.sealed) {
                Ok(word) if word == WORD => Ok(()),
                _ => Err(Error::new(
                    ErrorCode::InvalidConfig,
                    "the vault's key is not the one that sealed the secrets in this database; give every replica the same \
                     key, by ORCHESTRATOR_VAULT_KEY or data.vault_key_file",
                )),
            };
        }
        let mut changes = Changeset::new();
        changes.insert(&VaultCheck { sealed: vault.seal(RECORD, WORD)? });
        match committer.commit(changes).await {
            // Somebody else may be first: then the next look tells whether the keys agree.
            Ok(()) | Err(DatabaseError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::internal("the vault's key could not be checked"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::client::{clock::SeededEntropy, db::memory::MemoryDatabase, vault::AesVault};

    #[tokio::test]
    async fn another_key_is_refused_and_the_first_one_stays_good() {
        let database = MemoryDatabase::with_schema();
        let vault = |byte| {
            AesVault::new(&zeroize::Zeroizing::new([byte; 32]), Arc::new(SeededEntropy::new(u64::from(byte))))
        };
        let check = async |vault: AesVault| check_vault(&*database, &*database, &vault).await;
        check(vault(1)).await.unwrap();
        check(vault(1)).await.unwrap();
        let refused = check(vault(2)).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidConfig);
        assert!(refused.to_string().contains("vault"), "{refused}");
        check(vault(1)).await.unwrap();
    }
}
