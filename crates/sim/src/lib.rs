//! Runs whole markets from a seed: the real services, workers and triggers of several replicas in one thread, on simulated
//! time, with faults at every port and deaths at any await point; then compares what came of it with a model that shares
//! no code with them. The same seed gives the same run on every machine. `docs/simulation.md` says how and why.

pub mod actors;
pub mod chance;
pub mod faults;
pub mod journal;
pub mod judge;
pub mod lane;
pub mod many;
pub mod model;
pub mod node;
pub mod panics;
pub mod port;
pub mod run;
pub mod sabotage;
pub mod shrink;
pub mod soak;
pub mod time;
pub mod world;

pub use faults::Profile;
pub use run::{Outcome, Plan, run};
pub use sabotage::Sabotage;
