//! Money: integer base units of a token, and the integer arithmetic that prices and fees are computed with.

use std::{fmt, str::FromStr};

use ruint::aliases::U256;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::quantity::{BasisPoints, Ppm};

/// A sum of money in base units of its domain's token. Written as a decimal string wherever it is serialised, because
/// JSON numbers lose digits beyond 2^53.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(pub u128);

/// Why a text is no amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an amount is a whole number of base units, in decimal digits, below 2^128")]
pub struct InvalidAmount;

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Base units.
    #[must_use]
    pub const fn get(self) -> u128 {
        self.0
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, or `None` on overflow.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// The difference, or `None` when `other` is larger.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// The difference, never below zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self × ppm / 1,000,000`, rounded down.
    #[must_use]
    pub fn ppm(self, ratio: Ppm) -> Self {
        Self(mul_div_floor(self.0, u128::from(ratio.0), 1_000_000).unwrap_or(u128::MAX))
    }

    /// `self × bps / 10,000`, rounded down.
    #[must_use]
    pub fn basis_points(self, ratio: BasisPoints) -> Self {
        Self(mul_div_floor(self.0, u128::from(ratio.0), 10_000).unwrap_or(u128::MAX))
    }
}

/// `a × b / divisor` in 256 bits, rounded down; `None` when the result needs more than 128 bits or `divisor` is zero.
#[must_use]
pub fn mul_div_floor(a: u128, b: u128, divisor: u128) -> Option<u128> {
    if divisor == 0 {
        return None;
    }
    let product = U256::from(a) * U256::from(b);
    u128::try_from(product / U256::from(divisor)).ok()
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Amount {
    type Err = InvalidAmount;
    fn from_str(text: &str) -> Result<Self, InvalidAmount> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidAmount);
        }
        text.parse().map(Self).map_err(|_| InvalidAmount)
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_beyond_128_bits_are_exact() {
        assert_eq!(mul_div_floor(u128::MAX, u128::MAX, u128::MAX), Some(u128::MAX));
        assert_eq!(mul_div_floor(u128::MAX, 2, 1), None);
        assert_eq!(mul_div_floor(1, 1, 0), None);
        assert_eq!(mul_div_floor(7, 3, 2), Some(10));
    }

    #[test]
    fn an_amount_is_a_decimal_string() {
        let largest = Amount(u128::MAX);
        let text = serde_json::to_string(&largest).unwrap();
        assert_eq!(text, format!("\"{}\"", u128::MAX));
        assert_eq!(serde_json::from_str::<Amount>(&text).unwrap(), largest);
        for bad in [
            "\"-1\"",
            "\"+1\"",
            "\"1.0\"",
            "\"\"",
            "\" 1\"",
            "\"340282366920938463463374607431768211456\"",
            "5",
        ] {
            assert!(serde_json::from_str::<Amount>(bad).is_err(), "{bad}");
        }
    }
}
