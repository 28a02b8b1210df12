//! Credentials: S3 keys of an allocation, issued, rotated and taken away. Beside them, who may come in at all: API keys,
//! and the record of what was done with them.

pub mod audit;
pub mod keys;
pub(crate) mod vault_check;

pub use audit::AuditService;
pub use keys::{Authenticated, KeyService, KeySettings, NewKey};
pub use vault_check::check_vault;

mod issue;
mod trigger;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
pub use trigger::ExpireCredentials;

use super::work::Work;
use crate::core::{
    client::{
        clock::{Clock, Entropy},
        vault::Vault,
    },
    market::{
        credential::{Credential, Permissions},
        quantity::{Micros, Timestamp},
    },
};

/// What the service is tuned by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessSettings {
    /// How long a POST waits for the provider to install or drop a key before it answers with a pending one.
    pub wait: Micros,
    /// For how long a replay of the issuing request shows the secret again.
    pub replay: Micros,
    /// How long the old key works beside the new one after a rotation.
    pub overlap: Micros,
    /// How many live credentials an allocation may have.
    pub limit: usize,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self {
            wait: Micros::from_secs(5),
            replay: Micros::from_secs(600),
            overlap: Micros::from_secs(3_600),
            limit: 16,
        }
    }
}

/// A credential to issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssueCredential {
    /// What it may do.
    pub permissions: Permissions,
    /// When it runs out, if it does.
    pub expires_at: Option<Timestamp>,
}

/// A rotation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateCredential {
    /// How long the old key works beside the new one; the default of the settings when `None`.
    pub overlap: Option<Micros>,
}

/// A credential with its secret: the one answer that shows it.
#[derive(Clone)]
pub struct IssuedCredential {
    /// The credential; `pending` when the provider did not install it within the wait.
    pub credential: Credential,
    /// The S3 secret access key.
    pub secret: String,
    /// Whether the same request was carried out before.
    pub replayed: bool,
}

/// Issues and withdraws credentials.
#[derive(Clone)]
pub struct CredentialService {
    work: Work,
    vault: Arc<dyn Vault>,
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
    settings: AccessSettings,
}

impl CredentialService {
    /// A service over the unit of work, the vault, and the sources of time and chance.
    #[must_use]
    pub fn new(
        work: Work,
        vault: Arc<dyn Vault>,
        entropy: Arc<dyn Entropy>,
        clock: Arc<dyn Clock>,
        settings: AccessSettings,
    ) -> Self {
        Self { work, vault, entropy, clock, settings }
    }
}
