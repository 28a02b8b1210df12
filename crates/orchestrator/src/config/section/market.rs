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
    }
}

section! {
    /// The price advisor.
    Pricing {
        /// Whether it moves the prices of units that have bounds.
        enabled: bool = true;
    }
}
