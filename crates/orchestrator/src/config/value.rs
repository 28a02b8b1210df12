//! Durations and sizes as people write them: `250ms`, `5m`, `30d`; `512MiB`, `1TiB`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::core::market::quantity::{Bytes, Micros};

/// Splits a whole number from its unit.
fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

macro_rules! human {
    ($(#[$doc:meta])* $name:ident($inner:ident), $units:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl $name {
            /// Units, largest first, with their factor.
            const UNITS: &'static [(&'static str, u64)] = $units;
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                let wrong = || format!("`{text}` is not valid here: {}", $expected);
                let (number, unit) = split(text).ok_or_else(wrong)?;
                let (_, factor) = Self::UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
                number.checked_mul(*factor).map(|product| Self($inner(product))).ok_or_else(|| format!("`{text}` is too large"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let number = self.0.get();
                let fits = |(_, factor): &&(&str, u64)| number.is_multiple_of(*factor) && number >= *factor;
                match Self::UNITS.iter().find(fits).or(Self::UNITS.last()) {
                    Some((unit, factor)) => write!(f, "{}{unit}", number / factor),
                    None => write!(f, "{number}"),
                }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

human!(
    /// A duration such as `250ms`, `10s`, `5m`, `24h`, `30d`.
    HumanDuration(Micros),
    &[
        ("d", 86_400_000_000),
        ("h", 3_600_000_000),
        ("m", 60_000_000),
        ("s", 1_000_000),
        ("ms", 1_000),
        ("us", 1)
    ],
    "write a whole number and a unit, one of us, ms, s, m, h, d, such as \"5m\""
);

human!(
    /// A size such as `64KiB`, `8MiB`, `1TiB`.
    HumanSize(Bytes),
    &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)],
    "write a whole number and a unit, one of B, KiB, MiB, GiB, TiB, such as \"8MiB\""
);

impl HumanDuration {
    /// Whole seconds.
    #[must_use]
    pub const fn secs(seconds: u64) -> Self {
        Self(Micros::from_secs(seconds))
    }

    /// Milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(Micros::from_millis(millis))
    }

    /// Days.
    #[must_use]
    pub const fn days(days: u64) -> Self {
        Self(Micros::from_days(days))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_round_trip() {
        for text in ["250ms", "10s", "5m", "24h", "30d", "1us", "90s"] {
            let value: HumanDuration = text.parse().unwrap();
            assert_eq!(value.to_string().parse::<HumanDuration>().unwrap(), value, "{text}");
        }
        assert_eq!(HumanDuration::secs(300).to_string(), "5m");
        assert_eq!("8MiB".parse::<HumanSize>().unwrap().0, Bytes(8 << 20));
        assert_eq!(HumanSize(Bytes(0)).to_string(), "0B");
        for bad in ["", "5", "m", "-5m", "5 years", "1.5s", "99999999999999999999d", "9999999999999999d"] {
            assert!(bad.parse::<HumanDuration>().is_err(), "{bad}");
        }
    }
}
