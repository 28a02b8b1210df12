//! Addresses of owners on a chain.

use serde::{Deserialize, Serialize};
use sha3::{Digest, Keccak256};

/// A 20-byte address. As text it is `0x` and 40 hex digits, whose case is a checksum (EIP-55).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 20]);

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Another form.
    #[error("an address is `0x` and 40 hex digits")]
    Form,
    /// A digit is probably mistyped.
    #[error("the address has a wrong checksum: its upper and lower case do not fit its digits")]
    Checksum,
    /// Nobody can spend what it owns.
    #[error("the zero address is nobody's")]
    Zero,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = hex::encode(self.0);
        let checksum = Keccak256::digest(digits.as_bytes());
        f.write_str("0x")?;
        for (digit, half) in digits.chars().zip(checksum.iter().flat_map(|byte| [byte >> 4, byte & 15])) {
            write!(f, "{}", if half >= 8 { digit.to_ascii_uppercase() } else { digit })?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Address {
    type Err = InvalidAddress;
    /// Digits of one case carry no checksum and are taken as they are.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let digits = text.strip_prefix("0x").ok_or(InvalidAddress::Form)?;
        let mut bytes = [0; 20];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| InvalidAddress::Form)?;
        let address = Self(bytes);
        let mixed = digits.contains(|c: char| c.is_ascii_lowercase())
            && digits.contains(|c: char| c.is_ascii_uppercase());
        if mixed && address.to_string() != text {
            return Err(InvalidAddress::Checksum);
        }
        if bytes == [0; 20] {
            return Err(InvalidAddress::Zero);
        }
        Ok(address)
    }
}

impl Serialize for Address {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the text of EIP-55.
    const GOOD: [&str; 4] = [
        "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
        "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
        "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    ];

    #[test]
    fn text_goes_there_and_back_with_its_checksum() {
        for text in GOOD {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(text.to_lowercase().parse(), Ok(address));
        }
    }

    #[test]
    fn mistakes_are_told_apart() {
        let flipped = GOOD[0].replacen("aA", "Aa", 1);
        assert_eq!(flipped.parse::<Address>(), Err(InvalidAddress::Checksum));
        for text in ["", "0x", "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0x5aAeb6", "0xzz"] {
            assert_eq!(text.parse::<Address>(), Err(InvalidAddress::Form), "{text}");
        }
        assert_eq!(format!("0x{}", "0".repeat(40)).parse::<Address>(), Err(InvalidAddress::Zero));
    }
}
