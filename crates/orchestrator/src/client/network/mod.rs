//! Clients of the network.

pub mod s3_probe;
