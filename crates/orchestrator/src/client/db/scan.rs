//! Reads and changes single fields of a JSON object's text without building the object. The texts were checked when they
//! were stored; on anything else these functions find nothing, and never panic.

use super::value::Key;

/// One member of an object.
pub(super) struct Member<'a> {
    /// What stands between the name's quotes.
    pub(super) name: &'a str,
    /// Whether the name is spelt with escapes.
    escaped: bool,
    /// Where the value's text begins.
    pub(super) start: usize,
    /// Where it ends.
    pub(super) end: usize,
}

/// Goes through the members of the object that `text` is.
pub(super) struct Members<'a> {
    text: &'a str,
    at: usize,
    /// How deep the values so far nest, below the object itself.
    deepest: usize,
}

impl<'a> Members<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let at = skip_space(text.as_bytes(), 0);
        // Behind the brace; what is no object has no members.
        let at = if text.as_bytes().get(at) == Some(&b'{') { at + 1 } else { text.len() };
        Self { text, at, deepest: 0 }
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let mut at = skip_space(bytes, self.at);
        if bytes.get(at) == Some(&b',') {
            at = skip_space(bytes, at + 1);
        }
        if bytes.get(at) != Some(&b'"') {
            return None;
        }
        let (after, escaped) = skip_string(bytes, at);
        let name = self.text.get(at + 1..after.checked_sub(1)?)?;
        let colon = skip_space(bytes, after);
        if bytes.get(colon) != Some(&b':') {
            return None;
        }
        let start = skip_space(bytes, colon + 1);
        let end = skip_value(bytes, start, &mut self.deepest);
        self.at = end;
        Some(Member { name, escaped, start, end })
    }
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// From an opening quote to behind the closing one; with whether there are escapes between them.
fn skip_string(bytes: &[u8], at: usize) -> (usize, bool) {
    let (mut at, mut escaped) = (at + 1, false);
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(found) = memchr::memchr2(b'"', b'\\', rest) else { return (bytes.len().max(at), escaped) };
        at += found;
        if bytes.get(at) == Some(&b'"') {
            return (at + 1, escaped);
        }
        (at, escaped) = (at + 2, true);
    }
}

fn skip_value(bytes: &[u8], mut at: usize, deepest: &mut usize) -> usize {
    match bytes.get(at) {
        Some(b'"') => skip_string(bytes, at).0,
        Some(b'{' | b'[') => {
            let mut depth = 0_usize;
            loop {
                match bytes.get(at) {
                    None => return at,
                    Some(b'"') => {
                        at = skip_string(bytes, at).0;
                        continue;
                    }
                    Some(b'{' | b'[') => {
                        depth += 1;
                        *deepest = depth.max(*deepest);
                    }
                    Some(b'}' | b']') if depth == 1 => return at + 1,
                    Some(b'}' | b']') => depth -= 1,
                    Some(_) => {}
                }
                at += 1;
            }
        }
        _ => {
            while !matches!(bytes.get(at), None | Some(b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')) {
                at += 1;
            }
            at
        }
    }
}

fn is_named(member: &Member<'_>, wanted: &str) -> bool {
    if !member.escaped {
        return member.name == wanted;
    }
    unescape(member.name).is_some_and(|name| name == wanted)
}

/// The text that stands between quotes; `None` when its escapes are wrong.
pub(super) fn unescape(inner: &str) -> Option<String> {
    serde_json::from_str(&format!("\"{inner}\"")).ok()
}

/// The key of a value's text.
pub(super) fn key_of(raw: &str) -> Key {
    match raw.as_bytes().first() {
        Some(b'"') => {
            let inner = raw.get(1..raw.len() - 1).unwrap_or_default();
            if inner.contains('\\') {
                unescape(inner).map_or(Key::Other, Key::Text)
            } else {
                Key::Text(inner.to_owned())
            }
        }
        Some(b't') => Key::Bool(true),
        Some(b'f') => Key::Bool(false),
        Some(b'n') | None => Key::Null,
        // The one number of integer form that is none: JSON readers keep its sign, as a fraction.
        Some(b'-') if raw == "-0" => Key::Other,
        Some(_) => raw.parse().map_or(Key::Other, Key::Int),
    }
}

/// The key at a dotted path.
pub(crate) fn key(text: &str, path: &str) -> Key {
    let mut text = text;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        // The last of equal names counts, as for every reader that builds a map.
        let Some(found) = Members::new(text).filter(|member| is_named(member, part)).last() else {
            return Key::Null;
        };
        text = text.get(found.start..found.end).unwrap_or_default();
        if parts.peek().is_none() {
            return key_of(text);
        }
    }
    Key::Null
}

/// The keys at many paths, in one pass for those without dots.
pub(crate) fn keys(text: &str, paths: &[&str]) -> Vec<Key> {
    keys_and_depth(text, paths).0
}

/// The keys at many paths, and how deep the text's values nest below the outermost object.
pub(super) fn keys_and_depth(text: &str, paths: &[&str]) -> (Vec<Key>, usize) {
    let mut found: Vec<Key> =
        paths.iter().map(|path| if path.contains('.') { key(text, path) } else { Key::Null }).collect();
    let mut members = Members::new(text);
    for member in members.by_ref() {
        for (path, slot) in paths.iter().zip(&mut found) {
            if is_named(&member, path) {
                *slot = key_of(text.get(member.start..member.end).unwrap_or_default());
            }
        }
    }
    (found, members.deepest)
}

/// Where the values of some fields of the outermost object lie in its text.
pub(super) struct Spans {
    /// For each field where its value begins and ends; the last of equal names counts.
    pub(super) fields: Vec<Option<(usize, usize)>>,
    /// Where a new member goes: behind the last one, or behind the opening brace.
    end: usize,
    /// Whether the object has no members.
    empty: bool,
}

/// Finds fields in one pass. Paths are plain names here.
pub(super) fn spans<'a>(text: &str, names: impl ExactSizeIterator<Item = &'a str> + Clone) -> Spans {
    let mut fields = vec![None; names.len()];
    let mut end = None;
    for member in Members::new(text) {
        end = Some(member.end);
        for (name, span) in names.clone().zip(&mut fields) {
            if is_named(&member, name) {
                *span = Some((member.start, member.end));
            }
        }
    }
    let empty = end.is_none();
    Spans { fields, end: end.unwrap_or_else(|| skip_space(text.as_bytes(), 0) + 1), empty }
}

/// The text with other values at these places; fields that it lacks are added. `fields` are those that were looked for.
pub(super) fn splice<'a>(
    text: &str,
    spans: &Spans,
    fields: impl Iterator<Item = (&'a str, &'a str)>,
) -> String {
    let mut edits: Vec<(usize, usize, &str)> = Vec::with_capacity(spans.fields.len() + 1);
    let mut tail = String::new();
    for ((name, value), span) in fields.zip(&spans.fields) {
        match span {
            Some((from, to)) => edits.push((*from, *to, value)),
            None => {
                if !spans.empty || !tail.is_empty() {
                    tail.push(',');
                }
                tail.push('"');
                tail.push_str(name);
                tail.push_str("\":");
                tail.push_str(value);
            }
        }
    }
    edits.push((spans.end, spans.end, &tail));
    edits.sort_by_key(|(from, to, _)| (*from, *to));
    let mut out = String::with_capacity(text.len() + 128);
    let mut at = 0;
    for (from, to, value) in &edits {
        out.push_str(text.get(at..*from).unwrap_or_default());
        out.push_str(value);
        at = *to;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

/// The text with fields of the outermost object set to new values. Paths are plain names here, each at most once.
pub(crate) fn set(text: &str, fields: &[(&str, String)]) -> String {
    let spans = spans(text, fields.iter().map(|(name, _)| *name));
    splice(text, &spans, fields.iter().map(|(name, value)| (*name, value.as_str())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;
    use crate::client::db::value;

    fn json(depth: u32) -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(Value::from),
            "[ -~\\\\\"{}é\u{0}\n]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(depth, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ab\"\\\\]{0,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Map<String, Value>> {
        prop::collection::btree_map("[abc\"\\\\]{1,2}", json(3), 0..6)
            .prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn finds_what_a_reader_of_the_whole_finds(
            body in object(), pretty in any::<bool>(), path in "[abc]{1,2}(\\.[ab]{1,2}){0,2}",
        ) {
            let text = if pretty {
                serde_json::to_string_pretty(&body).unwrap()
            } else {
                serde_json::to_string(&body).unwrap()
            };
            prop_assert_eq!(key(&text, &path), value::key(&body, &path));
            prop_assert_eq!(keys(&text, &[path.as_str(), "a"]), vec![value::key(&body, &path), value::key(&body, "a")]);
        }

        #[test]
        fn sets_what_a_reader_of_the_whole_sets(
            body in object(), pretty in any::<bool>(), a in any::<i64>(), b in "[ -~]{0,6}",
        ) {
            let text = if pretty {
                serde_json::to_string_pretty(&body).unwrap()
            } else {
                serde_json::to_string(&body).unwrap()
            };
            let b = Value::from(b);
            let changed = set(&text, &[("a", a.to_string()), ("new", b.to_string())]);
            let mut wanted: Map<String, Value> = serde_json::from_str(&text).unwrap();
            wanted.insert("a".into(), a.into());
            wanted.insert("new".into(), b);
            prop_assert_eq!(serde_json::from_str::<Map<String, Value>>(&changed).unwrap(), wanted);
        }

        #[test]
        fn never_panics(text in "[{}\\[\\]\",:\\\\ a-c0é]{0,24}", path in "[abc](\\.[abc])?") {
            key(&text, &path);
            keys(&text, &[&path]);
            set(&text, &[("a", "1".into())]);
        }
    }

    /// The default reader of fractions is off by one in the last place now and then: texts are compared as read, never
    /// as they were before they were written.
    #[test]
    fn a_fraction_stays_as_it_is_written() {
        let text = r#"{"b":[{"":-195911126.61249614}]}"#;
        let changed = set(text, &[("a", "1".into())]);
        assert_eq!(changed, r#"{"b":[{"":-195911126.61249614}],"a":1}"#);
    }

    #[test]
    fn the_last_of_equal_names_counts() {
        let text = r#"{"a":1,"a":{"b":2},"n":-0,"e":1e2,"\u0061b":"\u0041"}"#;
        assert_eq!(key(text, "a.b"), Key::Int(2));
        assert_eq!(key(text, "a"), Key::Other);
        assert_eq!(key(text, "n"), Key::Other);
        assert_eq!(key(text, "e"), Key::Other);
        assert_eq!(key(text, "ab"), Key::Text("A".into()));
    }
}
