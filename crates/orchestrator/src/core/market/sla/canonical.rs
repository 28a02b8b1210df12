//! Canonical bytes: JSON with sorted keys, no white space, integers only and ASCII escapes, behind a line that names the
//! domain of the signature. In Python: `b"<domain>\n" + json.dumps(x, sort_keys=True, separators=(",", ":")).encode()`
//! with every key a string.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::core::market::evidence::ReportStatement;

/// The first line of what an oracle signs.
pub const REPORT_DOMAIN: &str = "orchestrator.evidence.v1";

/// The bytes that an oracle signs.
///
/// # Errors
/// [`NotCanonical`] never happens for statements, which hold integers and strings only.
pub fn statement_bytes(statement: &ReportStatement) -> Result<Vec<u8>, NotCanonical> {
    canonical(REPORT_DOMAIN, statement)
}

/// Why a value has no canonical form.
#[derive(Debug, thiserror::Error)]
#[error("only integers, strings, booleans, lists and objects have a canonical form")]
pub struct NotCanonical;

/// The canonical bytes of a value behind its domain line.
///
/// # Errors
/// [`NotCanonical`] for values with fractions.
pub fn canonical<T: Serialize>(domain: &str, value: &T) -> Result<Vec<u8>, NotCanonical> {
    let value = serde_json::to_value(value).map_err(|_| NotCanonical)?;
    let mut out = format!("{domain}\n");
    write_value(&mut out, &value)?;
    Ok(out.into_bytes())
}

fn write_value(out: &mut String, value: &Value) -> Result<(), NotCanonical> {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(yes) => out.push_str(if *yes { "true" } else { "false" }),
        Value::Number(number) if number.is_f64() => return Err(NotCanonical),
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Value::String(text) => write_text(out, text),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(out, item)?;
            }
            out.push(']');
        }
        Value::Object(fields) => {
            // Sorted here, because a feature of the JSON crate may keep the order of insertion.
            let mut keys: Vec<_> = fields.iter().collect();
            keys.sort_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (i, (key, item)) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_text(out, key);
                out.push(':');
                write_value(out, item)?;
            }
            out.push('}');
        }
    }
    Ok(())
}

fn write_text(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            _ => {
                let mut units = [0_u16; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_pythons_json() {
        // json.dumps({"b":[1,-2],"a":"é\n\"😀\x7f","10":True,"9":None}, sort_keys=True, separators=(",",":"))
        let value = serde_json::json!({"b": [1, -2], "a": "é\n\"😀\u{7f}", "10": true, "9": null});
        let bytes = canonical("d", &value).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "d\n{\"10\":true,\"9\":null,\"a\":\"\\u00e9\\n\\\"\\ud83d\\ude00\\u007f\",\"b\":[1,-2]}"
        );
        assert!(canonical("d", &1.5).is_err());
    }
}
