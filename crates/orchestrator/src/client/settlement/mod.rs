//! Implementations of the settlement port.
