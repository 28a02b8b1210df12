//! The proof service.
