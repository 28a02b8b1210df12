//! A chain while it is made, with the evidence behind it: every record is executed, and every period is judged and charged as
//! the market does it.

use super::*;

pub(super) type Bundle = VerdictBundle<EvidenceFile>;
pub(super) type Bundles = BTreeMap<[u8; 16], Bundle>;

const START: Timestamp = Timestamp(1_800_000_000_000_000);
const PERIOD: Micros = Micros::from_secs(10);
/// A provider's share of its collateral that a third breach in a row costs.
const SHARE: Ppm = Ppm(250_000);

fn id<T: Id>(n: u128) -> T {
    T::from_uuid(Uuid::from_u128(n))
}

/// Bundles in memory.
struct Mirror<'a>(&'a Bundles);

#[async_trait]
impl EvidenceSource for Mirror<'_> {
    async fn bundle(&self, subject: &[u8; 16]) -> Result<Option<Vec<u8>>, EvidenceError> {
        Ok(self.0.get(subject).map(|bundle| serde_json::to_vec(bundle).unwrap()))
    }
}

/// An allocation in use.
#[derive(Clone)]
struct Deal {
    terms: AllocationTerms,
    earlier: Vec<Span>,
    number: u32,
    in_a_row: u32,
    begin: Timestamp,
}

/// What a period is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Like {
    /// Failures of 1,000 operations in each second.
    pub(super) failures: u64,
    /// Seconds of ten that were reported.
    pub(super) reported: u64,
    /// What it costs.
    pub(super) payment: u128,
}

pub(super) const MET: Like = Like { failures: 0, reported: 10, payment: 1_000 };
pub(super) const TENTH: Like = Like { failures: 5, reported: 10, payment: 1_000 };
pub(super) const ALL: Like = Like { failures: 100, reported: 10, payment: 1_000 };
pub(super) const UNKNOWN: Like = Like { failures: 100, reported: 3, payment: 1_000 };

/// A chain while it is made, and the evidence behind it.
pub(super) struct Scene {
    pub(super) domain: DomainId,
    format: BlockFormat,
    owner: Option<Address>,
    state: LedgerState,
    deals: Vec<Deal>,
    deposits: u64,
    /// Verdicts whose page has not come yet.
    pub(super) late: Vec<Record>,
    pub(super) blocks: Vec<Vec<Record>>,
    pub(super) bundles: Bundles,
}

impl Scene {
    pub(super) fn new(format: BlockFormat, owner: Option<Address>) -> Self {
        let domain = DomainId("made-up".into());
        Self {
            state: LedgerState::new(domain.clone()),
            domain,
            format,
            owner,
            deals: Vec::new(),
            deposits: 0,
            late: Vec::new(),
            blocks: vec![Vec::new()],
            bundles: Bundles::new(),
        }
    }

    fn push(&mut self, record: Record) {
        self.state.apply_as(self.format, &record).unwrap();
        self.blocks.last_mut().unwrap().push(record);
    }

    /// The next block begins, with the verdicts that are late.
    pub(super) fn cut(&mut self) {
        self.state.end_block();
        self.blocks.push(Vec::new());
        std::mem::take(&mut self.late).into_iter().for_each(|record| self.push(record));
    }

    pub(super) fn name(&self, key: AccountKey) -> ShortHash {
        account_key_hash(&self.domain, self.owner.as_ref(), &key)
    }

    pub(super) fn account(&mut self, key: AccountKey) -> u32 {
        let name = self.name(key);
        if self.state.account_index(&name).is_none() {
            self.push(Record::OpenAccount { key: name });
        }
        self.state.account_index(&name).unwrap()
    }

    fn balance(&self, account: u32) -> Amount {
        Amount(self.state.account(account).unwrap().balance)
    }

    pub(super) fn deposit(&mut self, key: AccountKey, amount: u128) {
        let to = self.account(key);
        self.deposits += 1;
        self.push(Record::Deposit { index: self.deposits, to, amount });
    }

    pub(super) fn move_to(&mut self, kind: TransferKind, from: AccountKey, to: AccountKey, amount: Amount) {
        let (from, to) = (self.account(from), self.account(to));
        if !amount.is_zero() {
            self.push(Record::Transfer { kind: kind as u8, from, to, amount: amount.0 });
        }
    }

    fn set_terms(&mut self, deal: usize) {
        let commitment = self.deals[deal].terms.commitment();
        let key = market_key_hash(&self.domain, &commitment.name);
        let index = self.state.market_index(&key).unwrap_or_else(|| {
            let index = self.state.next_market_index();
            self.push(Record::MarketOpen { key });
            index
        });
        self.push(Record::MarketSet { index, digest: commitment.digest() });
    }

    /// A funded allocation of this consumer at this provider, whose collateral is posted when it is not there.
    pub(super) fn deal(&mut self, consumer: u128, provider: u128, collateral: u128) -> usize {
        let n = self.deals.len() as u128 + 100;
        let terms = AllocationTerms {
            version: 1,
            allocation: id(n),
            consumer: id(consumer),
            provider: id(provider),
            unit: id(n),
            bytes: Bytes(1),
            egress_allowance: Bytes(0),
            period: Micros::from_days(1),
            price: PriceTerms { per_gib_month: Amount(1), per_gib_egress: Amount(0) },
            sla: SlaTerms { collateral_slash: SHARE, ..SlaTerms::default() },
            state: AllocationState::Reserved,
            activated_at: None,
            ends_at: None,
        };
        let (consumer, provider) =
            (AccountKey::Consumer(terms.consumer), AccountKey::Provider(terms.provider));
        let stands_in = AccountKey::Collateral(terms.provider);
        let escrow = AccountKey::Escrow(terms.allocation);
        let deal = self.deals.len();
        self.deals.push(Deal { terms, earlier: Vec::new(), number: 0, in_a_row: 0, begin: START });
        self.set_terms(deal);
        self.deposit(consumer, 1_000_000);
        if self.state.account_index(&self.name(stands_in)).is_none() && collateral > 0 {
            self.deposit(provider, collateral);
            self.move_to(TransferKind::CollateralPost, provider, stands_in, Amount(collateral));
        }
        self.move_to(TransferKind::Fund, consumer, escrow, Amount(1_000_000));
        let terms = &mut self.deals[deal].terms;
        terms.state = AllocationState::Active;
        terms.activated_at = Some(START);
        terms.ends_at = Some(START.plus(terms.period));
        self.set_terms(deal);
        deal
    }

    /// The consumer buys more time.
    pub(super) fn renew(&mut self, deal: usize) {
        let Deal { terms, earlier, .. } = &mut self.deals[deal];
        let (egress_allowance, period, ends_at) = (terms.egress_allowance, terms.period, terms.ends_at);
        earlier.push(Span { egress_allowance, period, ends_at });
        terms.period = Micros(terms.period.0 + 7);
        terms.ends_at = terms.ends_at.map(|at| at.plus(Micros(7)));
        self.set_terms(deal);
    }

    /// A period is judged and paid. `late`: the verdict comes with the next block.
    pub(super) fn period(&mut self, deal: usize, like: Like, late: bool) {
        let Deal { terms, number, in_a_row, begin, .. } = self.deals[deal].clone();
        let window = Window { from: begin, to: begin.plus(PERIOD) };
        let file = file(&terms, window, like);
        let judgement = file.judge().unwrap();
        let credit = credit_of(&judgement, &file.terms, file.reputation);
        let [consumer, provider] =
            [AccountKey::Consumer(terms.consumer), AccountKey::Provider(terms.provider)];
        let (stands_in, escrow) =
            (AccountKey::Collateral(terms.provider), AccountKey::Escrow(terms.allocation));
        // All are opened before a payment, so that nothing stands between it and its credits.
        let held = [consumer, provider, AccountKey::Fees, escrow, stands_in].map(|key| self.account(key))[4];
        let usage = PeriodUsage {
            byte_seconds: like.payment * u128::from(Bytes::GIB) * 2_592_000,
            egress: Bytes(0),
            escrow: self.balance(self.state.account_index(&self.name(escrow)).unwrap()),
            collateral: self.balance(held),
        };
        let charge = period_charge(&terms.price, &usage, BasisPoints(200), credit).unwrap();
        let period_key = format!("{}/{number}", terms.allocation);
        let subject = verdict_subject(terms.unit, &period_key);
        let verdict = [
            Record::Verdict {
                subject,
                status: judgement.status,
                credit: credit.0,
                coverage: judgement.coverage.0,
            },
            Record::VerdictEvidence { root: cut(&judgement.evidence_root) },
        ];
        self.move_to(TransferKind::Payment, escrow, provider, charge.earned);
        if self.format == BlockFormat::Records {
            // Anything may stand between there.
            verdict.into_iter().for_each(|record| self.push(record));
        }
        self.move_to(TransferKind::Fee, escrow, AccountKey::Fees, charge.fee);
        self.move_to(TransferKind::Credit, provider, consumer, charge.credit_from_earnings);
        self.move_to(TransferKind::Slash, stands_in, consumer, charge.credit_from_collateral);
        let (count, repeated) = breaches_in_a_row(in_a_row, judgement.status);
        if repeated {
            let kind =
                if self.format == BlockFormat::Records { TransferKind::Slash } else { TransferKind::Penalty };
            let amount = self.balance(held).ppm(SHARE);
            self.move_to(kind, stands_in, consumer, amount);
        }
        match self.format {
            BlockFormat::Steps if late => self.late.extend(verdict),
            BlockFormat::Steps => verdict.into_iter().for_each(|record| self.push(record)),
            BlockFormat::Records => {}
        }
        self.bundles.insert(
            subject,
            Bundle {
                version: BUNDLE_VERSION,
                domain: self.domain.clone(),
                unit: terms.unit,
                period_key,
                payment: charge.payment,
                allocation: Some(AllocationBundle {
                    consumer_owner: self.owner,
                    provider_owner: self.owner,
                    terms: terms.commitment().text,
                    earlier: self.deals[deal].earlier.clone(),
                }),
                file,
            },
        );
        let deal = &mut self.deals[deal];
        (deal.number, deal.in_a_row, deal.begin) = (number + 1, count, window.to);
    }

    pub(super) async fn check(&self) -> CreditReport {
        check(&self.domain, self.format, &self.blocks, &self.bundles).await
    }
}

pub(super) async fn check(
    domain: &DomainId,
    format: BlockFormat,
    blocks: &[Vec<Record>],
    bundles: &Bundles,
) -> CreditReport {
    let mut credits = Credits::default();
    for (number, records) in (1..).zip(blocks) {
        credits.block(number, format, records);
    }
    credits.check(domain, &Mirror(bundles)).await.unwrap()
}

/// What was seen in a window of ten seconds, in buckets of one.
fn file(terms: &AllocationTerms, window: Window, like: Like) -> EvidenceFile {
    let latency = 10_000;
    let good = 1_000 - like.failures;
    let stats = OperationStats {
        attempts: 1_000,
        failures: BTreeMap::from([(FailureClass::ServerError, like.failures)]),
        latency_sum_us: good * latency,
        latency: BTreeMap::from([(histogram::index(latency), good)]),
        bulk_bytes: 0,
        bulk_us: 0,
    };
    let bucket = |second: u64| {
        let start = window.from.plus(Micros::from_secs(second));
        let qos = Qos { operations: BTreeMap::from([(OperationKind::Get, stats.clone())]) };
        let empty = Bucket {
            subject: terms.unit.to_string(),
            oracle: id(1),
            start,
            periods: vec![(start, start.plus(Micros::from_secs(1)))],
            qos: Qos::default(),
            usage: None,
            checked: 0,
            damaged: 0,
        };
        Bucket { qos, ..empty }
    };
    EvidenceFile {
        window,
        provider: terms.provider,
        terms: terms.sla.clone(),
        rules: JudgeRules { bucket: Micros::from_secs(1), ..JudgeRules::default() },
        reputation: 50_000,
        evidence: EvidenceSet { buckets: (0..like.reported).map(bucket).collect(), ..EvidenceSet::default() },
    }
}
