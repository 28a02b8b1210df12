//! Sealing of secrets at rest.

/// Why a seal could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The text is no seal of ours, was made for another record, or with another key.
    #[error(
        "a sealed secret does not open: it was changed, moved to another record, or sealed with another key"
    )]
    Unsealable,
    /// Sealing failed.
    #[error("a secret could not be sealed")]
    Seal,
}

/// Seals secrets with authenticated encryption; the record id is bound in, so that a seal can't be moved.
pub trait Vault: Send + Sync + 'static {
    /// Seals `secret` for the record; two seals of one secret differ.
    ///
    /// # Errors
    /// [`VaultError::Seal`].
    fn seal(&self, record: &str, secret: &[u8]) -> Result<String, VaultError>;

    /// Opens a seal that was made for this record.
    ///
    /// # Errors
    /// [`VaultError::Unsealable`].
    fn open(&self, record: &str, sealed: &str) -> Result<Vec<u8>, VaultError>;
}
