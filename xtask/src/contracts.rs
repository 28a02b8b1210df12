//! Builds and tests the contracts. What they need comes from npm by a lock file, into the cache outside the checkout; the
//! contract's directory gets a link to it. Nothing here needs a node, a compiler of its own, or the network once the cache is
//! filled.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::{Args, ValueEnum};

use crate::{
    cache::{self, FINISHED},
    interrupt,
};

/// What every source file's lines must reach, in percent.
const COVERAGE: f64 = 95.0;

/// A chain that has a contract here.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Chain {
    /// Solidity, in `contracts/ethereum`.
    Ethereum,
}

/// What is asked for.
#[derive(Debug, Args)]
pub struct ContractsArgs {
    /// Whose contract.
    chain: Chain,
    /// Run the tests, too, with the limits on gas and the coverage; some minutes.
    #[arg(long)]
    test: bool,
    /// Write what is otherwise compared: the built contract, the format's vectors, and what transactions cost.
    #[arg(long)]
    record: bool,
}

/// A chain of one's own for tests: the program, fetched first when it is missing.
///
/// # Errors
/// What could not be fetched.
pub fn anvil(root: &Path) -> Result<PathBuf, String> {
    Ok(Kit::ensure(&root.join("contracts/ethereum"))?.anvil)
}

/// Builds, and compares with what is committed.
///
/// # Errors
/// What failed.
pub fn contracts(root: &Path, args: &ContractsArgs) -> Result<(), String> {
    interrupt::watch()?;
    let Chain::Ethereum = args.chain;
    let kit = Kit::ensure(&root.join("contracts/ethereum"))?;
    kit.run("formatting", kit.forge(&["fmt", "--check", "src", "test"]))?;
    kit.run("the format's vectors", kit.script("scripts/vectors.mjs", args.record))?;
    kit.run("build", kit.forge(&["build", "--skip", "test"]))?;
    // The tests of the daemon deploy it.
    kit.run("the tests' token", kit.forge(&["build", "test/Tokens.sol"]))?;
    kit.run("the committed contract", kit.script("scripts/artifact.mjs", args.record))?;
    if args.record {
        let mut gas = kit.forge(&["test", "--match-contract", "Gas"]);
        kit.run("gas", gas.env("GAS_RECORD", "true"))?;
    }
    if args.test {
        kit.run("tests", kit.forge(&["test"]))?;
        kit.coverage()?;
    }
    Ok(())
}

/// The packages, and where the contract lies.
struct Kit {
    contract: PathBuf,
    forge: PathBuf,
    anvil: PathBuf,
}

impl Kit {
    fn ensure(contract: &Path) -> Result<Self, String> {
        let read =
            |name: &str| fs::read_to_string(contract.join(name)).map_err(|error| format!("{name}: {error}"));
        let directory =
            cache::directory("contracts-ethereum-2", (read("package.json")?, read("package-lock.json")?))?;
        let lock = cache::lock(&directory.with_extension("lock"))?;
        let modules = directory.join("node_modules");
        let machine = if env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
        let program = |name| modules.join(format!("@foundry-rs/{name}-linux-{machine}/bin/{name}"));
        let (forge, anvil) = (program("forge"), program("anvil"));
        if !directory.join(FINISHED).exists() {
            eprintln!("== fetching forge, anvil, solc and OpenZeppelin");
            cache::remove(&directory)?;
            cache::make_directory(&directory)?;
            for name in ["package.json", "package-lock.json"] {
                fs::copy(contract.join(name), directory.join(name))
                    .map_err(|error| format!("{name}: {error}"))?;
            }
            let mut npm = Command::new("npm");
            // Not `ci`, which asks for lock entries of optional packages that registries may lack for other machines.
            npm.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
            cache::run(npm.current_dir(&directory))
                .map_err(|error| format!("Node 20 or newer with npm is needed: {error}"))?;
            // Without their scripts the packages do not mark their programs as executable.
            cache::run(Command::new("chmod").arg("+x").args([&forge, &anvil]))?;
            fs::write(directory.join(FINISHED), "").map_err(|error| error.to_string())?;
        }
        link(&modules, &contract.join("node_modules"))?;
        drop(lock);
        Ok(Self { contract: contract.to_owned(), forge, anvil })
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.contract);
        command
    }

    fn forge(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.forge);
        command.args(arguments).env("FOUNDRY_DISABLE_NIGHTLY_WARNING", "1");
        command
    }

    /// A script that writes a file, or compares with it.
    fn script(&self, script: &str, record: bool) -> Command {
        let mut command = self.command("node");
        command.arg(script);
        if !record {
            command.arg("--check");
        }
        command
    }

    fn run(&self, what: &str, mut command: impl std::borrow::BorrowMut<Command>) -> Result<(), String> {
        eprintln!("== {what}");
        let command = command.borrow_mut();
        let status = interrupt::wait(command).map_err(|error| format!("{what}: {error}"))?;
        if status.success() { Ok(()) } else { Err(format!("{what} failed ({status})")) }
    }

    /// Measures on a build of its own, without the optimizer: limits on gas and size make no sense there.
    fn coverage(&self) -> Result<(), String> {
        let report = self.contract.join("lcov.info");
        self.run(
            "coverage",
            self.forge(&[
                "coverage",
                "--no-match-contract",
                "Gas",
                "--no-match-test",
                "it_fits_a_chain",
                "--no-match-coverage",
                "^(test|node_modules)/",
                "--report",
                "lcov",
                "--report-file",
                "lcov.info",
            ]),
        )?;
        let text = fs::read_to_string(&report).map_err(|error| format!("{}: {error}", report.display()))?;
        let files = lines_hit(&text);
        if files.is_empty() {
            return Err("the coverage report names no file".to_owned());
        }
        for (file, percent) in files {
            eprintln!("{percent:6.1} % {file}");
            if percent < COVERAGE {
                return Err(format!("{file} is covered to {percent:.1} %: {COVERAGE} % are needed"));
            }
        }
        Ok(())
    }
}

/// Makes the path a link to the directory. What stands there and is no link is left alone: somebody's own installation.
fn link(target: &Path, path: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    match fs::symlink_metadata(path) {
        Ok(found) if !found.is_symlink() => return Ok(()),
        Ok(_) if fs::read_link(path).is_ok_and(|old| old == target) => return Ok(()),
        Ok(_) => fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    std::os::unix::fs::symlink(target, path).map_err(failed)
}

/// From a report in lcov's format: each file, and the share of its lines that ran, in percent.
fn lines_hit(report: &str) -> Vec<(String, f64)> {
    let mut files = Vec::new();
    let (mut file, mut found, mut hit) = (String::new(), 0.0, 0.0);
    for line in report.lines() {
        match line.split_once(':') {
            Some(("SF", name)) => name.clone_into(&mut file),
            Some(("LF", count)) => found = count.parse().unwrap_or(0.0),
            Some(("LH", count)) => hit = count.parse().unwrap_or(0.0),
            _ if line == "end_of_record" && found > 0.0 => {
                files.push((std::mem::take(&mut file), 100.0 * hit / found));
            }
            _ => {}
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_each_file_with_its_share() {
        let report =
            "TN:\nSF:src/A.sol\nDA:1,2\nLF:4\nLH:3\nend_of_record\nSF:src/B.sol\nLF:2\nLH:2\nend_of_record\n";
        assert_eq!(lines_hit(report), [("src/A.sol".to_owned(), 75.0), ("src/B.sol".to_owned(), 100.0)]);
        assert!(lines_hit("SF:src/A.sol\nLF:0\nLH:0\nend_of_record\n").is_empty());
    }

    #[test]
    fn a_link_is_moved_and_a_directory_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("node_modules");
        link(Path::new("/one"), &path).unwrap();
        link(Path::new("/two"), &path).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("/two"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        link(Path::new("/one"), &path).unwrap();
        assert!(path.is_dir() && !path.is_symlink());
    }
}
