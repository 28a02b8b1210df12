//! What is counted of a kind's attempts. The meters are looked up once: naming one takes longer than counting with it.

use std::collections::BTreeMap;

use metrics::{Counter, Histogram};
use parking_lot::Mutex;

use crate::core::{
    job::{JobKind, Phase},
    market::quantity::Micros,
};

/// The meters of a kind.
pub(super) struct Meters {
    kind: JobKind,
    attempts: Mutex<BTreeMap<(Phase, &'static str), Meter>>,
}

/// How often attempts of a phase came to an outcome; and how long those of the phase took, whatever they came to.
#[derive(Clone)]
struct Meter {
    count: Counter,
    seconds: Histogram,
}

impl Meters {
    /// The meters of this kind, none of which is named yet.
    pub(super) const fn new(kind: JobKind) -> Self {
        Self { kind, attempts: Mutex::new(BTreeMap::new()) }
    }

    /// Counts an attempt that came to `outcome`.
    pub(super) fn attempted(&self, phase: Phase, outcome: &'static str, took: Micros) {
        let meter =
            self.attempts.lock().entry((phase, outcome)).or_insert_with(|| self.name(phase, outcome)).clone();
        meter.count.increment(1);
        #[expect(clippy::cast_precision_loss, reason = "a histogram of seconds")]
        meter.seconds.record(took.get() as f64 / 1e6);
    }

    fn name(&self, phase: Phase, outcome: &'static str) -> Meter {
        let labels = [("kind", self.kind.as_str()), ("phase", phase.as_str()), ("outcome", outcome)];
        Meter {
            count: metrics::counter!("orchestrator_job_attempts_total", &labels),
            seconds: metrics::histogram!("orchestrator_job_attempt_seconds", &labels[..2]),
        }
    }
}
