//! Values that many views share.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat,
        schema::{SchemaType, Type},
    },
};

use crate::core::market::{
    money::Amount,
    quantity::{Micros, Timestamp},
};

/// An instant, as RFC 3339 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Timestamp);

impl From<Timestamp> for Time {
    fn from(instant: Timestamp) -> Self {
        Self(instant)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Timestamp::parse_rfc3339(&text)
            .map(Self)
            .map_err(|_| D::Error::custom("a time is RFC 3339, such as `2026-01-31T12:00:00Z`"))
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("An instant, RFC 3339 in UTC."))
            .examples(["2026-01-31T12:00:00Z"])
            .into()
    }
}

impl ToSchema for Time {}

/// A length of time in milliseconds: a whole number when it comes in; parts of a millisecond are shown as a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Millis(pub Micros);

impl From<Micros> for Millis {
    fn from(length: Micros) -> Self {
        Self(length)
    }
}

impl Serialize for Millis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = self.0.get();
        if micros.is_multiple_of(1_000) {
            return serializer.serialize_u64(micros / 1_000);
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "shown to people; what is computed with stays an integer"
        )]
        serializer.serialize_f64(micros as f64 / 1_000.0)
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let millis = u64::deserialize(deserializer)?;
        millis
            .checked_mul(1_000)
            .map(|micros| Self(Micros(micros)))
            .ok_or_else(|| D::Error::custom("a duration is a number of milliseconds below 2^54"))
    }
}

impl PartialSchema for Millis {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::Number))
            .minimum(Some(0))
            .description(Some("A length of time in milliseconds."))
            .examples([50])
            .into()
    }
}

impl ToSchema for Millis {}

/// An amount of money in base units of its token, as a decimal string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Money(pub Amount);

impl From<Amount> for Money {
    fn from(amount: Amount) -> Self {
        Self(amount)
    }
}

impl PartialSchema for Money {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::Type(Type::String))
            .pattern(Some("^[0-9]{1,39}$"))
            .description(Some("An amount in base units of its token, in decimal digits, below 2^128."))
            .examples(["1000000"])
            .into()
    }
}

impl ToSchema for Money {}

/// A body without fields; it may be left out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// The text of a value that serialises as one, such as a state.
pub fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        _ => String::new(),
    }
}
