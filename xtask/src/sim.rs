//! The simulation: built once in its own profile, then run with whatever was asked for; and the seeds of every test run.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    process::{Command, Output, Stdio},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::interrupt;

const PACKAGE: [&str; 6] = ["--profile", "sim", "--quiet", "--locked", "--package", "orchestrator-sim"];
const PROGRAM: [&str; 3] = ["--bin", "orchestrator-sim", "--"];

/// Runs the simulator with these arguments.
pub(crate) fn run(arguments: &[OsString]) -> Result<(), String> {
    super::run("build of the simulation", super::cargo().arg("build").args(PACKAGE))?;
    let mut command = super::cargo();
    command.arg("run").args(PACKAGE).args(PROGRAM).args(arguments);
    super::run("simulation", &mut command)
}

/// Goes on with a soak of simulated kills until there were so many.
pub(crate) fn soak(kills: u64) -> Result<(), String> {
    let report = super::root().join("docs/soak-simulated.json");
    let what = ["--faults", "kills", "--hours", "0.25", "--soak"].map(OsString::from);
    let to: [OsString; 3] = [kills.to_string().into(), "--report".into(), report.into()];
    run(&what.into_iter().chain(to).collect::<Vec<_>>())
}

/// Seeds that run beside the tests, on what those leave idle of the processors: built and run at the lowest priority.
pub(crate) struct Seeds {
    group: Option<Pid>,
    running: Option<JoinHandle<io::Result<Output>>>,
    from: u64,
}

impl Seeds {
    /// Begins. So many minutes of processor time are used on all cores together.
    ///
    /// # Errors
    /// When it can't be started.
    pub(crate) fn begin(minutes: f64) -> Result<Self, String> {
        let from = first_seed();
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(super::cargo().get_program()).current_dir(super::root());
        command.arg("run").args(PACKAGE).args(PROGRAM).args(["--quiet", "--beside"]);
        // The simulator counts on each core.
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        #[expect(clippy::cast_precision_loss, reason = "a number of cores")]
        let minutes = minutes / cores as f64;
        command.args(["--minutes", &minutes.to_string(), "--seeds", &format!("{from}..")]);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::of(&mut command, from).map_err(|error| format!("seeds: {error}"))
    }

    fn of(command: &mut Command, from: u64) -> io::Result<Self> {
        let child = command.spawn()?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let running = Some(thread::spawn(move || child.wait_with_output()));
        Ok(Self { group, running, from })
    }

    /// Waits for the end, and says what came of it.
    ///
    /// # Errors
    /// When seeds fail, or an interrupt came.
    pub(crate) fn end(mut self) -> Result<(), String> {
        eprintln!("== seeds from {} on", self.from);
        while self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            if interrupt::came() {
                return Err("seeds: interrupted".to_owned());
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.verdict()
    }

    fn verdict(&mut self) -> Result<(), String> {
        let Some(Ok(output)) = self.running.take().map(JoinHandle::join) else {
            return Err("seeds: nobody waited for them".to_owned());
        };
        let output = output.map_err(|error| format!("seeds: {error}"))?;
        eprint!("{}", String::from_utf8_lossy(&output.stdout));
        if output.status.success() {
            return Ok(());
        }
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        Err(format!("seeds failed ({})", output.status))
    }
}

/// Where the seeds of a test run begin: each state of the simulation gets seeds of its own, and the same ones whenever it is
/// tested, so that a commit that passed does not fail later for a seed that nobody had tried.
fn first_seed() -> u64 {
    let mut git = Command::new("git");
    let code = git.args(["rev-parse", "--short=7", "HEAD:crates/sim"]).current_dir(super::root()).output();
    let digits =
        code.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    // Without a repository: from the beginning.
    u64::from_str_radix(&digits, 16).map_or(1, |number| number * 1_000_000)
}

impl Drop for Seeds {
    /// Whoever gives up takes them along.
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            if let Some(group) = self.group {
                // One that has ended meanwhile is fine.
                let _ = kill_process_group(group, Signal::TERM);
            }
            let _ = running.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[test]
    fn seeds_that_fail_fail_the_run_and_those_of_a_run_that_failed_are_ended() {
        assert!(Seeds::of(&mut shell("echo all agree"), 1).unwrap().verdict().is_ok());
        let failed = Seeds::of(&mut shell("echo seed 7 fails; exit 1"), 1).unwrap().verdict();
        assert!(failed.unwrap_err().contains("seeds failed"));
        // Comes back at once, and not after the sleep.
        drop(Seeds::of(&mut shell("sleep 1000; true"), 1).unwrap());
    }
}
