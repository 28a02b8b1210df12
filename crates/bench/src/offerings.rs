//! `GET /market/offerings` over 100,000 units, through the daemon's router with its authentication, on a runtime of one
//! thread. No two requests ask the same, and units change all the while. Beside it, on a runtime of the same kind, a bare
//! axum route that answers a constant of the same size. What the server takes is the processor time that the kernel books on
//! this process without the client's thread: refreshes of the projection count, neighbours on the machine do not.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use axum::{Router, routing::get};
use orchestrator::{
    client::db::sqlite::{Options, SqliteDatabase},
    controller::route,
    core::{
        client::{
            database::{Changeset, Committer, DatabaseClient},
            schema,
        },
        market::{
            ids::{Id, ProviderId, UnitId},
            money::Amount,
            quantity::{Bytes, Micros, Ppm, Timestamp},
            terms::{DomainId, PriceTerms, SlaTerms},
            unit::{DataUnit, Features, UnitMode},
        },
    },
};
use tokio::sync::oneshot;

use crate::{
    BenchResult,
    client::{Load, drive},
    market::Market,
    process::{self, Thread},
    row::Row,
};

const UNITS: u128 = 100_000;
/// How long each run takes.
const TIME: Duration = Duration::from_secs(6);
/// Connections that ask at once.
const CONNECTIONS: usize = 4;
/// Units that change between two pauses of `CHANGE_EVERY`.
const CHANGES: u128 = 20;
const CHANGE_EVERY: Duration = Duration::from_millis(100);

type Fault = Box<dyn std::error::Error + Send + Sync>;

/// A server on a thread of its own.
struct Server {
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

/// What is known of a run.
struct Run {
    load: Load,
    /// Processor seconds of all threads but the client's.
    cpu: Option<f64>,
}

impl Run {
    /// Requests for each second of processor time that the server took.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn per_core(&self) -> f64 {
        self.cpu.map_or_else(|| self.load.rate(), |cpu| self.load.times.len() as f64 / cpu)
    }
}

/// Runs it.
///
/// # Errors
/// What the database, the listener or the client answer.
pub fn run() -> BenchResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure()).map_err(|fault| fault.to_string().into())
}

async fn measure() -> Result<Vec<Row>, Fault> {
    let directory = tempfile::tempdir()?;
    let database = SqliteDatabase::open(&directory.path().join("market.db"), Options::default())?;
    database.connect(schema::ALL).await?;
    fill(database.as_ref()).await?;
    let market = Market::open(database, directory.path()).await?;
    let began = Instant::now();
    market.offerings.refresh().await?;
    let anew = began.elapsed();
    let key = market.key.clone();

    let server = serve(route::router(market.state)).await?;
    let quiet = take(&server, &key, question).await?;
    let body = quiet.load.bytes / quiet.load.times.len().max(1);
    let changing = async {
        let mut round = 0;
        loop {
            tokio::time::sleep(CHANGE_EVERY).await;
            change(market.committer.as_ref(), round).await?;
            round += 1;
        }
        #[expect(unreachable_code, reason = "the type of the result")]
        Ok::<(), Fault>(())
    };
    let busy = tokio::select! {
        run = take(&server, &key, question) => run?,
        failed = changing => return Err(failed.err().unwrap_or_else(|| "the changes ended".into())),
    };
    drop(server);

    let constant = "x".repeat(body);
    let bare = serve(Router::new().route("/", get(move || std::future::ready(constant.clone())))).await?;
    let bare = take(&bare, &key, |_| "/".to_owned()).await?;

    let (wall, core) = (bare.load.rate(), bare.per_core());
    let row = |name: &str, value: f64, unit: &str| Row::new(&format!("offerings: {name}"), value, unit);
    Ok(vec![
        row("requests for a second of one core, units change", busy.per_core(), "1/s")
            .beside(core)
            .at_least(2_000.0),
        row("p99, units change", busy.load.percentile(99), "ms")
            .beside(bare.load.percentile(99))
            .at_most(10.0),
        row("p50, units change", busy.load.percentile(50), "ms").beside(bare.load.percentile(50)),
        row("requests a second by the wall clock, units change", busy.load.rate(), "1/s")
            .beside(wall)
            .at_least(2_000.0),
        row("requests a second by the wall clock, units at rest", quiet.load.rate(), "1/s").beside(wall),
        row("p99, units at rest", quiet.load.percentile(99), "ms").beside(bare.load.percentile(99)),
        row("projection made anew from the database", anew.as_secs_f64() * 1_000.0, "ms"),
    ])
}

async fn take(server: &Server, key: &str, path: impl Fn(usize) -> String) -> Result<Run, Fault> {
    // Warm up: connections, caches, the key.
    drive(server.address, key, CONNECTIONS, Duration::from_millis(300), |n| path(n + (1 << 30))).await?;
    let client = Thread::current();
    let cpu = || Some(process::cpu(std::process::id())? - client.as_ref()?.cpu()?);
    let before = cpu();
    let load = drive(server.address, key, CONNECTIONS, TIME, path).await?;
    let cpu = before.zip(cpu()).map(|(before, after)| after - before);
    Ok(Run { load, cpu })
}

/// Serves a router on a thread of its own, with a runtime of one thread.
async fn serve(router: Router) -> Result<Server, Fault> {
    let (started, address) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::spawn(move || -> Result<(), Fault> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
            let _ = started.send(listener.local_addr()?);
            tokio::select! {
                served = axum::serve(listener, router) => served?,
                _ = stopped => {}
            }
            Ok(())
        })
    });
    Ok(Server { address: address.await?, _stop: stop })
}

/// The nth question: no two are alike.
fn question(n: usize) -> String {
    let most = 1_000_000 + 20_000 * (n % 60) + n % 19_997;
    let free = (n % 60) << 30 | n;
    format!(
        "/market/offerings?limit=20&region=region-{}&min_free_bytes={free}&max_price={most}&min_uptime_ppm={}",
        n % 20,
        985_000 + n % 5_000,
    )
}

/// Some units sell space and move their prices.
async fn change(committer: &dyn Committer, round: u128) -> Result<(), Fault> {
    let mut changes = Changeset::new();
    for n in 0..CHANGES {
        let id = id::<UnitId>((round * CHANGES + n) * 7_919 % UNITS)?;
        changes.add(schema::UNITS, id, "free", 1, 0);
    }
    Ok(committer.commit(changes).await?)
}

async fn fill(database: &dyn Committer) -> Result<(), Fault> {
    for chunk in 0..UNITS / 1_000 {
        let mut changes = Changeset::new();
        for n in chunk * 1_000..(chunk + 1) * 1_000 {
            changes.insert(&unit(n)?);
        }
        database.commit(changes).await?;
    }
    Ok(())
}

fn unit(n: u128) -> Result<DataUnit, Fault> {
    // Spread, but the same in each run.
    let noise = u64::try_from(n).unwrap_or(0).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let free = i64::try_from(noise % 100).unwrap_or(0) << 30;
    Ok(DataUnit {
        id: id::<UnitId>(n)?,
        provider: id::<ProviderId>(n / 10)?,
        name: format!("unit {n}"),
        domain: DomainId::local(),
        kind: "storage".into(),
        profile: "s3".into(),
        region: format!("region-{}", n % 20),
        country: "CH".into(),
        capacity: Bytes(100 * Bytes::GIB),
        free,
        live: 0,
        active: 0,
        features: Features::default(),
        tags: BTreeMap::new(),
        price: PriceTerms {
            per_gib_month: Amount(1_000_000 + u128::from(noise % 1_000_000)),
            per_gib_egress: Amount(0),
        },
        price_bounds: None,
        sla: SlaTerms {
            uptime: Ppm(980_000 + u32::try_from(noise % 20_000).unwrap_or(0)),
            latency_avg: Micros::from_millis(10 + noise % 90),
            ..SlaTerms::default()
        },
        mode: UnitMode::Open,
        maintenance: Vec::new(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
    })
}

/// An id of its text form, so that the benchmark needs no UUID library.
fn id<I: Id>(n: u128) -> Result<I, Fault> {
    Ok(format!("{}_{n:032x}", I::PREFIX).parse::<I>()?)
}
