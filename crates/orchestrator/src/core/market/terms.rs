//! What a provider promises and what it asks: SLA terms, price terms, settlement domain.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    money::Amount,
    quantity::{Bytes, Micros, Ppm},
};

/// The length of a month in prices: 30 days.
pub const MONTH: Micros = Micros::from_days(30);

/// Names a settlement domain: one (chain, contract, token). The embedded default has one, `local`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DomainId(pub String);

impl DomainId {
    /// The domain of the embedded settlement layer.
    #[must_use]
    pub fn local() -> Self {
        Self("local".into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What happens to a period's payment when its promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum PenaltyPolicy {
    /// The credit tiers decide.
    #[default]
    Tiered,
    /// `100 − reputation` percent of the payment is returned.
    Reputation,
    /// A breached period is not paid at all.
    Withhold,
}

/// One row of the credit table: below this uptime, this share of the period's payment is credited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreditTier {
    /// Applies when the observed uptime is below this.
    pub uptime_below_ppm: Ppm,
    /// Share of the period's payment that is credited.
    pub credit_ppm: Ppm,
}

/// A provider's promise. All targets are inclusive: meeting a target exactly is meeting it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlaTerms {
    /// Mean latency of an operation, at most.
    pub latency_avg: Micros,
    /// 95th percentile of the latency, at most.
    #[serde(default)]
    pub latency_p95: Option<Micros>,
    /// Upload throughput, at least, in bytes per second.
    pub upload_bytes_per_s: u64,
    /// Download throughput, at least, in bytes per second.
    pub download_bytes_per_s: u64,
    /// Mean uptime over the window, at least.
    pub uptime: Ppm,
    /// Failures over operations, at most.
    pub error_rate: Ppm,
    /// Share of buckets that must be known for a verdict other than `unknown`.
    pub min_coverage: Ppm,
    /// Credit table, lowest uptime last; empty means the default table of [`SlaTerms::effective_tiers`].
    #[serde(default)]
    pub credit_tiers: Vec<CreditTier>,
    /// What a breach costs.
    #[serde(default)]
    pub penalty: PenaltyPolicy,
    /// Share of the collateral that is slashed after repeated breaches; zero unless the provider's contract says so.
    #[serde(default)]
    pub collateral_slash: Ppm,
}

impl SlaTerms {
    /// The credit table in force: the unit's own, or promised uptime → 10 %, 99 % → 25 %, 95 % → 100 %.
    #[must_use]
    pub fn effective_tiers(&self) -> Vec<CreditTier> {
        if !self.credit_tiers.is_empty() {
            return self.credit_tiers.clone();
        }
        [(self.uptime, 100_000), (Ppm(990_000), 250_000), (Ppm(950_000), 1_000_000)]
            .into_iter()
            .map(|(below, credit)| CreditTier { uptime_below_ppm: below, credit_ppm: Ppm(credit) })
            .collect()
    }
}

impl Default for SlaTerms {
    /// The example level of the network's documents: 50 ms, 10 MB/s up, 20 MB/s down, 99.95 %, 100 ppm.
    fn default() -> Self {
        Self {
            latency_avg: Micros::from_millis(50),
            latency_p95: None,
            upload_bytes_per_s: 10_000_000,
            download_bytes_per_s: 20_000_000,
            uptime: Ppm(999_500),
            error_rate: Ppm(100),
            min_coverage: Ppm(800_000),
            credit_tiers: Vec::new(),
            penalty: PenaltyPolicy::Tiered,
            collateral_slash: Ppm(0),
        }
    }
}

/// What a provider asks, in base units of the domain's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceTerms {
    /// Per GiB stored for a month of 30 days.
    pub per_gib_month: Amount,
    /// Per GiB of egress.
    pub per_gib_egress: Amount,
}

/// The bounds inside which a price advisor may move a unit's storage price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceBounds {
    /// Lowest price per GiB-month.
    pub min: Amount,
    /// Highest price per GiB-month.
    pub max: Amount,
}

impl PriceTerms {
    /// The price of holding `byte_seconds` and sending `egress` bytes, rounded down once at the end of each product;
    /// `None` when it does not fit 128 bits.
    #[must_use]
    pub fn payment(&self, byte_seconds: u128, egress: Bytes) -> Option<Amount> {
        let gib_month = u128::from(Bytes::GIB) * u128::from(MONTH.as_secs());
        let storage = super::money::mul_div_floor(byte_seconds, self.per_gib_month.0, gib_month)?;
        let sent =
            super::money::mul_div_floor(u128::from(egress.0), self.per_gib_egress.0, u128::from(Bytes::GIB))?;
        Amount(storage).checked_add(Amount(sent))
    }

    /// The most that holding `bytes` for `period` with `egress` can cost: what an allocation's escrow must cover.
    #[must_use]
    pub fn ceiling(&self, bytes: Bytes, period: Micros, egress: Bytes) -> Option<Amount> {
        let seconds = u128::from(period.get().div_ceil(1_000_000));
        self.payment(u128::from(bytes.0).checked_mul(seconds)?, egress)
    }
}
