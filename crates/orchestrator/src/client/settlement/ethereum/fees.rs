//! What transactions offer for their place in a block, and how much more they offer when they are not taken.
//!
//! Nodes take a second transaction with the same nonce only when it offers a tenth more, and one with blobs only when it offers
//! twice as much of everything. Caps say where it ends.

/// Offers, in base units of the chain's coin for a unit of gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fees {
    /// At most, all in all.
    pub gas: u128,
    /// Of which so much goes to whoever builds the block.
    pub tip: u128,
    /// At most for a unit of blob gas; only with blobs.
    pub blob: Option<u128>,
}

/// What may be offered at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// For a unit of gas.
    pub gas: u128,
    /// For a unit of blob gas.
    pub blob: u128,
}

impl Fees {
    /// What the market asks: base fees may double before it is too little.
    #[must_use]
    pub const fn of_market(base: u128, tip: u128, blob_base: Option<u128>) -> Self {
        let blob = match blob_base {
            Some(blob) => Some(blob.saturating_mul(2)),
            None => None,
        };
        Self { gas: base.saturating_mul(2).saturating_add(tip), tip, blob }
    }

    /// Not more than the caps.
    #[must_use]
    pub fn capped(self, caps: Caps) -> Self {
        let gas = self.gas.min(caps.gas);
        Self { gas, tip: self.tip.min(gas), blob: self.blob.map(|fee| fee.min(caps.blob)) }
    }

    /// Whether the caps allow these.
    #[must_use]
    pub fn fit(self, caps: Caps) -> bool {
        self.capped(caps) == self
    }

    /// What takes the place of a transaction with these fees: what the market asks, but at least as much more as nodes want.
    /// `None` when the caps don't allow that.
    #[must_use]
    pub fn bumped(self, market: Self, caps: Caps) -> Option<Self> {
        let more = |fee: u128| match self.blob {
            Some(_) => fee.saturating_mul(2).max(fee.saturating_add(1)),
            None => fee.saturating_add(fee / 10).saturating_add(1),
        };
        let least = Self { gas: more(self.gas), tip: more(self.tip), blob: self.blob.map(more) };
        if !least.fit(caps) {
            return None;
        }
        let blob = least.blob.map(|fee| fee.max(market.blob.unwrap_or_default()));
        Some(Self { gas: least.gas.max(market.gas), tip: least.tip.max(market.tip), blob }.capped(caps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { gas: 1_000, blob: 100 };

    #[test]
    fn a_bump_is_a_tenth_or_what_the_market_asks_up_to_the_cap() {
        let fees = Fees { gas: 100, tip: 10, blob: None };
        let market = |gas| Fees { gas, tip: 0, blob: None };
        assert_eq!(fees.bumped(market(0), CAPS), Some(Fees { gas: 111, tip: 12, blob: None }));
        assert_eq!(fees.bumped(market(500), CAPS).unwrap().gas, 500);
        assert_eq!(fees.bumped(market(5_000), CAPS).unwrap().gas, 1_000);
        assert_eq!(Fees { gas: 950, ..fees }.bumped(market(5_000), CAPS), None);
    }

    #[test]
    fn with_blobs_everything_doubles() {
        let fees = Fees { gas: 100, tip: 10, blob: Some(1) };
        let market = Fees { gas: 0, tip: 0, blob: Some(0) };
        assert_eq!(fees.bumped(market, CAPS), Some(Fees { gas: 200, tip: 20, blob: Some(2) }));
        assert_eq!(Fees { blob: Some(60), ..fees }.bumped(market, CAPS), None);
        assert!(Fees::of_market(3, 1, Some(4)).fit(CAPS) && !fees.fit(Caps { gas: 99, blob: 9 }));
    }
}
