//! The simulation: built once in its own profile, then run with whatever was asked for.

use std::ffi::{OsStr, OsString};

/// Runs the simulator with these arguments.
pub(crate) fn run(arguments: &[OsString]) -> Result<(), String> {
    let package = ["--profile", "sim", "--quiet", "--locked", "--package", "orchestrator-sim"];
    super::run("build of the simulation", super::cargo().arg("build").args(package))?;
    let mut command = super::cargo();
    command.arg("run").args(package).args(["--bin", "orchestrator-sim", "--"]).args(arguments);
    super::run("simulation", &mut command)
}

/// Runs seeds for so many minutes: what every test run does.
pub(crate) fn seeds(minutes: f64) -> Result<(), String> {
    let minutes = OsString::from(minutes.to_string());
    run(&[OsStr::new("--minutes").to_owned(), minutes])
}
