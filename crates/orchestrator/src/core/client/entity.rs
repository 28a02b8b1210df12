//! Stored entities: how a typed value becomes the JSON text of a document and comes back. Every body carries the version
//! of its shape in a first field `v`. It is spliced into the text, so that neither the structs nor the hot paths know
//! of it; the versions themselves are listed in [`crate::metadata::ENTITIES`].

use std::io::Write as _;

use serde::{Serialize, de::DeserializeOwned, de::Error as _};
use serde_json::Value;

use super::{
    database::{DatabaseError, Document, Result, Stored},
    schema::Collection,
};
use crate::metadata;

/// What the text of a versioned body begins with.
const PREFIX: &str = "{\"v\":";

/// A type that is stored in a collection of its own.
pub trait Entity: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Its name in [`crate::metadata::ENTITIES`] and of its golden files; never changes.
    const NAME: &'static str;
    /// The version of its stored shape. An entity that is not listed does not compile.
    const VERSION: u32 = metadata::version_of(Self::NAME);
    /// Where.
    const COLLECTION: Collection;
    /// Under which id.
    fn document_id(&self) -> String;

    /// Brings a body of an older version to the present shape. Called for versions below [`Entity::VERSION`] only, so an
    /// entity that has had one version needs none.
    ///
    /// # Errors
    /// When the version, or the body, can't be read any more.
    fn upgrade(from: u32, _body: Value) -> Result<Value, serde_json::Error> {
        Err(serde_json::Error::custom(format!("version {from} of `{}` can't be read any more", Self::NAME)))
    }
}

impl Document {
    /// The content as `T`, brought up to the present version.
    ///
    /// # Errors
    /// [`DatabaseError::Damaged`] when the document is no `T`; [`DatabaseError::TooNew`] when a newer release wrote it.
    pub fn decode<T: Entity>(&self) -> Result<Stored<T>> {
        let damaged =
            |source| DatabaseError::Damaged { collection: T::COLLECTION, id: self.id.clone(), source };
        let found = version(&self.body).map_err(damaged)?;
        if found > T::VERSION {
            return Err(DatabaseError::TooNew {
                collection: T::COLLECTION,
                id: self.id.clone(),
                found,
                known: T::VERSION,
            });
        }
        let value = if found == T::VERSION {
            serde_json::from_str(&self.body)
        } else {
            let body = serde_json::from_str(&self.body);
            body.and_then(|body| T::upgrade(found, body)).and_then(serde_json::from_value)
        };
        value.map(|value| Stored { version: self.version, value }).map_err(damaged)
    }
}

/// The version that a body says it has. Bodies that were written from this file begin with it; those that another hand
/// reordered are parsed. One without a version is of the first.
fn version(body: &str) -> Result<u32, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        #[serde(default = "first")]
        v: u32,
    }
    const fn first() -> u32 {
        1
    }
    let said = body.strip_prefix(PREFIX).and_then(|rest| {
        let end = rest.find([',', '}'])?;
        rest.get(..end)?.parse().ok()
    });
    match said {
        Some(version) => Ok(version),
        None => serde_json::from_str::<Versioned>(body).map(|versioned| versioned.v),
    }
}

/// The body of an entity: its JSON text with the version in front. The stored types are plain structs with string keys,
/// which always serialise; anything else becomes `null`, which every back end refuses as "not an object".
pub(super) fn body_of<T: Entity>(value: &T) -> String {
    splice(T::VERSION, value).unwrap_or_else(|| "null".into())
}

fn splice<T: Serialize>(version: u32, value: &T) -> Option<String> {
    // Most entities fit, and what does not grow is not copied.
    let mut text = Vec::with_capacity(1_024);
    write!(text, "{PREFIX}{version}").ok()?;
    let at = text.len();
    serde_json::to_writer(&mut text, value).ok()?;
    // The value's own opening brace becomes the comma after the version, or goes when nothing follows it.
    match (text.get(at), text.get(at + 1)) {
        (Some(b'{'), Some(b'}')) => {
            text.remove(at);
        }
        (Some(b'{'), _) => *text.get_mut(at)? = b',',
        _ => return None,
    }
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::core::client::{
        database::{Changeset, WriteOp},
        schema,
    };

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Thing {
        n: u32,
    }

    impl Entity for Thing {
        const NAME: &'static str = "thing";
        const VERSION: u32 = 3;
        const COLLECTION: Collection = schema::META;
        fn document_id(&self) -> String {
            "thing".into()
        }
        fn upgrade(from: u32, mut body: Value) -> Result<Value, serde_json::Error> {
            // Version 2 counted in tens; version 1 is forgotten.
            match (from, body.get("tens").and_then(Value::as_u64)) {
                (2, Some(tens)) => {
                    body["n"] = (tens * 10).into();
                    Ok(body)
                }
                _ => Err(serde_json::Error::custom("too old")),
            }
        }
    }

    fn read(body: &str) -> Result<Thing> {
        let document = Document { id: "thing".into(), version: 7, body: body.into() };
        document.decode::<Thing>().map(|stored| stored.value)
    }

    #[test]
    fn what_is_written_carries_its_version_and_comes_back() {
        let mut changes = Changeset::new();
        changes.insert(&Thing { n: 5 }).replace(1, &Thing { n: 6 });
        let bodies: Vec<_> = changes
            .writes
            .iter()
            .map(|write| match &write.op {
                WriteOp::Insert { body } | WriteOp::Replace { body, .. } => body.as_str(),
                _ => "",
            })
            .collect();
        assert_eq!(bodies, [r#"{"v":3,"n":5}"#, r#"{"v":3,"n":6}"#]);
        assert_eq!(read(bodies[0]).unwrap(), Thing { n: 5 });
    }

    #[test]
    fn older_versions_are_upgraded_and_newer_ones_refused() {
        assert_eq!(read(r#"{"v":2,"tens":4}"#).unwrap(), Thing { n: 40 });
        assert!(matches!(read(r#"{"v":1,"n":4}"#), Err(DatabaseError::Damaged { .. })));
        // One without a version is of the first.
        assert!(matches!(read(r#"{"n":4}"#), Err(DatabaseError::Damaged { .. })));
        let refused = read(r#"{"v":4,"n":4}"#).unwrap_err();
        assert!(matches!(refused, DatabaseError::TooNew { found: 4, known: 3, .. }));
        assert!(refused.to_string().contains("newer release"), "{refused}");
    }

    #[test]
    fn the_place_and_the_spelling_of_the_version_do_not_matter() {
        assert_eq!(read(r#"{"n":4,"v":3}"#).unwrap(), Thing { n: 4 });
        assert_eq!(read(r#"{ "v" : 3 , "n":4}"#).unwrap(), Thing { n: 4 });
        assert!(matches!(read(r#"{"n":4,"v":9}"#), Err(DatabaseError::TooNew { .. })));
        assert!(matches!(read(r#"{"v":"x","n":4}"#), Err(DatabaseError::Damaged { .. })));
        assert!(matches!(read(r#"{"v":3"#), Err(DatabaseError::Damaged { .. })));
    }

    #[test]
    fn what_is_no_object_is_not_spliced() {
        assert_eq!(splice(1, &serde_json::json!({})).as_deref(), Some(r#"{"v":1}"#));
        assert_eq!(splice(1, &serde_json::json!([1])), None);
        assert_eq!(splice(1, &5), None);
    }
}
