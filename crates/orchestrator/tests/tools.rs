//! Programs that nobody here wrote, which some tests use. `cargo xtask test` fetches them and says where they are.

use std::path::PathBuf;

/// The program that a variable names. Without it the test fails, unless `ORCHESTRATOR_TEST_EMBEDDED_ONLY=1` says that such
/// programs are left out on purpose: then `None`.
pub fn tool(variable: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    if std::env::var("ORCHESTRATOR_TEST_EMBEDDED_ONLY").is_ok_and(|value| value == "1") {
        eprintln!(
            "not run: {variable} names no program, and ORCHESTRATOR_TEST_EMBEDDED_ONLY=1 leaves it out"
        );
        return None;
    }
    panic!(
        "{variable} is not set: `cargo xtask test` fetches the programs that tests use and says where they are; \
         ORCHESTRATOR_TEST_EMBEDDED_ONLY=1 goes without them"
    );
}

/// A Python with the packages of the tests.
pub fn python() -> Option<PathBuf> {
    tool("ORCHESTRATOR_TEST_PYTHON")
}
