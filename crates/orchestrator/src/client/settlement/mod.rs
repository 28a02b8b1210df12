//! Settlement layers: the local one, which applies the rules of the chain contract in this process.

mod chain;
pub mod local;

pub use chain::LocalRules;
pub use local::LocalSettlement;
