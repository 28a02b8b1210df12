//! The collections of the database and their indexes: one list, from which every back end makes what it needs.

use crate::core::market::quantity::Micros;

/// Names a collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Collection(pub &'static str);

impl std::fmt::Display for Collection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// An index over dotted paths of the documents. A document that lacks the first field, or has null there, is not in
/// the index; so a unique index is unique among the others only.
#[derive(Debug, Clone, Copy)]
pub struct IndexSpec {
    /// Its name, unique within the collection.
    pub name: &'static str,
    /// The fields, most significant first.
    pub fields: &'static [&'static str],
    /// Whether two documents may share the fields' values.
    pub unique: bool,
    /// Texts of the first field whose documents a back end may leave out, because they pass through that value only and
    /// nobody looks for them there. A query for one of them is answered all the same, by whatever else it names.
    pub passing: &'static [&'static str],
}

/// A collection with its indexes.
#[derive(Debug, Clone, Copy)]
pub struct CollectionSpec {
    /// Its name.
    pub collection: Collection,
    /// Its indexes; the document id always has one.
    pub indexes: &'static [IndexSpec],
}

/// Records that nobody needs any more some time after an instant that they carry. The purge trigger removes them; a
/// database that can expire documents by itself may do so too, as a safety net for a purge that never runs. The others
/// ignore it.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    /// The collection.
    pub collection: Collection,
    /// Path of the instant, in microseconds; documents without it stay.
    pub field: &'static str,
    /// How long after it: several times as long as the purge keeps them, so that it never takes what the purge leaves.
    pub after: Micros,
}

/// What may expire. Completed jobs may not: how long they are kept is the operator's choice.
pub const EXPIRIES: &[Expiry] = &[
    Expiry { collection: OUTBOX, field: "sent_at", after: Micros::from_days(7) },
    Expiry { collection: REQUESTS, field: "created_at", after: Micros::from_days(7) },
];

macro_rules! schema {
    ($($(#[$doc:meta])* $name:ident = $text:literal {
        $($index:ident ( $($field:literal),+ ) $($unique:ident)? $(- $passing:literal)* ;)*
    })+) => {
        $($(#[$doc])* pub const $name: Collection = Collection($text);)+

        /// Every collection.
        pub const ALL: &[CollectionSpec] = &[$(
            CollectionSpec { collection: $name, indexes: &[$(
                IndexSpec {
                    name: stringify!($index),
                    fields: &[$($field),+],
                    unique: schema!(@unique $($unique)?),
                    passing: &[$($passing),*],
                }
            ),*] }
        ),+];
    };
    (@unique unique) => { true };
    (@unique) => { false };
}

schema! {
    /// Facts about the store itself: schema version, boot epoch, leaders' leases.
    META = "meta" {}
    /// `Provider` documents.
    PROVIDERS = "providers" {}
    /// `Consumer` documents.
    CONSUMERS = "consumers" {}
    /// `Oracle` documents.
    ORACLES = "oracles" {}
    /// `ApiKey` documents.
    API_KEYS = "api_keys" { by_tenant("principal.id"); }
    /// `DataUnit` documents.
    UNITS = "units" { by_provider("provider"); by_updated("updated_at"); }
    /// When units must be looked at next.
    UNIT_DUES = "unit_dues" { by_at("at"); }
    /// `Allocation` documents.
    ALLOCATIONS = "allocations" {
        by_consumer("consumer"); by_provider("provider"); by_unit("unit"); by_state("state", "reserved_until"); by_end("state", "ends_at"); }
    /// `Credential` documents.
    CREDENTIALS = "credentials" {
        by_allocation("allocation"); by_state("state", "expires_at"); }
    /// `Account` documents.
    ACCOUNTS = "accounts" { by_domain("domain"); }
    /// `Transfer` documents.
    TRANSFERS = "transfers" {
        by_idempotency("domain", "idempotency_key") unique; by_debit("debit"); by_credit("credit"); by_subject("subject"); }
    /// Markers of what the next block of a domain must carry.
    UNSEALED = "unsealed" { by_domain("domain"); }
    /// Where in which block a transfer or verdict lies.
    SEALED_ENTRIES = "sealed_entries" { by_block("block"); }
    /// `Block` documents.
    BLOCKS = "blocks" { by_state("header.domain", "state"); }
    /// `Attestation` documents.
    ATTESTATIONS = "attestations" { by_block("block"); }
    /// Blocks that the settlement layer refused, by hash.
    REJECTED_BLOCKS = "rejected_blocks" {}
    /// Markers that no block could carry, with the reason.
    QUARANTINED = "quarantined" { by_domain("marker.domain"); }
    /// `StoredReport` documents.
    REPORTS = "reports" { by_period("period_key") unique; by_received("received_at"); }
    /// Evidence buckets.
    BUCKETS = "buckets" { by_subject("subject", "start"); }
    /// `SlaVerdict` documents.
    VERDICTS = "verdicts" { by_unit("unit"); by_period("period_key") unique; by_allocation("allocation"); by_record("record_subject"); }
    /// `Reputation` documents, by unit id.
    REPUTATIONS = "reputations" { by_provider("provider"); }
    /// Logged changes of prices.
    PRICE_CHANGES = "price_changes" { by_unit("unit"); }
    /// Disputes.
    DISPUTES = "disputes" { by_allocation("allocation"); by_state("state", "deadline"); }
    /// `ChainTransaction` documents.
    CHAIN_TRANSACTIONS = "chain_transactions" { by_signer("signer", "nonce") unique; by_state("state.kind"); }
    /// `Payout` documents.
    PAYOUTS = "payouts" { by_state("domain", "state.kind"); }
    /// Documents and messages that could not be read, with their bytes.
    DAMAGED = "damaged" { by_collection("collection"); }
    /// `Job` documents.
    JOBS = "jobs" {
        by_due("due"); by_lease("lease_until"); by_dedup("dedup") unique; by_subject("subject");
        by_state("state", "kind") - "created" - "running" - "verifying" - "completed"; }
    /// Generations and holders of the subjects of mutating jobs.
    SUBJECTS = "subjects" {}
    /// Events, messages and alerts to be sent, and sent ones for a while.
    OUTBOX = "outbox" { by_unsent("unsent"); by_sent("sent_at"); }
    /// Results of requests that carried an idempotency key.
    REQUESTS = "requests" { by_created("created_at"); }
    /// Access of the prober to the units that it measures.
    PROBES = "probes" {}
    /// Who did what.
    AUDIT = "audit" { by_subject("subject"); }
    /// Queue messages of the embedded queue.
    QUEUE_MESSAGES = "queue_messages" { by_visible("queue", "visible_at"); }
    /// Schedules of the embedded scheduler and cron.
    SCHEDULES = "schedules" { by_next("next_at"); }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_collections_and_indexes_are_unique() {
        let mut names: Vec<_> = ALL.iter().map(|c| c.collection).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for spec in ALL {
            let mut indexes: Vec<_> = spec.indexes.iter().map(|i| i.name).collect();
            indexes.sort_unstable();
            indexes.dedup();
            assert_eq!(indexes.len(), spec.indexes.len(), "{}", spec.collection);
        }
    }
}
