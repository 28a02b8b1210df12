//! The demo on a chain of its own: a market with owners, from their deposits to their tokens, through the same program that people type.

use std::process::Command;

use serde_json::Value;

use crate::tools::tool;

#[test]
fn the_demo_settles_on_a_chain_and_pays_everybody() {
    let Some(anvil) = tool("ORCHESTRATOR_TEST_ANVIL") else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_orchestrator"));
    // It ends with an error of its own when an owner's tokens are not what the ledger says, or a root differs.
    let output = command.args(["demo", "--chain", "anvil", "--json", "--anvil"]).arg(anvil).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |path: &str| {
        report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path}: {report}"))
    };
    assert_eq!((&report["ledger_sum"], &report["proof_verified"]), (&"0".into(), &true.into()), "{report}");
    assert!(
        number("/verdicts/breached") >= 1 && number("/blocks_verified") >= number("/blocks_final"),
        "{report}"
    );
    // Those that were released together are paid together.
    assert!((1..4).contains(&number("/settled/payouts")), "{report}");
    assert!(number("/settled/accounts_paid") >= 4 && number("/settled/payout_gas") > 100_000, "{report}");
    let verdicts = ["met", "breached", "unknown"].map(|status| number(&format!("/verdicts/{status}")));
    assert_eq!(number("/verdicts_verified"), verdicts.iter().sum::<u64>(), "{report}");
    assert!(number("/credits_verified") >= 2, "every credit was held against its verdict: {report}");
}
