//! JSON that is carried and not looked into: kept as text, so that a document that passes through many hands is not taken
//! apart and put together again by each. Clones share the text.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

/// A JSON value as text.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Payload(Arc<RawValue>);

impl Payload {
    /// A value's text.
    ///
    /// # Errors
    /// When the value can't be written as JSON: a map whose keys are no texts.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<Self> {
        Ok(Self(to_raw_value(value)?.into()))
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }

    /// Reads it as `T`.
    ///
    /// # Errors
    /// When it is no `T`.
    pub fn read<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.text())
    }

    /// Whether it is `null`: nothing was given.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.text() == "null"
    }
}

impl Default for Payload {
    fn default() -> Self {
        Self(RawValue::NULL.to_owned().into())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Payload {}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder {
        #[serde(default, skip_serializing_if = "Payload::is_null")]
        input: Payload,
    }

    #[test]
    fn what_is_carried_comes_back_to_the_letter() {
        let holder: Holder = serde_json::from_str(r#"{"input": {"b": 1.10, "a": "x"} }"#).unwrap();
        assert_eq!(holder.input.text(), r#"{"b": 1.10, "a": "x"}"#);
        assert_eq!(serde_json::to_string(&holder).unwrap(), r#"{"input":{"b": 1.10, "a": "x"}}"#);
        assert_eq!(holder.input.read::<Value>().unwrap(), json!({"a": "x", "b": 1.1}));
        assert!(holder.input.read::<u32>().is_err());
    }

    #[test]
    fn nothing_is_null_and_is_left_out() {
        let holder: Holder = serde_json::from_str("{}").unwrap();
        assert!(holder.input.is_null() && holder.input == Payload::of(&Value::Null).unwrap());
        assert_eq!(serde_json::to_string(&holder).unwrap(), "{}");
    }

    #[test]
    fn it_comes_from_a_document_in_memory_too() {
        let holder: Holder = serde_json::from_value(json!({"input": {"a": [1, 2]}})).unwrap();
        assert_eq!(holder.input.text(), r#"{"a":[1,2]}"#);
    }
}
