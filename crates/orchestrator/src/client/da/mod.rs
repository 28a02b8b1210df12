//! Data-availability layers: the local one, over a directory or over memory, and the blobs of Ethereum.

#[cfg(feature = "ethereum")]
pub mod ethereum;
pub mod local;

pub use local::LocalDa;
