//! Implementations of the provider port.
