//! How a JSON body lies in a document: objects, texts, booleans, null and integers of 64 bits as such, so that filters,
//! sorts and indexes work on dotted paths. What no path can lead into or compare with — lists, fractions, larger integers
//! and objects nested deeper than [`DEPTH`] — lies as its JSON text in an object of one field, [`RAW`]: it comes back to
//! the letter, and the server never looks into a list where a filter means the list itself. So every value that a path
//! reaches is one of six types, and the server's comparisons, which hold within one type, are the port's.
//!
//! Names that the server or the format treat apart (empty, with a dollar, a dot or a NUL) are escaped with percent signs.

use std::{collections::BTreeMap, fmt::Write as _};

use ::mongodb::bson::{Bson, Document as BsonDocument, RawBsonRef, RawDocument, RawDocumentBuf};
use serde::de::Error as _;

use crate::{
    client::db::{
        scan::{self, Members},
        value::Key,
    },
    core::client::{
        database::{DatabaseError, Document, Result},
        schema::Collection,
    },
};

/// The document's version.
pub(super) const VERSION: &str = "v";
/// The body.
pub(super) const BODY: &str = "b";
/// Counts what was required of the document: see [`super::statement`].
pub(super) const LOCK: &str = "l";
/// The last claim that took the document.
pub(super) const CLAIM: &str = "c";
/// When the server may expire the document.
pub(super) const EXPIRES: &str = "x";

/// The field whose text is the JSON of what stands there. No path holds a percent sign, and an escaped name has more
/// behind it.
const RAW: &str = "%";
/// How an empty name is written.
const EMPTY: &str = "%e";
/// How deep objects nest as such. The server allows 100 levels; the body itself is the first.
const DEPTH: usize = 64;

/// The field of a body's path.
pub(super) fn field(path: &str) -> String {
    format!("{BODY}.{path}")
}

/// A body. The text was checked to be a JSON object.
pub(super) fn encode(text: &str) -> BsonDocument {
    object(text, 1)
}

/// A value that is no object and no list.
pub(super) fn plain(key: &Key) -> Option<Bson> {
    match key {
        Key::Null => Some(Bson::Null),
        Key::Int(value) => Some(Bson::Int64(*value)),
        Key::Text(text) => Some(Bson::String(text.clone())),
        Key::Bool(value) => Some(Bson::Boolean(*value)),
        Key::Other => None,
    }
}

fn object(text: &str, depth: usize) -> BsonDocument {
    let mut document = BsonDocument::new();
    for member in Members::new(text) {
        let name = if member.name.contains('\\') { scan::unescape(member.name) } else { None };
        let name = name.as_deref().unwrap_or(member.name);
        let raw = text.get(member.start..member.end).unwrap_or_default();
        // Of equal names the last counts.
        document.insert(escape(name), value(raw, depth));
    }
    document
}

fn value(raw: &str, depth: usize) -> Bson {
    if let Some(plain) = plain(&scan::key_of(raw)) {
        return plain;
    }
    if raw.starts_with('{') && depth < DEPTH {
        return Bson::Document(object(raw, depth + 1));
    }
    let mut wrapped = BsonDocument::new();
    wrapped.insert(RAW, raw);
    Bson::Document(wrapped)
}

fn special(letter: char) -> bool {
    matches!(letter, '%' | '$' | '.' | '\0')
}

fn escape(name: &str) -> String {
    if name.is_empty() {
        return EMPTY.to_owned();
    }
    let mut escaped = String::with_capacity(name.len());
    for letter in name.chars() {
        if special(letter) {
            let _ = write!(escaped, "%{:02x}", u32::from(letter));
        } else {
            escaped.push(letter);
        }
    }
    escaped
}

/// The name that was escaped. What no escape made, because somebody wrote it by hand, stays as it is.
fn unescape(name: &str) -> String {
    if name == EMPTY {
        return String::new();
    }
    let mut parts = name.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let letter =
            part.get(..2).and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
        match letter.filter(|letter| special(*letter)) {
            Some(letter) => {
                plain.push(letter);
                plain.push_str(part.get(2..).unwrap_or_default());
            }
            None => {
                plain.push('%');
                plain.push_str(part);
            }
        }
    }
    plain
}

/// A document as it lies on the server.
///
/// # Errors
/// [`DatabaseError::Damaged`] when it is none of ours.
pub(super) fn decode(collection: Collection, raw: &RawDocument) -> Result<Document> {
    let id = raw.get_str("_id").map_or_else(|_| "?".to_owned(), str::to_owned);
    let damaged = |source: serde_json::Error| DatabaseError::Damaged { collection, id: id.clone(), source };
    let parts = || -> std::result::Result<(u64, String), Fault> {
        let version = raw.get_i64(VERSION)?;
        let mut body = String::with_capacity(raw.as_bytes().len());
        write_object(&mut body, raw.get_document(BODY)?)?;
        Ok((version.unsigned_abs(), body))
    };
    let (version, body) = parts().map_err(|Fault(text)| damaged(serde_json::Error::custom(text)))?;
    Ok(Document {
        id: raw.get_str("_id").map_err(|e| damaged(serde_json::Error::custom(e)))?.to_owned(),
        version,
        body,
    })
}

/// A body's text as it will be read back: names in order, no spaces.
///
/// # Errors
/// When it can't be written, which no text that was checked brings about.
pub(super) fn canonical(body: &BsonDocument) -> Result<String> {
    let invalid = |Fault(text): Fault| DatabaseError::Invalid(text);
    let raw = RawDocumentBuf::try_from(body).map_err(|error| invalid(error.into()))?;
    let mut text = String::new();
    write_object(&mut text, &raw).map_err(invalid)?;
    Ok(text)
}

/// What is wrong with a stored document.
struct Fault(String);

impl<E: std::error::Error> From<E> for Fault {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

type Written = std::result::Result<(), Fault>;

fn write_object(out: &mut String, document: &RawDocument) -> Written {
    let mut members = BTreeMap::new();
    for element in document.iter() {
        let (name, value) = element?;
        if let (RAW, RawBsonRef::String(raw)) = (name.as_str(), value) {
            out.push_str(raw);
            return Ok(());
        }
        members.insert(unescape(name.as_str()), value);
    }
    out.push('{');
    for (place, (name, value)) in members.into_iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        out.push_str(&serde_json::to_string(&name)?);
        out.push(':');
        write_value(out, value)?;
    }
    out.push('}');
    Ok(())
}

fn write_value(out: &mut String, value: RawBsonRef<'_>) -> Written {
    match value {
        RawBsonRef::Null => out.push_str("null"),
        RawBsonRef::Boolean(true) => out.push_str("true"),
        RawBsonRef::Boolean(false) => out.push_str("false"),
        RawBsonRef::Int64(number) => write!(out, "{number}")?,
        RawBsonRef::String(text) => out.push_str(&serde_json::to_string(text)?),
        RawBsonRef::Document(document) => write_object(out, document)?,
        // Nothing here writes these; a person with a shell may have.
        RawBsonRef::Int32(number) => write!(out, "{number}")?,
        RawBsonRef::Double(number) if number.is_finite() => out.push_str(&serde_json::to_string(&number)?),
        RawBsonRef::Array(list) => {
            out.push('[');
            for (place, item) in list.into_iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write_value(out, item?)?;
            }
            out.push(']');
        }
        // No JSON: a value that no entity takes, so that whoever reads this one document meets it, and sets it aside,
        // and a page that it stands in is read none the less.
        other => write!(out, "{{\"$bson\":{}}}", serde_json::to_string(&format!("{other:?}"))?)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::client::db::value;

    fn round(text: &str) -> String {
        canonical(&encode(text)).unwrap()
    }

    fn leaf() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "[ -~\\\\\"{}é\u{0}\n]{0,8}".prop_map(Value::from),
        ]
    }

    fn body() -> impl Strategy<Value = Map<String, Value>> {
        let json = leaf().prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ab%$.\u{0}\"2]{0,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("[abc%$.\u{0}2]{0,3}", json, 0..6)
            .prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(body in body(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&body) } else { serde_json::to_string(&body) };
            let back = round(&text.unwrap());
            prop_assert_eq!(serde_json::from_str::<Map<String, Value>>(&back).unwrap(), body);
            // Reading and writing again changes nothing, so a text can be compared with what is read later.
            prop_assert_eq!(round(&back), back);
        }

        #[test]
        fn a_path_leads_to_the_same_value(body in body(), path in "[abc]{1,2}(\\.[ab]{1,2}){0,2}") {
            let wanted = plain(&value::key(&body, &path));
            let mut found = Some(Bson::Document(encode(&serde_json::to_string(&body).unwrap())));
            for part in path.split('.') {
                found = found.and_then(|value| value.as_document().and_then(|inside| inside.get(part).cloned()));
            }
            match wanted {
                Some(Bson::Null) => prop_assert!(found.is_none_or(|found| found == Bson::Null)),
                Some(wanted) => prop_assert_eq!(found, Some(wanted)),
                None => prop_assert!(matches!(found, Some(Bson::Document(_)))),
            }
        }
    }

    #[test]
    fn numbers_come_back_to_the_letter() {
        for number in [
            "0",
            "-1",
            "9223372036854775807",
            "9223372036854775808",
            "18446744073709551615",
            "-0",
            "1.0",
            "1e2",
            "-195911126.61249614",
            "0.1",
        ] {
            let text = format!("{{\"a\":{number}}}");
            assert_eq!(round(&text), text);
        }
    }

    #[test]
    fn what_somebody_wrote_by_hand_hides_nothing() {
        let strange = ::mongodb::bson::doc! { "a": 1, "b": [1.5, { "c": ::mongodb::bson::oid::ObjectId::new() }], "d%": "x" };
        let read: Value = serde_json::from_str(&canonical(&strange).unwrap()).unwrap();
        assert_eq!((&read["a"], &read["b"][0], &read["d%"]), (&json!(1), &json!(1.5), &json!("x")));
        assert!(read["b"][1]["c"]["$bson"].is_string(), "{read}");
    }

    #[test]
    fn depth_is_no_limit() {
        let deep = format!("{}1{}", "{\"a\":".repeat(120), "}".repeat(120));
        assert_eq!(round(&deep), deep);
        let list = format!("{{\"a\":{}{}}}", "[".repeat(120), "]".repeat(120));
        assert_eq!(round(&list), list);
    }

    #[test]
    fn the_last_of_equal_names_counts() {
        assert_eq!(round(r#"{"a":1,"b":2,"\u0061":{"x":3}}"#), r#"{"a":{"x":3},"b":2}"#);
        assert_eq!(encode(&json!({"%": "[1]"}).to_string()).get("%25").and_then(Bson::as_str), Some("[1]"));
    }
}
