//! Allocations and their credentials.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    common::{Millis, Money, Time, word},
    offering::FilterView,
    terms::{PriceView, SlaView},
};
use crate::{
    core::market::{
        allocation::{Allocation, Routing, Usage},
        credential::{Credential, Permissions},
        ids::{ConsumerId, UnitId},
        quantity::Bytes,
    },
    error::ErrorCode,
    service::{
        access::{IssueCredential, IssuedCredential, RotateCredential},
        allocation::{RenewRequest, ReserveRequest, Target},
    },
};

use crate::controller::route::problem::{Problem, Result};

/// How to reach the storage.
#[derive(Debug, Serialize, ToSchema)]
pub struct RoutingView {
    /// Base address of the S3 endpoint.
    #[schema(example = "http://127.0.0.1:9000")]
    pub endpoint: String,
    /// Region to sign for.
    pub region: String,
    /// The allocation's bucket.
    pub bucket: String,
    /// The compatibility profile.
    pub profile: String,
    /// Whether the bucket goes into the path.
    pub path_style: bool,
}

impl From<Routing> for RoutingView {
    fn from(routing: Routing) -> Self {
        let Routing { endpoint, region, bucket, profile, path_style } = routing;
        Self { endpoint, region, bucket, profile, path_style }
    }
}

/// A meter reading, cumulative.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageView {
    /// Bytes stored at the reading.
    pub stored_bytes: u64,
    /// Integral of the stored bytes over time, in decimal.
    pub byte_seconds: String,
    /// Bytes sent.
    pub egress_bytes: u64,
    /// When it was read.
    pub read_at: Time,
}

impl From<Usage> for UsageView {
    fn from(usage: Usage) -> Self {
        Self {
            stored_bytes: usage.stored.get(),
            byte_seconds: usage.byte_seconds.to_string(),
            egress_bytes: usage.egress.get(),
            read_at: usage.read_at.into(),
        }
    }
}

/// An allocation: its status and its routing.
#[derive(Debug, Serialize, ToSchema)]
pub struct AllocationView {
    /// Its id.
    pub id: String,
    /// Who pays.
    pub consumer: String,
    /// What it is cut from.
    pub unit: String,
    /// Who earns.
    pub provider: String,
    /// Where it is settled.
    pub domain: String,
    /// `reserved`, `funded`, `provisioning`, `active`, `restricted`, `closing`, `closed`, `cancelled`, `expired` or
    /// `failed`.
    #[schema(example = "active")]
    pub state: String,
    /// What its keys open: `active`, `restricted` (read-only) or `expired`.
    #[schema(example = "active")]
    pub access: String,
    /// Why it is restricted.
    pub restrictions: Vec<String>,
    /// Size.
    pub bytes: u64,
    /// Egress that the escrow covers.
    pub egress_allowance_bytes: u64,
    /// How long it runs from activation.
    pub period_ms: Millis,
    /// Frozen price.
    pub price: PriceView,
    /// Frozen promise.
    pub sla: SlaView,
    /// What funding draws.
    pub escrow_required: Money,
    /// How to reach it, once provisioned.
    pub routing: Option<RoutingView>,
    /// Funding is awaited until then.
    pub reserved_until: Time,
    /// When it became active.
    pub activated_at: Option<Time>,
    /// When its period ends.
    pub ends_at: Option<Time>,
    /// When closing began.
    pub closing_at: Option<Time>,
    /// When the data goes.
    pub purge_at: Option<Time>,
    /// Billing periods judged and paid.
    pub periods_settled: u32,
    /// The latest meter reading.
    pub usage: UsageView,
    /// Paid so far, fee included.
    pub paid: Money,
    /// Credited back so far.
    pub credited: Money,
    /// Why it failed.
    pub failure: Option<String>,
    /// When it was reserved.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

impl From<Allocation> for AllocationView {
    fn from(a: Allocation) -> Self {
        Self {
            id: a.id.to_string(),
            consumer: a.consumer.to_string(),
            unit: a.unit.to_string(),
            provider: a.provider.to_string(),
            domain: a.domain.0,
            state: word(&a.state),
            access: word(&a.access),
            restrictions: a.restrictions.iter().map(word).collect(),
            bytes: a.bytes.get(),
            egress_allowance_bytes: a.egress_allowance.get(),
            period_ms: a.period.into(),
            price: a.price.into(),
            sla: a.sla.into(),
            escrow_required: a.escrow_required.into(),
            routing: a.routing.map(RoutingView::from),
            reserved_until: a.reserved_until.into(),
            activated_at: a.activated_at.map(Time),
            ends_at: a.ends_at.map(Time),
            closing_at: a.closing_at.map(Time),
            purge_at: a.purge_at.map(Time),
            periods_settled: a.periods_settled,
            usage: a.usage.into(),
            paid: a.paid.into(),
            credited: a.credited.into(),
            failure: a.failure,
            created_at: a.created_at.into(),
            updated_at: a.updated_at.into(),
        }
    }
}

/// A reservation: of a named unit, or of the best one that a filter leaves.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reserve {
    /// Who pays: given by operators, left out by consumers.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub consumer: Option<ConsumerId>,
    /// The unit. Either this or `filter`.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "unit_01890a5d96e27e3bbd1a2f3c4d5e6f70")]
    pub unit: Option<UnitId>,
    /// What the unit must be like; `{}` for any.
    #[serde(default)]
    pub filter: Option<FilterView>,
    /// Size.
    #[schema(example = 1_073_741_824)]
    pub bytes: u64,
    /// How long it runs from activation.
    #[schema(value_type = u64, example = 2_592_000_000_u64)]
    pub period_ms: Millis,
    /// Egress that the escrow covers; none unless said otherwise.
    #[serde(default)]
    pub egress_allowance_bytes: u64,
}

impl Reserve {
    /// For the service.
    ///
    /// # Errors
    /// When neither or both of `unit` and `filter` are given.
    pub fn request(self) -> Result<ReserveRequest> {
        let target = match (self.unit, self.filter) {
            (Some(unit), None) => Target::Unit(unit),
            (None, Some(filter)) => Target::Best(filter.into()),
            _ => {
                return Err(Problem::at(
                    ErrorCode::InvalidField,
                    "unit",
                    "name a `unit`, or give a `filter` to get the best that it leaves: one of the two",
                ));
            }
        };
        Ok(ReserveRequest {
            consumer: self.consumer,
            target,
            bytes: Bytes(self.bytes),
            period: self.period_ms.0,
            egress_allowance: Bytes(self.egress_allowance_bytes),
        })
    }
}

/// A renewal at the frozen price.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// How much longer it runs.
    #[schema(value_type = u64, example = 2_592_000_000_u64)]
    pub period_ms: Millis,
    /// How much more egress the escrow covers.
    #[serde(default)]
    pub egress_allowance_bytes: u64,
}

impl From<Renew> for RenewRequest {
    fn from(view: Renew) -> Self {
        Self { period: view.period_ms.0, egress_allowance: Bytes(view.egress_allowance_bytes) }
    }
}

/// A credential, without its secret.
#[derive(Debug, Serialize, ToSchema)]
pub struct CredentialView {
    /// Its id.
    pub id: String,
    /// What it opens.
    pub allocation: String,
    /// S3 access key id.
    pub access_key_id: String,
    /// `read_write` or `read_only`.
    pub permissions: String,
    /// `pending`, `active`, `rotating`, `revoked` or `expired`.
    pub state: String,
    /// The credential that it replaces.
    pub predecessor: Option<String>,
    /// When it runs out, if it does.
    pub expires_at: Option<Time>,
    /// For a rotating one: until when it works.
    pub overlap_until: Option<Time>,
    /// When it was issued.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

impl From<Credential> for CredentialView {
    fn from(credential: Credential) -> Self {
        Self {
            id: credential.id.to_string(),
            allocation: credential.allocation.to_string(),
            access_key_id: credential.access_key_id,
            permissions: word(&credential.permissions),
            state: word(&credential.state),
            predecessor: credential.predecessor.map(|id| id.to_string()),
            expires_at: credential.expires_at.map(Time),
            overlap_until: credential.overlap_until.map(Time),
            created_at: credential.created_at.into(),
            updated_at: credential.updated_at.into(),
        }
    }
}

/// A credential with its secret; the one answer that shows it.
#[derive(Serialize, ToSchema)]
pub struct IssuedView {
    /// The credential.
    pub credential: CredentialView,
    /// S3 secret access key. It is not shown again; a replay of this request within ten minutes repeats it.
    pub secret_access_key: String,
    /// Whether this is such a replay.
    pub replayed: bool,
}

impl From<IssuedCredential> for IssuedView {
    fn from(issued: IssuedCredential) -> Self {
        Self {
            credential: issued.credential.into(),
            secret_access_key: issued.secret,
            replayed: issued.replayed,
        }
    }
}

/// A credential to issue.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Issue {
    /// `read_write` or `read_only`; `read_write` unless said otherwise.
    #[serde(default = "read_write")]
    #[schema(value_type = String, example = "read_write")]
    pub permissions: Permissions,
    /// When it runs out, if it does.
    #[serde(default)]
    pub expires_at: Option<Time>,
}

const fn read_write() -> Permissions {
    Permissions::ReadWrite
}

impl From<Issue> for IssueCredential {
    fn from(view: Issue) -> Self {
        Self { permissions: view.permissions, expires_at: view.expires_at.map(|at| at.0) }
    }
}

/// A rotation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// How long the old key works beside the new one.
    #[serde(default)]
    pub overlap_ms: Option<Millis>,
}

impl From<Rotate> for RotateCredential {
    fn from(view: Rotate) -> Self {
        Self { overlap: view.overlap_ms.map(|overlap| overlap.0) }
    }
}
