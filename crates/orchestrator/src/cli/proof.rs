//! `orchestrator proof`: what accounts held after a block, with the hashes that show it, checked here.

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{
    Failure, Outcome,
    api::{Api, ApiArgs},
    output,
};
use crate::service::proof::{ProvedAccounts, verify_accounts_proof};

/// Which block.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum At {
    /// The last final one.
    Final,
    /// The last sealed one, which may still be refused.
    Sealed,
}

/// Which accounts.
#[derive(Debug, Args)]
pub struct ProofArgs {
    /// Accounts such as `consumer:cons_…`, all of one settlement domain.
    #[arg(required = true, value_name = "ACCOUNT")]
    accounts: Vec<String>,
    /// Which block the proof is of.
    #[arg(long, value_enum, default_value = "final")]
    at: At,
    #[command(flatten)]
    api: ApiArgs,
}

/// Fetches the proof and checks it.
///
/// # Errors
/// What the daemon answers; not reachable; [`Failure::Difference`] when the proof does not hold.
pub async fn run(args: &ProofArgs) -> Outcome {
    let accounts: String = url::form_urlencoded::byte_serialize(args.accounts.join(",").as_bytes()).collect();
    let at = match args.at {
        At::Final => "final",
        At::Sealed => "sealed",
    };
    let answer = Api::new(&args.api)?.get(&format!("/proofs?accounts={accounts}&at={at}")).await?;
    let proved = read(&answer)?;
    if args.api.json {
        output::json(&answer)?;
    } else {
        let rows = proved.accounts.iter().zip(&proved.proof.leaves).map(|(named, leaf)| {
            let (balance, withdrawable) = (leaf.balance.to_string(), leaf.withdrawable.to_string());
            vec![named.account.to_string(), leaf.index.to_string(), balance, withdrawable]
        });
        output::table(&["account", "index", "balance", "withdrawable"], rows.collect(), "no accounts")?;
        output::line(&format!(
            "\nblock {} of domain {}, hash {}, state root {}, {} sibling hashes; --json prints them",
            proved.header.number,
            proved.header.domain,
            proved.block_hash,
            proved.header.state_root,
            proved.proof.siblings.len(),
        ))?;
    }
    if verify_accounts_proof(&proved) {
        return Ok(());
    }
    Err(Failure::Difference("the proof does not lead to the block's hash".to_owned()))
}

fn read(answer: &Value) -> Result<ProvedAccounts, Failure> {
    let mut answer = answer.clone();
    if let Some(fields) = answer.as_object_mut() {
        // What the daemon thinks of it counts for nothing here.
        fields.remove("holds");
    }
    serde_json::from_value(answer)
        .map_err(|error| Failure::Failed(format!("the daemon's answer is no proof: {error}")))
}
