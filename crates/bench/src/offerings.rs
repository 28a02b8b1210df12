//! Offerings filtered and ranked over 100,000 units, through the service alone and through a minimal route, on one core,
//! beside a bare route that answers a constant.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, extract::State, routing::get};
use orchestrator::{
    client::{
        clock::{SeededEntropy, SystemClock},
        db::memory::MemoryDatabase,
    },
    core::{
        client::database::{Changeset, Committer},
        market::{
            ids::{Id, IdGenerator, ProviderId, UnitId},
            money::Amount,
            offering::OfferingFilter,
            quantity::{Bytes, Micros, Ppm, Timestamp},
            terms::{DomainId, PriceTerms, SlaTerms},
            unit::{DataUnit, Features, UnitMode},
        },
    },
    service::{
        scoring::{ChangeFeed, OfferingService, OfferingSettings, OfferingSort},
        work::Call,
    },
};

use crate::{BenchResult, row::Row};

const UNITS: u128 = 100_000;
const REQUESTS: usize = 4_000;

/// Runs it, on a runtime of one thread: client and server share the core.
///
/// # Errors
/// What the database, the listener or the client answer.
pub fn run() -> BenchResult {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> BenchResult {
    let database = MemoryDatabase::with_schema();
    fill(database.as_ref()).await?;
    let ids = IdGenerator::new(Arc::new(SystemClock::new()), Arc::new(SeededEntropy::new(1)));
    let settings = OfferingSettings { cached_answers: 0, ..OfferingSettings::default() };
    let service = OfferingService::new(database.clone(), ids.clone(), ChangeFeed::new(), settings);
    let cached = OfferingService::new(database, ids, ChangeFeed::new(), OfferingSettings::default());
    let began = Instant::now();
    service.refresh().await?;
    cached.refresh().await?;
    let mut rows =
        vec![Row::new("offerings: projection made anew", began.elapsed().as_secs_f64() * 500.0, "ms")];

    let call = Call::system("bench");
    let mut times = Vec::with_capacity(REQUESTS);
    for i in 0..REQUESTS {
        let began = Instant::now();
        service.list(&call, &filter(i), 20, None, OfferingSort::Score).await?;
        times.push(began.elapsed());
    }
    rows.extend(figures("offerings: service, never cached", times, None));

    let (bare, _) = drive("/bare", service.clone()).await?;
    let bare_rate = rate(&bare);
    rows.push(Row::new("bare axum: requests", bare_rate, "1/s"));
    for (name, service) in
        [("offerings: axum, never cached", service), ("offerings: axum, repeated queries cached", cached)]
    {
        let (times, _) = drive("/market/offerings", service).await?;
        rows.extend(figures(name, times, Some(bare_rate)));
    }
    Ok(rows)
}

/// Requests one after the other over one connection to a route on the same thread.
async fn drive(
    path: &str,
    service: OfferingService,
) -> Result<(Vec<Duration>, usize), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/bare", get(|| async { "{}" }))
        .route("/market/offerings", get(answer))
        .with_state(service);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let client = reqwest::Client::builder().no_proxy().build()?;
    let (mut times, mut bytes) = (Vec::with_capacity(REQUESTS), 0);
    for i in 0..REQUESTS {
        let began = Instant::now();
        let url = format!("http://{address}{path}?{i}");
        bytes += client.get(url).send().await?.error_for_status()?.bytes().await?.len();
        times.push(began.elapsed());
    }
    server.abort();
    Ok((times, bytes))
}

async fn answer(State(service): State<OfferingService>, uri: axum::http::Uri) -> axum::response::Response {
    use axum::response::IntoResponse;
    let which = uri.query().and_then(|q| q.parse().ok()).unwrap_or(0);
    match service.list(&Call::system("bench"), &filter(which), 20, None, OfferingSort::Score).await {
        Ok(page) => axum::Json(page).into_response(),
        Err(error) => (axum::http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn figures(name: &str, mut times: Vec<Duration>, bare: Option<f64>) -> Vec<Row> {
    let per_second = rate(&times);
    times.sort_unstable();
    let p99 = times.get(times.len() * 99 / 100).map_or(0.0, |t| t.as_secs_f64() * 1_000.0);
    let requests = Row::new(&format!("{name}: requests"), per_second, "1/s").at_least(2_000.0);
    let requests = match bare {
        Some(bare) => requests.beside(bare),
        None => requests,
    };
    vec![requests, Row::new(&format!("{name}: p99"), p99, "ms").at_most(10.0)]
}

fn rate(times: &[Duration]) -> f64 {
    let total: Duration = times.iter().sum();
    f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX)) / total.as_secs_f64().max(1e-9)
}

/// Sixty different questions.
fn filter(i: usize) -> OfferingFilter {
    let nth = u64::try_from(i % 60).unwrap_or(0);
    OfferingFilter {
        region: Some(format!("region-{}", nth % 20)),
        min_free: Some(Bytes(nth * Bytes::GIB)),
        max_price: Some(Amount(1_000_000 + u128::from(nth) * 20_000)),
        min_uptime: Some(Ppm(990_000)),
        ..OfferingFilter::default()
    }
}

async fn fill(database: &MemoryDatabase) -> Result<(), Box<dyn std::error::Error>> {
    for chunk in 0..UNITS / 1_000 {
        let mut changes = Changeset::new();
        for n in chunk * 1_000..(chunk + 1) * 1_000 {
            changes.insert(&unit(n)?);
        }
        database.commit(changes).await?;
    }
    Ok(())
}

fn unit(n: u128) -> Result<DataUnit, Box<dyn std::error::Error>> {
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
fn id<I: Id>(n: u128) -> Result<I, Box<dyn std::error::Error>> {
    Ok(format!("{}_{n:032x}", I::PREFIX).parse::<I>()?)
}
