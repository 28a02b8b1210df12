//! Contract suites: one per port, generic over the implementation, run on every implementation.

mod provider;
mod provider_crash;
