//! The scoring service.
