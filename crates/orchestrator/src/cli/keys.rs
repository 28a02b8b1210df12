//! `orchestrator keys create|list|revoke`: through the daemon, or on the data directory itself while no daemon runs.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{
    Failure, Outcome,
    api::{Api, ApiArgs, text},
    output,
};
use crate::{
    core::{
        client::clock::Entropy,
        market::{
            ids::{Id, OperatorId},
            party::Principal,
        },
    },
    service::work::Call,
    setup::OfflineKeys,
};

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Create a key; its text is printed once.
    Create(CreateArgs),
    /// List keys, without their secrets.
    List(ApiArgs),
    /// Revoke a key.
    Revoke(RevokeArgs),
}

/// Roles, as the command line spells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    Operator,
    Provider,
    Consumer,
    Oracle,
}

impl RoleArg {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Provider => "provider",
            Self::Consumer => "consumer",
            Self::Oracle => "oracle",
        }
    }
}

/// Which key to make.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What it may do.
    #[arg(long, value_enum)]
    role: RoleArg,
    /// Whose it is: the id of the provider, consumer or oracle; operators need none.
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
    /// What it is for.
    #[arg(long, default_value = "made on the command line")]
    label: String,
    #[command(flatten)]
    api: ApiArgs,
}

/// Which key to revoke.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The key's id, `key_…`.
    id: String,
    #[command(flatten)]
    api: ApiArgs,
}

/// Carries the command out.
///
/// # Errors
/// What the daemon answers; not reachable and the data directory can't be opened either.
pub async fn run(command: &KeysCommand) -> Outcome {
    match command {
        KeysCommand::Create(args) => create(args).await,
        KeysCommand::List(args) => list(args).await,
        KeysCommand::Revoke(args) => {
            let key = Api::new(&args.api)?.post(&format!("/keys/{}/revoke", args.id), json!({})).await?;
            if args.api.json {
                output::json(&key)
            } else {
                output::line(&format!("{} works no more", args.id))
            }
        }
    }
}

async fn create(args: &CreateArgs) -> Outcome {
    if args.role != RoleArg::Operator && args.tenant.is_none() {
        let role = args.role.as_str();
        return Err(Failure::Usage(format!(
            "--tenant is missing: a {role} key belongs to a {role}; name its id"
        )));
    }
    let mut body = json!({ "role": args.role.as_str(), "label": args.label });
    if let Some(tenant) = &args.tenant {
        body["tenant"] = json!(tenant);
    }
    let made = match through_daemon(args, body).await {
        // Without a daemon, the first operator's key can still be made, under the directory's lock.
        Err(Failure::Unreachable(_) | Failure::Usage(_))
            if args.role == RoleArg::Operator && args.api.url.is_none() =>
        {
            offline(args).await?
        }
        other => other?,
    };
    if args.api.json {
        return output::json(&made);
    }
    output::line(&text(&made, "text"))?;
    output::note(&format!("{} was made; its text is shown only this once", text(&made, "id")));
    Ok(())
}

async fn through_daemon(args: &CreateArgs, body: Value) -> Result<Value, Failure> {
    Api::new(&args.api)?.post("/keys", body).await
}

async fn offline(args: &CreateArgs) -> Result<Value, Failure> {
    let config = args.api.config.load()?;
    let open = OfflineKeys::open(&config).await?;
    let mut bytes = [0_u8; 16];
    crate::client::clock::SystemEntropy.fill(&mut bytes);
    let tenant = OperatorId::from_uuid(uuid::Builder::from_random_bytes(bytes).into_uuid());
    let made =
        open.keys.create(&Call::system("command line"), Principal::Operator(tenant), &args.label).await;
    open.close().await?;
    let made = made?;
    Ok(
        json!({ "id": made.key.id, "role": "operator", "tenant": tenant, "label": made.key.label, "text": made.text }),
    )
}

async fn list(args: &ApiArgs) -> Outcome {
    let answer = Api::new(args)?.get("/keys?limit=1000").await?;
    if args.json {
        return output::json(&answer);
    }
    let keys = answer.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let fields = ["id", "role", "tenant", "label", "created_at", "revoked_at"];
    let rows = keys.iter().map(|key| fields.iter().map(|field| text(key, field)).collect()).collect();
    output::table(&fields, rows, "there are no keys")
}
