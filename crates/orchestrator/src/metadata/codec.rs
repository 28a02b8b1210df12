//! Reads and writes every stored entity by name, for the tests over golden files.

use crate::core::client::{
    database::{Changeset, DatabaseError, Document, Entity, WriteOp},
    schema::Collection,
};
use crate::{
    client::cron::row::Row as Schedule,
    client::notification::topics::Topic,
    client::queue::database::Row as QueueMessage,
    controller::worker::trigger::TriggerStatus,
    core::client::damaged::Damaged,
    core::client::lease::LeaseRow,
    core::job::Job,
    core::madara::transaction::{ChainSigner, ChainTransaction},
    core::market::account::{Account, Transfer},
    core::market::allocation::Allocation,
    core::market::attestation::Attestation,
    core::market::block::Block,
    core::market::credential::Credential,
    core::market::dispute::Dispute,
    core::market::evidence::StoredReport,
    core::market::party::{ApiKey, Consumer, Oracle, Provider},
    core::market::payout::Payout,
    core::market::pricing::PriceChange,
    core::market::score::Reputation,
    core::market::sla::{Bucket, Sight},
    core::market::unit::DataUnit,
    core::market::verdict::SlaVerdict,
    service::access::vault_check::VaultCheck,
    service::allocation::{blast::Teardowns, reconcile::Budget, restored::RestoreGaps},
    service::block::{ChainTip, Quarantined, RejectedBlock, SealedEntry},
    service::job::{lease::BootEpoch, subject::Subject},
    service::ledger::{UnsealedMarker, deposits::DepositCursor},
    service::market::{bootstrap::DefaultMarket, maintenance::UnitDue},
    service::outbox::OutboxRow,
    service::sla::prober::{ProbeAccess, SealedSeed},
    service::work::{AuditEntry, RequestRecord},
};

/// An entity that can be read and written again without naming its type.
pub struct Codec {
    /// Its name.
    pub name: &'static str,
    /// The version that it is written with.
    pub version: u32,
    /// Where it lies.
    pub collection: Collection,
    /// The id and the body that a body is written with after it was read.
    pub rewrite: fn(&str) -> Result<(String, String), DatabaseError>,
}

const fn codec<T: Entity>() -> Codec {
    Codec { name: T::NAME, version: T::VERSION, collection: T::COLLECTION, rewrite: rewrite::<T> }
}

fn rewrite<T: Entity>(body: &str) -> Result<(String, String), DatabaseError> {
    let document = Document { id: String::new(), version: 1, body: body.to_owned() };
    let mut changes = Changeset::new();
    changes.insert(&document.decode::<T>()?.value);
    match changes.writes.pop().map(|write| (write.id, write.op)) {
        Some((id, WriteOp::Insert { body })) => Ok((id, body)),
        _ => Err(DatabaseError::Invalid("nothing was written".into())),
    }
}

/// Every stored entity.
pub const CODECS: &[Codec] = &[
    codec::<Account>(),
    codec::<Allocation>(),
    codec::<ApiKey>(),
    codec::<Attestation>(),
    codec::<AuditEntry>(),
    codec::<Block>(),
    codec::<BootEpoch>(),
    codec::<Bucket>(),
    codec::<Budget>(),
    codec::<ChainSigner>(),
    codec::<ChainTip>(),
    codec::<ChainTransaction>(),
    codec::<Consumer>(),
    codec::<Credential>(),
    codec::<Damaged>(),
    codec::<DataUnit>(),
    codec::<DefaultMarket>(),
    codec::<DepositCursor>(),
    codec::<Dispute>(),
    codec::<Job>(),
    codec::<LeaseRow>(),
    codec::<Oracle>(),
    codec::<OutboxRow>(),
    codec::<Payout>(),
    codec::<PriceChange>(),
    codec::<ProbeAccess>(),
    codec::<Provider>(),
    codec::<Quarantined>(),
    codec::<QueueMessage>(),
    codec::<RejectedBlock>(),
    codec::<Reputation>(),
    codec::<RequestRecord>(),
    codec::<RestoreGaps>(),
    codec::<Schedule>(),
    codec::<SealedEntry>(),
    codec::<SealedSeed>(),
    codec::<Sight>(),
    codec::<SlaVerdict>(),
    codec::<StoredReport>(),
    codec::<Subject>(),
    codec::<Topic>(),
    codec::<Teardowns>(),
    codec::<Transfer>(),
    codec::<TriggerStatus>(),
    codec::<UnitDue>(),
    codec::<UnsealedMarker>(),
    codec::<VaultCheck>(),
];
