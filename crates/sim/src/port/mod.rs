//! The ports as a replica of the simulation sees them: real or simple implementations behind faults.

pub mod database;
pub mod messages;
pub mod provider;
pub mod settlement;
pub mod small;
