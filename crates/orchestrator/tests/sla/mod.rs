//! Evidence, verdicts, offerings, reputation and prices on the database in memory, with a manual clock.

mod evidence;
mod market;
mod period;
mod prober;
mod world;
