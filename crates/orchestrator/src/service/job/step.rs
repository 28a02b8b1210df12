//! The steps of jobs: every place where an attempt leaves a trace that outlives the process, or asks somebody outside.
//!
//! They are listed here once, by kind. A kind without a list does not compile; nor does a crash test (`tests/promises/steps`)
//! that has no story for a step of the list; and a step that its story does not reach fails. The other way round, what a
//! handler calls outside it calls through [`Outside`], which asks for the step, and what the engine writes it writes
//! through [`super::writes`].

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::handler::JobContext;
use crate::core::{
    job::{Job, JobKind, Phase},
    market::ids::JobId,
};

/// Makes one enum of steps per kind of job, and [`Step`] over all of them. The groups are named like the kinds.
macro_rules! steps {
    (
        $(#[$engine_doc:meta])*
        engine $engine:ident { $($(#[$own_doc:meta])* $own:ident = $own_name:literal,)+ }
        $($(#[$doc:meta])* $kind:ident $steps:ident { $($(#[$step_doc:meta])* $step:ident = $name:literal,)* })+
    ) => {
        steps! { @one $(#[$engine_doc])* $engine { $($(#[$own_doc])* $own = $own_name,)+ } }
        $(steps! { @one $(#[$doc])* $steps { $($(#[$step_doc])* $step = $name,)* } })+

        /// A step of any kind of job, or of the engine around it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Step {
            /// The engine's.
            Engine($engine),
            $(
                #[doc = concat!("Those of `", stringify!($kind), "`.")]
                $kind($steps),
            )+
        }

        impl Step {
            /// Every step.
            #[must_use]
            pub fn all() -> Vec<Self> {
                let mut all: Vec<Self> = $engine::ALL.iter().copied().map(Self::Engine).collect();
                $(all.extend($steps::ALL.iter().copied().map(Self::$kind));)+
                all
            }

            /// What jobs of a kind do outside.
            #[must_use]
            pub fn of(kind: JobKind) -> Vec<Self> {
                match kind {
                    $(JobKind::$kind => $steps::ALL.iter().copied().map(Self::$kind).collect(),)+
                }
            }

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    Self::Engine(step) => step.as_str(),
                    $(Self::$kind(step) => step.as_str(),)+
                }
            }

            /// The kind that it belongs to; `None` for the engine's.
            #[must_use]
            pub const fn kind(self) -> Option<JobKind> {
                match self {
                    Self::Engine(_) => None,
                    $(Self::$kind(_) => Some(JobKind::$kind),)+
                }
            }
        }

        impl From<$engine> for Step {
            fn from(step: $engine) -> Self {
                Self::Engine(step)
            }
        }

        $(
            impl From<$steps> for Step {
                fn from(step: $steps) -> Self {
                    Self::$kind(step)
                }
            }
        )+
    };
    (@one $(#[$doc:meta])* $steps:ident { $($(#[$step_doc:meta])* $step:ident = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $steps { $($(#[$step_doc])* $step,)* }

        impl $steps {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$step,)*];

            /// Its name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$step => $name,)* }
            }
        }
    };
}

steps! {
    /// What the engine writes around every job. Those that end an attempt are named as its outcome is in the metrics.
    engine EngineStep {
        /// Due jobs are claimed.
        Claimed = "claimed",
        /// The subject is taken hold of.
        SubjectHeld = "subject_held",
        /// The intent of an effect is journalled.
        Intended = "intended",
        /// What came of an effect is journalled.
        Recorded = "recorded",
        /// Given back: a job before it is not done.
        Blocked = "blocked",
        /// Given back: another job is at the subject.
        SubjectBusy = "subject_busy",
        /// Done, with everything that follows from it.
        Completed = "completed",
        /// The process phase is done, verification is due.
        Processed = "processed",
        /// Verification found that it did not take hold.
        Refuted = "refuted",
        /// Failed; another attempt is due.
        Retried = "retried",
        /// Not so far; another look is due.
        Polled = "polled",
        /// Given back, because this process shuts down.
        Interrupted = "interrupted",
        /// The database refused what the attempt came to.
        Refused = "refused",
        /// To be given up, as soon as the handler can say what goes with it.
        GivingUp = "giving_up",
        /// Given up.
        Failed = "failed",
        /// Leases are renewed.
        Renewed = "renewed",
        /// A lease that ran out is taken back.
        Reaped = "reaped",
        /// The lease of a process before this one is taken back.
        Freed = "freed",
        /// A start is counted.
        Booted = "booted",
        /// A job is called because one before it is done.
        Called = "called",
        /// A job that can't be read is set aside.
        SetAside = "set_aside",
    }
    /// What `provision` does outside.
    Provision ProvisionStep {
        /// The provider makes the allocation, or is asked how far it is.
        Allocate = "allocate",
        /// A key is installed again, of an allocation that the provider had lost.
        ReissueKey = "reissue_key",
        /// What an earlier attempt made is removed, because nobody wants it any more.
        RemoveUnwanted = "remove_unwanted",
    }
    /// What `release` does outside.
    Release ReleaseStep {
        /// Keys become read-only.
        Restrict = "restrict",
        /// The meter is read.
        ReadMeter = "read_meter",
        /// The evidence of the last period is stored.
        StoreEvidence = "store_evidence",
    }
    /// What `rotate_credential` does outside.
    RotateCredential RotateCredentialStep {
        /// The key is installed.
        IssueKey = "issue_key",
    }
    /// What `revoke_credential` does outside.
    RevokeCredential RevokeCredentialStep {
        /// The key is taken away.
        RevokeKey = "revoke_key",
    }
    /// What `sync_access` does outside.
    SyncAccess SyncAccessStep {
        /// The level of access is set.
        Restrict = "restrict",
    }
    /// What `sla_check` does outside.
    SlaCheck SlaCheckStep {
        /// The meter is read.
        ReadMeter = "read_meter",
        /// The evidence is stored.
        StoreEvidence = "store_evidence",
    }
    /// What `seal_block` does outside.
    SealBlock SealBlockStep {
        /// The records are stored.
        StoreRecords = "store_records",
        /// The state before them is stored.
        StoreState = "store_state",
    }
    /// What `generate_proof` does outside: nothing.
    GenerateProof GenerateProofStep {}
    /// What `publish_data` does outside.
    PublishData PublishDataStep {
        /// The records are published.
        Publish = "publish",
        /// The layer is asked whether it has them.
        VerifyInclusion = "verify_inclusion",
    }
    /// What `register_proof` does outside.
    RegisterProof RegisterProofStep {
        /// Header and proof are registered.
        Register = "register",
        /// The transaction is looked at.
        LookAtTransaction = "look_at_transaction",
    }
    /// What `update_state` does outside.
    UpdateState UpdateStateStep {
        /// The block is settled.
        Settle = "settle",
        /// The transaction is looked at.
        LookAtTransaction = "look_at_transaction",
    }
    /// What `migrate` does outside: nothing.
    Migrate MigrateStep {}
    /// What `purge` does outside.
    Purge PurgeStep {
        /// Keys and data are removed.
        Deallocate = "deallocate",
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = self.kind().map_or("engine", JobKind::as_str);
        write!(f, "{owner}/{}", self.name())
    }
}

/// The two sides of a step: nothing has happened yet, or it has, and nobody knows but this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Before it.
    Before,
    /// After it.
    After,
}

/// A boundary that a process has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Crossing {
    /// The step.
    pub step: Step,
    /// Which side of it.
    pub side: Side,
    /// The kind of the job; `None` where a step is about many jobs.
    pub kind: Option<JobKind>,
    /// The phase in which the job is.
    pub phase: Option<Phase>,
    /// The job.
    pub job: Option<JobId>,
}

/// Somebody who is told of every boundary: in tests, the one who kills there. Nobody in production.
#[async_trait]
pub trait Boundaries: Send + Sync + 'static {
    /// The process has come to a boundary; it goes on when this returns.
    async fn reached(&self, crossing: Crossing);
}

/// Tells `boundaries`, if there is somebody.
pub(super) async fn reached(boundaries: Option<&dyn Boundaries>, step: Step, side: Side, job: Option<&Job>) {
    if let Some(boundaries) = boundaries {
        let phase = job.and_then(|job| {
            [Phase::Process, Phase::Verify].into_iter().find(|phase| phase.active() == job.state)
        });
        let (kind, job) = (job.map(|job| job.kind).or(step.kind()), job.map(|job| job.id));
        boundaries.reached(Crossing { step, side, kind, phase, job }).await;
    }
}

/// A dependency outside the database, which can be called only as a step.
pub struct Outside<C: ?Sized>(Arc<C>);

impl<C: ?Sized + Send + Sync> Outside<C> {
    /// Locks a client in.
    #[must_use]
    pub const fn new(client: Arc<C>) -> Self {
        Self(client)
    }

    /// Calls it, as a step of the job: `outside.call(context, PurgeStep::Deallocate, |client| client.deallocate(…))`.
    pub async fn call<'a, T: Send>(
        &'a self,
        context: &dyn JobContext,
        step: impl Into<Step> + Send,
        call: impl FnOnce(&'a C) -> BoxFuture<'a, T> + Send,
    ) -> T {
        take(context, step, call(self.0.as_ref())).await
    }
}

/// A step of a job, handed to what takes it elsewhere.
#[derive(Clone, Copy)]
pub struct At<'a> {
    context: &'a dyn JobContext,
    step: Step,
}

impl<'a> At<'a> {
    /// The step of the job in this context.
    #[must_use]
    pub fn new(context: &'a dyn JobContext, step: impl Into<Step>) -> Self {
        Self { context, step: step.into() }
    }

    /// Awaits what leaves a trace outside, as this step.
    pub async fn take<T: Send>(self, effect: impl Future<Output = T> + Send) -> T {
        take(self.context, self.step, effect).await
    }
}

/// Awaits something that leaves a trace outside, as a step of the job.
async fn take<T: Send>(
    context: &dyn JobContext,
    step: impl Into<Step> + Send,
    effect: impl Future<Output = T> + Send,
) -> T {
    let (step, boundaries) = (step.into(), context.boundaries());
    reached(boundaries, step, Side::Before, Some(context.job())).await;
    let answer = effect.await;
    reached(boundaries, step, Side::After, Some(context.job())).await;
    answer
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_every_step_is_listed_with_its_kind() {
        let all = Step::all();
        let names: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), all.len());
        let by_kind: usize = JobKind::ALL.iter().map(|kind| Step::of(*kind).len()).sum();
        assert_eq!(by_kind + EngineStep::ALL.len(), all.len());
        for kind in JobKind::ALL {
            assert!(Step::of(kind).iter().all(|step| step.kind() == Some(kind)));
        }
    }
}
