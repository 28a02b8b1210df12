//! Every target over its committed inputs, over every input that was ever found, and over mutations from a fixed seed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panics")]

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use orchestrator_fuzz_targets::{
    TARGETS, Target, files,
    mutate::{Chance, mutate},
    seeds, target,
};

/// Runs an input; one that breaks a law is kept in a file, with the command that runs it again.
fn run(target: &Target, what: &str, input: &[u8]) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(input))) else { return };
    let (name, place) =
        (target.name, std::env::temp_dir().join(format!("fuzz-{}-{}", target.name, std::process::id())));
    std::fs::write(&place, input).unwrap();
    eprintln!("{name}: {what} breaks a law; run it again by");
    eprintln!("  cargo run -p orchestrator-fuzz-targets -- replay {name} {}", place.display());
    resume_unwind(panic);
}

/// How many mutations are tried, unless the environment says so.
fn count(target: &Target) -> u32 {
    let wanted = std::env::var("ORCHESTRATOR_TEST_FUZZ_INPUTS").ok();
    wanted.map_or(target.inputs, |text| text.parse().expect("ORCHESTRATOR_TEST_FUZZ_INPUTS is a number"))
}

fn replay(name: &str) {
    let target = target(name).unwrap();
    let committed = files::committed(name).unwrap();
    assert!(!committed.is_empty(), "{name} has no seeds");
    for (file, input) in &committed {
        assert!(input.len() <= target.max_len, "{name}/{file} is longer than {}", target.max_len);
        run(target, file, input);
    }
    run(target, "nothing", b"");
    let inputs: Vec<Vec<u8>> = committed.into_iter().map(|(_, input)| input).collect();
    let mut chance = Chance::new(20_261_121);
    for number in 0..count(target) {
        run(target, &format!("mutation {number}"), &mutate(&mut chance, &inputs, target.max_len));
    }
}

macro_rules! replays {
    ($($name:ident)+) => {
        const TESTED: &[&str] = &[$(stringify!($name)),+];
        $(#[test]
        fn $name() {
            replay(stringify!($name));
        })+
    };
}

replays!(answer api bundle changeset config document evidence proof proof_mutated provider_admin provider_s3 queue records scalar seal);

#[test]
fn every_target_is_tested_and_has_a_program_for_the_fuzzer() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, TESTED.iter().copied().collect());
    let programs = files::read(&files::directory("fuzz_targets")).unwrap();
    let programs: BTreeSet<_> = programs.iter().map(|(name, _)| name.trim_end_matches(".rs")).collect();
    assert_eq!(names, programs);
    let manifest = std::fs::read_to_string(files::directory("Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "fuzz/Cargo.toml does not name {name}");
    }
}

#[test]
fn the_committed_seeds_are_those_that_the_program_writes() {
    let mut expected: Vec<_> =
        seeds::all().into_iter().map(|(target, name, bytes)| (target.to_owned(), name, bytes)).collect();
    let mut found = Vec::new();
    for target in TARGETS {
        let files = files::read(&files::directory("seeds").join(target.name)).unwrap();
        found.extend(files.into_iter().map(|(name, bytes)| (target.name.to_owned(), name, bytes)));
    }
    expected.sort();
    found.sort();
    let names = |all: &[(String, String, Vec<u8>)]| {
        all.iter().map(|(target, name, _)| format!("{target}/{name}")).collect::<Vec<_>>()
    };
    let hint = "write them anew: cargo run -p orchestrator-fuzz-targets -- seeds";
    assert_eq!(names(&found), names(&expected), "{hint}");
    assert!(found == expected, "a seed differs; {hint}");
}
