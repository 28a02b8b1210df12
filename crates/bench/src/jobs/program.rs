//! Processes of contenders: programs that take commands as lines, and servers that end with this process whatever ends it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long a server may take to end in good order; its data is thrown away anyway.
const GRACE: Duration = Duration::from_secs(3);

fn pid(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()).ok()?)
}

/// A program that is told what to do by lines on its standard input, and ends when that does.
pub struct Program {
    child: Child,
    input: Option<ChildStdin>,
    answers: mpsc::Receiver<String>,
}

impl Program {
    /// Starts it and waits for its first line. What it says on standard error goes to `log`.
    ///
    /// # Errors
    /// When it does not start, or says nothing.
    pub fn start(command: &mut Command, log: &Path) -> Result<(Self, String), Fault> {
        let log = File::options().create(true).append(true).open(log)?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let input = child.stdin.take();
        let output = child.stdout.take().ok_or("no standard output")?;
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let program = Self { child, input, answers };
        let first = program.answers.recv_timeout(Duration::from_secs(30));
        let first = first.map_err(|_| format!("{command:?} did not start"))?;
        Ok((program, first))
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Gives a command and waits for the answer.
    ///
    /// # Errors
    /// What the program says went wrong; that it is gone.
    pub fn ask(&mut self, command: &Value) -> Result<Value, Fault> {
        let input = self.input.as_mut().ok_or("the program has ended")?;
        writeln!(input, "{command}")?;
        let answer: Value = loop {
            let line = self.answers.recv_timeout(PATIENCE).map_err(|_| format!("no answer to {command}"))?;
            // Libraries of the peers may say things, too.
            match serde_json::from_str::<Value>(&line) {
                Ok(answer) if answer.get("done").is_some() || answer.get("error").is_some() => break answer,
                _ => {}
            }
        };
        match answer.get("error") {
            Some(error) => Err(format!("{command}: {error}").into()),
            None => Ok(answer),
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.input.take();
        let until = Instant::now() + GRACE;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }
}

/// A command line that is run below a keeper: this program itself, which ends it when its own standard input ends. So a
/// server does not outlive the benchmark, even if that is killed.
///
/// # Errors
/// When the own program is not found.
pub fn kept(words: &[OsString]) -> Result<Command, Fault> {
    let mut command = Command::new(std::env::current_exe()?);
    // In a group of its own: a signal to the benchmark's group must not end the keeper before what it keeps.
    command.arg("jobs-keep").arg("--").args(words).process_group(0);
    Ok(command)
}

/// The keeper.
///
/// # Errors
/// When the server does not start.
pub fn keep(words: &[OsString]) -> Result<(), Box<dyn std::error::Error>> {
    let (program, arguments) = words.split_first().ok_or("an empty command")?;
    let mut command = Command::new(program);
    command.args(arguments).process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.spawn()?;
    writeln!(std::io::stdout(), "{}", child.id())?;
    let mut line = String::new();
    while std::io::stdin().read_line(&mut line)? > 0 {
        line.clear();
    }
    for signal in [Signal::INT, Signal::KILL] {
        if let Some(group) = pid(&child) {
            // One that has gone meanwhile is fine.
            let _ = kill_process_group(group, signal);
        }
        let until = Instant::now() + GRACE;
        while Instant::now() < until {
            if child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
    Ok(())
}

/// Kills one process by its id; one of those that a contender's own program started.
pub fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Asks a child to end by SIGINT and waits for it.
///
/// # Errors
/// When it can't be waited for.
pub fn interrupt(child: &mut Child) -> std::io::Result<()> {
    if let Some(pid) = pid(child) {
        let _ = kill_process(pid, Signal::INT);
    }
    child.wait().map(drop)
}

struct Stat {
    parent: u32,
    ticks: u64,
}

/// What the kernel books on a process: its own time and that of its children that have ended.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name in brackets: state, parent, …; the 12th to 15th are user, system, and those of ended children.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

/// These processes and all below them.
#[must_use]
pub fn tree(roots: &[u32]) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: BTreeMap<u32, u32> =
        pids.filter_map(|pid| stat(pid).map(|stat| (pid, stat.parent))).collect();
    let below = |pid: &u32| {
        let mut at = *pid;
        loop {
            if roots.contains(&at) {
                return true;
            }
            match parents.get(&at) {
                Some(parent) if *parent > 1 => at = *parent,
                _ => return false,
            }
        }
    };
    parents.keys().copied().filter(below).collect()
}

/// Processor seconds that these processes and all below them have taken so far.
#[must_use]
pub fn cpu(roots: &[u32]) -> f64 {
    let ticks: u64 = tree(roots).into_iter().filter_map(stat).map(|stat| stat.ticks).sum();
    #[expect(clippy::cast_precision_loss, reason = "a time")]
    let ticks = ticks as f64;
    ticks / 100.0
}
