//! Implementations of the event_bus port.
