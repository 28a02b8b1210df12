//! The job engine: handlers, claims, leases, retries, triggers. `controller::worker` drives it.
//!
//! - [`engine`] claims due jobs and starts them, bounded per kind; `claim` words the claims.
//! - `runner` carries one claimed job through one phase; `outcome` says what becomes of it; `context` is what the handler
//!   sees; `subject` holds the subject of mutating kinds; `dependency` looks after `depends_on`.
//! - [`hint`] tells the workers of other processes of due jobs; `hinted` claims what hints name.
//! - [`step`] lists what an attempt does outside the process, step by step; `writes` is the engine's own way to the database.
//! - `gather` hands the commits of attempts that share a task to the database together.
//! - `meter` counts attempts.
//! - `lease` renews, reaps and releases leases.
//! - [`admin`] is what people may do with jobs, [`redrive`] what they may do with dead letters; `damage` sets aside jobs
//!   that can't be read; [`purge`] removes old records; [`wake`] tells the driver of new work.

pub mod admin;
mod backlog;
mod backoff;
mod claim;
mod context;
mod damage;
mod dependency;
pub mod engine;
mod gather;
pub mod handler;
pub mod hint;
mod hinted;
pub(crate) mod lease;
mod meter;
mod outcome;
pub mod purge;
pub mod redrive;
mod runner;
pub mod step;
pub(crate) mod subject;
pub mod trigger;
pub mod wake;
mod writes;

pub use admin::JobService;
pub use backlog::{Backlog, Full};
pub use engine::{Engine, EnginePorts, EngineSettings, Tick};
pub use handler::{JobContext, JobError, JobHandler, Policy, Processed, Verified};
pub use hint::{HintSender, HintingCommitter, Hints, hints};
pub use purge::PurgeTrigger;
pub use step::{Boundaries, Crossing, EngineStep, Outside, Side, Step};
pub use subject::Subject;
pub use trigger::{Trigger, TriggerReport};
pub use wake::{Wake, WakingCommitter};
