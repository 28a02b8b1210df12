//! Build and version facts, and the versions of stored documents.

#[cfg(any(test, feature = "test-util"))]
mod codec;
#[cfg(any(test, feature = "test-util"))]
pub use codec::{CODECS, Codec};

/// The daemon's name.
pub const NAME: &str = env!("CARGO_PKG_NAME");

/// The daemon's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A stored entity and the version of its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredEntity {
    /// Its name; never changes.
    pub name: &'static str,
    /// The version that is written. A change of the JSON that old documents would be misread under raises it, gets an
    /// upgrade in `Entity::upgrade` and a golden file of its own.
    pub version: u32,
}

const fn entity(name: &'static str, version: u32) -> StoredEntity {
    StoredEntity { name, version }
}

/// Every stored entity.
pub const ENTITIES: &[StoredEntity] = &[
    entity("account", 1),
    entity("allocation", 1),
    entity("api_key", 1),
    entity("attestation", 1),
    entity("audit_entry", 1),
    entity("block", 1),
    entity("boot_epoch", 1),
    entity("chain_signer", 1),
    entity("chain_tip", 1),
    entity("chain_transaction", 1),
    entity("consumer", 1),
    entity("credential", 1),
    entity("damaged_document", 1),
    entity("data_unit", 1),
    entity("default_market", 1),
    entity("deposit_cursor", 1),
    entity("dispute", 1),
    entity("evidence_bucket", 1),
    entity("job", 2),
    entity("job_subject", 1),
    entity("notification_topic", 1),
    entity("oracle", 1),
    entity("oracle_sight", 1),
    entity("outbox_row", 1),
    entity("payout", 1),
    entity("price_change", 1),
    entity("probe_access", 1),
    entity("prober_seed", 1),
    entity("provider", 1),
    entity("quarantined", 1),
    entity("queue_message", 1),
    entity("reconcile_budget", 1),
    entity("rejected_block", 1),
    entity("reputation", 1),
    entity("request_record", 1),
    entity("restore_gaps", 1),
    entity("schedule", 1),
    entity("scheduler_lease", 1),
    entity("sealed_entry", 1),
    entity("sla_verdict", 1),
    entity("stored_report", 1),
    entity("teardowns", 1),
    entity("transfer", 1),
    entity("trigger_status", 1),
    entity("unit_due", 1),
    entity("unsealed_marker", 1),
    entity("vault_check", 1),
];

/// The version of an entity's stored shape; an entity that is not listed stops the build.
#[must_use]
#[expect(clippy::panic, reason = "evaluated by the compiler, where it stops the build")]
pub const fn version_of(name: &str) -> u32 {
    let mut at = 0;
    while at < ENTITIES.len() {
        if same(ENTITIES[at].name, name) {
            return ENTITIES[at].version;
        }
        at += 1;
    }
    panic!("this entity is not listed in metadata::ENTITIES")
}

const fn same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}
