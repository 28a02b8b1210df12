//! `[market]` and `[pricing]`.

use super::section;
use crate::config::{HumanDuration, Problems};

section! {
    /// The rules of the market.
    Market {
        /// How long a reservation waits for its funding.
        reservation_ttl: HumanDuration = HumanDuration::secs(15 * 60);
        /// Time between closing and purging.
        closing_grace: HumanDuration = HumanDuration::days(7);
        /// The platform's share of payments, in hundredths of a percent.
        fee_basis_points: u32 = 200;
        /// How long a dispute waits for the operator's decision.
        dispute_deadline: HumanDuration = HumanDuration::secs(72 * 3_600);
        /// Orphans that `reconcile` removes at providers in an hour, at most.
        max_teardowns_per_hour: u32 = 20;
        /// Percent of one provider's allocations that `reconcile` tears down there in an hour; beyond that it stops and waits for an operator.
        max_teardown_percent: u32 = 10;
        /// So many in an hour are always allowed.
        min_teardowns: u32 = 10;
    }
}

impl Market {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        problems.require(
            self.reservation_ttl.0.get() >= 1_000_000,
            "market.reservation_ttl",
            "must be at least 1s",
        );
        problems.require(
            self.fee_basis_points <= 10_000,
            "market.fee_basis_points",
            "must be at most 10000 (100 %)",
        );
        problems.require(
            self.max_teardown_percent <= 100,
            "market.max_teardown_percent",
            "must be at most 100",
        );
    }
}

section! {
    /// The price advisor.
    Pricing {
        /// Whether it moves the prices of units that have bounds.
        enabled: bool = true;
    }
}
