//! The stock programs that tests use: boto3 and a validator of OpenAPI documents in a virtual environment, rclone out of its Debian
//! package, and anvil, a chain of one's own, out of what builds the contracts; and the machine's Node. They live in a cache outside the
//! checkout, under a name made of the pins, and never touch the system. A lock file keeps two runs from making the same cache at
//! once; a cache that is not finished is made again.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cache::{self, FINISHED},
    contracts,
};

/// Python packages, pinned.
const PYTHON_PACKAGES: &[&str] = &["boto3==1.44.5", "openapi-spec-validator==0.9.0"];
/// Debian packages, as the distribution pins them; unpacked, not installed.
const DEBIAN_PACKAGES: &[&str] = &["rclone"];

/// Where the stock clients are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Testbed {
    /// A Python that has boto3: `ORCHESTRATOR_TEST_PYTHON`.
    pub python: PathBuf,
    /// The rclone binary: `ORCHESTRATOR_TEST_RCLONE`.
    pub rclone: PathBuf,
    /// The anvil binary: `ORCHESTRATOR_TEST_ANVIL`.
    pub anvil: PathBuf,
    /// The node binary, for which the contract's directory has the packages: `ORCHESTRATOR_TEST_NODE`.
    pub node: PathBuf,
}

impl Testbed {
    /// The environment that the tests read.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, &Path); 4] {
        [
            ("ORCHESTRATOR_TEST_PYTHON", &self.python),
            ("ORCHESTRATOR_TEST_RCLONE", &self.rclone),
            ("ORCHESTRATOR_TEST_ANVIL", &self.anvil),
            ("ORCHESTRATOR_TEST_NODE", &self.node),
        ]
    }
}

/// Finds the stock clients, or fetches them. What the environment names already is taken as it is.
///
/// # Errors
/// What could not be done, the command that failed, and how to go without.
pub fn ensure(root: &Path) -> Result<Testbed, String> {
    let named = |variable| env::var_os(variable).map(PathBuf::from);
    let anvil = named("ORCHESTRATOR_TEST_ANVIL").map_or_else(|| contracts::anvil(root), Ok)?;
    // The packages came with anvil, by the npm that stands beside it.
    let node = named("ORCHESTRATOR_TEST_NODE").unwrap_or_else(|| PathBuf::from("node"));
    if let (Some(python), Some(rclone)) =
        (named("ORCHESTRATOR_TEST_PYTHON"), named("ORCHESTRATOR_TEST_RCLONE"))
    {
        return Ok(Testbed { python, rclone, anvil, node });
    }
    let cache = cache::directory("clients", (PYTHON_PACKAGES, DEBIAN_PACKAGES))?;
    let _lock = cache::lock(&cache.with_extension("lock"))?;
    let found = Testbed {
        python: cache.join("venv/bin/python"),
        rclone: cache.join("debian/usr/bin/rclone"),
        anvil,
        node,
    };
    if !cache.join(FINISHED).exists() {
        make(&cache).map_err(|error| {
            format!(
                "the stock clients for the tests could not be fetched into {}: {error}\n\
                 set ORCHESTRATOR_TEST_EMBEDDED_ONLY=1 to test without them",
                cache.display()
            )
        })?;
    }
    for tool in [&found.python, &found.rclone, &found.anvil] {
        if !tool.exists() {
            return Err(format!("{} is missing; remove {} and try again", tool.display(), cache.display()));
        }
    }
    Ok(found)
}

fn make(cache: &Path) -> Result<(), String> {
    cache::remove(cache)?;
    cache::make_directory(cache)?;
    let venv = cache.join("venv");
    cache::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    cache::run(
        Command::new(venv.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(PYTHON_PACKAGES),
    )?;
    cache::unpack_debian(DEBIAN_PACKAGES, &cache.join("debian"))?;
    fs::write(cache.join(FINISHED), "").map_err(|error| error.to_string())
}
