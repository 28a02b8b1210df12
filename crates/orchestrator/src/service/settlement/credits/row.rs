//! The verdicts of one allocation among themselves: one for each period, without a gap in time, by the terms that the chain
//! has held from the first day on.

use std::collections::HashSet;

use super::{CreditReport, book::Book, judged::Period};
use crate::core::market::{
    ids::AllocationId,
    state::{commitment::AllocationTerms, market_key_hash},
    terms::DomainId,
};

/// Whether there is one verdict for each period from the first on, and each begins where the one before ends: so no time
/// is left out.
pub(super) fn in_order(id: AllocationId, periods: &[Period], report: &mut CreditReport) -> bool {
    let mut begin = periods.first().and_then(|period| period.terms.activated_at);
    for (period, number) in periods.iter().zip(0_u32..) {
        let Period { block, window, .. } = period;
        if period.number != number {
            let what =
                if period.number < number { "has two verdicts" } else { "has no verdict, and later ones do" };
            let number = number.min(period.number);
            report.problem(*block, format!("period {number} of {id} {what}"));
            return false;
        }
        let nothing_left = window.from == window.to && begin.is_some_and(|begin| window.from <= begin);
        if begin != Some(window.from) && !nothing_left {
            report
                .problem(*block, format!("period {number} of {id} does not begin where the one before ends"));
        }
        begin = begin.max(Some(window.to));
    }
    true
}

/// Whether every text that the market tree ever held for the allocation is its terms in one state or another.
pub(super) fn terms(
    id: AllocationId,
    periods: &[Period],
    domain: &DomainId,
    book: &Book,
    report: &mut CreditReport,
) {
    let Some(first) = periods.first() else { return };
    let frozen = first.terms.frozen();
    let (consumer, provider) = (first.consumer_owner, first.provider_owner);
    let same = |it: &&Period| {
        it.terms.frozen() == frozen && it.consumer_owner == consumer && it.provider_owner == provider
    };
    if let Some(other) = periods.iter().find(|it| !same(it)) {
        report.problem(
            other.block,
            format!("the evidence gives {id} other terms or owners than for the period before"),
        );
    }
    // Bundles that were read one after the other may show the allocation at different times.
    let mut views: Vec<(&AllocationTerms, _)> = Vec::new();
    for period in periods {
        let view = (&period.terms, period.earlier.as_slice());
        if views.last() != Some(&view) {
            views.push(view);
        }
    }
    let known: HashSet<[u8; 26]> =
        views.into_iter().flat_map(|(terms, earlier)| terms.digests(earlier)).collect();
    let name = market_key_hash(domain, &format!("allocation:{id}"));
    let digests = book.digests(&name);
    if digests.is_empty() {
        report.problem(first.block, format!("the chain has no terms of {id}"));
    }
    if let Some((block, _)) = digests.iter().find(|(_, digest)| !known.contains(digest)) {
        report.problem(
            *block,
            format!("the terms of {id} on the chain are not those that its verdicts were given by"),
        );
    }
}
