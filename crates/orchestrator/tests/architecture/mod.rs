//! The layers: `controller → service → core ← client ← resource`. Reads the sources and fails when an inner layer names an
//! outer one, an SDK, a driver, a web framework, the wall clock or randomness.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Words that may not appear in a layer's code, outside of comments and unit tests.
struct Rule {
    layer: &'static str,
    forbidden: &'static [&'static str],
}

/// What only the outer layers may touch: SDKs, drivers, web frameworks, IO, the wall clock, randomness.
const OUTSIDE: &[&str] = &[
    "axum",
    "utoipa",
    "tower",
    "hyper",
    "reqwest",
    "rusqlite",
    "s3s",
    "rusty_s3",
    "mongodb",
    "aws_",
    "alloy",
    "starknet",
    "rdkafka",
    "redis",
    "clap",
    "orchestrator_provider",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "tokio::fs",
    "tokio::net",
    "tokio::time",
    "SystemTime",
    "Instant",
    "Timestamp::now",
    "Zoned::now",
    "getrandom",
    "rand",
    "thread_rng",
    "new_v4",
    "now_v7",
];

const RULES: &[Rule] = &[
    Rule { layer: "core", forbidden: OUTSIDE },
    Rule {
        layer: "core",
        forbidden: &[
            "crate::service",
            "crate::client",
            "crate::controller",
            "crate::resource",
            "crate::setup",
            "crate::config",
        ],
    },
    Rule { layer: "service", forbidden: OUTSIDE },
    Rule {
        layer: "service",
        forbidden: &[
            "crate::client",
            "crate::controller",
            "crate::resource",
            "crate::setup",
            "crate::config",
        ],
    },
    Rule { layer: "client", forbidden: &["crate::controller", "crate::setup", "crate::config"] },
    Rule {
        layer: "controller",
        forbidden: &["rusqlite", "rusty_s3", "s3s", "crate::client", "crate::setup", "crate::resource"],
    },
    Rule { layer: "resource", forbidden: &["crate::controller", "crate::service", "crate::setup"] },
    Rule {
        layer: "utils",
        forbidden: &["crate::core::market", "crate::service", "crate::controller", "crate::setup"],
    },
];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // Unit tests in files of their own may use fakes of outer layers.
        if path.file_stem().is_some_and(|name| name == "tests" || name.to_string_lossy().ends_with("_tests"))
        {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The code without comments and without what only tests see (which stands at the end of a file).
fn code(text: &str) -> String {
    let visible = text.find("#[cfg(test)]\nmod ").map_or(text, |at| &text[..at]);
    visible.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Whether `word` stands in the code as a path or name of its own.
fn names(code: &str, word: &str) -> bool {
    let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        boundary(before) && (word.ends_with('_') || boundary(after))
    })
}

/// The first segments of `use crate::{client::…, core::…}` are spelled out, so that rules can be plain paths.
fn spell_out(code: &str) -> String {
    let mut spelled = code.to_owned();
    for (at, _) in code.match_indices("use crate::{") {
        let mut depth = 0_usize;
        let mut word = String::new();
        let mut first = true;
        for c in code[at + "use crate::".len()..].chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 1 && first && (c.is_alphanumeric() || c == '_') {
                word.push(c);
            } else if !word.is_empty() {
                spelled.push_str(&format!("\ncrate::{word}"));
                word.clear();
                first = false;
            }
            if depth == 1 && c == ',' {
                first = true;
            }
            if depth == 0 {
                break;
            }
        }
    }
    spelled
}

fn violations(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for rule in RULES {
        let mut files = Vec::new();
        sources(&root.join(rule.layer), &mut files);
        assert!(!files.is_empty(), "layer `{}` has no sources", rule.layer);
        for file in files {
            let text = spell_out(&code(&fs::read_to_string(&file).unwrap()));
            for word in rule.forbidden {
                if names(&text, word) {
                    found.push(format!("{} names `{word}`", file.strip_prefix(root).unwrap().display()));
                }
            }
        }
    }
    found
}

#[test]
fn inner_layers_name_no_outer_ones() {
    let found = violations(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// What the simulation runs, whose every step must follow from the seed.
const REPEATABLE: &[&str] =
    &["core", "service", "controller/worker", "client/cron", "client/queue/database.rs"];

/// Places where a `select!` draws the branch that it looks at first: not to be repeated, and a bug once.
fn undecided(code: &str) -> usize {
    let selects = code.split("select! {").skip(1);
    selects.filter(|rest| !rest.trim_start().starts_with("biased;")).count()
}

#[test]
fn what_the_simulation_runs_never_selects_at_random() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    for place in REPEATABLE {
        let path = root.join(place);
        if path.is_dir() { sources(&path, &mut files) } else { files.push(path) }
    }
    assert!(files.len() > 100, "{} sources", files.len());
    let found: Vec<_> =
        files.iter().filter(|file| undecided(&code(&fs::read_to_string(file).unwrap())) > 0).collect();
    assert!(found.is_empty(), "`select!` without `biased;` in {found:?}");
    assert_eq!(undecided("tokio::select! {\n    () = a => {}\n}"), 1);
    assert_eq!(undecided("tokio::select! {\n    biased;\n    () = a => {}\n}"), 0);
}

/// Names of hash maps and sets, with a word from which an iteration over one of them begins.
fn wanders(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in code.lines().filter(|line| line.contains("HashMap<") || line.contains("HashSet<")) {
        let name = line.trim().trim_start_matches("pub ").trim_start_matches("pub(super) ");
        let name = name.trim_start_matches("let mut ").trim_start_matches("let ");
        let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        for way in [".iter()", ".keys()", ".drain()", ".retain(", ".into_iter()"] {
            let word = format!("{name}{way}");
            if !name.is_empty() && names(code, &word) {
                found.push(word);
            }
        }
    }
    found
}

#[test]
fn what_the_simulation_runs_iterates_over_no_hash_map() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for place in ["service/job", "service/block", "service/ledger", "service/allocation", "controller/worker"]
    {
        let mut files = Vec::new();
        sources(&root.join(place), &mut files);
        for file in files {
            found.extend(wanders(&code(&fs::read_to_string(&file).unwrap())));
        }
    }
    assert!(found.is_empty(), "the order of a hash map differs from run to run: {found:?}");
    assert_eq!(
        wanders("running: Mutex<HashMap<JobId, Held>>,\nlet held = running.iter();"),
        ["running.iter()"]
    );
    assert!(wanders("let known: HashSet<u8> = a;\nknown.contains(&1);").is_empty());
}

#[test]
fn the_check_sees_what_it_must() {
    let bad = code(
        "use std::{fs, io};\nlet x = crate::client::db::open(); // axum\n#[cfg(test)]\nmod tests { use axum; }",
    );
    assert!(names(&bad, "crate::client"));
    assert!(!names(&bad, "axum"));
    assert!(names("use rand::Rng;", "rand") && !names("let operand = brand;", "rand"));
    let nested = spell_out("use crate::{core::job::Job, client::{db, queue}, error};");
    assert!(
        names(&nested, "crate::client") && names(&nested, "crate::error") && !names(&nested, "crate::db")
    );
}

#[test]
fn every_source_file_explains_itself() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let silent: Vec<_> =
        files.iter().filter(|f| !fs::read_to_string(f).unwrap().starts_with("//!")).collect();
    assert!(silent.is_empty(), "no `//!` head: {silent:?}");
}

/// What reaches outside, and how the line (or one of the four before it) has to look that does so.
const REACHES_OUTSIDE: &[(&str, &str)] = &[
    ("providers.client(", "Outside::new("),
    ("domains.get(", "Outside::new("),
    ("ports.da.", "Outside::new("),
    ("storage.put(", "at.take("),
    ("storage.create_bucket(", "at.take("),
    ("storage.delete(", "at.take("),
];

/// Lines of the code of job handlers that reach outside and are no step.
fn outside_without_a_step(code: &str) -> Vec<String> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let near = lines.get(at.saturating_sub(4)..=at).unwrap_or_default().join("\n");
        for (reach, step) in REACHES_OUTSIDE {
            if line.contains(reach) && !near.contains(step) {
                found.push((*line).trim().to_owned());
            }
        }
        // A client in the hands of a handler is locked in.
        for (at, _) in line.match_indices("dyn ") {
            let name: String = line[at + 4..].chars().take_while(|c| c.is_alphanumeric()).collect();
            let is_field = line.contains("Arc<dyn") && !line.contains("Outside");
            if name.ends_with("Client") && is_field {
                found.push((*line).trim().to_owned());
            }
        }
    }
    found
}

/// Together with `service/job/step.rs`: what a handler does outside has a name, and so a crash test.
#[test]
fn job_handlers_reach_outside_only_in_steps() {
    let service = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/service");
    let mut files = Vec::new();
    sources(&service, &mut files);
    let mut handlers = 0;
    let mut found = Vec::new();
    for file in files {
        let text = code(&fs::read_to_string(&file).unwrap());
        // A decorator is no kind.
        let is_handler = text.contains("impl JobHandler for") && !file.ends_with("service/canary.rs");
        let helps = ["provisioning/desk.rs", "block/mod.rs", "block/reject.rs", "block/seal/gather.rs"];
        if is_handler || helps.iter().any(|name| file.ends_with(name)) {
            handlers += usize::from(is_handler);
            // The ports of all steps of a block stand in one struct, which hands them out locked in.
            let lines = outside_without_a_step(&text).into_iter();
            let lines = lines.filter(|line| line != "pub da: Arc<dyn DaClient>,");
            found.extend(lines.map(|line| format!("{}: {line}", file.display())));
        }
    }
    for name in ["block/store.rs", "sla/period.rs"] {
        let text = code(&fs::read_to_string(service.join(name)).unwrap());
        let lines = outside_without_a_step(&text).into_iter().filter(|line| !line.contains("Arc<dyn"));
        found.extend(lines.map(|line| format!("{name}: {line}")));
    }
    assert_eq!(handlers, 13, "kinds of jobs");
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn the_check_of_steps_sees_what_it_must() {
    let bad = "let client = self.providers.client(&provider).await?;\nda: Arc<dyn DaClient>,";
    assert_eq!(outside_without_a_step(bad).len(), 2);
    let good = "Ok(Outside::new(self.providers.client(&provider).await?))\nda: Outside<dyn DaClient>,";
    assert!(outside_without_a_step(good).is_empty());
}
