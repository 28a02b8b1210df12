//! Lists: one page of what a filter leaves, and where to go on.

use crate::{
    core::client::database::{Cursor, Entity, Filter, Query, Reader, ReaderExt, Sort},
    error::Result,
};

/// Entries of a page, at most.
const MAX: usize = 1_000;

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// At most so many, 1 to 1,000; more is cut.
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<Cursor>,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { limit: 100, after: None }
    }
}

/// One page of the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    /// In the list's order.
    pub items: Vec<T>,
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
}

/// A page of the entities that a filter leaves.
///
/// # Errors
/// Database errors.
pub(in crate::service) async fn list<T: Entity>(
    reader: &dyn Reader,
    filter: Filter,
    sort: Sort,
    page: PageRequest,
) -> Result<Listing<T>> {
    let PageRequest { limit, after } = page;
    let query = Query::new(T::COLLECTION).filter(filter).sort(sort).limit(limit.clamp(1, MAX)).after(after);
    let (items, next) = reader.list::<T>(query).await?;
    Ok(Listing { items: items.into_iter().map(|stored| stored.value).collect(), next })
}
