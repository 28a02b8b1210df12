//! The daemon of this configuration, if it runs here: which dependencies it leaves alone, because they failed too often.

use std::time::Duration;

use super::{Checkup, check};
use crate::{config::Config, resource::check::Finding};

/// Longest wait for a daemon that may not be there.
const PATIENCE: Duration = Duration::from_secs(2);
/// How the metric of breakers begins that are not closed.
const NOT_CLOSED: &str = "orchestrator_breakers_not_closed{dependency=\"";

/// How the daemon is that listens at `api.listen`; `None` when nobody answers there, which is nothing to mend.
pub(super) async fn running(config: &Config) -> Option<Checkup> {
    let address = format!("http://{}", config.api.listen);
    let client = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build().ok()?;
    let live = client.get(format!("{address}/health/live")).send().await.ok()?;
    let live: serde_json::Value = live.json().await.ok()?;
    let version = live.get("version")?.as_str()?.to_owned();
    let metrics = format!("{address}/metrics");
    let asked = async move {
        let silent = |error: reqwest::Error| Finding {
            what: format!("its metrics can't be read: {error}"),
            fix: "look into its log".into(),
        };
        let text = client.get(metrics).send().await.map_err(silent)?.text().await.map_err(silent)?;
        let mut answer = super::Answer { version: Some(version), ..super::Answer::default() };
        for dependency in left_alone(&text) {
            answer.find(
                format!("{dependency}: it failed too often, and the daemon leaves it alone for now"),
                "see what the other lines and the daemon's log say of it; the daemon finds out by itself when it is back",
            );
        }
        Ok(answer)
    };
    Some(check("daemon", address, asked).await)
}

/// The kinds of dependencies that have a breaker which is not closed.
fn left_alone(metrics: &str) -> Vec<&str> {
    let open = metrics.lines().filter_map(|line| {
        let (dependency, count) = line.strip_prefix(NOT_CLOSED)?.split_once("\"} ")?;
        (count.trim().parse::<f64>().ok()? > 0.0).then_some(dependency)
    });
    open.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::{
            breaker::Breakers,
            clock::{ManualClock, SeededEntropy},
        },
        core::{breaker::BreakerSettings, market::quantity::Timestamp},
    };

    /// What the breakers tell is what is read here.
    #[tokio::test]
    async fn an_open_breaker_is_read_from_the_metrics_and_a_closed_one_is_not() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let clock = std::sync::Arc::new(ManualClock::new(Timestamp(1_700_000_000_000_000)));
        let entropy = std::sync::Arc::new(SeededEntropy::new(1));
        let breakers = Breakers::new(BreakerSettings::default(), clock, entropy);
        metrics::with_local_recorder(&recorder, || {
            breakers.of("storage", "storage").fail_for_tests();
            assert_eq!(breakers.left_alone(), ["storage"]);
        });
        let text = recorder.handle().render();
        assert_eq!(left_alone(&text), ["storage"], "{text}");
        assert!(left_alone(&text.replace("\"} 1", "\"} 0")).is_empty());
    }
}
