//! What a billing period costs and who pays what: storage by byte-seconds, egress by bytes, the platform's fee, and the
//! SLA credit, which is taken from what the provider earned in the period first and from its collateral then.
//!
//! Every product is rounded down once; what rounding leaves stays with the provider.

use super::{
    money::Amount,
    quantity::{BasisPoints, Bytes, Ppm},
    terms::PriceTerms,
    verdict::VerdictStatus,
};

/// What was used in a period, and what stands behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeriodUsage {
    /// Metered byte-seconds, already capped by the reserved size ([`capped_byte_seconds`]).
    pub byte_seconds: u128,
    /// Bytes sent.
    pub egress: Bytes,
    /// What the escrow holds: the payment is never more.
    pub escrow: Amount,
    /// What the provider's collateral account holds: a credit never takes more from it.
    pub collateral: Amount,
}

/// The money of one period. `payment = fee + earned`; `credit_from_earnings + credit_from_collateral ≤ payment`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PeriodCharge {
    /// What the consumer pays from escrow, fee included.
    pub payment: Amount,
    /// The platform's share of it.
    pub fee: Amount,
    /// The provider's share of it.
    pub earned: Amount,
    /// What goes back to the consumer out of `earned`.
    pub credit_from_earnings: Amount,
    /// What goes back to the consumer out of the provider's collateral.
    pub credit_from_collateral: Amount,
    /// Part of the credit that neither earnings nor collateral covered; owed, not moved.
    pub credit_uncovered: Amount,
    /// Part of the price that the escrow did not cover; not moved.
    pub payment_uncovered: Amount,
}

impl PeriodCharge {
    /// What the consumer gets back in all.
    #[must_use]
    pub fn credited(&self) -> Amount {
        // Bounded by the payment, so the sum can't overflow.
        Amount(self.credit_from_earnings.0.saturating_add(self.credit_from_collateral.0))
    }
}

/// The charge of one period; `None` when the price does not fit 128 bits.
///
/// `credit` is the share of the payment that the verdict gives back; more than the whole counts as the whole.
#[must_use]
pub fn period_charge(
    price: &PriceTerms,
    usage: &PeriodUsage,
    fee: BasisPoints,
    credit: Ppm,
) -> Option<PeriodCharge> {
    let price = price.payment(usage.byte_seconds, usage.egress)?;
    let payment = price.min(usage.escrow);
    let fee = payment.basis_points(fee).min(payment);
    let earned = payment.saturating_sub(fee);
    let (credit_from_earnings, rest) = credit_split(payment, earned, credit);
    let credit_from_collateral = rest.min(usage.collateral);
    Some(PeriodCharge {
        payment,
        fee,
        earned,
        credit_from_earnings,
        credit_from_collateral,
        credit_uncovered: rest.saturating_sub(credit_from_collateral),
        payment_uncovered: price.saturating_sub(payment),
    })
}

/// What of a payment's credit comes out of what was earned in it, and what is left for the collateral.
#[must_use]
pub fn credit_split(payment: Amount, earned: Amount, credit: Ppm) -> (Amount, Amount) {
    let wanted = payment.ppm(credit.min(Ppm::ONE));
    let from_earnings = wanted.min(earned);
    (from_earnings, wanted.saturating_sub(from_earnings))
}

/// Byte-seconds that may be billed: what was metered, but never more than the reserved size held for the whole time.
#[must_use]
pub fn capped_byte_seconds(metered: u128, reserved: Bytes, seconds: u64) -> u128 {
    // 2^64 × 2^64 fits 128 bits.
    metered.min(u128::from(reserved.0).saturating_mul(u128::from(seconds)))
}

/// So many breached billing periods in a row are "repeated breaches" to a contract that slashes collateral.
pub const REPEATED_BREACHES: u32 = 3;

/// The count of breached periods in a row after one more period, and whether the breaches are repeated ones now, after
/// which the count begins anew. An unknown period says nothing, so it leaves the count as it is.
#[must_use]
pub const fn breaches_in_a_row(before: u32, status: VerdictStatus) -> (u32, bool) {
    match status {
        VerdictStatus::Met => (0, false),
        VerdictStatus::Unknown => (before, false),
        VerdictStatus::Breached if before.saturating_add(1) >= REPEATED_BREACHES => (0, true),
        VerdictStatus::Breached => (before.saturating_add(1), false),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB_MONTH: u128 = (1 << 30) * 2_592_000;

    fn usage(byte_seconds: u128, escrow: u128, collateral: u128) -> PeriodUsage {
        PeriodUsage { byte_seconds, egress: Bytes(0), escrow: Amount(escrow), collateral: Amount(collateral) }
    }

    fn price(gib_month: u128) -> PriceTerms {
        PriceTerms { per_gib_month: Amount(gib_month), per_gib_egress: Amount(0) }
    }

    #[test]
    fn a_full_credit_takes_the_earnings_and_then_the_collateral() {
        let charge =
            period_charge(&price(1_000), &usage(GIB_MONTH, 5_000, 15), BasisPoints(200), Ppm(2_000_000))
                .unwrap();
        assert_eq!(charge.payment, Amount(1_000));
        assert_eq!(charge.fee, Amount(20));
        assert_eq!(charge.earned, Amount(980));
        assert_eq!(charge.credit_from_earnings, Amount(980));
        assert_eq!(charge.credit_from_collateral, Amount(15));
        assert_eq!(charge.credit_uncovered, Amount(5));
    }

    #[test]
    fn the_escrow_bounds_the_payment_and_rounding_favours_the_provider() {
        let charge =
            period_charge(&price(1_999), &usage(GIB_MONTH, 999, 0), BasisPoints(200), Ppm(100_000)).unwrap();
        assert_eq!(charge.payment, Amount(999));
        assert_eq!(charge.payment_uncovered, Amount(1_000));
        assert_eq!(charge.fee, Amount(19));
        assert_eq!(charge.earned, Amount(980));
        assert_eq!(charge.credited(), Amount(99));
        assert!(period_charge(&price(u128::MAX), &usage(u128::MAX, 0, 0), BasisPoints(0), Ppm(0)).is_none());
    }

    #[test]
    fn every_third_breach_in_a_row_is_a_repeated_one() {
        use VerdictStatus::{Breached, Met, Unknown};
        let mut count = 0;
        let mut repeated = Vec::new();
        for (at, status) in
            [Breached, Breached, Met, Breached, Unknown, Breached, Breached, Breached].into_iter().enumerate()
        {
            let (next, now) = breaches_in_a_row(count, status);
            count = next;
            if now {
                repeated.push(at);
            }
        }
        assert_eq!((repeated, count), (vec![6], 1));
    }

    #[test]
    fn metered_use_is_capped_by_what_was_reserved() {
        assert_eq!(capped_byte_seconds(100, Bytes(3), 10), 30);
        assert_eq!(capped_byte_seconds(29, Bytes(3), 10), 29);
        assert_eq!(capped_byte_seconds(u128::MAX, Bytes(u64::MAX), u64::MAX), u128::from(u64::MAX).pow(2));
    }

    proptest! {
        #[test]
        fn nothing_is_created_or_lost(
            gib_month in 0_u128..1 << 90, byte_seconds in 0_u128..1 << 80, egress in any::<u64>(),
            escrow in any::<u128>(), collateral in any::<u128>(), fee in 0_u32..20_000, credit in any::<u32>(),
        ) {
            let price = PriceTerms { per_gib_month: Amount(gib_month), per_gib_egress: Amount(gib_month >> 20) };
            let usage = PeriodUsage {
                byte_seconds, egress: Bytes(egress), escrow: Amount(escrow), collateral: Amount(collateral),
            };
            if let Some(charge) = period_charge(&price, &usage, BasisPoints(fee), Ppm(credit)) {
                prop_assert!(charge.payment <= usage.escrow);
                prop_assert_eq!(charge.fee.checked_add(charge.earned), Some(charge.payment));
                prop_assert!(charge.credited() <= charge.payment);
                prop_assert!(charge.credit_from_earnings <= charge.earned);
                prop_assert!(charge.credit_from_collateral <= usage.collateral);
                // Collateral is touched only when the earnings are used up.
                prop_assert!(charge.credit_from_collateral.is_zero() || charge.credit_from_earnings == charge.earned);
                let wanted = charge.payment.ppm(Ppm(credit.min(1_000_000)));
                prop_assert_eq!(charge.credited().checked_add(charge.credit_uncovered), Some(wanted));
            }
        }
    }
}
