//! The sla service.
