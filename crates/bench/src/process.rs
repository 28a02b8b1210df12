//! What the kernel knows about a process and its threads.

use std::{fs, path::PathBuf};

/// Clock ticks of `/proc/<pid>/stat` in a second; fixed on Linux.
const TICKS: f64 = 100.0;

/// A size from `/proc/<pid>/status`, such as `VmRSS` or `VmHWM`, in MB.
#[must_use]
pub fn memory(pid: &str, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.split(':').next() == Some(field))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1_024.0 / 1e6)
}

/// Processor time that a process has taken so far, in seconds.
#[must_use]
pub fn cpu(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name in brackets, user and system time are the 12th and 13th.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

/// One thread of this process.
#[derive(Debug, Clone)]
pub struct Thread(PathBuf);

impl Thread {
    /// The calling thread.
    #[must_use]
    pub fn current() -> Option<Self> {
        let own = fs::read_link("/proc/thread-self").ok()?;
        Some(Self(PathBuf::from("/proc").join(own).join("schedstat")))
    }

    /// Processor time that it has taken so far, in seconds.
    #[must_use]
    pub fn cpu(&self) -> Option<f64> {
        let text = fs::read_to_string(&self.0).ok()?;
        let nanoseconds: f64 = text.split_whitespace().next()?.parse().ok()?;
        Some(nanoseconds / 1e9)
    }
}
