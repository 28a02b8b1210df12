//! What an examination of a dependency finds: `doctor` prints it.

use std::time::Duration;

use serde::Serialize;

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
    /// Whether the daemon can't work so.
    pub fatal: bool,
}

impl Finding {
    /// The daemon can't work so.
    pub fn fatal(problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { problem: problem.into(), fix: fix.into(), fatal: true }
    }

    /// The daemon works, but may be surprised later.
    pub fn advice(problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { problem: problem.into(), fix: fix.into(), fatal: false }
    }
}

/// One dependency, looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// Which dependency, as the configuration names it.
    pub dependency: &'static str,
    /// What it says about itself: version, brokers. Empty when it did not answer.
    pub about: String,
    /// How long one call took.
    pub latency: Option<Duration>,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
}
