//! Fuzzing with libFuzzer: fetches a pinned `cargo-fuzz`, builds `fuzz/` in the cache, and runs each target for a share of
//! the time. What is found, and the corpus that grows, lie in the cache, too; the checkout stays as it is.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::Args;

use crate::{cache, interrupt};

/// The version that works with the pinned toolchain.
const CARGO_FUZZ: &str = "0.13.1";
/// Memory of a target, in MiB; beyond it the input counts as a finding.
const MEMORY: u32 = 2_048;
/// Seconds for one input; beyond them it counts as a finding.
const SECONDS: u32 = 10;

/// What is fuzzed, and for how long.
#[derive(Debug, Args)]
pub struct FuzzArgs {
    /// Targets; all unless named. They are the files of `fuzz/fuzz_targets`.
    targets: Vec<String>,
    /// Minutes in all, shared by the targets.
    #[arg(long, default_value_t = 14.0)]
    minutes: f64,
    /// Build, and run the known inputs once each.
    #[arg(long)]
    check: bool,
}

/// Builds and fuzzes.
///
/// # Errors
/// Says which target found what, and how to run it again.
pub fn fuzz(args: &FuzzArgs) -> Result<(), String> {
    interrupt::watch()?;
    let home = super::root().join("fuzz");
    let targets = chosen(&home, &args.targets)?;
    let cache = cache::directory("fuzz", CARGO_FUZZ)?;
    cache::make_directory(&cache)?;
    let _lock = cache::lock(&cache.with_extension("lock"))?;
    build(&home, &cache)?;
    let share = (args.minutes * 60.0 / targets.len() as f64).max(1.0) as u64;
    let (mut lines, mut found) = (Vec::new(), Vec::new());
    for target in &targets {
        if interrupt::came() {
            break;
        }
        let run = Run { home: &home, cache: &cache, target };
        match run.fuzz((!args.check).then_some(share)) {
            Ok(line) => lines.push(line),
            Err(problem) => found.push(problem),
        }
    }
    for line in &lines {
        eprintln!("{line}");
    }
    if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
}

/// The targets that are asked for.
fn chosen(home: &Path, wanted: &[String]) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(home.join("fuzz_targets")).map_err(|error| error.to_string())?;
    let all: BTreeSet<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".rs").map(str::to_owned))
        .collect();
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(*name)) {
        let all: Vec<_> = all.into_iter().collect();
        return Err(format!("there is no target `{unknown}`; the targets are {}", all.join(", ")));
    }
    Ok(if wanted.is_empty() { all.into_iter().collect() } else { wanted.to_vec() })
}

fn build(home: &Path, cache: &Path) -> Result<(), String> {
    let program = cache.join("bin/cargo-fuzz");
    if !program.exists() {
        let mut install = super::cargo();
        install.args(["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked", "--quiet", "--root"]);
        super::run(
            "fetching cargo-fuzz",
            install.arg(cache).env("CARGO_TARGET_DIR", target_directory(cache)),
        )?;
    }
    // No sanitizer: those need an unstable compiler, and safe Rust has little use for them.
    let mut command = Command::new(program);
    command.args(["build", "--sanitizer", "none", "--fuzz-dir"]).arg(home);
    command.arg("--target-dir").arg(target_directory(cache)).env_remove("CARGO_TARGET_DIR");
    super::run("build of the fuzz targets", command.current_dir(home))
}

fn target_directory(cache: &Path) -> PathBuf {
    cache.join("target")
}

/// One target.
struct Run<'a> {
    home: &'a Path,
    cache: &'a Path,
    target: &'a str,
}

impl Run<'_> {
    fn fuzz(&self, seconds: Option<u64>) -> Result<String, String> {
        let Self { home, cache, target } = *self;
        let (corpus, finds) = (cache.join("corpus").join(target), cache.join("found").join(target));
        cache::make_directory(&corpus)?;
        cache::make_directory(&finds)?;
        let before = names(&finds)?;
        let log = cache.join(format!("{target}.log"));
        let output = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let scratch = scratch()?;
        let mut command = Command::new(self.program()?);
        command
            .env("TMPDIR", &scratch)
            .arg(format!("-rss_limit_mb={MEMORY}"))
            .arg(format!("-timeout={SECONDS}"))
            .arg(format!("-max_len={}", self.longest()?))
            .arg(format!("-artifact_prefix={}/", finds.display()))
            .arg("-print_final_stats=1")
            .arg(match seconds {
                Some(seconds) => format!("-max_total_time={seconds}"),
                None => "-runs=0".to_owned(),
            })
            .arg(&corpus);
        let known = ["seeds", "regressions"].map(|kind| home.join(kind).join(target));
        command.args(known.iter().filter(|directory| directory.is_dir()));
        let outcome = super::run(&format!("fuzzing {target}"), command.stderr(output).current_dir(cache));
        cache::remove(&scratch)?;
        let said = fs::read_to_string(&log).unwrap_or_default();
        let new: Vec<_> = names(&finds)?.difference(&before).cloned().collect();
        match (outcome, new.as_slice()) {
            (Ok(()), []) => Ok(format!("{target}: {}", summary(&said))),
            // Whoever ends it wants no report.
            (Err(problem), []) if interrupt::came() => Err(problem),
            (_, new) => {
                let again: Vec<_> = new
                    .iter()
                    .map(|name| {
                        let file = finds.join(name);
                        format!(
                            "  cargo run -p orchestrator-fuzz-targets -- replay {target} {}",
                            file.display()
                        )
                    })
                    .collect();
                let tail: Vec<_> = said.lines().filter(|line| telling(line)).take(12).collect();
                Err(format!(
                    "{target} found an input that breaks a law:\n  {}\nrun it again by\n{}\nthe whole log is {}",
                    tail.join("\n  "),
                    again.join("\n"),
                    log.display()
                ))
            }
        }
    }

    /// The built program; cargo-fuzz builds below the name of the host.
    fn program(&self) -> Result<PathBuf, String> {
        let target = target_directory(self.cache);
        let entries = fs::read_dir(&target).map_err(|error| error.to_string())?;
        entries
            .filter_map(|entry| Some(entry.ok()?.path().join("release").join(self.target)))
            .find(|path| path.is_file())
            .ok_or_else(|| format!("{} was not built", self.target))
    }

    /// The length of inputs, as the table of the targets says.
    fn longest(&self) -> Result<u32, String> {
        let table = self.home.join("../crates/fuzz-targets/src/lib.rs");
        let text = fs::read_to_string(&table).map_err(|error| format!("{}: {error}", table.display()))?;
        longest(&text, self.target)
            .ok_or_else(|| format!("`{}` is not in the table of {}", self.target, table.display()))
    }
}

/// Where a target keeps its files: libFuzzer ends without tidying up. In memory, where syncing costs nothing.
fn scratch() -> Result<PathBuf, String> {
    let in_memory = Path::new("/dev/shm");
    let base = if in_memory.is_dir() { in_memory.to_owned() } else { env::temp_dir() };
    let scratch = base.join(format!("orchestrator-fuzz-{}", std::process::id()));
    cache::make_directory(&scratch).map(|()| scratch)
}

/// A line of the table is `NAME: LENGTH bytes, …`.
fn longest(table: &str, target: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        line.trim().strip_prefix(target)?.strip_prefix(": ")?.split_once(" bytes,")?.0.parse().ok()
    })
}

fn names(directory: &Path) -> Result<BTreeSet<String>, String> {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect())
}

/// Lines of libFuzzer's log that are about a finding.
fn telling(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#') && !line.starts_with("INFO:") && !line.starts_with("stat::")
}

/// Executions, coverage and size of the corpus, from libFuzzer's log.
fn summary(log: &str) -> String {
    let stat = |name: &str| {
        let line = log.lines().find(|line| line.starts_with("stat::") && line.contains(name));
        line.and_then(|line| line.split_whitespace().last()).unwrap_or("?").to_owned()
    };
    let done = log.lines().rfind(|line| line.starts_with('#') && line.contains("cov:")).unwrap_or_default();
    let word = |name: &str| {
        let rest = done.split_once(name).map(|(_, rest)| rest);
        rest.and_then(|rest| rest.split_whitespace().next()).unwrap_or("?").to_owned()
    };
    format!(
        "{} executions, {} a second, {} edges, {} features, corpus {}, at most {} MB",
        stat("number_of_executed_units"),
        stat("average_exec_per_sec"),
        word("cov:"),
        word("ft:"),
        word("corp:"),
        stat("peak_rss_mb"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_targets_is_read() {
        let table = include_str!("../../crates/fuzz-targets/src/lib.rs");
        let home = super::super::root().join("fuzz");
        let all = chosen(&home, &[]).unwrap();
        assert!(all.len() > 10);
        for target in &all {
            assert!(longest(table, target).is_some_and(|bytes| bytes >= 256), "{target}");
        }
        assert_eq!(longest(table, "nothing"), None);
        assert!(chosen(&home, &["nothing".to_owned()]).unwrap_err().contains("scalar"));
        assert_eq!(chosen(&home, &["seal".to_owned()]).unwrap(), ["seal"]);
    }

    #[test]
    fn a_log_of_the_fuzzer_is_summed_up() {
        let log = "INFO: Seed: 1\n#2\tINITED cov: 5 ft: 6 corp: 1/1b\n#4096\tDONE   cov: 70 ft: 110 corp: 20/345b lim: 4\n\
                   stat::number_of_executed_units: 4096\nstat::average_exec_per_sec:     2048\nstat::peak_rss_mb:              55\n";
        assert_eq!(
            summary(log),
            "4096 executions, 2048 a second, 70 edges, 110 features, corpus 20/345b, at most 55 MB"
        );
        assert!(!telling("stat::x: 1") && !telling("#2 NEW") && telling("thread panicked"));
    }
}
