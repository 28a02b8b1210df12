//! The stock clients that tests use: boto3 and a validator of OpenAPI documents in a virtual environment, and rclone out of its Debian package. Both live in
//! a cache outside the checkout, under a name made of the pins, and never touch the system. A lock file keeps two runs
//! from making the same cache at once; a cache that is not finished is made again.

use std::{
    collections::hash_map::DefaultHasher,
    env, fs,
    hash::{Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

/// Python packages, pinned.
const PYTHON_PACKAGES: &[&str] = &["boto3==1.44.5", "openapi-spec-validator==0.9.0"];
/// Debian packages, as the distribution pins them; unpacked, not installed.
const DEBIAN_PACKAGES: &[&str] = &["rclone"];
/// Says that a cache is whole.
const FINISHED: &str = "finished";

/// Where the stock clients are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Testbed {
    /// A Python that has boto3: `ORCHESTRATOR_TEST_PYTHON`.
    pub python: PathBuf,
    /// The rclone binary: `ORCHESTRATOR_TEST_RCLONE`.
    pub rclone: PathBuf,
}

impl Testbed {
    /// The environment that the tests read.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, &Path); 2] {
        [("ORCHESTRATOR_TEST_PYTHON", &self.python), ("ORCHESTRATOR_TEST_RCLONE", &self.rclone)]
    }
}

/// Finds the stock clients, or fetches them. What the environment names already is taken as it is.
///
/// # Errors
/// What could not be done, the command that failed, and how to go without.
pub fn ensure() -> Result<Testbed, String> {
    let named = |variable| env::var_os(variable).map(PathBuf::from);
    if let (Some(python), Some(rclone)) =
        (named("ORCHESTRATOR_TEST_PYTHON"), named("ORCHESTRATOR_TEST_RCLONE"))
    {
        return Ok(Testbed { python, rclone });
    }
    let cache = cache_directory()?;
    fs::create_dir_all(&cache).map_err(|error| format!("{} can't be made: {error}", cache.display()))?;
    let lock_path = cache.with_extension("lock");
    let lock = fs::File::create(&lock_path).map_err(|error| format!("{}: {error}", lock_path.display()))?;
    lock.lock().map_err(|error| format!("{} can't be locked: {error}", lock_path.display()))?;
    let found =
        Testbed { python: cache.join("venv/bin/python"), rclone: cache.join("debian/usr/bin/rclone") };
    if !cache.join(FINISHED).exists() {
        make(&cache).map_err(|error| {
            format!(
                "the stock clients for the tests could not be fetched into {}: {error}\n\
                 set ORCHESTRATOR_TEST_EMBEDDED_ONLY=1 to test without them",
                cache.display()
            )
        })?;
    }
    for tool in [&found.python, &found.rclone] {
        if !tool.exists() {
            return Err(format!("{} is missing; remove {} and try again", tool.display(), cache.display()));
        }
    }
    Ok(found)
}

/// `$XDG_CACHE_HOME` or `~/.cache`, then a name that changes with the pins.
fn cache_directory() -> Result<PathBuf, String> {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
        .ok_or("neither XDG_CACHE_HOME nor HOME is set")?;
    let mut pins = DefaultHasher::new();
    (PYTHON_PACKAGES, DEBIAN_PACKAGES, env::consts::ARCH).hash(&mut pins);
    Ok(base.join("orchestrator-testbed").join(format!("clients-{:016x}", pins.finish())))
}

fn make(cache: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    fs::remove_dir_all(cache).map_err(failed)?;
    let (packages, unpacked) = (cache.join("packages"), cache.join("debian"));
    fs::create_dir_all(&packages).map_err(failed)?;
    fs::create_dir_all(&unpacked).map_err(failed)?;
    let venv = cache.join("venv");
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    run(Command::new(venv.join("bin/python"))
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
        .args(PYTHON_PACKAGES))?;
    let download = || {
        let mut command = Command::new("apt-get");
        command.arg("download").args(DEBIAN_PACKAGES).current_dir(&packages);
        command
    };
    if run(&mut download()).is_err() {
        // The package lists may be missing or old.
        run(Command::new("apt-get").args(["update", "-qq"]))?;
        run(&mut download())?;
    }
    for package in fs::read_dir(&packages).map_err(failed)? {
        let package = package.map_err(failed)?.path();
        run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&unpacked))?;
    }
    fs::remove_dir_all(&packages).map_err(failed)?;
    fs::write(cache.join(FINISHED), "").map_err(failed)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?} did not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} ended with {}: {}", output.status, text.trim()))
}
