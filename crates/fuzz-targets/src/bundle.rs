//! What a source of evidence answers to who checks a chain's credits.

use std::{collections::BTreeMap, sync::LazyLock};

use async_trait::async_trait;
use orchestrator::{
    core::{
        madara::evidence::{EvidenceError, EvidenceSource},
        market::{
            account::{AccountKey, TransferKind},
            address::Address,
            allocation::AllocationState,
            billing::credit_split,
            block::BlockFormat,
            evidence::{FailureClass, OperationKind, OperationStats, Qos},
            ids::{AllocationId, ConsumerId, Id, OracleId, ProviderId, UnitId},
            money::Amount,
            quantity::{Bytes, Micros, Timestamp},
            sla::{Bucket, EvidenceSet, JudgeRules, Window, credit_of, histogram},
            state::{
                Record, account_key_hash,
                commitment::{AllocationTerms, verdict_subject},
                hash::cut,
                market_key_hash,
            },
            terms::{DomainId, PriceTerms, SlaTerms},
        },
    },
    service::{
        settlement::credits::{CreditReport, Credits},
        sla::{
            bundle::{AllocationBundle, BUNDLE_VERSION, VerdictBundle},
            verdict::EvidenceFile,
        },
    },
};
use uuid::Uuid;

use crate::market::block_on;

type Bundle = VerdictBundle<EvidenceFile>;

const START: Timestamp = Timestamp(1_800_000_000_000_000);
const PERIOD: Micros = Micros::from_secs(10);
const PAID: Amount = Amount(1_000);
const EARNED: Amount = Amount(980);

/// A chain with one breached period and its credit, and the evidence behind that.
struct Known {
    blocks: Vec<Vec<Record>>,
    bundle: Bundle,
    credit: Amount,
}

static KNOWN: LazyLock<Known> = LazyLock::new(known);

/// The bundle that the chain's verdict follows from.
pub(crate) fn genuine() -> &'static Bundle {
    &KNOWN.bundle
}

fn id<T: Id>(n: u128) -> T {
    T::from_uuid(Uuid::from_u128(n))
}

fn known() -> Known {
    let domain = DomainId::local();
    let owner = Some(Address([7; 20]));
    let (consumer, provider): (ConsumerId, ProviderId) = (id(1), id(2));
    let (allocation, unit): (AllocationId, UnitId) = (id(3), id(4));
    let terms = AllocationTerms {
        version: 1,
        allocation,
        consumer,
        provider,
        unit,
        bytes: Bytes(1),
        egress_allowance: Bytes(0),
        period: Micros::from_days(1),
        price: PriceTerms { per_gib_month: Amount(1), per_gib_egress: Amount(0) },
        sla: SlaTerms::default(),
        state: AllocationState::Active,
        activated_at: Some(START),
        ends_at: Some(START.plus(Micros::from_days(1))),
    };
    let file = file(&terms);
    let judgement = file.judge().unwrap();
    let rate = credit_of(&judgement, &file.terms, file.reputation);
    let (credit, rest) = credit_split(PAID, EARNED, rate);
    assert!(!credit.is_zero() && rest.is_zero(), "the period is breached, and what was earned covers that");
    let period_key = format!("{allocation}/0");
    let [from, paid, escrow, fees] = [0, 1, 2, 3];
    let keys = [
        AccountKey::Consumer(consumer),
        AccountKey::Provider(provider),
        AccountKey::Escrow(allocation),
        AccountKey::Fees,
    ];
    let open = keys.map(|key| Record::OpenAccount { key: account_key_hash(&domain, owner.as_ref(), &key) });
    let transfer = |kind: TransferKind, from: u32, to: u32, amount: Amount| Record::Transfer {
        kind: kind as u8,
        from,
        to,
        amount: amount.0,
    };
    let commitment = terms.commitment();
    let fee = PAID.saturating_sub(EARNED);
    let records = [
        Record::Deposit { index: 1, to: from, amount: 10_000 },
        transfer(TransferKind::Fund, from, escrow, Amount(5_000)),
        Record::MarketOpen { key: market_key_hash(&domain, &commitment.name) },
        Record::MarketSet { index: 0, digest: commitment.digest() },
        transfer(TransferKind::Payment, escrow, paid, EARNED),
        transfer(TransferKind::Fee, escrow, fees, fee),
        transfer(TransferKind::Credit, paid, from, credit),
        Record::Verdict {
            subject: verdict_subject(unit, &period_key),
            status: judgement.status,
            credit: rate.0,
            coverage: judgement.coverage.0,
        },
        Record::VerdictEvidence { root: cut(&judgement.evidence_root) },
    ];
    // Behind two more blocks nothing is only late.
    let blocks = vec![open.into_iter().chain(records).collect(), Vec::new(), Vec::new()];
    let bundle = Bundle {
        version: BUNDLE_VERSION,
        domain,
        unit,
        period_key,
        payment: PAID,
        allocation: Some(AllocationBundle {
            consumer_owner: owner,
            provider_owner: owner,
            terms: commitment.text,
            earlier: Vec::new(),
        }),
        file,
    };
    Known { blocks, bundle, credit }
}

/// What was seen in ten seconds: one of a hundred operations failed.
fn file(terms: &AllocationTerms) -> EvidenceFile {
    let window = Window { from: START, to: START.plus(PERIOD) };
    let latency = 10_000;
    let stats = OperationStats {
        attempts: 1_000,
        failures: BTreeMap::from([(FailureClass::ServerError, 10)]),
        latency_sum_us: 990 * latency,
        latency: BTreeMap::from([(histogram::index(latency), 990)]),
        bulk_bytes: 0,
        bulk_us: 0,
    };
    let bucket = Bucket {
        subject: terms.unit.to_string(),
        oracle: id::<OracleId>(5),
        start: window.from,
        periods: vec![(window.from, window.to)],
        qos: Qos { operations: BTreeMap::from([(OperationKind::Get, stats)]) },
        usage: None,
        checked: 0,
        damaged: 0,
    };
    EvidenceFile {
        window,
        provider: terms.provider,
        terms: terms.sla.clone(),
        rules: JudgeRules { bucket: PERIOD, ..JudgeRules::default() },
        reputation: 50_000,
        evidence: EvidenceSet { buckets: vec![bucket], ..EvidenceSet::default() },
    }
}

/// A source that has these bytes.
struct Says<'a>(&'a [u8]);

#[async_trait]
impl EvidenceSource for Says<'_> {
    async fn bundle(&self, _subject: &[u8; 16]) -> Result<Option<Vec<u8>>, EvidenceError> {
        Ok(Some(self.0.to_vec()))
    }
}

fn check(known: &Known, answer: &[u8]) -> CreditReport {
    let mut credits = Credits::default();
    for (number, records) in (1..).zip(&known.blocks) {
        credits.block(number, BlockFormat::Steps, records);
    }
    block_on(credits.check(&known.bundle.domain, &Says(answer))).unwrap()
}

/// No answer stops the check, and none is believed that says anything else than the genuine one of what the chain binds.
///
/// The input is the answer.
pub fn bundle(data: &[u8]) {
    let known = &*KNOWN;
    let report = check(known, data);
    let believed = report.problems.is_empty() && report.more_problems == 0;
    let Ok(read) = serde_json::from_slice::<Bundle>(data) else {
        assert!(!believed, "{report:?}");
        return;
    };
    let text = serde_json::to_vec(&read).unwrap();
    assert_eq!(serde_json::from_slice::<Bundle>(&text).unwrap(), read);
    assert_eq!(check(known, &text), report);
    let genuine = &known.bundle;
    assert!(believed || read != *genuine, "{report:?}");
    if believed {
        assert_eq!((report.verdicts, report.payments, report.credits), (1, 1, 1));
        assert_eq!((report.credited, report.open), (known.credit, 0));
        assert_eq!(bound(&read), bound(genuine));
        assert_eq!(read.file.evidence, genuine.file.evidence);
    }
}

/// What the chain binds of a bundle, the evidence apart.
fn bound(bundle: &Bundle) -> impl PartialEq + std::fmt::Debug + use<> {
    let of = bundle.allocation.as_ref().unwrap();
    let terms: AllocationTerms = serde_json::from_str(&of.terms).unwrap();
    let named = (bundle.domain.clone(), bundle.unit, bundle.period_key.clone());
    let file = &bundle.file;
    (
        named,
        bundle.payment,
        (of.consumer_owner, of.provider_owner),
        terms.frozen(),
        (file.provider, file.terms.clone(), file.window.from),
    )
}
