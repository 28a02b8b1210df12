//! `orchestrator backup` and `orchestrator restore`: copy the embedded default, check a copy, put it back.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{ConfigArgs, Outcome, output};
use crate::setup::{self, Manifest};

/// What to back up, and where to.
#[derive(Debug, Args)]
pub struct BackupArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A directory that does not exist yet; best on another disk.
    #[arg(value_name = "DIRECTORY")]
    to: PathBuf,
    /// Leave the keys out: secrets in the backup can then be opened only with a key that is kept elsewhere.
    #[arg(long)]
    without_keys: bool,
    /// Print JSON for programs.
    #[arg(long)]
    json: bool,
}

/// What to restore.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// A directory that `orchestrator backup` made.
    #[arg(value_name = "DIRECTORY")]
    from: PathBuf,
    /// Only check the backup.
    #[arg(long, conflicts_with = "replace")]
    check: bool,
    /// Set what is in the data directory aside, if there is anything.
    #[arg(long)]
    replace: bool,
    /// Print JSON for programs.
    #[arg(long)]
    json: bool,
}

/// Makes a backup and checks it.
///
/// # Errors
/// When it can't be made, or is not good.
pub async fn backup(args: &BackupArgs) -> Outcome {
    let config = args.config.load()?;
    let made = setup::backup(&config, &args.to, !args.without_keys).await?;
    if args.json {
        return output::json(&json!({"directory": args.to, "manifest": made}));
    }
    show(&made)?;
    output::line(&format!("\nthe backup {} is complete and was checked", args.to.display()))?;
    if made.keys {
        output::line(
            "it holds the keys that open every secret in it: keep it as safe as the data directory",
        )?;
    }
    if !made.storage {
        output::line("the storage lies elsewhere and is not in it")?;
    }
    output::line("the objects of the built-in provider's customers are not in it")
}

/// Checks a backup and, unless that is all, puts it in place.
///
/// # Errors
/// When it is not good, a daemon runs, or something would be lost.
pub async fn restore(args: &RestoreArgs) -> Outcome {
    let config = args.config.load()?;
    if args.check {
        let found = setup::check_backup(&args.from).await?;
        if args.json {
            return output::json(&json!({"directory": args.from, "manifest": found}));
        }
        show(&found)?;
        return output::line(&format!("\nthe backup {} is good", args.from.display()));
    }
    let done = setup::restore(&config, &args.from, args.replace).await?;
    if args.json {
        return output::json(&done);
    }
    show(&done.backup)?;
    output::line(&format!("\nrestored into {}", config.data.dir.display()))?;
    for place in &done.set_aside {
        output::line(&format!("what was there before: {}", place.display()))?;
    }
    done.notes.iter().try_for_each(|note| output::line(&format!("note: {note}")))
}

fn show(manifest: &Manifest) -> Outcome {
    let rows = manifest.documents.iter().filter(|(_, count)| **count > 0);
    let rows = rows.map(|(name, count)| vec![name.clone(), count.to_string()]).collect();
    output::table(&["collection", "documents"], rows, "the database is empty")?;
    output::line(&format!(
        "\nmade at {} by {}; {} files, {} bytes; {} settled blocks{}",
        manifest.made_at,
        manifest.program,
        manifest.files.len(),
        manifest.bytes(),
        manifest.blocks,
        match manifest.state_root.as_str() {
            "" => String::new(),
            root => format!(", state root {root}"),
        },
    ))
}
