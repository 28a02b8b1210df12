//! Flags that name a contract on a chain, and `orchestrator challenge`.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Outcome};

/// Which contract on which chain.
#[derive(Debug, Clone, Args)]
pub struct ChainArgs {
    /// JSON-RPC address of a node: what is there is checked, and no data directory is read.
    #[arg(long, value_name = "URL")]
    pub chain: Option<String>,
    /// The settlement contract's address.
    #[arg(long, value_name = "ADDRESS", requires = "chain")]
    pub contract: Option<String>,
    /// The settlement domain's name.
    #[arg(long, value_name = "NAME", default_value = "ethereum", requires = "chain")]
    pub domain: String,
    /// Address of a beacon node's API for the blobs; that of the node unless given.
    #[arg(long, value_name = "URL", requires = "chain")]
    pub beacon: Option<String>,
    /// The block in which the contract was made.
    #[arg(long, default_value_t = 0, requires = "chain")]
    pub from_block: u64,
    /// Blocks in one question for events, at most.
    #[arg(long, default_value_t = 2_000, requires = "chain")]
    pub log_range: u64,
    /// When the beacon chain's slot 0 was, in seconds since 1970; 0 asks for blobs by the numbers of blocks, as test chains want
    /// it.
    #[arg(long, default_value_t = 1_606_824_023, requires = "chain")]
    pub genesis_time: u64,
    /// Seconds in a slot.
    #[arg(long, default_value_t = 12, requires = "chain")]
    pub slot_seconds: u64,
}

#[cfg(feature = "ethereum")]
impl ChainArgs {
    /// The place; `None` without `--chain`.
    ///
    /// # Errors
    /// [`Failure::Usage`] when the contract is not named.
    pub fn place(&self) -> Result<Option<crate::setup::ChainPlace>, Failure> {
        let Some(rpc_url) = self.chain.clone() else { return Ok(None) };
        let contract = self.contract.clone();
        let contract = contract.ok_or_else(|| {
            Failure::Usage("--chain needs --contract with the contract's address".to_owned())
        })?;
        Ok(Some(crate::setup::ChainPlace {
            rpc_url,
            beacon_url: self.beacon.clone(),
            contract,
            domain: self.domain.clone(),
            from_block: self.from_block,
            log_range: self.log_range,
            genesis_time: self.genesis_time,
            slot_seconds: self.slot_seconds,
        }))
    }
}

/// What to challenge, and as whom.
#[derive(Debug, Args)]
pub struct ChallengeArgs {
    #[command(flatten)]
    pub chain: ChainArgs,
    /// The challenger's encrypted JSON key file. Without it the challenge is shown and not sent.
    #[arg(long, value_name = "FILE", requires = "password_file")]
    pub keystore: Option<PathBuf>,
    /// The file with the password of the key file.
    #[arg(long, value_name = "FILE", requires = "keystore")]
    pub password_file: Option<PathBuf>,
    /// Print JSON for programs.
    #[arg(long)]
    pub json: bool,
}

/// Executes every block that stands on the chain, and shows the contract the first wrong one.
///
/// # Errors
/// [`Failure::Difference`] when a block is wrong; when a node does not answer.
#[cfg(feature = "ethereum")]
pub async fn challenge(args: &ChallengeArgs) -> Outcome {
    use super::output;
    use crate::setup::ChallengerKey;
    let place = args.chain.place()?;
    let place =
        place.ok_or_else(|| Failure::Usage("--chain with the address of a node is needed".to_owned()))?;
    let key = match (&args.keystore, &args.password_file) {
        (Some(keystore), Some(password_file)) => Some(ChallengerKey { keystore, password_file }),
        _ => None,
    };
    let report = crate::setup::challenge(&place, key).await?;
    if args.json {
        output::json(&report)?;
    } else {
        output::line(&format!("{} blocks are right", report.right))?;
    }
    let (Some(number), Some(problem)) = (report.wrong, &report.problem) else { return Ok(()) };
    if !args.json {
        match (&report.sent, &report.call) {
            (Some(sent), _) => output::line(&format!("the challenge was sent: {sent}"))?,
            (None, Some(call)) => output::line(&format!("send this to the contract, or name a key: {call}"))?,
            (None, None) => {}
        }
    }
    Err(Failure::Difference(format!("block {number} is wrong: {problem}")))
}

/// A build without Ethereum knows no chain.
///
/// # Errors
/// Always [`Failure::Usage`].
#[cfg(not(feature = "ethereum"))]
pub async fn challenge(_: &ChallengeArgs) -> Outcome {
    Err(without())
}

/// Why a build without Ethereum can't do it.
#[cfg(not(feature = "ethereum"))]
pub fn without() -> Failure {
    Failure::Usage("this build has no Ethereum; build with `--features ethereum`".to_owned())
}
