//! Ctrl-C and SIGTERM: they end the command that runs, not this program, which has servers to end after it.

use std::{
    io,
    os::unix::process::CommandExt,
    process::{Command, ExitStatus},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGINT, SIGTERM};

static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on, both signals are remembered.
///
/// # Errors
/// When the handlers can't be set.
pub fn watch() -> Result<(), String> {
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, flag.clone()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Whether one came.
pub fn came() -> bool {
    INTERRUPTED.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
}

/// Runs a command to its end. While signals are watched for, it has a process group of its own, which they are passed on to: so they
/// reach what the command started, too, and do so once, whoever sent them.
///
/// # Errors
/// When it can't be started, or was not started because a signal came before.
pub fn wait(command: &mut Command) -> io::Result<ExitStatus> {
    if came() {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted"));
    }
    if INTERRUPTED.get().is_some() {
        command.process_group(0);
    }
    let mut child = command.spawn()?;
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if came() && !told {
            told = true;
            if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                // One that has ended meanwhile is fine.
                let _ = kill_process_group(pid, Signal::TERM);
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_ends_the_command_with_what_it_started_and_no_other_is_begun() {
        watch().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let begun = directory.path().join("begun");
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 1000 & echo $! > \"$0.tmp\"; mv \"$0.tmp\" \"$0\"; wait"]).arg(&begun);
        let outcome = thread::scope(|scope| {
            let running = scope.spawn(|| wait(&mut shell));
            while !begun.exists() {
                thread::yield_now();
            }
            signal_hook::low_level::raise(SIGTERM).unwrap();
            running.join().unwrap().unwrap()
        });
        assert!(!outcome.success());
        let started = std::fs::read_to_string(&begun).unwrap();
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", started.trim())).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z")
        };
        let mut looks = 0;
        while lives() {
            looks += 1;
            assert!(looks < 500, "what the command started lives on");
            thread::sleep(Duration::from_millis(10));
        }
        assert!(came());
        assert!(wait(&mut Command::new("true")).is_err());
    }
}
