//! Typed identifiers: UUIDv7 behind a readable prefix (`unit_…`, `alloc_…`), so that an id of one kind can't be passed
//! for another and a person can tell what a log line is about.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use uuid::{Builder, Uuid};

use super::quantity::Timestamp;
use crate::core::client::clock::{Clock, Entropy};

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form `{prefix}_<32 hex digits>`")]
pub struct InvalidId {
    /// The prefix that was expected.
    pub prefix: &'static str,
    /// What was given.
    pub text: String,
}

/// What every typed id has in common.
pub trait Id: Copy + Eq + Ord + fmt::Display + FromStr<Err = InvalidId> + Send + Sync + 'static {
    /// The text before the underscore.
    const PREFIX: &'static str;
    /// Wraps a raw UUID.
    fn from_uuid(uuid: Uuid) -> Self;
    /// The raw UUID.
    fn uuid(&self) -> Uuid;
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl Id for $name {
            const PREFIX: &'static str = $prefix;
            fn from_uuid(uuid: Uuid) -> Self { Self(uuid) }
            fn uuid(&self) -> Uuid { self.0 }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(self, f) }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = || InvalidId { prefix: $prefix, text: text.chars().take(80).collect() };
                let rest = text.strip_prefix(concat!($prefix, "_")).ok_or_else(invalid)?;
                if rest.len() != 32 || rest.bytes().any(|b| b.is_ascii_uppercase()) {
                    return Err(invalid());
                }
                Uuid::try_parse(rest).map(Self).map_err(|_| invalid())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(D::Error::custom)
            }
        }
    )+};
}

ids! {
    /// A data unit.
    UnitId = "unit";
    /// An allocation of a part of a unit.
    AllocationId = "alloc";
    /// A credential of one allocation.
    CredentialId = "cred";
    /// A storage provider.
    ProviderId = "prov";
    /// A consumer.
    ConsumerId = "cons";
    /// An oracle.
    OracleId = "orcl";
    /// An operator.
    OperatorId = "oper";
    /// An API key.
    KeyId = "key";
    /// A job.
    JobId = "job";
    /// A movement of money.
    TransferId = "tx";
    /// An evidence report.
    ReportId = "rep";
    /// An SLA verdict.
    VerdictId = "sla";
    /// A dispute.
    DisputeId = "disp";
    /// A domain event, and its row in the outbox.
    EventId = "evt";
    /// A sealed block, when it is named outside its domain.
    BlockId = "block";
    /// A logged change of a price.
    PriceChangeId = "price";
    /// An entry of the audit log.
    AuditId = "aud";
}

/// Makes ids from the injected clock and entropy, so that a whole run can be replayed.
#[derive(Clone)]
pub struct IdGenerator {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl IdGenerator {
    /// A generator over the given sources.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { clock, entropy }
    }

    /// A fresh id; ids made later sort later, to the microsecond: the 12 bits behind the milliseconds are a fraction of them
    /// (RFC 9562, 6.2, method 3). So a batch of documents goes to the end of every index by id, and not all over its last pages.
    #[must_use]
    pub fn next<I: Id>(&self) -> I {
        let mut random = [0_u8; 10];
        self.entropy.fill(&mut random);
        let micros = u64::try_from(self.clock.now().as_micros()).unwrap_or(0);
        let (millis, fraction) = (micros / 1_000, (micros % 1_000) * 4_096 / 1_000);
        let [.., high, low] = fraction.to_be_bytes();
        [random[0], random[1]] = [high, low];
        I::from_uuid(Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
    }

    /// The instant that ids made now carry.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        client::clock::{ManualClock, SeededEntropy},
        core::market::quantity::Micros,
    };

    #[test]
    fn an_id_round_trips_and_refuses_another_prefix() {
        let id = UnitId::from_uuid(Uuid::from_u128(7));
        let text = id.to_string();
        assert_eq!(text, "unit_00000000000000000000000000000007");
        assert_eq!(text.parse::<UnitId>(), Ok(id));
        assert!(text.parse::<AllocationId>().is_err());
        assert!("unit_0000000000000000000000000000000G".parse::<UnitId>().is_err());
        assert!(text.to_uppercase().parse::<UnitId>().is_err());
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{text}\""));
    }

    #[test]
    fn ids_sort_by_the_microsecond_at_which_they_were_made() {
        let clock = ManualClock::new(Timestamp(1_700_000_000_000_000));
        let ids = IdGenerator::new(Arc::new(clock.clone()), Arc::new(SeededEntropy::new(7)));
        let made: Vec<JobId> = (0..2_500)
            .map(|_| {
                clock.advance(Micros(1));
                ids.next()
            })
            .collect();
        assert!(made.is_sorted());
        let at_once: BTreeSet<JobId> = (0..1_000).map(|_| ids.next()).collect();
        assert_eq!(at_once.len(), 1_000);
    }
}
