//! The times that a restore took back: from the instant that a backup shows to its restore. What was sold then is known to
//! customers and providers, and no longer to the database; nothing of it may be torn down by itself.

use serde::{Deserialize, Serialize};

use crate::core::{
    client::{
        database::{Changeset, Committer, Entity, Reader, ReaderExt, Result},
        schema::{self, Collection},
    },
    market::{
        ids::{AllocationId, Id as _},
        quantity::{Micros, Timestamp},
    },
};

const RECORD: &str = "restore_gaps";
/// Clocks of replicas, and of the machine that made the backup, may differ by so much.
const SKEW: Micros = Micros::from_secs(60);

/// A time that was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gap {
    from: Timestamp,
    to: Timestamp,
}

impl Gap {
    /// Whether an allocation was made in this time, by the time in its id.
    pub(super) fn holds(&self, id: AllocationId) -> bool {
        let milliseconds = i64::try_from(id.uuid().as_u128() >> 80).unwrap_or(i64::MAX);
        let made = Timestamp(milliseconds.saturating_mul(1_000));
        self.from.minus(SKEW) <= made && made <= self.to.plus(SKEW)
    }
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RestoreGaps {
    gaps: Vec<Gap>,
}

impl Entity for RestoreGaps {
    const NAME: &'static str = "restore_gaps";
    const COLLECTION: Collection = schema::META;
    fn document_id(&self) -> String {
        RECORD.into()
    }
}

/// Notes that a backup of `made_at` was restored at `now`.
///
/// # Errors
/// Those of the database.
pub async fn note(
    reader: &dyn Reader,
    committer: &dyn Committer,
    made_at: Timestamp,
    now: Timestamp,
) -> Result<()> {
    let known = reader.load::<RestoreGaps>(RECORD).await?;
    let mut gaps = known.as_ref().map(|known| known.value.clone()).unwrap_or_default();
    gaps.gaps.push(Gap { from: made_at, to: now });
    let mut changes = Changeset::new();
    match known {
        Some(known) => changes.replace(known.version, &gaps),
        None => changes.insert(&gaps),
    };
    committer.commit(changes).await
}

/// The times that were taken back.
pub(super) async fn gaps(reader: &dyn Reader) -> Result<Vec<Gap>> {
    Ok(reader.load::<RestoreGaps>(RECORD).await?.map(|known| known.value.gaps).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_whether_it_was_made_in_a_gap() {
        let gap = Gap { from: Timestamp(1_000_000_000_000), to: Timestamp(1_001_000_000_000) };
        let at = |milliseconds: u128| {
            AllocationId::from_uuid(uuid::Uuid::from_u128((milliseconds << 80) | (7 << 76) | 5))
        };
        assert!(gap.holds(at(1_000_500_000)));
        assert!(gap.holds(at(999_950_000)) && gap.holds(at(1_001_050_000)), "clocks differ");
        assert!(!gap.holds(at(999_000_000)) && !gap.holds(at(1_002_000_000)));
    }
}
