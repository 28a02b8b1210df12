//! Events of the contract, page by page: nodes answer for so many blocks at once only, and the chain may change its mind between
//! two pages. Each page is held against the one before: its first block must follow the last one of that, and its last block must
//! be the same before and after the question.

use alloy::rpc::types::{Filter, Log};

use super::node::{BlockRef, Node, not_now};
use crate::core::madara::settlement::SettlementError;

type Result<T> = std::result::Result<T, SettlementError>;

/// How often it begins anew when the chain changes meanwhile.
const TRIES: usize = 3;

/// All events from a block on, up to the newest block, in their order.
///
/// # Errors
/// [`SettlementError::Unavailable`], also when the chain does not come to rest.
pub async fn all(node: &Node, filter: &Filter, from: u64, range: u64) -> Result<Vec<Log>> {
    Ok(until(node, filter, from, range, |_| false).await?.0)
}

/// The same, but only until a page after which `enough` holds; and the newest block at the time.
///
/// # Errors
/// As [`all`].
pub async fn until(
    node: &Node,
    filter: &Filter,
    from: u64,
    range: u64,
    enough: impl Fn(&[Log]) -> bool,
) -> Result<(Vec<Log>, BlockRef)> {
    for _ in 0..TRIES {
        if let Some(found) = pass(node, filter, from, range, &enough).await? {
            return Ok(found);
        }
    }
    Err(not_now("the chain changes while its events are read"))
}

/// One pass; `None` when the chain changed meanwhile.
async fn pass(
    node: &Node,
    filter: &Filter,
    from: u64,
    range: u64,
    enough: impl Fn(&[Log]) -> bool,
) -> Result<Option<(Vec<Log>, BlockRef)>> {
    let head = node.head().await?;
    let (mut found, mut begin, mut before) = (Vec::new(), from, None::<BlockRef>);
    while begin <= head.number && !enough(&found) {
        let end = begin.saturating_add(range.max(1) - 1).min(head.number);
        let (Some(first), Some(last)) = (node.block(begin).await?, node.block(end).await?) else {
            return Ok(None);
        };
        if before.is_some_and(|before| before.hash != first.parent) {
            return Ok(None);
        }
        let page = node.logs(&filter.clone().from_block(begin).to_block(end)).await?;
        if node.block(end).await? != Some(last) {
            return Ok(None);
        }
        found.extend(page.into_iter().filter(|log| !log.removed));
        (begin, before) = (end + 1, Some(last));
    }
    Ok(Some((found, head)))
}
