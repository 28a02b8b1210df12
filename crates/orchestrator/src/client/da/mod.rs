//! Data-availability layers: the local one, over a directory or over memory.

pub mod local;

pub use local::LocalDa;
