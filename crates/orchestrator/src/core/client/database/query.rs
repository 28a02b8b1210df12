//! Questions to one collection: which documents, in which order, how many, and where to go on.

use serde::Serialize;

use super::Document;
use crate::core::client::schema::Collection;

/// A value that filters and guards compare with. Amounts are strings and can't be ordered; compare them in the domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scalar {
    /// JSON null, or a missing field.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A text.
    Text(String),
}

impl From<i64> for Scalar {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Scalar {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&str> for Scalar {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}

impl From<String> for Scalar {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

/// A condition on documents. Fields are dotted paths; comparisons hold only between values of one type, and never with
/// null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Every document.
    All,
    /// The field equals the value; `Null` also matches a missing field.
    Eq(String, Scalar),
    /// The field is less than the value.
    Lt(String, Scalar),
    /// The field is at most the value.
    Le(String, Scalar),
    /// The field is more than the value.
    Gt(String, Scalar),
    /// The field is at least the value.
    Ge(String, Scalar),
    /// The field is one of the values; an empty list matches nothing.
    In(String, Vec<Scalar>),
    /// The document's id is one of these.
    Ids(Vec<String>),
    /// The document's id starts with this.
    IdPrefix(String),
    /// All conditions hold; an empty list matches everything.
    And(Vec<Filter>),
    /// Any condition holds; an empty list matches nothing.
    Or(Vec<Filter>),
}

impl Filter {
    /// `field = value`.
    #[must_use]
    pub fn eq(field: &str, value: impl Into<Scalar>) -> Self {
        Self::Eq(field.to_owned(), value.into())
    }

    /// `self` and `other`.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match self {
            Self::All => other,
            Self::And(mut all) => {
                all.push(other);
                Self::And(all)
            }
            one => Self::And(vec![one, other]),
        }
    }
}

/// The order of a result. Ties are broken by id, in the same direction.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Sort {
    /// By id, ascending.
    #[default]
    Id,
    /// By id, descending.
    IdDescending,
    /// By a field, ascending; documents without it come first.
    Field(String),
    /// By a field, descending; documents without it come last.
    FieldDescending(String),
}

/// Where a page ended: hand it back to go on after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Cursor {
    /// Value of the sort field of the last document as JSON; null when sorted by id.
    pub key: serde_json::Value,
    /// Id of the last document.
    pub id: String,
}

/// A question to one collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Where.
    pub collection: Collection,
    /// Which.
    pub filter: Filter,
    /// In which order.
    pub sort: Sort,
    /// At most so many, 1 to 10,000.
    pub limit: usize,
    /// Only what comes after this.
    pub after: Option<Cursor>,
}

impl Query {
    /// All documents of a collection, the first 1,000 by id.
    #[must_use]
    pub const fn new(collection: Collection) -> Self {
        Self { collection, filter: Filter::All, sort: Sort::Id, limit: 1_000, after: None }
    }

    /// With this filter.
    #[must_use]
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = filter;
        self
    }

    /// In this order.
    #[must_use]
    pub fn sort(mut self, sort: Sort) -> Self {
        self.sort = sort;
        self
    }

    /// At most so many.
    #[must_use]
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// Going on after a page.
    #[must_use]
    pub fn after(mut self, cursor: Option<Cursor>) -> Self {
        self.after = cursor;
        self
    }
}

/// A page of documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the query's order.
    pub documents: Vec<Document>,
    /// Where to go on; `None` when this was the end.
    pub next: Option<Cursor>,
}
