//! Implementations of the da port.
