//! Evidence, verdicts, offerings, reputation and prices on the database in memory, with a manual clock.

mod evidence;
mod market;
mod period;
mod probe_server;
mod prober;
pub mod shared;
pub mod world;
