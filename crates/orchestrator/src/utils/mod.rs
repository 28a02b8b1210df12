//! Small helpers that know nothing of the domain.

pub mod logging;
pub mod parallel;
pub mod random;
pub mod signal;
