//! The commands as an operator types them: output, exit codes, and the usual mistakes.

use std::{path::Path, process::Output};

use serde_json::Value;

use super::harness::without_configuration;

/// The binary with these arguments, in an environment without configuration.
fn orchestrator(arguments: &[&str]) -> Output {
    without_configuration(&[], arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

fn data_dir(directory: &Path) -> String {
    format!("data.dir={}", directory.join("data").display())
}

#[test]
fn a_wrong_call_exits_with_2_and_help_has_examples() {
    for wrong in
        [&["nonsense"][..], &["run", "--nonsense"], &["keys", "create"], &["run", "--set", "api.listen"]]
    {
        let output = orchestrator(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", text(&output.stderr));
    }
    let subcommands = ["run", "provider", "setup", "demo", "verify", "keys", "jobs", "config", "openapi"];
    for command in subcommands {
        let output = orchestrator(&[command, "--help"]);
        assert!(output.status.success(), "{command}");
        assert!(text(&output.stdout).contains("Example"), "{command} --help has no example");
    }
    let whole = text(&orchestrator(&["--help"]).stdout);
    assert!(whole.contains("Exit codes"), "{whole}");
    assert!(subcommands.iter().all(|command| whole.contains(command)), "{whole}");
}

#[test]
fn config_check_tells_every_fault_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("orchestrator.toml");
    std::fs::write(
        &file,
        "[api]\nlitsen = 1\n\n[sla]\nbucket = \"soon\"\n[provider]\ncountry = \"Schweiz\"\n",
    )
    .unwrap();
    let file = file.display().to_string();
    let output = orchestrator(&["config", "check", "--config", &file]);
    assert_eq!(output.status.code(), Some(2));
    let told = text(&output.stderr);
    for expected in
        ["3 faults", ":2: api.litsen", ":5: sla.bucket", ":7: provider.country", "listen, max_body"]
    {
        assert!(told.contains(expected), "`{expected}` is missing in: {told}");
    }
    let missing = orchestrator(&["config", "check", "--config", "/does/not/exist.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("/does/not/exist.toml"));
    assert!(orchestrator(&["config", "check"]).status.success());
}

#[test]
fn config_show_prints_what_is_in_force_and_reads_back() {
    let shown = orchestrator(&["config", "show", "--set", "api.listen=127.0.0.1:9"]);
    let table: toml::Table = text(&shown.stdout).parse().unwrap();
    assert_eq!(table["api"]["listen"].as_str(), Some("127.0.0.1:9"));
    let as_json = json(&orchestrator(&["config", "show", "--json"]));
    assert_eq!(as_json["sla"]["bucket"], "5m");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shown.toml");
    std::fs::write(&file, &shown.stdout).unwrap();
    let again = orchestrator(&["config", "show", "--config", &file.display().to_string()]);
    assert_eq!(text(&again.stdout), text(&shown.stdout));
}

#[test]
fn openapi_prints_the_whole_description() {
    let api = json(&orchestrator(&["openapi"]));
    for path in
        ["/market/offerings", "/allocations/reserve", "/allocations/{id}", "/accounts/{id}/proof", "/events"]
    {
        assert!(api["paths"].get(path).is_some(), "{path} is not described");
    }
}

#[test]
fn setup_plans_makes_and_changes_nothing_the_second_time() {
    let directory = tempfile::tempdir().unwrap();
    let data = data_dir(directory.path());
    let planned = json(&orchestrator(&["setup", "--plan", "--json", "--set", &data]));
    let actions = |plan: &Value| -> Vec<String> {
        plan["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| step["action"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(actions(&planned).iter().all(|action| action == "create"), "{planned}");
    assert!(!directory.path().join("data").exists(), "a plan made something");
    let made = orchestrator(&["setup", "--set", &data]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(text(&made.stdout).contains("everything is ready"));
    assert!(directory.path().join("data/orchestrator.db").exists());
    let again = json(&orchestrator(&["setup", "--json", "--set", &data]));
    assert!(actions(&again).iter().all(|action| action == "exists"), "{again}");
}

#[test]
fn without_a_daemon_the_commands_say_so_with_3_and_operator_keys_can_still_be_made() {
    let directory = tempfile::tempdir().unwrap();
    let data = data_dir(directory.path());
    let none = orchestrator(&["keys", "create", "--role", "operator", "--set", &data]);
    assert_eq!(none.status.code(), Some(1), "{}", text(&none.stderr));
    assert!(text(&none.stderr).contains("orchestrator setup"), "{}", text(&none.stderr));
    assert!(orchestrator(&["setup", "--set", &data]).status.success());
    let made = orchestrator(&["keys", "create", "--role", "operator", "--set", &data, "--json"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let key = json(&made);
    assert!(key["text"].as_str().unwrap().starts_with("ork_"));
    let listening = ["--set", "api.listen=127.0.0.1:9"];
    let list =
        orchestrator(&[&["jobs", "list", "--key", "ork_x", "--set", data.as_str()][..], &listening].concat());
    assert_eq!(list.status.code(), Some(3), "{}", text(&list.stderr));
    assert!(text(&list.stderr).contains("is it running"), "{}", text(&list.stderr));
    let keyless = orchestrator(&[&["jobs", "list", "--set", data.as_str()][..], &listening].concat());
    assert_eq!(keyless.status.code(), Some(2), "{}", text(&keyless.stderr));
    let nothing = orchestrator(&["verify", "--set", "data.dir=/does/not/exist"]);
    assert_eq!(nothing.status.code(), Some(1));
}

#[test]
fn the_demo_plays_the_whole_market() {
    let output = orchestrator(&["demo", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&output);
    let number = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"));
    assert_eq!(number("allocations"), 3);
    assert!(number("bytes_stored") > 30_000_000);
    assert_eq!(number("bytes_stored"), number("bytes_verified"));
    assert!(report["verdicts"]["met"].as_u64().unwrap() >= 1, "{report}");
    assert!(report["verdicts"]["breached"].as_u64().unwrap() >= 2, "{report}");
    assert!(report["verdicts"].get("unknown").is_some());
    assert!(report["credits_total"].as_str().unwrap().parse::<u128>().unwrap() > 0);
    assert_eq!(report["ledger_sum"], "0");
    assert!(number("blocks_final") >= 1);
    assert_eq!(number("blocks_final"), number("blocks_verified"));
    assert_eq!(report["proof_verified"], true);
    // Every verdict was judged again from what the API tells everybody, and every credit held against it.
    let verdicts: u64 = report["verdicts"].as_object().unwrap().values().map(|it| it.as_u64().unwrap()).sum();
    assert_eq!(number("verdicts_verified"), verdicts);
    assert!(number("credits_verified") >= 2, "{report}");
    assert!(number("seconds") >= 1);
    // The one that was left alone ranks above those that were broken.
    assert_eq!(report["offerings"][0]["provider"], "built-in", "{report}");
    let credited = |name: &str| {
        let list = report["allocation_list"].as_array().unwrap();
        let line = list.iter().find(|line| line["provider"] == name).unwrap();
        (
            line["paid"].as_str().unwrap().parse::<u128>().unwrap(),
            line["credited"].as_str().unwrap().parse::<u128>().unwrap(),
        )
    };
    assert_eq!(credited("built-in").1, 0);
    let (paid, back) = credited("flaky");
    // The last, partial period may have too little evidence for a verdict, and is then paid.
    assert!(back <= paid && back > paid / 10 * 9, "an uptime below 95 % gives all back: {back} of {paid}");
    let (paid, back) = credited("slowpoke");
    assert!(back > 0 && back < paid, "a slow one loses the lowest tier: {back} of {paid}");
}
