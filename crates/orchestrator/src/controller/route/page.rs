//! Pages: `limit` and an opaque `cursor`, and what a list answers.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::{Problem, Result};
use crate::{
    core::client::database::Cursor,
    error::ErrorCode,
    service::page::{Listing, PageRequest},
};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 1_000;

/// Which page of a list.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Entries at most, 1 to 1,000; 50 unless said otherwise.
    pub limit: Option<u32>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

impl PageQuery {
    /// From the parameters of a list that has others, too.
    #[must_use]
    pub const fn new(limit: Option<u32>, cursor: Option<String>) -> Self {
        Self { limit, cursor }
    }

    /// As the services of the market take it.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParameter`].
    pub fn request(&self) -> Result<PageRequest> {
        Ok(PageRequest { limit: self.limit()?, after: self.after()? })
    }

    /// How many.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParameter`].
    pub fn limit(&self) -> Result<usize> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Problem::at(ErrorCode::InvalidParameter, "limit", "a limit is 1 to 1000"));
        }
        Ok(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// After what.
    ///
    /// # Errors
    /// [`ErrorCode::InvalidParameter`].
    pub fn after(&self) -> Result<Option<Cursor>> {
        let Some(text) = &self.cursor else { return Ok(None) };
        let wrong = || {
            Problem::at(
                ErrorCode::InvalidParameter,
                "cursor",
                "a cursor is `next` of an earlier page of the same list, unchanged",
            )
        };
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| wrong())?;
        let cursor: Cursor = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        // A sort key is a scalar; anything else was not made by us.
        if cursor.key.is_object() || cursor.key.is_array() {
            return Err(wrong());
        }
        Ok(Some(cursor))
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct PageView<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Hand it back as `cursor` to go on; `null` at the end.
    pub next: Option<String>,
}

impl<T> PageView<T> {
    /// Entries as they are shown, and where to go on.
    pub fn new<S>(items: impl IntoIterator<Item = S>, next: Option<Cursor>) -> Self
    where
        T: From<S>,
    {
        Self { items: items.into_iter().map(T::from).collect(), next: next.and_then(|next| encode(&next)) }
    }
}

impl<S, T: From<S>> From<Listing<S>> for PageView<T> {
    fn from(found: Listing<S>) -> Self {
        Self::new(found.items, found.next)
    }
}

/// A cursor as an opaque text.
#[must_use]
pub fn encode(cursor: &Cursor) -> Option<String> {
    serde_json::to_vec(cursor).ok().map(|bytes| URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_round_trips_and_a_changed_one_is_refused() {
        let cursor = Cursor { key: serde_json::json!(5), id: "unit_1".into() };
        let text = encode(&cursor);
        assert_eq!(PageQuery::new(None, text).after().unwrap(), Some(cursor));
        for bad in ["", "!!", "e30", "bnVsbA"] {
            assert!(PageQuery::new(None, Some(bad.into())).after().is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_outside_of_1_to_1000_are_refused() {
        for (limit, fine) in [(0, false), (1, true), (1_000, true), (1_001, false)] {
            assert_eq!(PageQuery::new(Some(limit), None).limit().is_ok(), fine, "{limit}");
        }
    }
}
