//! The allocation: a consumer's part of a unit, with frozen terms, an escrow and a lifecycle.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    ids::{AllocationId, ConsumerId, ProviderId, UnitId},
    money::Amount,
    quantity::{Bytes, Micros, Timestamp},
    terms::{DomainId, PriceTerms, SlaTerms},
};
use crate::core::client::{
    database::Entity,
    schema::{self, Collection},
};

/// Where an allocation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AllocationState {
    /// Capacity is held; the escrow is awaited.
    Reserved,
    /// Escrow is in; the provision job is due.
    Funded,
    /// The provider is at work.
    Provisioning,
    /// Usable.
    Active,
    /// Read-only.
    Restricted,
    /// Keys are read-only, usage is read, money is settled, the grace runs.
    Closing,
    /// Done; terminal.
    Closed,
    /// Given up by the consumer before it was provisioned; terminal.
    Cancelled,
    /// Not funded in time; terminal.
    Expired,
    /// Provisioning gave up; terminal, escrow refunded.
    Failed,
}

/// What the consumer's keys open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessState {
    /// Reading and writing.
    Active,
    /// Reading only.
    Restricted,
    /// Nothing.
    Expired,
}

/// Why an allocation is restricted; access returns when the last reason is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestrictReason {
    /// The escrow is used up.
    EscrowExhausted,
    /// More is stored, or was sent, than was bought.
    Quota,
    /// A violation by the consumer was upheld in a dispute.
    Violation,
}

/// How the consumer reaches its storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routing {
    /// Base address of the S3 endpoint.
    pub endpoint: String,
    /// Region to sign for.
    pub region: String,
    /// The allocation's bucket.
    pub bucket: String,
    /// The compatibility profile, `s3`.
    pub profile: String,
    /// Whether the bucket goes into the path, as opposed to the host name.
    pub path_style: bool,
}

/// A meter reading of the provider, cumulative since the allocation began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes stored at the reading.
    pub stored: Bytes,
    /// Integral of the stored bytes over time.
    pub byte_seconds: u128,
    /// Bytes sent to the consumer.
    pub egress: Bytes,
    /// When it was read.
    pub read_at: Timestamp,
}

/// An allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    /// Its id; the provider knows it by the same.
    pub id: AllocationId,
    /// Who pays.
    pub consumer: ConsumerId,
    /// What it is cut from.
    pub unit: UnitId,
    /// Who earns.
    pub provider: ProviderId,
    /// Where it is settled.
    pub domain: DomainId,
    /// Size.
    pub bytes: Bytes,
    /// Egress that the escrow covers.
    pub egress_allowance: Bytes,
    /// How long it runs from activation.
    pub period: Micros,
    /// Frozen price.
    pub price: PriceTerms,
    /// Frozen promise.
    pub sla: SlaTerms,
    /// What funding draws: the price ceiling of the whole period.
    pub escrow_required: Amount,
    /// Where it stands.
    pub state: AllocationState,
    /// What the keys open.
    pub access: AccessState,
    /// Why it is restricted.
    pub restrictions: BTreeSet<RestrictReason>,
    /// How to reach it, once provisioned.
    pub routing: Option<Routing>,
    /// Funding is awaited until then.
    pub reserved_until: Timestamp,
    /// When it became active.
    pub activated_at: Option<Timestamp>,
    /// When its period ends.
    pub ends_at: Option<Timestamp>,
    /// When closing began.
    pub closing_at: Option<Timestamp>,
    /// When the grace after closing ends and the data goes.
    pub purge_at: Option<Timestamp>,
    /// Billing periods judged and paid so far.
    pub periods_settled: u32,
    /// Time up to which usage has been paid.
    pub settled_through: Option<Timestamp>,
    /// The reading that was last paid.
    pub settled_usage: Usage,
    /// The latest reading.
    pub usage: Usage,
    /// Paid from escrow so far, fee included.
    pub paid: Amount,
    /// Credited back so far.
    pub credited: Amount,
    /// Why it failed, for people.
    pub failure: Option<String>,
    /// When it was reserved.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Entity for Allocation {
    const COLLECTION: Collection = schema::ALLOCATIONS;
    fn document_id(&self) -> String {
        self.id.to_string()
    }
}
