//! The block service.
