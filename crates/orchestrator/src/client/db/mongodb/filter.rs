//! Filters and pages in the server's words.
//!
//! A sort over a field of mixed types is not the server's (it puts booleans behind objects), and what is no plain value
//! is all alike to us. Nearly every query limits its sort's field to one type, or meets none of these, and is one
//! question, which an index answers in order. When it does meet them, it is asked again, type by type.

use ::mongodb::{
    ClientSession,
    bson::{Bson, Document as BsonDocument, RawDocument, doc},
};

use super::{Table, encode, fault::Trouble};
use crate::{
    client::db::{
        scan,
        value::{self, Key},
    },
    core::client::database::{Cursor, Document, Filter, Query, Result, Scalar, Sort},
};

/// What no document matches.
pub(super) fn never() -> BsonDocument {
    doc! { "_id": { "$in": [] } }
}

fn bson(scalar: &Scalar) -> Bson {
    match scalar {
        Scalar::Null => Bson::Null,
        Scalar::Bool(value) => Bson::Boolean(*value),
        Scalar::Int(value) => Bson::Int64(*value),
        Scalar::Text(text) => Bson::String(text.clone()),
    }
}

/// `field = value`.
pub(super) fn equals(path: &str, scalar: &Scalar) -> BsonDocument {
    let mut document = BsonDocument::new();
    // Null also matches a missing field.
    document.insert(encode::field(path), bson(scalar));
    document
}

impl Table {
    /// A filter.
    pub(super) fn filter(&self, filter: &Filter) -> BsonDocument {
        match filter {
            Filter::All => BsonDocument::new(),
            Filter::Eq(path, Scalar::Null) => equals(path, &Scalar::Null),
            Filter::Eq(path, scalar) => self.compare(path, "$eq", scalar),
            Filter::Lt(path, scalar) => self.compare(path, "$lt", scalar),
            Filter::Le(path, scalar) => self.compare(path, "$lte", scalar),
            Filter::Gt(path, scalar) => self.compare(path, "$gt", scalar),
            Filter::Ge(path, scalar) => self.compare(path, "$gte", scalar),
            Filter::In(path, list) => {
                let mut wanted = doc! { "$in": list.iter().map(bson).collect::<Vec<_>>() };
                if !list.contains(&Scalar::Null) && self.leads_unique(path) {
                    wanted.insert("$type", super::layout::PRESENT.to_vec());
                }
                doc! { encode::field(path): wanted }
            }
            Filter::Ids(ids) => doc! { "_id": { "$in": ids } },
            Filter::IdPrefix(prefix) => match value::after_prefix(prefix) {
                Some(end) => doc! { "_id": { "$gte": prefix, "$lt": end } },
                None => doc! { "_id": { "$gte": prefix } },
            },
            Filter::And(parts) if parts.is_empty() => BsonDocument::new(),
            Filter::And(parts) => doc! { "$and": self.parts(parts) },
            Filter::Or(parts) if parts.is_empty() => never(),
            Filter::Or(parts) => doc! { "$or": self.parts(parts) },
        }
    }

    fn parts(&self, parts: &[Filter]) -> Vec<BsonDocument> {
        parts.iter().map(|part| self.filter(part)).collect()
    }

    /// A comparison; the server's hold within one type, too.
    fn compare(&self, path: &str, operator: &str, scalar: &Scalar) -> BsonDocument {
        let kind = match Bracket::of(&Key::from(scalar)) {
            // Nothing compares with null.
            Bracket::Null | Bracket::Other => return never(),
            one => one.kind(),
        };
        let mut wanted = BsonDocument::new();
        wanted.insert(operator, bson(scalar));
        if self.leads_unique(path) {
            // Lets the planner see that the index, which holds these types only, has all that match.
            wanted.insert("$type", kind);
        }
        doc! { encode::field(path): wanted }
    }
}

/// The types of values, in the order of a sort.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bracket {
    Null,
    Int,
    Text,
    Bool,
    Other,
}

impl Bracket {
    const ALL: [Self; 5] = [Self::Null, Self::Int, Self::Text, Self::Bool, Self::Other];

    const fn of(key: &Key) -> Self {
        match key {
            Key::Null => Self::Null,
            Key::Int(_) => Self::Int,
            Key::Text(_) => Self::Text,
            Key::Bool(_) => Self::Bool,
            Key::Other => Self::Other,
        }
    }

    /// The server's name of the type.
    const fn kind(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Int => "long",
            Self::Text => "string",
            Self::Bool => "bool",
            Self::Other => "object",
        }
    }

    /// Whether values of the type have an order among themselves.
    const fn ordered(self) -> bool {
        matches!(self, Self::Int | Self::Text | Self::Bool)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The types that a field can have in documents that match, as bits.
fn possible(filter: &Filter, path: &str) -> u8 {
    let everything = Bracket::ALL.iter().fold(0, |bits, one| bits | one.bit());
    let of = |scalar: &Scalar| Bracket::of(&Key::from(scalar)).bit();
    match filter {
        Filter::Eq(field, scalar) if field == path => of(scalar),
        Filter::Lt(field, scalar)
        | Filter::Le(field, scalar)
        | Filter::Gt(field, scalar)
        | Filter::Ge(field, scalar)
            if field == path =>
        {
            of(scalar) & !Bracket::Null.bit()
        }
        Filter::In(field, list) if field == path => list.iter().fold(0, |bits, scalar| bits | of(scalar)),
        Filter::And(parts) => parts.iter().fold(everything, |bits, part| bits & possible(part, path)),
        Filter::Or(parts) => parts.iter().fold(0, |bits, part| bits | possible(part, path)),
        _ => everything,
    }
}

/// One question of those that make up a page.
struct Part {
    filter: BsonDocument,
    sort: BsonDocument,
}

/// The questions of a page, in order.
fn parts(table: &Table, query: &Query) -> Vec<Part> {
    let down = value::descending(&query.sort);
    let (beyond, reached, direction) = if down { ("$lt", "$lte", -1) } else { ("$gt", "$gte", 1) };
    let filter = table.filter(&query.filter);
    let after_id = |cursor: &Cursor| doc! { "_id": doc! { beyond: &cursor.id } };
    let Some(path) = value::sort_field(&query.sort) else {
        let mut all = vec![filter];
        all.extend(query.after.as_ref().map(after_id));
        return vec![Part { filter: doc! { "$and": all }, sort: doc! { "_id": direction } }];
    };
    let field = encode::field(path);
    let allowed = possible(&query.filter, path);
    let after = query.after.as_ref().map(|cursor| (Key::from(&cursor.key), cursor));
    let mut brackets = Bracket::ALL;
    if down {
        brackets.reverse();
    }
    let mut parts = Vec::new();
    for bracket in brackets {
        let start = after.as_ref().map(|(key, _)| Bracket::of(key));
        let passed = start.is_some_and(|start| if down { bracket > start } else { bracket < start });
        if passed || allowed & bracket.bit() == 0 {
            continue;
        }
        let mut all = vec![filter.clone()];
        if bracket == Bracket::Null {
            all.push(doc! { &field: Bson::Null });
        } else if allowed != bracket.bit() {
            all.push(doc! { &field: { "$type": bracket.kind() } });
        }
        if let Some((key, cursor)) = after.as_ref().filter(|_| start == Some(bracket)) {
            match encode::plain(key).filter(|_| bracket.ordered()) {
                Some(key) => {
                    // The first bound is what an index can begin at.
                    all.push(doc! { &field: doc! { reached: key.clone() } });
                    all.push(doc! { "$or": [ { &field: doc! { beyond: key } }, after_id(cursor) ] });
                }
                None => all.push(after_id(cursor)),
            }
        }
        let sort = if bracket.ordered() {
            doc! { &field: direction, "_id": direction }
        } else {
            doc! { "_id": direction }
        };
        parts.push(Part { filter: doc! { "$and": all }, sort });
    }
    parts
}

/// One question for the whole page, where more than one type is possible: right as long as no boolean and nothing
/// unordered is among the answers, which the server puts elsewhere than we do. `None` when that is known before.
fn whole(table: &Table, query: &Query) -> Option<Part> {
    let path = value::sort_field(&query.sort)?;
    let field = encode::field(path);
    let down = value::descending(&query.sort);
    let (beyond, direction) = if down { ("$lt", -1) } else { ("$gt", 1) };
    if possible(&query.filter, path).count_ones() < 2 {
        return None;
    }
    let mut all = vec![table.filter(&query.filter)];
    if let Some(cursor) = &query.after {
        let key = Key::from(&cursor.key);
        let start = Bracket::of(&key);
        let key = encode::plain(&key).filter(|_| common(start))?;
        let mut any = vec![doc! { &field: key.clone(), "_id": doc! { beyond: &cursor.id } }];
        if start.ordered() {
            any.push(doc! { &field: doc! { beyond: key } });
        }
        let later = Bracket::ALL.into_iter().filter(|one| if down { *one < start } else { *one > start });
        for bracket in later {
            any.push(match bracket {
                Bracket::Null => doc! { &field: Bson::Null },
                other => doc! { &field: { "$type": other.kind() } },
            });
        }
        all.push(doc! { "$or": any });
    }
    Some(Part { filter: doc! { "$and": all }, sort: doc! { field: direction, "_id": direction } })
}

/// Types that the server sorts as we do.
const fn common(bracket: Bracket) -> bool {
    matches!(bracket, Bracket::Null | Bracket::Int | Bracket::Text)
}

/// The first `limit` documents of a query's order. Inside a transaction they are what it sees.
pub(super) async fn page(
    table: &Table,
    query: &Query,
    limit: usize,
    mut session: Option<&mut ClientSession>,
) -> Result<Vec<Document>, Trouble> {
    if let Some(part) = whole(table, query) {
        let documents = ask(table, part, limit, session.as_deref_mut()).await?;
        let path = value::sort_field(&query.sort).unwrap_or_default();
        if documents.iter().all(|document| common(Bracket::of(&scan::key(&document.body, path)))) {
            return Ok(documents);
        }
    }
    let mut documents = Vec::new();
    for part in parts(table, query) {
        let left = limit - documents.len();
        if left == 0 {
            break;
        }
        documents.append(&mut ask(table, part, left, session.as_deref_mut()).await?);
    }
    Ok(documents)
}

/// The answers to one question, at most `limit`.
async fn ask(
    table: &Table,
    Part { filter, sort }: Part,
    limit: usize,
    session: Option<&mut ClientSession>,
) -> Result<Vec<Document>, Trouble> {
    let mut documents = Vec::new();
    let take = |raw: &RawDocument| encode::decode(table.spec.collection, raw);
    // One reply with all: asked for one more than the limit, the server leaves no cursor open.
    let batch = u32::try_from(limit + 1).unwrap_or(u32::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let find = table.documents.find(filter).sort(sort).limit(limit).batch_size(batch);
    match session {
        None => {
            let mut cursor = find.max_time(table.timeout).await?;
            while cursor.advance().await? {
                documents.push(take(cursor.current())?);
            }
        }
        Some(session) => {
            let mut cursor = find.session(&mut *session).await?;
            while cursor.advance(session).await? {
                documents.push(take(cursor.current())?);
            }
        }
    }
    Ok(documents)
}

/// The document with this id.
pub(super) async fn get(
    table: &Table,
    id: &str,
    session: Option<&mut ClientSession>,
) -> Result<Option<Document>, Trouble> {
    let query = Query {
        collection: table.spec.collection,
        filter: Filter::Ids(vec![id.to_owned()]),
        sort: Sort::Id,
        limit: 1,
        after: None,
    };
    Ok(page(table, &query, 1, session).await?.pop())
}
