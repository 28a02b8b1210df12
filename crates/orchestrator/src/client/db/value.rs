//! How fields of documents are read, compared and changed: one meaning for every back end that is written here.

use std::{borrow::Cow, cmp::Ordering};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::scan;
use crate::core::client::{
    database::{
        Changeset, Claim, Cursor, DatabaseError, Expect, Filter, Query, Result, Scalar, Sort, WriteOp,
    },
    schema::Collection,
};

/// The most documents that one page or claim may ask for.
pub(crate) const MAX_LIMIT: usize = 10_000;
/// The most values that all lists of one filter may hold.
const MAX_VALUES: usize = 10_000;
/// How deep filters may nest.
const MAX_DEPTH: usize = 16;
/// The longest id, in bytes.
const MAX_ID: usize = 1_024;

/// A field's value as indexes and sorts see it. The order of the variants is the order of a sort over mixed types.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Key {
    /// Null or missing.
    Null,
    /// An integer that fits 64 bits with sign.
    Int(i64),
    /// A text, ordered by its bytes.
    Text(String),
    /// A boolean.
    Bool(bool),
    /// A fraction, a list or an object: no filter matches it, and a sort puts it last.
    Other,
}

impl From<&Value> for Key {
    fn from(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => number.as_i64().map_or(Self::Other, Self::Int),
            Value::String(text) => Self::Text(text.clone()),
            Value::Array(_) | Value::Object(_) => Self::Other,
        }
    }
}

impl From<&Scalar> for Key {
    fn from(scalar: &Scalar) -> Self {
        match scalar {
            Scalar::Null => Self::Null,
            Scalar::Bool(value) => Self::Bool(*value),
            Scalar::Int(value) => Self::Int(*value),
            Scalar::Text(text) => Self::Text(text.clone()),
        }
    }
}

impl Key {
    /// The key as a cursor carries it. [`Key::Other`] becomes an empty list, which reads back as itself.
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Int(value) => (*value).into(),
            Self::Text(text) => text.clone().into(),
            Self::Bool(value) => (*value).into(),
            Self::Other => Value::Array(Vec::new()),
        }
    }

    /// Whether it is this value.
    fn is(&self, wanted: &Scalar) -> bool {
        match wanted {
            Scalar::Null => *self == Self::Null,
            wanted => self.compare(wanted) == Some(Ordering::Equal),
        }
    }

    /// How it compares with a value, when both are of one type that has an order.
    fn compare(&self, wanted: &Scalar) -> Option<Ordering> {
        match (self, wanted) {
            (Self::Int(found), Scalar::Int(wanted)) => Some(found.cmp(wanted)),
            (Self::Text(found), Scalar::Text(wanted)) => Some(found.cmp(wanted)),
            (Self::Bool(found), Scalar::Bool(wanted)) => Some(found.cmp(wanted)),
            _ => None,
        }
    }
}

/// The value at a dotted path, if there is one.
#[cfg(test)]
pub(crate) fn pick<'a>(body: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut parts = path.split('.');
    let mut value = body.get(parts.next()?)?;
    for part in parts {
        value = value.as_object()?.get(part)?;
    }
    Some(value)
}

/// The key at a dotted path.
#[cfg(test)]
pub(crate) fn key(body: &Map<String, Value>, path: &str) -> Key {
    pick(body, path).map_or(Key::Null, Key::from)
}

/// Refuses what is no JSON object, without building it.
///
/// # Errors
/// [`DatabaseError::Invalid`] when it is no JSON object.
pub(crate) fn check_object(collection: Collection, id: &str, body: &str) -> Result<()> {
    let invalid = |why: &dyn std::fmt::Display| {
        DatabaseError::Invalid(format!("{collection}/{id} is not a JSON object: {why}"))
    };
    if !body.trim_start().starts_with('{') {
        return Err(invalid(&"it does not begin with a brace"));
    }
    serde_json::from_str::<Checked>(body).map(|_| ()).map_err(|error| invalid(&error))
}

/// Any JSON value, read as strictly as one that is kept.
struct Checked;

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Self;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Self, A::Error> {
        while list.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self, A::Error> {
        while map.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

/// Puts a value at a dotted path; objects on the way are made.
fn put(body: &mut Map<String, Value>, path: &str, value: Value) -> Result<()> {
    match path.split_once('.') {
        None => {
            body.insert(path.to_owned(), value);
            Ok(())
        }
        Some((first, rest)) => match body.entry(first).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(inner) => put(inner, rest, value),
            _ => Err(DatabaseError::Invalid(format!("`{first}` is not an object"))),
        },
    }
}

/// What a claim makes of one document's text.
///
/// # Errors
/// [`DatabaseError::Invalid`] when a field to add to is no integer, or the sum does not fit.
pub(crate) fn change(text: &str, set: &[(String, Scalar)], increment: &[(String, i64)]) -> Result<String> {
    let mut fields: Vec<(&str, Value)> = Vec::with_capacity(set.len() + increment.len());
    for (field, scalar) in set {
        fields.push((field, Key::from(scalar).to_json()));
    }
    for (field, delta) in increment {
        let before = fields.iter().rev().find(|(name, _)| name == field).map(|(_, value)| Key::from(value));
        let present = match before.unwrap_or_else(|| scan::key(text, field)) {
            Key::Null => 0,
            Key::Int(value) => value,
            _ => return Err(DatabaseError::Invalid(format!("`{field}` is not an integer"))),
        };
        fields.push((field, sum(field, present, *delta)?.into()));
    }
    with_fields(text, fields)
}

/// What a claim changes, worked out once for all documents that it takes: fields of the outermost object, each named
/// once. Other claims go through [`change`].
#[derive(Debug)]
pub(crate) struct PlainChange {
    fields: Vec<(String, Edit)>,
}

/// What becomes of one field.
#[derive(Debug)]
enum Edit {
    /// It gets this value, here as JSON text, too.
    Set(String, Key),
    /// This is added to it.
    Add(i64),
}

impl PlainChange {
    /// The change, if it is a plain one.
    pub(crate) fn new(set: &[(String, Scalar)], increment: &[(String, i64)]) -> Option<Self> {
        let set = set.iter().map(|(field, scalar)| {
            let key = Key::from(scalar);
            (field.clone(), Edit::Set(key.to_json().to_string(), key))
        });
        let add = increment.iter().map(|(field, delta)| (field.clone(), Edit::Add(*delta)));
        let fields: Vec<_> = set.chain(add).collect();
        let plain = fields.iter().enumerate().all(|(place, (name, _))| {
            !name.contains('.') && fields.iter().take(place).all(|(other, _)| other != name)
        });
        plain.then_some(Self { fields })
    }

    /// Where a field stands among those that change.
    pub(crate) fn position(&self, field: &str) -> Option<usize> {
        self.fields.iter().position(|(name, _)| name == field)
    }

    /// What it makes of one document's text, and the keys of the fields that change, in their order.
    ///
    /// # Errors
    /// As [`change`].
    pub(crate) fn apply(&self, text: &str) -> Result<(String, Vec<Key>)> {
        let spans = scan::spans(text, self.fields.iter().map(|(name, _)| name.as_str()));
        let mut keys = Vec::with_capacity(self.fields.len());
        let mut sums = Vec::with_capacity(self.fields.len());
        for ((name, edit), span) in self.fields.iter().zip(&spans.fields) {
            let (key, text) = match edit {
                Edit::Set(_, key) => (key.clone(), String::new()),
                Edit::Add(delta) => {
                    let found = span
                        .map_or(Key::Null, |(from, to)| scan::key_of(text.get(from..to).unwrap_or_default()));
                    let present = match found {
                        Key::Null => 0,
                        Key::Int(value) => value,
                        _ => return Err(DatabaseError::Invalid(format!("`{name}` is not an integer"))),
                    };
                    let sum = sum(name, present, *delta)?;
                    (Key::Int(sum), sum.to_string())
                }
            };
            keys.push(key);
            sums.push(text);
        }
        let values = self.fields.iter().zip(&sums).map(|((name, edit), sum)| match edit {
            Edit::Set(text, _) => (name.as_str(), text.as_str()),
            Edit::Add(_) => (name.as_str(), sum.as_str()),
        });
        Ok((scan::splice(text, &spans, values), keys))
    }
}

/// The text with the fields set, the last of equal names counting.
fn with_fields(text: &str, fields: Vec<(&str, Value)>) -> Result<String> {
    let plain = fields.iter().enumerate().all(|(place, (name, _))| {
        !name.contains('.') && fields.iter().take(place).all(|(other, _)| other != name)
    });
    if plain {
        let fields: Vec<_> = fields.into_iter().map(|(name, value)| (name, value.to_string())).collect();
        return Ok(scan::set(text, &fields));
    }
    let invalid = |error: serde_json::Error| DatabaseError::Invalid(error.to_string());
    let mut body: Map<String, Value> = serde_json::from_str(text).map_err(invalid)?;
    for (field, value) in fields {
        put(&mut body, field, value)?;
    }
    serde_json::to_string(&body).map_err(invalid)
}

/// What a guarded addition makes of one document's text.
///
/// # Errors
/// [`DatabaseError::BelowFloor`]; [`DatabaseError::Invalid`] when the field is no integer, or the sum does not fit.
pub(crate) fn add(
    (collection, id): (Collection, &str),
    text: &str,
    field: &str,
    delta: i64,
    floor: i64,
) -> Result<String> {
    let Key::Int(present) = scan::key(text, field) else {
        return Err(DatabaseError::Invalid(format!("`{field}` of {collection}/{id} is not an integer")));
    };
    let after = sum(field, present, delta)?;
    if after < floor {
        return Err(DatabaseError::BelowFloor { collection, id: id.to_owned(), field: field.to_owned() });
    }
    with_fields(text, vec![(field, after.into())])
}

fn sum(field: &str, present: i64, delta: i64) -> Result<i64> {
    present
        .checked_add(delta)
        .ok_or_else(|| DatabaseError::Invalid(format!("`{field}` would not fit 64 bits")))
}

/// Whether a document of this version is as a write expects it. `field` finds the key at a path.
pub(crate) fn holds<'a>(expect: &Expect, version: u64, field: impl Fn(&str) -> Cow<'a, Key>) -> bool {
    match expect {
        Expect::Version(wanted) => version == *wanted,
        Expect::Field(path, wanted) => field(path).is(wanted),
    }
}

/// Whether a document matches. `field` finds the key at a path.
pub(crate) fn matches<'a>(filter: &Filter, id: &str, field: &impl Fn(&str) -> Cow<'a, Key>) -> bool {
    let compare = |path: &String, wanted: &Scalar, holds: fn(Ordering) -> bool| {
        field(path).compare(wanted).is_some_and(holds)
    };
    match filter {
        Filter::All => true,
        Filter::Eq(path, wanted) => field(path).is(wanted),
        Filter::Lt(path, wanted) => compare(path, wanted, Ordering::is_lt),
        Filter::Le(path, wanted) => compare(path, wanted, Ordering::is_le),
        Filter::Gt(path, wanted) => compare(path, wanted, Ordering::is_gt),
        Filter::Ge(path, wanted) => compare(path, wanted, Ordering::is_ge),
        Filter::In(path, wanted) => {
            let found = field(path);
            wanted.iter().any(|wanted| found.is(wanted))
        }
        Filter::Ids(ids) => ids.iter().any(|wanted| wanted == id),
        Filter::IdPrefix(prefix) => id.starts_with(prefix),
        Filter::And(all) => all.iter().all(|filter| matches(filter, id, field)),
        Filter::Or(any) => any.iter().any(|filter| matches(filter, id, field)),
    }
}

/// The field that a sort looks at.
pub(crate) fn sort_field(sort: &Sort) -> Option<&str> {
    match sort {
        Sort::Id | Sort::IdDescending => None,
        Sort::Field(field) | Sort::FieldDescending(field) => Some(field),
    }
}

/// Whether a sort goes downwards.
pub(crate) const fn descending(sort: &Sort) -> bool {
    matches!(sort, Sort::IdDescending | Sort::FieldDescending(_))
}

/// Where a cursor stands in a sort.
pub(crate) fn cursor_position(sort: &Sort, cursor: &Cursor) -> (Key, String) {
    (sort_field(sort).map_or(Key::Null, |_| Key::from(&cursor.key)), cursor.id.clone())
}

/// The least text above all that start with `prefix`.
pub(crate) fn after_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // The gap of the surrogates is no place for a char.
        let next = if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// Refuses limits outside 1 to [`MAX_LIMIT`].
pub(crate) fn check_limit(limit: usize) -> Result<()> {
    if (1..=MAX_LIMIT).contains(&limit) {
        return Ok(());
    }
    Err(DatabaseError::Invalid(format!("limit {limit} is not within 1 and {MAX_LIMIT}")))
}

/// Refuses ids that no back end stores.
pub(crate) fn check_id(id: &str) -> Result<()> {
    if id.is_empty() || id.len() > MAX_ID || id.contains('\0') {
        return Err(DatabaseError::Invalid(format!("an id has 1 to {MAX_ID} bytes and no NUL")));
    }
    Ok(())
}

/// Refuses paths that are no dotted names of letters, digits, `_` and `-`.
pub(crate) fn check_path(path: &str) -> Result<()> {
    let name = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    if path.len() <= 256 && path.split('.').all(name) {
        return Ok(());
    }
    let shown: String = path.chars().take(80).collect();
    Err(DatabaseError::Invalid(format!("`{shown}` is not a dotted path")))
}

/// Refuses sorts over fields that can't be.
pub(crate) fn check_sort(sort: &Sort) -> Result<()> {
    sort_field(sort).map_or(Ok(()), check_path)
}

/// Refuses filters with bad paths, or that are too big.
pub(crate) fn check_filter(filter: &Filter) -> Result<()> {
    fn walk(filter: &Filter, depth: usize, values: &mut usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(DatabaseError::Invalid(format!("a filter nests more than {MAX_DEPTH} deep")));
        }
        match filter {
            Filter::All => {}
            Filter::Eq(path, _)
            | Filter::Lt(path, _)
            | Filter::Le(path, _)
            | Filter::Gt(path, _)
            | Filter::Ge(path, _) => {
                *values += 1;
                check_path(path)?;
            }
            Filter::In(path, list) => {
                *values += list.len();
                check_path(path)?;
            }
            Filter::Ids(ids) => *values += ids.len(),
            Filter::IdPrefix(_) => *values += 1,
            Filter::And(parts) | Filter::Or(parts) => {
                *values += 1;
                for part in parts {
                    walk(part, depth + 1, values)?;
                }
            }
        }
        if *values > MAX_VALUES {
            return Err(DatabaseError::Invalid(format!("a filter holds more than {MAX_VALUES} values")));
        }
        Ok(())
    }
    walk(filter, 0, &mut 0)
}

/// Refuses claims with bad limits, filters or paths.
pub(crate) fn check_claim(claim: &Claim) -> Result<()> {
    check_limit(claim.limit)?;
    check_filter(&claim.filter)?;
    check_sort(&claim.sort)?;
    let incremented = claim.increment.iter().map(|(path, _)| path);
    claim.set.iter().map(|(path, _)| path).chain(incremented).try_for_each(|path| check_path(path))
}

/// Refuses queries with bad limits, filters or paths.
pub(crate) fn check_query(query: &Query) -> Result<()> {
    check_limit(query.limit)?;
    check_filter(&query.filter)?;
    check_sort(&query.sort)
}

/// Refuses changesets with bad ids or paths; bodies are looked at where they are read.
pub(crate) fn check_changeset(changeset: &Changeset) -> Result<()> {
    for write in &changeset.writes {
        check_id(&write.id)?;
        match &write.op {
            WriteOp::Insert { .. } => {}
            WriteOp::Add { field, .. } => check_path(field)?,
            WriteOp::Replace { expect, .. } | WriteOp::Delete { expect } | WriteOp::Require { expect } => {
                if let Expect::Field(path, _) = expect {
                    check_path(path)?;
                }
            }
        }
    }
    Ok(())
}

/// What a write answers whose unique key is not a plain value.
pub(crate) fn not_indexable(collection: Collection, index: &str) -> DatabaseError {
    DatabaseError::Invalid(format!(
        "the fields of the unique index {index} of {collection} must be null, booleans, integers or texts"
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scalar() -> impl Strategy<Value = Scalar> {
        prop_oneof![
            Just(Scalar::Null),
            any::<bool>().prop_map(Scalar::Bool),
            any::<i64>().prop_map(Scalar::Int),
            "[a-z\"\\\\é]{0,4}".prop_map(Scalar::Text),
        ]
    }

    fn body() -> impl Strategy<Value = Map<String, Value>> {
        let value = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "[a-z\"\\\\]{0,4}".prop_map(Value::from),
            Just(serde_json::json!({ "a": [1, "b"] })),
        ];
        prop::collection::btree_map("[a-e]{1,2}", value, 0..6).prop_map(|map| map.into_iter().collect())
    }

    proptest! {
        #[test]
        fn a_plain_change_makes_what_the_general_one_makes(
            body in body(),
            set in prop::collection::vec(("[a-e]{1,2}", scalar()), 0..4),
            increment in prop::collection::vec(("[a-e]{1,2}", any::<i64>()), 0..3),
        ) {
            let Some(plain) = PlainChange::new(&set, &increment) else { return Ok(()) };
            let text = serde_json::to_string(&body).unwrap();
            match (plain.apply(&text), change(&text, &set, &increment)) {
                (Ok((made, keys)), Ok(wanted)) => {
                    prop_assert_eq!(&made, &wanted);
                    for (place, field) in set.iter().map(|(f, _)| f).chain(increment.iter().map(|(f, _)| f)).enumerate() {
                        prop_assert_eq!(plain.position(field), Some(place));
                        prop_assert_eq!(&keys[place], &scan::key(&made, field));
                    }
                }
                (Err(made), Err(wanted)) => prop_assert_eq!(made.to_string(), wanted.to_string()),
                (made, wanted) => prop_assert!(false, "{:?} instead of {:?}", made, wanted),
            }
        }
    }

    #[test]
    fn a_field_named_twice_or_by_a_path_is_no_plain_change() {
        let one = || vec![("a".to_owned(), Scalar::Null)];
        assert!(PlainChange::new(&one(), &[("b".to_owned(), 1)]).is_some());
        assert!(PlainChange::new(&one(), &[("a".to_owned(), 1)]).is_none());
        assert!(PlainChange::new(&[("a.b".to_owned(), Scalar::Null)], &[]).is_none());
    }
}
