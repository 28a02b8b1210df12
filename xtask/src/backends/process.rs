//! Processes of servers: started in a group of their own, named by pid and start time so that nobody else's is ever
//! ended, and looked at through `/proc`.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

/// How long a server may take to end in good order. Its data is thrown away anyway.
const GRACE: Duration = Duration::from_secs(3);
/// How long the kernel may take after that.
const LAST: Duration = Duration::from_secs(20);

/// A process that can't be mistaken for another: pids come round again, and start times after a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid, which is that of its group.
    pub pid: i32,
    /// In clock ticks since the boot.
    pub started: u64,
    /// Which boot.
    pub boot: String,
}

/// What `/proc/PID/stat` says.
struct Stat {
    zombie: bool,
    group: i32,
    started: u64,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_whitespace().collect();
    Some(Stat {
        zombie: matches!(*fields.first()?, "Z" | "X"),
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Starts a command in a group of its own, with its output in a file.
///
/// # Errors
/// What could not be started.
pub fn spawn(words: &[String], directory: &Path, log: &Path) -> Result<(Child, Process), String> {
    let file = fs::File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let copy = file.try_clone().map_err(|error| error.to_string())?;
    let (program, arguments) = words.split_first().ok_or("an empty command")?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).process_group(0);
    command.stdin(Stdio::null()).stdout(file).stderr(copy);
    let child = command.spawn().map_err(|error| format!("{program} did not start: {error}"))?;
    let pid = i32::try_from(child.id()).map_err(|error| error.to_string())?;
    // Known even if it has ended already: it stays a zombie until it is waited for.
    let started = stat(pid).ok_or("/proc doesn't show the new process")?.started;
    Ok((child, Process { pid, started, boot: boot() }))
}

impl Process {
    /// Whether it is still this process, and not yet ended.
    pub fn alive(&self) -> bool {
        self.is_ours() && !self.members().is_empty()
    }

    fn is_ours(&self) -> bool {
        self.boot == boot() && stat(self.pid).is_some_and(|stat| stat.started == self.started)
    }

    /// The living processes of its group.
    fn members(&self) -> Vec<i32> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pid = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<i32>().ok();
        let of_group = |pid: &i32| stat(*pid).is_some_and(|stat| stat.group == self.pid && !stat.zombie);
        entries.flatten().filter_map(pid).filter(of_group).collect()
    }

    /// Ends the group and waits until it is gone.
    ///
    /// # Errors
    /// When it survives.
    pub fn end(&self) -> Result<(), String> {
        for (signal, patience) in [(Signal::TERM, GRACE), (Signal::KILL, LAST)] {
            if !self.is_ours() {
                return Ok(());
            }
            if let Some(group) = Pid::from_raw(self.pid) {
                // One that has gone meanwhile is fine.
                let _ = kill_process_group(group, signal);
            }
            let until = Instant::now() + patience;
            while Instant::now() < until {
                if self.members().is_empty() {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        Err(format!("process {} doesn't end", self.pid))
    }

    /// The addresses that its group listens on.
    pub fn listens(&self) -> Vec<SocketAddr> {
        let members = self.members();
        let sockets: Vec<String> = members.iter().flat_map(|pid| sockets(*pid)).collect();
        let tables = ["tcp", "tcp6"].map(|table| {
            let pid = members.first().copied().unwrap_or(self.pid);
            fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default()
        });
        let mut found: Vec<SocketAddr> = tables
            .iter()
            .flat_map(|table| table.lines())
            .filter_map(listener)
            .filter(|(_, inode)| sockets.contains(inode))
            .map(|(address, _)| address)
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

/// The inodes of a process's sockets.
fn sockets(pid: i32) -> Vec<String> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let inode = |entry: fs::DirEntry| {
        let target = fs::read_link(entry.path()).ok()?;
        Some(target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    entries.flatten().filter_map(inode).collect()
}

/// Address and inode of a line of `/proc/net/tcp` or `tcp6` that is about a listener.
fn listener(line: &str) -> Option<(SocketAddr, String)> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    // Words of 32 bits in the machine's own order.
    let mut bytes = Vec::new();
    for at in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let address = match bytes.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some((SocketAddr::new(address, port), (*fields.get(9)?).to_owned()))
}

/// Whether an address is reached from this machine only.
pub fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn sleeper(directory: &Path) -> (Child, Process) {
        let words = ["sleep".to_owned(), "1000".to_owned()];
        spawn(&words, directory, &directory.join("log")).unwrap()
    }

    #[test]
    fn a_process_is_ended_with_its_group_and_then_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let words = ["sh".to_owned(), "-c".to_owned(), "sleep 1000 & wait".to_owned()];
        let (mut child, process) = spawn(&words, directory.path(), &directory.path().join("log")).unwrap();
        assert!(process.alive());
        process.end().unwrap();
        assert!(!process.alive());
        assert!(process.members().is_empty());
        child.wait().unwrap();
        process.end().unwrap();
    }

    #[test]
    fn a_process_that_took_over_the_pid_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (mut child, process) = sleeper(directory.path());
        for other in [
            Process { started: process.started + 1, ..process.clone() },
            Process { boot: "another".to_owned(), ..process.clone() },
        ] {
            assert!(!other.alive());
            other.end().unwrap();
            assert!(process.alive());
        }
        process.end().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn listeners_are_seen_with_their_addresses() {
        let here = TcpListener::bind("127.0.0.1:0").unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        // The members of this test's own group, of which the test is one.
        let group = stat(pid).unwrap().group;
        let process = Process { pid: group, started: 0, boot: boot() };
        let listens = process.listens();
        assert!(listens.contains(&here.local_addr().unwrap()), "{listens:?}");
        let line = "0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1";
        let (address, inode) = listener(line).unwrap();
        assert_eq!((address.to_string().as_str(), inode.as_str()), ("0.0.0.0:8080", "4711"));
        assert!(!is_loopback(&address));
        assert!(is_loopback(&"127.0.0.1:1".parse().unwrap()));
        assert!(is_loopback(&"[::ffff:127.0.0.1]:1".parse().unwrap()));
        assert!(!is_loopback(&"[::]:1".parse().unwrap()));
    }
}
