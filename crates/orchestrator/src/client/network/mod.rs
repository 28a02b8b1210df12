//! Implementations of the network port.
