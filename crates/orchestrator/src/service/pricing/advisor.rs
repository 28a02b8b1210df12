//! The price advisor: what a unit's price might become, and why. Whatever it says is clamped to ten percent and to the
//! provider's bounds by the service.

use crate::{
    core::market::{
        money::{Amount, mul_div_floor},
        quantity::Ppm,
    },
    error::{Error, ErrorCode, Result},
};

/// What an advisor knows of a unit and its market.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarketView {
    /// The present price per GiB-month.
    pub price: Amount,
    /// The market's median.
    pub median: Amount,
    /// Reserved over capacity.
    pub utilisation: Ppm,
    /// Thousandths of a point.
    pub reputation: u32,
}

/// A wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The wished price.
    pub price: Amount,
    /// Why, for people.
    pub reason: String,
}

/// Advises on prices.
pub trait PriceAdvisor: Send + Sync + 'static {
    /// Its name, as the log of changes shows it.
    fn name(&self) -> &'static str;

    /// What the price should be, before it is clamped.
    ///
    /// # Errors
    /// [`ErrorCode::NotSupported`] from advisors that are not built.
    fn advise(&self, view: &MarketView) -> Result<Advice>;
}

/// The deterministic controller: up to 6 % for utilisation away from 70 %, up to 2 % for reputation away from 50, up to
/// 2 % toward the median. The sum is at most 10 %.
#[derive(Debug, Clone, Copy, Default)]
pub struct Controller;

impl Controller {
    /// The change in ppm, between −100,000 and 100,000, and its parts.
    #[must_use]
    pub fn change(view: &MarketView) -> (i64, [i64; 3]) {
        let utilisation = i64::from(view.utilisation.get().min(1_000_000)) - 700_000;
        let by_use =
            if utilisation > 0 { utilisation * 60_000 / 300_000 } else { utilisation * 60_000 / 700_000 };
        let by_reputation = (i64::from(view.reputation.min(100_000)) - 50_000) * 20_000 / 50_000;
        let gap = view.median.get().abs_diff(view.price.get());
        let gap = mul_div_floor(gap, 1_000_000, view.price.get().max(1)).unwrap_or(u128::MAX);
        // A tenth of the gap, at most 2 %.
        let pull = i64::try_from((gap / 10).min(20_000)).unwrap_or(20_000);
        let by_market = if view.median.is_zero() || view.median == view.price {
            0
        } else if view.median > view.price {
            pull
        } else {
            -pull
        };
        (by_use + by_reputation + by_market, [by_use, by_reputation, by_market])
    }
}

impl PriceAdvisor for Controller {
    fn name(&self) -> &'static str {
        "controller"
    }

    fn advise(&self, view: &MarketView) -> Result<Advice> {
        let (change, [by_use, by_reputation, by_market]) = Self::change(view);
        let factor = u128::try_from(1_000_000 + change).unwrap_or(0);
        let price = mul_div_floor(view.price.get(), factor, 1_000_000).map_or(view.price, Amount);
        let percent = |ppm: i64| {
            format!(
                "{}{}.{:02} %",
                if ppm < 0 { "-" } else { "+" },
                ppm.abs() / 10_000,
                ppm.abs() / 100 % 100
            )
        };
        let reason = format!(
            "utilisation {} % ({}), reputation {} ({}), market median {} ({})",
            view.utilisation.get() / 10_000,
            percent(by_use),
            view.reputation / 1_000,
            percent(by_reputation),
            view.median,
            percent(by_market),
        );
        Ok(Advice { price, reason })
    }
}

/// The advisor that estimates the elasticity of demand; not built.
#[derive(Debug, Clone, Copy, Default)]
pub struct Learning;

impl PriceAdvisor for Learning {
    fn name(&self) -> &'static str {
        "learning"
    }

    fn advise(&self, _view: &MarketView) -> Result<Advice> {
        Err(Error::new(
            ErrorCode::NotSupported,
            "the learning price advisor is not built; use the controller",
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_unit_of_good_name_gets_dearer_and_an_empty_one_cheaper() {
        let view = MarketView {
            price: Amount(1_000),
            median: Amount(1_000),
            utilisation: Ppm::ONE,
            reputation: 100_000,
        };
        assert_eq!(Controller.advise(&view).unwrap().price, Amount(1_080));
        let view = MarketView { utilisation: Ppm(0), reputation: 50_000, ..view };
        assert_eq!(Controller.advise(&view).unwrap().price, Amount(940));
        assert_eq!(Learning.advise(&view).unwrap_err().code, ErrorCode::NotSupported);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn never_more_than_ten_percent(price: u128, median: u128, used in 0_u32..2_000_000, reputation in 0_u32..200_000) {
            let view = MarketView { price: Amount(price), median: Amount(median), utilisation: Ppm(used), reputation };
            let (change, _) = Controller::change(&view);
            prop_assert!((-100_000..=100_000).contains(&change));
        }
    }
}
