//! Network clients: HTTP with a guard against addresses that must not be reached, and the S3 client of the prober.

pub mod guard;
pub mod http;
pub mod s3_probe;
