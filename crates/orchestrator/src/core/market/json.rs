//! How numbers that JSON carries badly are written: 128-bit ones as decimal strings, and maps by number so that they are
//! read back wherever they stand.

/// 128-bit numbers as decimal strings, which JSON carries without loss. Small plain numbers are read, too.
pub mod decimal {
    use std::fmt;

    use serde::{
        Deserializer, Serializer,
        de::{Error, Unexpected, Visitor},
    };

    /// Writes the number as a string.
    ///
    /// # Errors
    /// Those of the serialiser.
    pub fn serialize<S: Serializer>(value: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    struct Decimal;

    impl Visitor<'_> for Decimal {
        type Value = u128;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number in decimal digits")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<u128, E> {
            // The standard library reads a sign, too, which would be another spelling of the same number.
            if !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(E::invalid_value(Unexpected::Str(text), &self));
            }
            text.parse().map_err(E::custom)
        }
        fn visit_u64<E: Error>(self, number: u64) -> Result<u128, E> {
            Ok(number.into())
        }
    }

    /// Reads the number.
    ///
    /// # Errors
    /// When it is none, or does not fit.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
        deserializer.deserialize_any(Decimal)
    }
}

/// Maps from bucket index to count. Inside of tagged enums, serde keeps the keys of a JSON object as the strings that they
/// are, so they are parsed here.
pub mod by_index {
    use std::{collections::BTreeMap, fmt};

    use serde::{
        Deserialize, Deserializer, Serialize, Serializer,
        de::{Error, Visitor},
    };

    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Index(u16);

    impl<'de> Deserialize<'de> for Index {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Key;
            impl Visitor<'_> for Key {
                type Value = Index;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("an index below 65,536")
                }
                fn visit_str<E: Error>(self, text: &str) -> Result<Index, E> {
                    text.parse().map(Index).map_err(E::custom)
                }
                fn visit_u64<E: Error>(self, number: u64) -> Result<Index, E> {
                    u16::try_from(number).map(Index).map_err(E::custom)
                }
            }
            deserializer.deserialize_any(Key)
        }
    }

    /// Writes the map.
    ///
    /// # Errors
    /// Those of the serialiser.
    pub fn serialize<S: Serializer>(map: &BTreeMap<u16, u64>, serializer: S) -> Result<S::Ok, S::Error> {
        map.serialize(serializer)
    }

    /// Reads the map.
    ///
    /// # Errors
    /// When a key is no index, or a value no count.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<u16, u64>, D::Error> {
        let map = BTreeMap::<Index, u64>::deserialize(deserializer)?;
        Ok(map.into_iter().map(|(index, count)| (index.0, count)).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::core::market::{
        allocation::Usage,
        evidence::{FailureClass, OperationKind, OperationStats, Qos, ReportBody},
        quantity::{Bytes, Timestamp},
    };

    proptest! {
        /// What lies between memory and disk loses nothing, as text and as a JSON value.
        #[test]
        fn reports_come_back_as_they_were(
            attempts in any::<u64>(), bulk in any::<u64>(), failed in any::<u64>(),
            latency in prop::collection::btree_map(any::<u16>(), any::<u64>(), 0..20),
        ) {
            let stats = OperationStats {
                attempts,
                failures: [(FailureClass::Timeout, failed)].into(),
                latency_sum_us: failed,
                latency,
                bulk_bytes: bulk,
                bulk_us: bulk,
            };
            let body = ReportBody::Qos(Qos { operations: [(OperationKind::Get, stats)].into() });
            let text = serde_json::to_string(&body).unwrap();
            prop_assert_eq!(&serde_json::from_str::<ReportBody>(&text).unwrap(), &body);
            let value = serde_json::to_value(&body).unwrap();
            prop_assert_eq!(&serde_json::from_value::<ReportBody>(value).unwrap(), &body);
        }

        #[test]
        fn meters_come_back_as_they_were(stored in any::<u64>(), byte_seconds in any::<u128>(), at in any::<i64>()) {
            let usage = Usage { stored: Bytes(stored), byte_seconds, egress: Bytes(stored), read_at: Timestamp(at) };
            let text = serde_json::to_string(&usage).unwrap();
            prop_assert_eq!(serde_json::from_str::<Usage>(&text).unwrap(), usage);
            // Answers of requests are kept as JSON values, which hold no number beyond 64 bits.
            let value = serde_json::to_value(usage).unwrap();
            prop_assert_eq!(serde_json::from_value::<Usage>(value).unwrap(), usage);
        }
    }
}
