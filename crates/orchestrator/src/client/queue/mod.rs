//! Implementations of the queue port.
