//! Evidence comes in: every check of a signed report, and the one commit that takes it.

use serde::{Deserialize, Serialize};

use crate::{
    core::{
        client::database::{Changeset, Entity, Filter, Query, ReaderExt, Stored},
        market::{
            allocation::Allocation,
            evidence::{
                EvidenceReport, EvidenceSubject, OperationKind, OperationStats, ReportBody, ReportStatement,
                StoredReport,
            },
            ids::{OracleId, ProviderId, ReportId, UnitId},
            party::{Oracle, Principal},
            quantity::{Bytes, Micros, Timestamp},
            sla::{
                Bucket, Sight,
                bucket::{BucketError, bucket_start, counted_failures, totals},
                histogram, signature,
            },
            unit::DataUnit,
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        answers::SharedAnswers,
        sla::settings::SlaSettings,
        work::{Answer, Call, Draft, Work},
    },
};

/// The largest count that a report may carry: a million operations a second for an hour are far below it.
const MAX_COUNT: u64 = 1 << 40;

/// What an accepted report got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The report's id.
    pub id: ReportId,
    /// Who reported.
    pub oracle: OracleId,
    /// On what.
    pub subject: EvidenceSubject,
    /// First instant of the bucket that it was added to.
    pub bucket: Timestamp,
}

/// A bucket as the history shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketView {
    /// Who saw it.
    pub oracle: OracleId,
    /// First instant.
    pub start: Timestamp,
    /// Operations tried.
    pub attempts: u64,
    /// Operations that failed by time-out, broken connection or 5xx.
    pub failures: u64,
    /// Mean latency of the successful, in microseconds.
    pub latency_avg_us: Option<u64>,
    /// Upper bound of the 95th percentile of the latency, in microseconds.
    pub latency_p95_us: Option<u64>,
    /// Upload in bytes per second, where bulk transfers were made.
    pub upload_bytes_per_s: Option<u64>,
    /// Download in bytes per second.
    pub download_bytes_per_s: Option<u64>,
}

/// Takes evidence, and shows it.
#[derive(Clone)]
pub struct EvidenceService {
    work: Work,
    settings: SlaSettings,
    answers: SharedAnswers,
}

impl EvidenceService {
    /// A service over the unit of work.
    #[must_use]
    pub fn new(work: Work, settings: SlaSettings) -> Self {
        Self { work, settings, answers: SharedAnswers::none() }
    }

    /// With answers that replicas share: the latest history is then at most a second old.
    #[must_use]
    pub fn with_answers(self, answers: SharedAnswers) -> Self {
        Self { answers, ..self }
    }

    /// Takes a signed report: the report, its bucket's sums and the oracle's nonce in one commit. An oracle reports as
    /// itself; operators may hand in anybody's, since the signature speaks for it.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; [`ErrorCode::NotFound`] for an unknown subject or oracle; [`ErrorCode::InvalidField`];
    /// [`ErrorCode::BadSignature`]; [`ErrorCode::StaleNonce`]; [`ErrorCode::InvalidPeriod`]; [`ErrorCode::OverlappingPeriod`].
    pub async fn submit(&self, call: &Call, report: EvidenceReport) -> Result<Answer<Receipt>> {
        let statement = &report.statement;
        match call.principal {
            Principal::Oracle(id) if id == statement.oracle => {}
            Principal::Operator(_) | Principal::System => {}
            Principal::Oracle(_) => {
                return Err(Error::new(ErrorCode::Forbidden, "an oracle may only report as itself"));
            }
            _ => return Err(Error::new(ErrorCode::Forbidden, "only oracles report evidence")),
        }
        check_body(statement)?;
        self.work
            .run_mapped(
                call,
                "evidence.submit",
                || self.draft(&report),
                |error| match error {
                    crate::core::client::database::DatabaseError::AlreadyExists { .. } => overlapping(),
                    other => other.into(),
                },
            )
            .await
    }

    async fn draft(&self, report: &EvidenceReport) -> Result<Draft<Receipt>> {
        let statement = &report.statement;
        let now = self.work.now();
        let mut oracle = self.oracle(statement).await?;
        if !signature::verifies(report, &oracle.value.public_key) {
            return Err(Error::new(
                ErrorCode::BadSignature,
                "the signature is not one of the oracle's key over the statement's canonical bytes",
            ));
        }
        if statement.nonce <= oracle.value.last_nonce {
            let text = format!("the nonce must be above {}, the last one used", oracle.value.last_nonce);
            return Err(Error::new(ErrorCode::StaleNonce, text));
        }
        let start = self.check_period(statement, now)?;
        let provider = self.provider_of(statement.subject).await?;

        let mut changes = Changeset::new();
        oracle.value.last_nonce = statement.nonce;
        changes.replace(oracle.version, &oracle.value);
        let empty = Bucket::empty(statement.subject, statement.oracle, start);
        let mut bucket = self.load_or(empty).await?;
        bucket.value.add(statement).map_err(|error| match error {
            BucketError::Overlap => overlapping(),
            BucketError::Overflow => Error::new(ErrorCode::Overflow, "the bucket's sums do not fit"),
        })?;
        put(&mut changes, &bucket);
        if let (ReportBody::Qos(qos), EvidenceSubject::Unit(_)) = (&statement.body, statement.subject) {
            let mut sight = self.load_or(Sight::empty(statement.oracle, start)).await?;
            let (attempts, failures) = totals(qos);
            sight.value.add(provider, attempts, failures);
            put(&mut changes, &sight);
        }
        let stored = StoredReport {
            id: self.work.ids.next(),
            period_key: format!("{}/{}/{}", statement.oracle, statement.subject, statement.from.as_micros()),
            report: report.clone(),
            bucket: start,
            received_at: now,
        };
        changes.insert(&stored);
        let receipt =
            Receipt { id: stored.id, oracle: statement.oracle, subject: statement.subject, bucket: start };
        Ok(Draft::new(changes, receipt))
    }

    async fn oracle(&self, statement: &ReportStatement) -> Result<Stored<Oracle>> {
        let found = self.work.reader.load::<Oracle>(&statement.oracle.to_string()).await?;
        let oracle = found.ok_or_else(|| Error::not_found("oracle", statement.oracle))?;
        if !oracle.value.enabled {
            return Err(Error::new(ErrorCode::Forbidden, "this oracle's reports are not taken at present"));
        }
        if oracle.value.key_id != statement.key_id {
            return Err(Error::new(ErrorCode::BadSignature, "the oracle has no key of this key id"));
        }
        Ok(oracle)
    }

    fn check_period(&self, statement: &ReportStatement, now: Timestamp) -> Result<Timestamp> {
        let invalid = |text: String| Err(Error::new(ErrorCode::InvalidPeriod, text));
        let length = self.settings.rules.bucket;
        if statement.from >= statement.to {
            return invalid("the period must end after it begins".into());
        }
        if statement.to > now {
            return invalid("the period ends in the future".into());
        }
        let start = bucket_start(statement.from, length);
        if statement.to > start.plus(length) {
            let text = format!("the period must lie inside one bucket of {} ms", length.as_millis());
            return invalid(text);
        }
        if now.since(statement.to) > self.settings.lateness {
            let text = format!("the period ended more than {} ms ago", self.settings.lateness.as_millis());
            return invalid(text);
        }
        Ok(start)
    }

    async fn provider_of(&self, subject: EvidenceSubject) -> Result<ProviderId> {
        match subject {
            EvidenceSubject::Unit(id) => {
                let unit = self.work.reader.load::<DataUnit>(&id.to_string()).await?;
                Ok(unit.ok_or_else(|| Error::not_found("unit", id))?.value.provider)
            }
            EvidenceSubject::Allocation(id) => {
                let allocation = self.work.reader.load::<Allocation>(&id.to_string()).await?;
                Ok(allocation.ok_or_else(|| Error::not_found("allocation", id))?.value.provider)
            }
        }
    }

    async fn load_or<T: Entity>(&self, empty: T) -> Result<Stored<T>> {
        let found = self.work.reader.load::<T>(&empty.document_id()).await?;
        Ok(found.unwrap_or(Stored { version: 0, value: empty }))
    }

    /// Records that the orchestrator's own canary failed in the present bucket: what this oracle saw in it then counts
    /// for nothing. For the daemon's own prober.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`]; database errors.
    pub async fn canary_failed(&self, call: &Call, oracle: OracleId, at: Timestamp) -> Result<()> {
        if call.principal != Principal::System {
            return Err(Error::new(ErrorCode::Forbidden, "only the daemon watches its own canary"));
        }
        self.work
            .run(call, "evidence.canary_failed", || async {
                let start = bucket_start(at, self.settings.rules.bucket);
                let mut sight = self.load_or(Sight::empty(oracle, start)).await?;
                let mut changes = Changeset::new();
                if !sight.value.canary_failed {
                    sight.value.canary_failed = true;
                    put(&mut changes, &sight);
                }
                Ok(Draft::new(changes, ()))
            })
            .await?;
        Ok(())
    }

    /// What was seen of the unit over the last `span`, oldest first; open to everybody.
    ///
    /// # Errors
    /// Those of [`EvidenceService::qos_history`].
    pub async fn recent_qos(
        &self,
        call: &Call,
        unit: UnitId,
        span: Micros,
        limit: usize,
    ) -> Result<Vec<BucketView>> {
        let to = self.work.now();
        let read = self.qos_history(call, unit, to.minus(span), to, limit);
        // Other questions name instants of their own, and are hardly asked twice.
        self.answers.through(&format!("qos/{unit}/{}/{limit}", span.get()), read).await
    }

    /// What was seen of a unit in `[from, to)`, oldest first, at most `limit` (1 to 10,000) buckets; open to everybody with a
    /// key, so that a consumer can look before it buys.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`]; [`ErrorCode::InvalidParameter`]; database errors.
    pub async fn qos_history(
        &self,
        _call: &Call,
        unit: UnitId,
        from: Timestamp,
        to: Timestamp,
        limit: usize,
    ) -> Result<Vec<BucketView>> {
        if from >= to {
            return Err(Error::new(ErrorCode::InvalidParameter, "`from` must lie before `to`"));
        }
        self.provider_of(EvidenceSubject::Unit(unit)).await?;
        let filter = Filter::eq("subject", unit.to_string())
            .and(Filter::Ge("start".into(), from.as_micros().into()))
            .and(Filter::Lt("start".into(), to.as_micros().into()));
        let query = Query::new(Bucket::COLLECTION)
            .filter(filter)
            .sort(crate::core::client::database::Sort::Field("start".into()))
            .limit(limit.clamp(1, 10_000));
        let (buckets, _) = self.work.reader.list::<Bucket>(query).await?;
        Ok(buckets.iter().map(|b| view(&b.value)).collect())
    }
}

fn view(bucket: &Bucket) -> BucketView {
    use crate::core::market::sla::judge;
    let (attempts, failures) = bucket.attempts_and_failures();
    BucketView {
        oracle: bucket.oracle,
        start: bucket.start,
        attempts,
        failures,
        latency_avg_us: judge::latency_mean(&bucket.qos),
        latency_p95_us: judge::latency_p95(&bucket.qos),
        upload_bytes_per_s: judge::throughput(&bucket.qos, OperationKind::Put),
        download_bytes_per_s: judge::throughput(&bucket.qos, OperationKind::Get),
    }
}

fn put<T: Entity>(changes: &mut Changeset, stored: &Stored<T>) {
    if stored.version == 0 {
        changes.insert(&stored.value);
    } else {
        changes.replace(stored.version, &stored.value);
    }
}

fn overlapping() -> Error {
    Error::new(
        ErrorCode::OverlappingPeriod,
        "the period overlaps a report that this oracle made of this subject",
    )
}

/// Refuses bodies whose numbers contradict each other.
fn check_body(statement: &ReportStatement) -> Result<()> {
    if statement.version != 1 {
        return Err(Error::field("statement.version", "only version 1 is known"));
    }
    match &statement.body {
        ReportBody::Qos(qos) => {
            qos.operations.iter().try_for_each(|(kind, stats)| check_operation(*kind, stats))
        }
        ReportBody::Usage { byte_seconds, stored, egress } => {
            if byte_seconds.is_empty()
                || byte_seconds.bytes().any(|b| !b.is_ascii_digit())
                || byte_seconds.parse::<u128>().is_err()
            {
                let text = "give a whole number in decimal digits";
                return Err(Error::field("statement.body.byte_seconds", text));
            }
            if *stored > Bytes::MAX || *egress > Bytes::MAX {
                return Err(Error::field("statement.body.stored", "sizes are below 2^53"));
            }
            Ok(())
        }
        ReportBody::Integrity { checked, damaged } if damaged > checked || *checked > MAX_COUNT => {
            Err(Error::field("statement.body.damaged", "more damaged than checked"))
        }
        ReportBody::Integrity { .. } | ReportBody::Price { .. } => Ok(()),
    }
}

/// What is said of one kind of operation must be possible. The order matters: each check relies on those before it.
fn check_operation(kind: OperationKind, stats: &OperationStats) -> Result<()> {
    let refuse = |name: &str, text: &'static str| {
        let kind = serde_json::to_value(kind).ok();
        let kind = kind.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default();
        Err(Error::field(format!("statement.body.operations.{kind}.{name}"), text))
    };
    let failed: u128 = stats.failures.values().map(|n| u128::from(*n)).sum();
    let timed: u128 = stats.latency.values().map(|n| u128::from(*n)).sum();
    let largest = [stats.attempts, stats.latency_sum_us >> 20, stats.bulk_bytes >> 20, stats.bulk_us >> 20];
    if largest.iter().any(|n| *n > MAX_COUNT) {
        return refuse("attempts", "the numbers are beyond what a bucket can hold");
    }
    if failed > u128::from(stats.attempts) || counted_failures(stats) > stats.attempts {
        return refuse("failures", "more failures than attempts");
    }
    if timed > u128::from(stats.attempts) - failed {
        return refuse("latency", "more latencies than successful operations");
    }
    if stats.latency.keys().any(|i| *i > histogram::MAX_INDEX) {
        return refuse("latency", "a bound index is above the last one, 975");
    }
    let bound = |of: fn(u16) -> u64| -> u128 {
        stats.latency.iter().map(|(i, n)| u128::from(of(*i)) * u128::from(*n)).sum()
    };
    if !(bound(histogram::lower)..=bound(histogram::upper)).contains(&u128::from(stats.latency_sum_us)) {
        return refuse("latency_sum_us", "the sum does not agree with the histogram's bounds");
    }
    if (stats.bulk_bytes > 0) != (stats.bulk_us > 0)
        || (stats.bulk_bytes > 0 && stats.bulk_bytes < 8 * Bytes::MIB)
    {
        return refuse(
            "bulk_bytes",
            "bulk transfers are those of 8 MiB and more, with the time that they took",
        );
    }
    Ok(())
}
