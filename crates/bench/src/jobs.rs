//! Jobs through the real engine on the real database.

use crate::BenchResult;

/// Runs it.
///
/// # Errors
/// Not built yet.
pub fn run() -> BenchResult {
    Err("not built yet".into())
}
