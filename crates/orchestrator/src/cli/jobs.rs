//! `orchestrator jobs list|show|retry|redrive`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Outcome,
    api::{Api, ApiArgs, text},
    output,
};

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// List jobs, newest last.
    List(ListArgs),
    /// Show one job with its attempts and its effects.
    Show(JobArgs),
    /// Give a failed job another chance.
    Retry(JobArgs),
    /// Give all jobs behind dead letters another chance.
    Redrive(RedriveArgs),
}

/// Which jobs.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those in this state, such as `failed` or `pending_retry`.
    #[arg(long)]
    state: Option<String>,
    /// Only those of this kind, such as `provision`.
    #[arg(long)]
    kind: Option<String>,
    /// At most so many, 1 to 1000.
    #[arg(long, default_value_t = 100)]
    limit: u32,
    #[command(flatten)]
    api: ApiArgs,
}

/// Which job.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The job's id.
    id: String,
    #[command(flatten)]
    api: ApiArgs,
}

/// How many.
#[derive(Debug, Args)]
pub struct RedriveArgs {
    /// Dead letters to take at most, 1 to 1000.
    #[arg(long, default_value_t = 100)]
    max: u32,
    #[command(flatten)]
    api: ApiArgs,
}

/// Carries the command out.
///
/// # Errors
/// What the daemon answers; not reachable.
pub async fn run(command: &JobsCommand) -> Outcome {
    match command {
        JobsCommand::List(args) => list(args).await,
        JobsCommand::Show(args) => {
            let job = Api::new(&args.api)?.get(&format!("/jobs/{}", args.id)).await?;
            show(&job, args.api.json)
        }
        JobsCommand::Retry(args) => {
            let job = Api::new(&args.api)?.post(&format!("/jobs/{}/retry", args.id), json!({})).await?;
            show(&job, args.api.json)
        }
        JobsCommand::Redrive(args) => {
            let body = json!({"max": args.max});
            let report = Api::new(&args.api)?.post("/jobs/dead-letters/redrive", body).await?;
            show(&report, args.api.json)
        }
    }
}

async fn list(args: &ListArgs) -> Outcome {
    let mut path = format!("/jobs?limit={}", args.limit);
    for (name, value) in [("state", &args.state), ("kind", &args.kind)] {
        if let Some(value) = value {
            let value: String = url::form_urlencoded::byte_serialize(value.as_bytes()).collect();
            path.push_str(&format!("&{name}={value}"));
        }
    }
    let answer = Api::new(&args.api)?.get(&path).await?;
    if args.api.json {
        return output::json(&answer);
    }
    let jobs = answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let fields = ["id", "kind", "subject", "state", "attempts", "losses", "updated_at"];
    let rows = jobs.iter().map(|job| fields.iter().map(|field| text(job, field)).collect()).collect();
    output::table(&fields, rows, "there are no such jobs")
}

fn show(job: &Value, json: bool) -> Outcome {
    if json {
        return output::json(job);
    }
    let Some(fields) = job.as_object() else { return output::json(job) };
    let rows = fields
        .iter()
        .map(|(name, value)| {
            let shown =
                if value.is_object() || value.is_array() { format!("{value:#}") } else { text(job, name) };
            vec![name.clone(), shown]
        })
        .collect();
    output::table(&["field", "value"], rows, "the job is empty")
}
