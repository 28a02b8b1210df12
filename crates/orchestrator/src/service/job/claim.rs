//! How claims are worded: which jobs are due, per lane of kind and phase, and what a claim writes.

use crate::core::{
    client::{
        database::{Claim, Filter, Query, Scalar, Sort},
        schema,
    },
    job::{JobKind, Phase},
    market::{ids::JobId, quantity::Timestamp},
};

/// How many jobs a look at the queue reads to learn which lanes have work.
pub(super) const PEEK: usize = 32;

/// A kind in a phase. Lanes with verifications come first: what was begun is finished before more is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Lane {
    /// False for verification, so that it sorts first.
    process: bool,
    /// The kind.
    pub(super) kind: JobKind,
}

impl Lane {
    pub(super) const fn new(kind: JobKind, phase: Phase) -> Self {
        Self { process: matches!(phase, Phase::Process), kind }
    }

    pub(super) const fn phase(self) -> Phase {
        if self.process { Phase::Process } else { Phase::Verify }
    }
}

/// The first jobs of these kinds that are due by `until`.
pub(super) fn peek(kinds: &[JobKind], until: Timestamp) -> Query {
    let filter = Filter::And(vec![
        Filter::Le("due".into(), until.as_micros().into()),
        Filter::In("kind".into(), kinds.iter().map(|kind| kind.as_str().into()).collect()),
    ]);
    Query::new(schema::JOBS).filter(filter).sort(Sort::Field("due".into())).limit(PEEK)
}

/// The claim of up to `limit` due jobs of a lane. It counts the attempt and grows the fencing token.
pub(super) fn claim(lane: Lane, now: Timestamp, owner: &str, lease_until: Timestamp, limit: usize) -> Claim {
    let filter = Filter::And(vec![
        Filter::Le("due".into(), now.as_micros().into()),
        Filter::eq("kind", lane.kind.as_str()),
        Filter::In("state".into(), states(lane)),
    ]);
    worded(lane, filter, Sort::Field("due".into()), limit, owner, lease_until)
}

/// The claim of these jobs, as far as they are due in this lane.
pub(super) fn claim_named(
    lane: Lane,
    jobs: &[JobId],
    now: Timestamp,
    owner: &str,
    lease_until: Timestamp,
) -> Claim {
    let filter = Filter::And(vec![
        Filter::Ids(jobs.iter().map(ToString::to_string).collect()),
        Filter::Le("due".into(), now.as_micros().into()),
        Filter::eq("kind", lane.kind.as_str()),
        Filter::In("state".into(), states(lane)),
    ]);
    worded(lane, filter, Sort::Id, jobs.len(), owner, lease_until)
}

fn states(lane: Lane) -> Vec<Scalar> {
    lane.phase().claimable().iter().map(|state| state.as_str().into()).collect()
}

fn worded(
    lane: Lane,
    filter: Filter,
    sort: Sort,
    limit: usize,
    owner: &str,
    lease_until: Timestamp,
) -> Claim {
    let phase = lane.phase();
    let counter = match phase {
        Phase::Process => "attempts",
        Phase::Verify => "verify_attempts",
    };
    Claim {
        collection: schema::JOBS,
        filter,
        sort,
        limit,
        set: vec![
            ("due".into(), Scalar::Null),
            ("state".into(), phase.active().as_str().into()),
            ("lease_owner".into(), owner.into()),
            ("lease_until".into(), lease_until.as_micros().into()),
        ],
        increment: vec![("lease_token".into(), 1), (counter.into(), 1)],
    }
}
