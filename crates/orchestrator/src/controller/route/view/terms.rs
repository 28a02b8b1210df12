//! Promises and prices, as they come in and as they are shown.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::common::{Millis, Money};
use crate::core::market::{
    quantity::Ppm,
    terms::{CreditTier, PenaltyPolicy, PriceBounds, PriceTerms, SlaTerms},
};

/// A promise. Meeting a target exactly is meeting it. What is left out is as in the network's example level: 50 ms,
/// 10 MB/s up, 20 MB/s down, 999,500 ppm uptime, 100 ppm errors.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SlaView {
    /// Mean latency of an operation, at most.
    pub latency_avg_ms: Millis,
    /// 95th percentile of the latency, at most.
    pub latency_p95_ms: Option<Millis>,
    /// Upload, at least, in bytes per second.
    pub upload_bytes_per_s: u64,
    /// Download, at least, in bytes per second.
    pub download_bytes_per_s: u64,
    /// Uptime over the window, at least, in ppm.
    pub uptime_ppm: u32,
    /// Failures over operations, at most, in ppm.
    pub error_rate_ppm: u32,
    /// Share of the window that must be known for a verdict, in ppm.
    pub min_coverage_ppm: u32,
    /// Credit table; empty for the default one.
    pub credit_tiers: Vec<TierView>,
    /// What a breach costs: `tiered`, `reputation` or `withhold`.
    #[schema(value_type = String, example = "tiered")]
    pub penalty: PenaltyPolicy,
    /// Share of the collateral slashed after repeated breaches, in ppm.
    pub collateral_slash_ppm: u32,
}

/// One row of the credit table.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TierView {
    /// Applies below this uptime, in ppm.
    pub uptime_below_ppm: u32,
    /// Share of the period's payment that is credited, in ppm.
    pub credit_ppm: u32,
}

impl Default for SlaView {
    fn default() -> Self {
        SlaTerms::default().into()
    }
}

impl From<SlaTerms> for SlaView {
    fn from(terms: SlaTerms) -> Self {
        let tier = |t: CreditTier| TierView {
            uptime_below_ppm: t.uptime_below_ppm.get(),
            credit_ppm: t.credit_ppm.get(),
        };
        Self {
            latency_avg_ms: terms.latency_avg.into(),
            latency_p95_ms: terms.latency_p95.map(Millis),
            upload_bytes_per_s: terms.upload_bytes_per_s,
            download_bytes_per_s: terms.download_bytes_per_s,
            uptime_ppm: terms.uptime.get(),
            error_rate_ppm: terms.error_rate.get(),
            min_coverage_ppm: terms.min_coverage.get(),
            credit_tiers: terms.credit_tiers.into_iter().map(tier).collect(),
            penalty: terms.penalty,
            collateral_slash_ppm: terms.collateral_slash.get(),
        }
    }
}

impl From<SlaView> for SlaTerms {
    fn from(view: SlaView) -> Self {
        let tier = |t: TierView| CreditTier {
            uptime_below_ppm: Ppm(t.uptime_below_ppm),
            credit_ppm: Ppm(t.credit_ppm),
        };
        Self {
            latency_avg: view.latency_avg_ms.0,
            latency_p95: view.latency_p95_ms.map(|p95| p95.0),
            upload_bytes_per_s: view.upload_bytes_per_s,
            download_bytes_per_s: view.download_bytes_per_s,
            uptime: Ppm(view.uptime_ppm),
            error_rate: Ppm(view.error_rate_ppm),
            min_coverage: Ppm(view.min_coverage_ppm),
            credit_tiers: view.credit_tiers.into_iter().map(tier).collect(),
            penalty: view.penalty,
            collateral_slash: Ppm(view.collateral_slash_ppm),
        }
    }
}

/// A price, in base units of the domain's token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceView {
    /// Per GiB stored for a month of 30 days.
    pub per_gib_month: Money,
    /// Per GiB of egress.
    pub per_gib_egress: Money,
}

impl From<PriceTerms> for PriceView {
    fn from(terms: PriceTerms) -> Self {
        Self { per_gib_month: terms.per_gib_month.into(), per_gib_egress: terms.per_gib_egress.into() }
    }
}

impl From<PriceView> for PriceTerms {
    fn from(view: PriceView) -> Self {
        Self { per_gib_month: view.per_gib_month.0, per_gib_egress: view.per_gib_egress.0 }
    }
}

/// The bounds inside which a price advisor may move the price per GiB-month.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BoundsView {
    /// Lowest.
    pub min: Money,
    /// Highest.
    pub max: Money,
}

impl From<PriceBounds> for BoundsView {
    fn from(bounds: PriceBounds) -> Self {
        Self { min: bounds.min.into(), max: bounds.max.into() }
    }
}

impl From<BoundsView> for PriceBounds {
    fn from(view: BoundsView) -> Self {
        Self { min: view.min.0, max: view.max.0 }
    }
}
