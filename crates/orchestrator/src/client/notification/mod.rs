//! Implementations of the notification port.
