//! Implementations of the db port.
