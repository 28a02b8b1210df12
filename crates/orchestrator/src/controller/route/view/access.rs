//! Keys, the audit log, and who one is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::common::Time;
use crate::{
    core::market::party::{ApiKey, Principal, Role},
    service::work::AuditEntry,
};

/// Who acts.
#[derive(Debug, Serialize, ToSchema)]
pub struct PrincipalView {
    /// `operator`, `provider`, `consumer`, `oracle` or `system`.
    #[schema(value_type = String, example = "consumer")]
    pub role: Role,
    /// The tenant's id.
    #[schema(example = "cons_01890a5d96e27e3bbd1a2f3c4d5e6f70")]
    pub tenant: String,
}

impl From<Principal> for PrincipalView {
    fn from(principal: Principal) -> Self {
        Self { role: principal.role(), tenant: principal.tenant() }
    }
}

/// Who the key lets in.
#[derive(Debug, Serialize, ToSchema)]
pub struct MeView {
    /// The key's id.
    pub key: String,
    /// Whom it lets in.
    #[serde(flatten)]
    pub principal: PrincipalView,
}

/// A key, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeyView {
    /// Its id.
    pub id: String,
    /// Whom it lets in.
    #[serde(flatten)]
    pub principal: PrincipalView,
    /// What it is for.
    pub label: String,
    /// When it was made.
    pub created_at: Time,
    /// When it stopped to work, if it did.
    pub revoked_at: Option<Time>,
}

impl From<ApiKey> for KeyView {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            principal: key.principal.into(),
            label: key.label,
            created_at: key.created_at.into(),
            revoked_at: key.revoked_at.map(Time),
        }
    }
}

/// A key that was just made.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewKeyView {
    /// The key.
    #[serde(flatten)]
    pub key: KeyView,
    /// Its text, shown this once: send it as `authorization: Bearer <text>`.
    #[schema(example = "ork_01890a5d96e27e3bbd1a2f3c4d5e6f70_…")]
    pub text: String,
}

/// A key to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// Whose key; the caller's own tenant unless said otherwise. Only operators name others. `operator` makes a new
    /// operator.
    #[serde(default)]
    #[schema(example = "cons_01890a5d96e27e3bbd1a2f3c4d5e6f70")]
    pub tenant: Option<String>,
    /// The tenant's role, for those who want it checked.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "consumer")]
    pub role: Option<Role>,
    /// What it is for, 1 to 100 characters.
    #[schema(example = "backup server")]
    pub label: String,
}

/// An entry of the audit log.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditView {
    /// Its id.
    pub id: String,
    /// Who.
    pub principal: PrincipalView,
    /// What.
    #[schema(example = "allocation.reserve")]
    pub action: String,
    /// On what.
    pub subject: String,
    /// Ties it to logs, jobs and answers.
    pub trace_id: String,
    /// When.
    pub at: Time,
}

impl From<AuditEntry> for AuditView {
    fn from(entry: AuditEntry) -> Self {
        Self {
            id: entry.id.to_string(),
            principal: entry.principal.into(),
            action: entry.action,
            subject: entry.subject,
            trace_id: entry.trace_id,
            at: entry.at.into(),
        }
    }
}
