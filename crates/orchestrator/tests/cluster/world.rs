//! A cluster: a database, a cache and a provider of its own, queues and a bucket of its own names, and replicas that are
//! reached through one address.

use std::{
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;

use super::servers::{OwnServer, Proxy, variable};
use crate::daemon::harness::{Api, Place, Running, id, wait_for};

/// How many replicas there are.
pub const REPLICAS: usize = 3;

/// A replica, up or down.
pub struct Replica {
    pub place: Place,
    pub running: Option<Running>,
    /// Its way to the database.
    pub wire: Proxy,
}

impl Replica {
    pub async fn start(&mut self) {
        assert!(self.running.is_none());
        self.running = Some(self.place.start().await);
    }

    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }

    /// Sends a signal to the process.
    pub fn signal(&self, name: &str) {
        let pid = self.running.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }
}

/// The provider's process.
struct Provider {
    child: Child,
    _place: Place,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server that stands in for MongoDB ends what a killed process had begun only when somebody begins a transaction; MongoDB
/// does it by itself. So somebody does, again and again, and changes nothing.
struct Reaper(tokio::task::JoinHandle<()>);

impl Reaper {
    fn at(port: u16) -> Self {
        Self(tokio::spawn(async move {
            let url =
                format!("mongodb://127.0.0.1:{port}/?directConnection=true&serverSelectionTimeoutMS=1000");
            let client = mongodb::Client::with_uri_str(url).await.unwrap();
            loop {
                tokio::time::sleep(Duration::from_secs(2)).await;
                // The server is killed now and then.
                let _ = look(&client).await;
            }
        }))
    }
}

async fn look(client: &mongodb::Client) -> mongodb::error::Result<()> {
    let mut session = client.start_session().await?;
    session.start_transaction().await?;
    let nothing = client.database("reaper").collection::<mongodb::bson::Document>("nothing");
    nothing.find_one(mongodb::bson::doc! {}).session(&mut session).await?;
    session.abort_transaction().await
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// How a cluster is made.
pub struct Shape {
    /// The way to everything at AWS.
    pub aws: String,
    pub replicas: usize,
    /// What differs from the usual settings.
    pub more: Vec<(&'static str, String)>,
}

impl Default for Shape {
    fn default() -> Self {
        let aws = variable("ORCHESTRATOR_TEST_AWS_ENDPOINT");
        Self { aws, replicas: REPLICAS, more: Vec::new() }
    }
}

/// Everything.
pub struct Cluster {
    /// What the names of everything begin with.
    pub prefix: String,
    pub mongodb: OwnServer,
    pub redis: OwnServer,
    pub replicas: Vec<Replica>,
    /// The API, as the operator, of whichever replica answers.
    pub operator: Api,
    /// The provider's admin API.
    pub provider: Api,
    _front: Proxy,
    _provider: Provider,
    _reaper: Reaper,
    _shared: tempfile::TempDir,
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A name of this test alone.
pub fn prefix() -> String {
    let bytes: [u8; 4] = std::array::from_fn(|_| rand_byte());
    format!("it-{}", hex::encode(bytes))
}

fn rand_byte() -> u8 {
    use std::hash::{BuildHasher as _, Hasher as _};
    // Each state is seeded anew by the standard library.
    std::collections::hash_map::RandomState::new().build_hasher().finish().to_le_bytes()[0]
}

impl Cluster {
    /// Sets up, starts the replicas, and registers the provider with one unit.
    pub async fn start() -> Self {
        Self::of(Shape::default()).await
    }

    /// The same, in another shape.
    pub async fn of(shape: Shape) -> Self {
        let (mongodb, redis) = tokio::join!(
            OwnServer::start("ORCHESTRATOR_TEST_MONGODB_COMMAND"),
            OwnServer::start("ORCHESTRATOR_TEST_REDIS_COMMAND")
        );
        let shared = tempfile::tempdir().unwrap();
        let prefix = prefix();
        let mut replicas = Vec::new();
        for _ in 0..shape.replicas {
            let wire = Proxy::to(vec![at(mongodb.port)]).await;
            let place = place(&wire, &redis, &shape.aws, &prefix, shared.path());
            let place = shape.more.iter().fold(place, |place, (key, value)| place.with(key, value));
            replicas.push(Replica { place, running: None, wire });
        }
        replicas[0].place.cli(&["setup"]).await.ends(0, &["everything is ready"]);
        for replica in &mut replicas {
            replica.start().await;
        }
        let addresses =
            replicas.iter().map(|replica| replica.place.setting("api.listen").parse::<SocketAddr>().unwrap());
        let front = Proxy::to(addresses.collect()).await;
        let key = std::fs::read_to_string(replicas[0].place.data().join("operator.key")).unwrap();
        let operator = Api::new(&format!("http://{}", front.address), key.trim());
        let (own, admin, token) = provider().await;
        let provider = Api::new(&admin, &token);
        register(&operator, &admin, &token).await;
        let (_front, _provider, _reaper, _shared) = (front, own, Reaper::at(mongodb.port), shared);
        Self { prefix, mongodb, redis, replicas, operator, provider, _front, _provider, _reaper, _shared }
    }

    /// Stops every replica in order.
    pub async fn stop(&mut self) {
        for replica in &mut self.replicas {
            if let Some(running) = replica.running.take() {
                running.stop_well().await;
            }
        }
    }

    /// Everything that the replicas have logged.
    pub fn logs(&self) -> String {
        self.replicas.iter().filter_map(|replica| replica.running.as_ref()).map(Running::log).collect()
    }
}

/// The file of the key that seals secrets, in a directory that replicas share.
pub fn vault_key(shared: &std::path::Path) -> PathBuf {
    let vault = shared.join("vault.key");
    if !vault.exists() {
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&vault).unwrap();
        std::io::Write::write_all(&mut file, "5a".repeat(32).as_bytes()).unwrap();
    }
    vault
}

/// Where a replica runs: months and minutes in seconds, and leases that a test can wait for.
fn place(wire: &Proxy, redis: &OwnServer, aws: &str, prefix: &str, shared: &std::path::Path) -> Place {
    let vault = vault_key(shared);
    let settings = [
        ("database.backend", "mongodb".to_owned()),
        ("database.url", format!("mongodb://{}/?directConnection=true", wire.address)),
        ("database.name", prefix.to_owned()),
        ("storage.backend", "s3".to_owned()),
        ("queue.backend", "sqs".to_owned()),
        ("queue.visibility", "6s".to_owned()),
        ("jobs.dispatch", "sqs".to_owned()),
        ("jobs.lease", "6s".to_owned()),
        ("jobs.heartbeat", "1s".to_owned()),
        ("cache.backend", "redis".to_owned()),
        ("cache.url", format!("redis://127.0.0.1:{}", redis.port)),
        ("aws.endpoint", aws.to_owned()),
        ("aws.region", "us-east-1".to_owned()),
        ("aws.prefix", prefix.to_owned()),
        ("provider.cohosted", "false".to_owned()),
        ("settlement.dir", shared.join("chain").display().to_string()),
        ("data.vault_key_file", vault.display().to_string()),
        // The servers are slow: triggers that come too often would only wait for each other.
        ("triggers.seal_blocks", "2s".to_owned()),
        ("triggers.end_periods", "2s".to_owned()),
        ("triggers.close_sla_windows", "2s".to_owned()),
        ("triggers.watch_deposits", "2s".to_owned()),
        ("triggers.expire_credentials", "2s".to_owned()),
        ("triggers.reconcile", "10s".to_owned()),
    ];
    settings.iter().fold(Place::hurried(), |place, (key, value)| place.with(key, value))
}

/// Starts the built-in provider as a process of its own: its admin address and token.
async fn provider() -> (Provider, String, String) {
    let place = Place::new();
    let log: PathBuf = place.dir.path().join("provider.log");
    let mut command = place.command(&["provider"]);
    command.stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
    let child = command.spawn().unwrap();
    let admin = format!("http://{}", place.setting("provider.admin_listen"));
    let token = place.data().join("provider/admin.token");
    let own = Provider { child, _place: place };
    wait_for("the provider", || async {
        std::fs::read_to_string(&log).unwrap().contains("admin token").then_some(())
    })
    .await;
    (own, admin, std::fs::read_to_string(token).unwrap().trim().to_owned())
}

async fn register(operator: &Api, admin: &str, token: &str) {
    let adapter = json!({ "kind": "embedded", "admin_url": admin, "admin_token": token });
    let owner = id(&operator.post("/providers", json!({ "name": "apart", "adapter": adapter })).await);
    let unit = json!({
        "provider": owner, "name": "disks", "region": "local-1", "country": "CH", "capacity_bytes": 64_u64 << 30,
        "price": { "per_gib_month": "20000000000000000000", "per_gib_egress": "1000000000000000000" },
        "sla": { "latency_avg_ms": 60, "upload_bytes_per_s": 1_000_000, "download_bytes_per_s": 1_000_000,
                 "uptime_ppm": 999_500, "error_rate_ppm": 100, "min_coverage_ppm": 500_000 },
    });
    operator.post("/units", unit).await;
}
