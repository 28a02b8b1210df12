//! The access service.
