//! The prober: an oracle of our own. It measures each unit as a stranger would, through the unit's S3 endpoint with keys of
//! its own, and hands in one signed report per unit and bucket through the same door as every other oracle.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes as Buffer;
use ed25519_dalek::{Signer, SigningKey};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{evidence::EvidenceService, settings::SlaSettings};
use crate::{
    core::{
        client::{
            clock::Entropy,
            database::{Changeset, DatabaseError, Entity, Filter, ReaderExt},
            probe::{ProbeClient, ProbeFailure, ProbeReading, ProbeTarget},
            provider::{AllocateRequest, Generation, IssueRequest, IssuedKey, Operation, ProviderDirectory},
            schema::{self, Collection},
            vault::Vault,
        },
        market::{
            allocation::Routing,
            credential::Permissions,
            evidence::{
                EvidenceReport, EvidenceSubject, OperationKind, OperationStats, Qos, ReportBody,
                ReportStatement,
            },
            ids::{AllocationId, Id, OracleId, UnitId},
            party::{Oracle, Provider},
            quantity::{Bytes, Micros, Ppm, Timestamp},
            sla::{bucket_start, histogram, statement_bytes},
            unit::{DataUnit, UnitMode},
        },
    },
    error::{Error, ErrorCode, Result},
    service::work::{Call, Work},
};

/// The id that the prober's own oracle has in every store.
const ORACLE_UUID: u128 = 0x7072_6f62_6572_0000_0000_0000_0000_0001;
/// Name of its key inside reports.
const KEY_ID: &str = "prober-1";
/// Where its sealed seed lies.
const SEED_RECORD: &str = "prober-seed";
/// Throughput counts from here.
const BULK: usize = 8 << 20;
/// What is transferred: made once, because making it anew for each unit would cost more than most probes.
static BULK_BODY: LazyLock<Buffer> = LazyLock::new(|| Buffer::from(vec![0xA5_u8; BULK]));

/// How the prober works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProberSettings {
    /// Time between two probes of a unit.
    pub interval: Micros,
    /// Time between two bulk transfers of a unit.
    pub bulk_interval: Micros,
    /// Size of the small objects.
    pub small: usize,
    /// How many units are probed at once.
    pub concurrency: usize,
    /// Size of the probe allocation.
    pub quota: Bytes,
}

impl Default for ProberSettings {
    fn default() -> Self {
        Self {
            interval: Micros::from_secs(60),
            bulk_interval: Micros::from_secs(3_600),
            small: 4_096,
            concurrency: 16,
            quota: Bytes(32 * Bytes::MIB),
        }
    }
}

/// Access of the prober to one unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeAccess {
    /// The unit.
    pub unit: UnitId,
    /// How it is reached.
    pub routing: Routing,
    /// S3 access key id.
    pub access_key_id: String,
    /// The secret, sealed for the unit's id.
    pub sealed_secret: String,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Entity for ProbeAccess {
    const NAME: &'static str = "probe_access";
    const COLLECTION: Collection = schema::PROBES;
    fn document_id(&self) -> String {
        self.unit.to_string()
    }
}

/// The prober's sealed signing seed, in the collection of facts about the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SealedSeed {
    sealed: String,
}

impl Entity for SealedSeed {
    const NAME: &'static str = "prober_seed";
    const COLLECTION: Collection = schema::META;
    fn document_id(&self) -> String {
        SEED_RECORD.into()
    }
}

/// The ports that the prober works through.
#[derive(Clone)]
pub struct ProberPorts {
    /// Single S3 operations.
    pub client: Arc<dyn ProbeClient>,
    /// Probe allocations are made here.
    pub providers: Arc<dyn ProviderDirectory>,
    /// Seals the seed and the secrets.
    pub vault: Arc<dyn Vault>,
    /// Seed, keys and objects.
    pub entropy: Arc<dyn Entropy>,
}

/// Measures units.
pub struct Prober {
    work: Work,
    evidence: EvidenceService,
    ports: ProberPorts,
    sla: SlaSettings,
    settings: ProberSettings,
    key: SigningKey,
    oracle: OracleId,
    // What was gathered, by unit and bucket.
    tallies: Mutex<BTreeMap<(UnitId, Timestamp), Qos>>,
    slots: Semaphore,
    // Reports go one by one, because their nonces must grow.
    reporting: tokio::sync::Mutex<()>,
    last_bulk: Mutex<BTreeMap<UnitId, Timestamp>>,
    canary_ok: AtomicBool,
}

impl Prober {
    /// Starts the prober: at the first start its key is made and its oracle registered, later ones find both.
    ///
    /// # Errors
    /// Database errors; [`ErrorCode::Internal`] when the seed does not open.
    pub async fn start(
        work: Work,
        evidence: EvidenceService,
        ports: ProberPorts,
        sla: SlaSettings,
        settings: ProberSettings,
    ) -> Result<Self> {
        let seed = ensure_seed(&work, &ports).await?;
        let key = SigningKey::from_bytes(&seed);
        let oracle = ensure_oracle(&work, &key).await?;
        let slots = Semaphore::new(settings.concurrency.max(1));
        Ok(Self {
            work,
            evidence,
            ports,
            sla,
            settings,
            key,
            oracle,
            tallies: Mutex::default(),
            slots,
            reporting: tokio::sync::Mutex::default(),
            last_bulk: Mutex::default(),
            canary_ok: AtomicBool::new(true),
        })
    }

    /// The oracle that the prober reports as.
    #[must_use]
    pub const fn oracle(&self) -> OracleId {
        self.oracle
    }

    /// How long to wait between two rounds.
    #[must_use]
    pub const fn interval(&self) -> Micros {
        self.settings.interval
    }

    /// Tells the prober whether the orchestrator's own endpoint answers: while it does not, what is seen is nobody's fault.
    pub fn set_canary(&self, healthy: bool) {
        self.canary_ok.store(healthy, Ordering::Relaxed);
    }

    /// One round: hands in the reports of buckets that have ended, then probes every unit once and waits for all.
    /// Answers how many units were probed. The daemon's loop does the same without waiting for slow units.
    ///
    /// # Errors
    /// Database errors when the units can't be listed. Trouble with single units is logged and does not stop the others.
    pub async fn round(&self) -> Result<usize> {
        self.flush().await;
        let units = self.units().await?;
        let count = units.len();
        futures::future::join_all(units.iter().map(|unit| self.probe_unit(unit))).await;
        self.watch_canary().await?;
        Ok(count)
    }

    /// The units to be probed.
    ///
    /// # Errors
    /// Database errors.
    pub async fn units(&self) -> Result<Vec<DataUnit>> {
        let units = self.work.reader.list_all::<DataUnit>(Filter::All).await?;
        Ok(units.into_iter().map(|u| u.value).filter(|u| u.mode != UnitMode::Decommissioned).collect())
    }

    /// Probes one unit, once one of the bounded places is free. Trouble is logged: a provider that gives no probe
    /// allocation is unknown, not down.
    pub async fn probe_unit(&self, unit: &DataUnit) {
        let Ok(_place) = self.slots.acquire().await else { return };
        if let Err(error) = self.probe(unit).await {
            tracing::warn!(unit = %unit.id, error = %crate::error::chain(&error), "a unit could not be probed");
        }
    }

    /// Marks the present bucket when the orchestrator's own canary failed.
    ///
    /// # Errors
    /// Database errors.
    pub async fn watch_canary(&self) -> Result<()> {
        if self.canary_ok.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.evidence.canary_failed(&Call::system("prober"), self.oracle, self.work.now()).await
    }

    /// Probes one unit: put, get, head and delete of a small object, and a bulk transfer when one is due.
    async fn probe(&self, unit: &DataUnit) -> Result<()> {
        let target = self.access(unit).await?;
        let object = format!("probe-{}", self.work.ids.now().as_micros());
        let mut body = vec![0_u8; self.settings.small];
        self.ports.entropy.fill(&mut body);
        let client = &self.ports.client;
        let body = Buffer::from(body);
        self.note(unit.id, OperationKind::Put, client.put(&target, &object, body).await, false);
        self.note(unit.id, OperationKind::Get, client.get(&target, &object).await, false);
        self.note(unit.id, OperationKind::Head, client.head(&target, &object).await, false);
        self.note(unit.id, OperationKind::Delete, client.delete(&target, &object).await, false);
        if self.bulk_due(unit.id) {
            let object = format!("{object}-bulk");
            self.note(
                unit.id,
                OperationKind::Put,
                client.put(&target, &object, BULK_BODY.clone()).await,
                true,
            );
            self.note(unit.id, OperationKind::Get, client.get(&target, &object).await, true);
            // Left behind, it would eat the probe's quota; its failure is seen by the next small delete.
            let _ = client.delete(&target, &object).await;
        }
        Ok(())
    }

    fn bulk_due(&self, unit: UnitId) -> bool {
        let now = self.work.now();
        let mut last = self.last_bulk.lock();
        if last.get(&unit).is_some_and(|at| now.since(*at) < self.settings.bulk_interval) {
            return false;
        }
        last.insert(unit, now);
        true
    }

    /// Adds what came of an operation to the unit's tally of the present bucket.
    fn note(
        &self,
        unit: UnitId,
        kind: OperationKind,
        result: std::result::Result<ProbeReading, ProbeFailure>,
        bulk: bool,
    ) {
        let start = bucket_start(self.work.now(), self.sla.rules.bucket);
        let mut tallies = self.tallies.lock();
        let qos = tallies.entry((unit, start)).or_default();
        add(qos.operations.entry(kind).or_default(), result, kind, bulk);
    }

    /// Hands in the reports of buckets that have ended.
    pub async fn flush(&self) {
        let _turn = self.reporting.lock().await;
        let present = bucket_start(self.work.now(), self.sla.rules.bucket);
        let ended: Vec<((UnitId, Timestamp), Qos)> = {
            let mut tallies = self.tallies.lock();
            let open =
                tallies.iter().filter(|(key, _)| key.1 >= present).map(|(k, q)| (*k, q.clone())).collect();
            std::mem::replace(&mut *tallies, open).into_iter().filter(|(key, _)| key.1 < present).collect()
        };
        for ((unit, start), qos) in ended {
            if let Err(error) = self.report(unit, start, qos).await {
                tracing::warn!(%unit, error = %crate::error::chain(&error), "a probe report was not taken");
            }
        }
    }

    async fn report(&self, unit: UnitId, start: Timestamp, qos: Qos) -> Result<()> {
        let found = self.work.reader.load::<Oracle>(&self.oracle.to_string()).await?;
        let oracle = found.ok_or_else(|| Error::not_found("oracle", self.oracle))?.value;
        // The time as a nonce survives restarts without a counter of its own.
        let clock = u64::try_from(self.work.now().as_micros()).unwrap_or(0);
        let statement = ReportStatement {
            version: 1,
            oracle: self.oracle,
            key_id: KEY_ID.into(),
            subject: EvidenceSubject::Unit(unit),
            from: start,
            to: start.plus(self.sla.rules.bucket),
            nonce: clock.max(oracle.last_nonce.saturating_add(1)),
            body: ReportBody::Qos(qos),
        };
        let message = statement_bytes(&statement).map_err(Error::internal)?;
        let signature = hex::encode(self.key.sign(&message).to_bytes());
        self.evidence.submit(&Call::system("prober"), EvidenceReport { statement, signature }).await?;
        Ok(())
    }

    /// The prober's access to a unit, made when it is missing.
    async fn access(&self, unit: &DataUnit) -> Result<ProbeTarget> {
        if let Some(known) = self.work.reader.load::<ProbeAccess>(&unit.id.to_string()).await? {
            return self.open(known.value);
        }
        let found = self.work.reader.load::<Provider>(&unit.provider.to_string()).await?;
        let provider = found.ok_or_else(|| Error::not_found("provider", unit.provider))?.value;
        let failed = |error: crate::core::client::provider::ProviderError| {
            Error::new(ErrorCode::ProviderFailed, "the provider gave no probe allocation").because(error)
        };
        let client = self.ports.providers.client(&provider).await.map_err(failed)?;
        let allocation = AllocationId::from_uuid(unit.id.uuid());
        let generation = Generation(1);
        let request = AllocateRequest {
            allocation,
            generation,
            bytes: self.settings.quota,
            region: unit.region.clone(),
        };
        let Operation::Done(routing) = client.allocate(&request).await.map_err(failed)? else {
            return Err(Error::new(ErrorCode::Unavailable, "the probe allocation is still being made"));
        };
        let mut random = [0_u8; 30];
        self.ports.entropy.fill(&mut random);
        let (id, secret) = random.split_at(10);
        let key = IssuedKey {
            access_key_id: format!("PROBE{}", hex::encode_upper(id)),
            secret: hex::encode(secret),
        };
        let access = ProbeAccess {
            unit: unit.id,
            routing,
            access_key_id: key.access_key_id.clone(),
            sealed_secret: self.ports.vault.seal(&unit.id.to_string(), key.secret.as_bytes())?,
            created_at: self.work.now(),
        };
        let issue = IssueRequest { allocation, generation, key, permissions: Permissions::ReadWrite };
        client.issue_credential(&issue).await.map_err(failed)?;
        let mut changes = Changeset::new();
        changes.insert(&access);
        match self.work.committer.commit(changes).await {
            Ok(()) => self.open(access),
            // Another replica was faster; both keys open the bucket, one is kept.
            Err(DatabaseError::AlreadyExists { .. }) => {
                let known = self.work.reader.load::<ProbeAccess>(&unit.id.to_string()).await?;
                self.open(known.ok_or_else(|| Error::not_found("probe", unit.id))?.value)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self, access: ProbeAccess) -> Result<ProbeTarget> {
        let secret = self.ports.vault.open(&access.unit.to_string(), &access.sealed_secret)?;
        let secret = String::from_utf8(secret).map_err(Error::internal)?;
        let key = IssuedKey { access_key_id: access.access_key_id, secret };
        Ok(ProbeTarget { routing: access.routing, key })
    }
}

/// Adds one operation to the statistics of its kind.
fn add(
    stats: &mut OperationStats,
    result: std::result::Result<ProbeReading, ProbeFailure>,
    kind: OperationKind,
    bulk: bool,
) {
    stats.attempts += 1;
    match result {
        Err(failure) => *stats.failures.entry(failure.class).or_default() += 1,
        Ok(reading) if bulk => {
            // Time to first byte is the request's way for a download; an upload's first answer comes after its body.
            let time = match kind {
                OperationKind::Get => reading.total.get().saturating_sub(reading.first_byte.get()),
                _ => reading.total.get(),
            };
            stats.bulk_bytes = stats.bulk_bytes.saturating_add(reading.bytes);
            stats.bulk_us = stats.bulk_us.saturating_add(time.max(1));
        }
        Ok(reading) => {
            let micros = reading.total.get();
            stats.latency_sum_us = stats.latency_sum_us.saturating_add(micros);
            *stats.latency.entry(histogram::index(micros)).or_default() += 1;
        }
    }
}

async fn ensure_seed(work: &Work, ports: &ProberPorts) -> Result<[u8; 32]> {
    for _ in 0..2 {
        if let Some(known) = work.reader.load::<SealedSeed>(SEED_RECORD).await? {
            let seed = ports.vault.open(SEED_RECORD, &known.value.sealed)?;
            return seed.try_into().map_err(|_| Error::internal("the prober's seed has a wrong length"));
        }
        let mut seed = [0_u8; 32];
        ports.entropy.fill(&mut seed);
        let mut changes = Changeset::new();
        changes.insert(&SealedSeed { sealed: ports.vault.seal(SEED_RECORD, &seed)? });
        match work.committer.commit(changes).await {
            Ok(()) => return Ok(seed),
            // Another replica made one; use that.
            Err(DatabaseError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::internal("the prober's seed could not be made"))
}

async fn ensure_oracle(work: &Work, key: &SigningKey) -> Result<OracleId> {
    let id = OracleId::from_uuid(uuid::Uuid::from_u128(ORACLE_UUID));
    let public_key = hex::encode(key.verifying_key().to_bytes());
    if let Some(known) = work.reader.load::<Oracle>(&id.to_string()).await? {
        if known.value.public_key == public_key {
            return Ok(id);
        }
        return Err(Error::internal("the prober's oracle is registered with another key"));
    }
    let mut changes = Changeset::new();
    changes.insert(&Oracle {
        id,
        name: "built-in prober".into(),
        public_key,
        key_id: KEY_ID.into(),
        last_nonce: 0,
        standing: Ppm::ONE,
        enabled: true,
        created_at: work.now(),
    });
    match work.committer.commit(changes).await {
        Ok(()) | Err(DatabaseError::AlreadyExists { .. }) => Ok(id),
        Err(error) => Err(error.into()),
    }
}
