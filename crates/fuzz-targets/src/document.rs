//! Stored documents: of this version, of older and newer ones, damaged ones.

use orchestrator::{core::client::database::DatabaseError, metadata::CODECS};
use serde_json::Value;

/// A document that can be read is written, read and written again as the same, under the same id and in its version; one
/// that can't be says why.
///
/// The input is the entity's name, a line feed, and the body.
pub fn document(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((name, body)) = text.split_once('\n') else { return };
    let Some(codec) = CODECS.iter().find(|codec| codec.name == name) else { return };
    let (id, written) = match (codec.rewrite)(body) {
        Ok(written) => written,
        Err(DatabaseError::TooNew { found, known, .. }) => {
            assert!(found > known && known == codec.version);
            return;
        }
        Err(error) => {
            assert!(matches!(error, DatabaseError::Damaged { .. }), "{error:?}");
            return;
        }
    };
    let value: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(value["v"], codec.version);
    let again = (codec.rewrite)(&written).unwrap_or_else(|error| panic!("{name} {written}: {error:?}"));
    assert_eq!(again, (id, written), "{name}");
}
