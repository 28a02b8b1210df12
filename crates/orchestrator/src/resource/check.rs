//! What a look at a dependency found, for `doctor` and `ready`.

use serde::Serialize;

use crate::core::market::quantity::Micros;

/// Something that is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

/// A dependency as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The dependency.
    pub name: &'static str,
    /// How long its answer took.
    pub latency: Micros,
    /// Its version, or who we are to it.
    pub version: Option<String>,
    /// What is wrong; nothing when it is ready.
    pub findings: Vec<Finding>,
}

impl Check {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.findings.is_empty()
    }
}
