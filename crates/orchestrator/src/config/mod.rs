//! Loads and validates the configuration.
