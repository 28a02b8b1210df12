//! Settlement layers: the local one, which applies the rules of the chain contract in this process, and Ethereum.

mod chain;
#[cfg(feature = "ethereum")]
pub mod ethereum;
pub mod local;

pub use chain::LocalRules;
pub use local::LocalSettlement;
