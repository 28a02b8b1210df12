//! Two meters: the provider's, and that of the oracles. When they differ by more than the tolerance, the lower is billed
//! and the difference is disputed.

use super::period::PeriodSettlement;
use crate::{
    core::market::{
        allocation::{Allocation, Usage},
        dispute::disagree,
        quantity::Bytes,
        sla::{Bucket, Window, bucket_start},
    },
    error::Result,
};

/// What is billed, and whether an oracle's meter disagreed.
pub(super) struct Billed {
    pub(super) byte_seconds: u128,
    pub(super) egress: Bytes,
    pub(super) disputed: bool,
}

impl PeriodSettlement {
    /// The lower of the provider's meter and the oracles' when they differ by more than the tolerance. Oracles report the
    /// allocation's cumulative usage; the median of those that read it in the last bucket counts.
    pub(super) async fn billed(
        &self,
        allocation: &Allocation,
        settled: &Usage,
        metered: u128,
        sent: Bytes,
        time: Window,
    ) -> Result<Billed> {
        let plain = Billed { byte_seconds: metered, egress: sent, disputed: false };
        let window = Window {
            from: bucket_start(time.to.minus(self.settings.rules.bucket), self.settings.rules.bucket)
                .max(time.from),
            to: time.to,
        };
        let mut readings: Vec<_> = self
            .between::<Bucket>(&allocation.id.to_string(), window)
            .await?
            .into_iter()
            .filter_map(|b| b.usage)
            .map(|u| {
                (
                    u.byte_seconds.saturating_sub(settled.byte_seconds),
                    u.egress.saturating_sub(settled.egress.get()),
                )
            })
            .collect();
        readings.sort_unstable();
        let Some((seen, seen_egress)) =
            readings.len().checked_sub(1).and_then(|last| readings.get(last / 2)).copied()
        else {
            return Ok(plain);
        };
        let tolerance = self.settings.metering_tolerance;
        let apart = disagree(metered, seen, tolerance)
            || disagree(u128::from(sent.get()), u128::from(seen_egress), tolerance);
        if !apart {
            return Ok(plain);
        }
        Ok(Billed {
            byte_seconds: metered.min(seen),
            egress: Bytes(sent.get().min(seen_egress)),
            disputed: true,
        })
    }
}
