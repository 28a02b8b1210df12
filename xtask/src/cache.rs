//! The cache outside the checkout: where it is, the lock that keeps two runs from filling it at once, and how Debian packages
//! are unpacked in it instead of being installed.

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

/// Says that a directory of the cache is whole.
pub const FINISHED: &str = "finished";

/// `$XDG_CACHE_HOME` or `~/.cache`, then `orchestrator-testbed`, then a name that changes with the pins.
///
/// # Errors
/// When the environment names no home.
pub fn directory(what: &str, pins: impl Hash) -> Result<PathBuf, String> {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .ok_or("neither XDG_CACHE_HOME nor HOME is set")?;
    let mut hasher = DefaultHasher::new();
    (pins, env::consts::ARCH).hash(&mut hasher);
    Ok(base.join("orchestrator-testbed").join(format!("{what}-{:016x}", hasher.finish())))
}

/// Makes a directory with all above it.
///
/// # Errors
/// Says which directory.
pub fn make_directory(path: &Path) -> Result<(), String> {
    fs::create_dir_all(path).map_err(|error| format!("{} can't be made: {error}", path.display()))
}

/// The lock file at a path; opened, not yet locked.
///
/// # Errors
/// Says which file.
pub fn lock_file(path: &Path) -> Result<fs::File, String> {
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    let mut options = fs::File::options();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Waits for the lock at a path; it is held until the file is dropped.
///
/// # Errors
/// Says which file.
pub fn lock(path: &Path) -> Result<fs::File, String> {
    let file = lock_file(path)?;
    file.lock().map_err(|error| format!("{} can't be locked: {error}", path.display()))?;
    Ok(file)
}

/// Fetches Debian packages and unpacks them below a directory that is made anew. Nothing of the system changes: package
/// lists, too, are fetched into the cache when those of the system don't do.
///
/// # Errors
/// The command that failed.
pub fn unpack_debian(packages: &[&str], target: &Path) -> Result<(), String> {
    let scratch = target.with_extension("packages");
    for directory in [target, &scratch] {
        remove(directory)?;
        make_directory(directory)?;
    }
    let lists = scratch.join("lists");
    make_directory(&lists.join("partial"))?;
    make_directory(&scratch.join("archives/partial"))?;
    let apt = |arguments: &[&str], own_lists: bool| {
        let mut command = Command::new("apt-get");
        command.current_dir(&scratch).args(["-qq", "-o", "APT::Sandbox::User="]);
        if own_lists {
            command.arg("-o").arg(format!("Dir::State::Lists={}", lists.display()));
            command.arg("-o").arg(format!("Dir::Cache={}", scratch.display()));
        }
        command.args(arguments);
        command
    };
    let download = [&["download"], packages].concat();
    if run(&mut apt(&download, false)).is_err() {
        // The system's package lists are missing or old.
        run(&mut apt(&["update"], true))?;
        run(&mut apt(&download, true))?;
    }
    let failed = |error: std::io::Error| error.to_string();
    for entry in fs::read_dir(&scratch).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("-x").arg(path).arg(target))?;
        }
    }
    remove(&scratch)
}

/// Removes a directory with all in it; a missing one is fine.
///
/// # Errors
/// Says which directory.
pub fn remove(path: &Path) -> Result<(), String> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{} can't be removed: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Runs a command quietly.
///
/// # Errors
/// The command, how it ended, and what it said.
pub fn run(command: &mut Command) -> Result<(), String> {
    output(command).map(drop)
}

/// What a command prints.
///
/// # Errors
/// The command, how it ended, and what it said.
pub fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?} did not start: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} ended with {}: {}", output.status, text.trim()))
}
