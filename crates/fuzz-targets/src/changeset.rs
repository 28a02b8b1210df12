//! Changesets on the database in memory, which the others are compared with: against a model of a few lines.

use std::collections::BTreeMap;

use arbitrary::{Result, Unstructured};
use orchestrator::{
    client::db::memory::MemoryDatabase,
    core::client::{
        database::{
            Changeset, Committer, DatabaseError, Expect, Filter, Query, Reader, Scalar, Sort, Write, WriteOp,
        },
        schema::{Collection, JOBS, TRANSFERS, UNITS},
    },
};
use serde_json::{Map, Value};

use crate::market::block_on;

const COLLECTIONS: [Collection; 3] = [JOBS, TRANSFERS, UNITS];
/// Fields with a unique index over one and over two fields, a counter, and one inside of another.
const FIELDS: [&str; 6] = ["dedup", "kind", "domain", "idempotency_key", "free", "in.side"];

/// Changesets happen as a whole, in their order, and raise versions by one; what is found is what was written.
///
/// The input is a list of changesets.
pub fn changeset(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let database = MemoryDatabase::with_schema();
    let mut model = Model::default();
    block_on(async {
        while !input.is_empty() {
            let Ok(writes) = writes(&mut input) else { break };
            let expected = model.commit(&writes);
            let shown = format!("{writes:?} on {:?}", model.0);
            let found = database.commit(Changeset { writes }).await;
            assert_eq!(found.as_ref().err().map(name), expected.err(), "{shown}");
            model.compare(&database).await;
        }
    });
}

fn writes(input: &mut Unstructured<'_>) -> Result<Vec<Write>> {
    (0..input.int_in_range(0..=4_u8)?).map(|_| write(input)).collect()
}

fn write(input: &mut Unstructured<'_>) -> Result<Write> {
    let collection = *input.choose(&COLLECTIONS)?;
    let id = (*input.choose(&["a", "b", "c", "d", ""])?).to_owned();
    let op = match input.int_in_range(0..=9_u8)? {
        0..=3 => WriteOp::Insert { body: body(input)? },
        4..=5 => WriteOp::Replace { expect: expect(input)?, body: body(input)? },
        6..=7 => {
            let field = field(input)?;
            WriteOp::Add { field, delta: number(input)?, floor: number(input)? }
        }
        8 => WriteOp::Delete { expect: expect(input)? },
        _ => WriteOp::Require { expect: expect(input)? },
    };
    Ok(Write::new(collection, id, op))
}

fn field(input: &mut Unstructured<'_>) -> Result<String> {
    Ok((*input.choose(&FIELDS)?).to_owned())
}

fn number(input: &mut Unstructured<'_>) -> Result<i64> {
    Ok(*input.choose(&[0, 1, -1, 2, -3, 100, i64::MAX, i64::MIN])?)
}

fn scalar(input: &mut Unstructured<'_>) -> Result<Scalar> {
    Ok(match input.int_in_range(0..=3_u8)? {
        0 => Scalar::Null,
        1 => Scalar::Bool(input.arbitrary()?),
        2 => Scalar::Int(number(input)?),
        _ => Scalar::Text((*input.choose(&["", "x", "y"])?).to_owned()),
    })
}

fn expect(input: &mut Unstructured<'_>) -> Result<Expect> {
    Ok(match input.int_in_range(0..=2_u8)? {
        0 => Expect::Field(field(input)?, scalar(input)?),
        _ => Expect::Version(input.int_in_range(1..=4)?),
    })
}

fn body(input: &mut Unstructured<'_>) -> Result<String> {
    const VALUES: [&str; 11] =
        ["null", "true", "0", "1", "-1", "9223372036854775807", "0.5", "\"x\"", "\"y\"", "[]", "{}"];
    if input.ratio(1_u8, 16)? {
        return Ok((*input.choose(&["", "null", "[]", "{", "{\"a\":}", "{} {}"])?).to_owned());
    }
    let mut fields = Vec::new();
    for name in ["dedup", "kind", "domain", "idempotency_key", "free"] {
        if input.arbitrary()? {
            fields.push(format!("\"{name}\":{}", input.choose(&VALUES)?));
        }
    }
    if input.arbitrary()? {
        fields.push(format!("\"in\":{{\"side\":{}}}", input.choose(&VALUES)?));
    }
    Ok(format!("{{{}}}", fields.join(",")))
}

/// What an error is, without its particulars.
fn name(error: &DatabaseError) -> &'static str {
    match error {
        DatabaseError::Conflict { .. } => "conflict",
        DatabaseError::AlreadyExists { .. } => "exists",
        DatabaseError::Missing { .. } => "missing",
        DatabaseError::BelowFloor { .. } => "below",
        DatabaseError::Invalid(_) => "invalid",
        other => panic!("{other:?}"),
    }
}

type Body = Map<String, Value>;
type Rows = BTreeMap<(Collection, String), (u64, Body)>;

/// The documented meaning, plainly: every changeset works on a copy, which takes the place of the rows when all went well.
#[derive(Default)]
struct Model(Rows);

impl Model {
    fn commit(&mut self, writes: &[Write]) -> Result<(), &'static str> {
        for write in writes {
            well_formed(write)?;
        }
        let mut rows = self.0.clone();
        for write in writes {
            apply(&mut rows, write)?;
        }
        self.0 = rows;
        Ok(())
    }

    async fn compare(&self, database: &MemoryDatabase) {
        for collection in COLLECTIONS {
            let sorted = Query::new(collection).sort(Sort::Id).limit(10_000);
            let found = database.find(sorted).await.unwrap().documents;
            let found: Vec<_> = found
                .into_iter()
                .map(|d| (d.id, d.version, serde_json::from_str::<Body>(&d.body).unwrap()))
                .collect();
            let rows = self.0.iter().filter(|((of, _), _)| *of == collection);
            let expected: Vec<_> =
                rows.map(|((_, id), (version, body))| (id.clone(), *version, body.clone())).collect();
            assert_eq!(found, expected, "{collection}");
            for (field, wanted) in [("dedup", Scalar::Text("x".into())), ("free", Scalar::Int(1))] {
                let matching = expected.iter().filter(|(_, _, body)| holds(body, field, &wanted)).count();
                let counted = database.count(collection, Filter::Eq(field.into(), wanted)).await.unwrap();
                assert_eq!(counted, matching as u64, "{collection} {field}");
            }
        }
    }
}

/// What is wrong in itself is refused before anything is looked at.
fn well_formed(write: &Write) -> Result<(), &'static str> {
    if write.id.is_empty() {
        return Err("invalid");
    }
    let (WriteOp::Insert { body } | WriteOp::Replace { body, .. }) = &write.op else { return Ok(()) };
    let body: Body = serde_json::from_str(body).map_err(|_| "invalid")?;
    unique(write.collection, &body).map(drop)
}

/// The keys of a document in the unique index of its collection.
fn unique(collection: Collection, body: &Body) -> Result<Option<Vec<Value>>, &'static str> {
    let fields: &[&str] = match collection {
        JOBS => &["dedup"],
        TRANSFERS => &["domain", "idempotency_key"],
        _ => return Ok(None),
    };
    let keys: Vec<Value> =
        fields.iter().map(|field| pick(body, field).cloned().unwrap_or_default()).collect();
    if keys.first().is_none_or(Value::is_null) {
        return Ok(None);
    }
    let plain = |value: &Value| match value {
        Value::Number(number) => number.is_i64(),
        Value::Array(_) | Value::Object(_) => false,
        _ => true,
    };
    if keys.iter().all(plain) { Ok(Some(keys)) } else { Err("invalid") }
}

fn pick<'a>(body: &'a Body, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        None => body.get(path),
        Some((first, rest)) => pick(body.get(first)?.as_object()?, rest),
    }
}

fn holds(body: &Body, field: &str, wanted: &Scalar) -> bool {
    let found = pick(body, field).unwrap_or(&Value::Null);
    match wanted {
        Scalar::Null => found.is_null(),
        Scalar::Bool(value) => found.as_bool() == Some(*value),
        Scalar::Int(value) => found.as_i64() == Some(*value),
        Scalar::Text(text) => found.as_str() == Some(text),
    }
}

fn apply(rows: &mut Rows, write: &Write) -> Result<(), &'static str> {
    let at = (write.collection, write.id.clone());
    let row = rows.get(&at).cloned();
    let (version, mut body) = match (&write.op, row) {
        (WriteOp::Insert { .. }, Some(_)) => return Err("exists"),
        (WriteOp::Insert { .. }, None) => (0, Body::new()),
        (_, None) => return Err("missing"),
        (_, Some(row)) => row,
    };
    if let WriteOp::Replace { expect, .. } | WriteOp::Delete { expect } | WriteOp::Require { expect } =
        &write.op
    {
        let as_expected = match expect {
            Expect::Version(wanted) => version == *wanted,
            Expect::Field(field, wanted) => holds(&body, field, wanted),
        };
        if !as_expected {
            return Err("conflict");
        }
    }
    match &write.op {
        WriteOp::Insert { body: text } | WriteOp::Replace { body: text, .. } => {
            body = serde_json::from_str(text).map_err(|_| "invalid")?;
        }
        WriteOp::Add { field, delta, floor } => {
            let now = pick(&body, field).and_then(Value::as_i64).ok_or("invalid")?;
            let after = now.checked_add(*delta).ok_or("invalid")?;
            if after < *floor {
                return Err("below");
            }
            put(&mut body, field, after);
        }
        WriteOp::Delete { .. } => {
            rows.remove(&at);
            return Ok(());
        }
        WriteOp::Require { .. } => return Ok(()),
    }
    if let Some(keys) = unique(write.collection, &body)? {
        let held = |(other, (_, body)): (&(Collection, String), &(u64, Body))| {
            other.0 == at.0 && *other != at && unique(at.0, body) == Ok(Some(keys.clone()))
        };
        if rows.iter().any(held) {
            return Err("exists");
        }
    }
    rows.insert(at, (version + 1, body));
    Ok(())
}

fn put(body: &mut Body, path: &str, value: i64) {
    match path.split_once('.') {
        None => drop(body.insert(path.to_owned(), value.into())),
        Some((first, rest)) => {
            if let Some(Value::Object(inner)) = body.get_mut(first) {
                put(inner, rest, value);
            }
        }
    }
}
