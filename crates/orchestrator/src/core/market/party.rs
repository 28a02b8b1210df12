//! Who takes part: providers, consumers, oracles, operators, and the API keys they come in with.

use serde::{Deserialize, Serialize};

use super::{
    address::Address,
    ids::{ConsumerId, KeyId, OperatorId, OracleId, ProviderId},
    quantity::{Ppm, Timestamp},
    terms::DomainId,
};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Runs the daemon: sees every tenant, settles disputes, books deposits on the local chain.
    Operator,
    /// Owns units.
    Provider,
    /// Reserves and stores.
    Consumer,
    /// Reports evidence.
    Oracle,
}

/// Who acts: the role and the tenant. Services check every access against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "role", content = "id")]
pub enum Principal {
    /// An operator.
    Operator(OperatorId),
    /// A provider.
    Provider(ProviderId),
    /// A consumer.
    Consumer(ConsumerId),
    /// An oracle.
    Oracle(OracleId),
    /// The daemon itself: workers and triggers. No key opens this.
    System,
}

impl Principal {
    /// The role; the daemon itself acts as an operator.
    #[must_use]
    pub const fn role(&self) -> Role {
        match self {
            Self::Operator(_) | Self::System => Role::Operator,
            Self::Provider(_) => Role::Provider,
            Self::Consumer(_) => Role::Consumer,
            Self::Oracle(_) => Role::Oracle,
        }
    }

    /// Whether the principal sees every tenant.
    #[must_use]
    pub const fn is_operator(&self) -> bool {
        matches!(self.role(), Role::Operator)
    }

    /// The tenant's id as text; `system` for the daemon.
    #[must_use]
    pub fn tenant(&self) -> String {
        match self {
            Self::Operator(id) => id.to_string(),
            Self::Provider(id) => id.to_string(),
            Self::Consumer(id) => id.to_string(),
            Self::Oracle(id) => id.to_string(),
            Self::System => "system".into(),
        }
    }
}

/// A storage provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Its id.
    pub id: ProviderId,
    /// A name for people, 1 to 100 characters.
    pub name: String,
    /// The settlement domain it is paid in.
    pub domain: DomainId,
    /// Who is paid on the chain of that domain; `None` where accounts have no owners. It never changes: it is a part of the
    /// name of each of its accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Address>,
    /// How its units are reached.
    pub adapter: AdapterConfig,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// Which provider adapter serves a provider, and where it finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum AdapterConfig {
    /// The built-in S3 server, through its admin API.
    Embedded {
        /// Base address of the admin API; `None` means the co-hosted server.
        #[serde(default)]
        admin_url: Option<String>,
        /// The admin token, sealed by the vault; `None` means the co-hosted server's.
        #[serde(default)]
        sealed_token: Option<String>,
    },
}

/// A consumer of storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer {
    /// Its id.
    pub id: ConsumerId,
    /// A name for people, 1 to 100 characters.
    pub name: String,
    /// The settlement domain it pays in.
    pub domain: DomainId,
    /// Who gets its money back on the chain of that domain; `None` where accounts have no owners. It never changes: it is a
    /// part of the name of each of its accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Address>,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// An independent prober, known by its signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oracle {
    /// Its id.
    pub id: OracleId,
    /// A name for people.
    pub name: String,
    /// Ed25519 public key, 32 bytes in lower-case hex.
    pub public_key: String,
    /// Names the key inside reports, so that keys can be changed.
    pub key_id: String,
    /// Highest nonce accepted so far; reports must exceed it.
    pub last_nonce: u64,
    /// How far it may be trusted, falling with each outvoted report.
    pub standing: Ppm,
    /// Whether its reports are taken.
    pub enabled: bool,
    /// When it was registered.
    pub created_at: Timestamp,
}

/// An API key, stored as a hash only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Its id: the public half of the key text.
    pub id: KeyId,
    /// SHA-256 of the secret half, in hex. The secret has 256 bits of entropy, so a slow hash would add nothing.
    pub secret_sha256: String,
    /// Whom it lets in.
    pub principal: Principal,
    /// What it is for, in the words of whoever made it.
    pub label: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stopped to work, if it did.
    pub revoked_at: Option<Timestamp>,
}

impl Entity for Provider {
    const NAME: &'static str = "provider";
    const COLLECTION: Collection = schema::PROVIDERS;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}

impl Entity for Consumer {
    const NAME: &'static str = "consumer";
    const COLLECTION: Collection = schema::CONSUMERS;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}

impl Entity for Oracle {
    const NAME: &'static str = "oracle";
    const COLLECTION: Collection = schema::ORACLES;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}

impl Entity for ApiKey {
    const NAME: &'static str = "api_key";
    const COLLECTION: Collection = schema::API_KEYS;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}
