//! Credentials: S3 keys scoped to one allocation, with rotation by overlap.

use serde::{Deserialize, Serialize};

use super::{
    ids::{AllocationId, CredentialId},
    quantity::Timestamp,
};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// What a credential may do inside its allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    /// Read and write.
    ReadWrite,
    /// Read only.
    ReadOnly,
}

/// Where a credential stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialState {
    /// Asked for at the provider.
    Pending,
    /// Works.
    Active,
    /// Replaced, and still works until the overlap ends.
    Rotating,
    /// Works no more; terminal.
    Revoked,
    /// Ran out; terminal.
    Expired,
}

/// A credential. The secret is sealed; only the POST that issues it shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Its id; associated data of the seal.
    pub id: CredentialId,
    /// What it opens.
    pub allocation: AllocationId,
    /// S3 access key id.
    pub access_key_id: String,
    /// S3 secret access key, sealed by the vault.
    pub sealed_secret: String,
    /// What it may do.
    pub permissions: Permissions,
    /// Where it stands.
    pub state: CredentialState,
    /// The credential that it replaces.
    pub predecessor: Option<CredentialId>,
    /// When it runs out, if it does.
    pub expires_at: Option<Timestamp>,
    /// For a rotating one: when the overlap ends.
    pub overlap_until: Option<Timestamp>,
    /// When it was issued.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Entity for Credential {
    const COLLECTION: Collection = schema::CREDENTIALS;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}
