//! Per-request quality of service: counts, failures and a latency histogram by powers of two, per S3 operation.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;

use crate::wire::{OperationQos, Qos};

/// The meter. Operation names come from the S3 dispatcher, so that their number is bounded.
#[derive(Debug, Default)]
pub struct QosMeter {
    operations: Mutex<BTreeMap<&'static str, OperationQos>>,
}

impl QosMeter {
    /// Records one answered request.
    pub fn record(&self, operation: &'static str, status: u16, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let mut operations = self.operations.lock();
        let seen = operations.entry(operation).or_default();
        seen.count += 1;
        match status {
            400..=499 => seen.client_errors += 1,
            500.. => seen.server_errors += 1,
            _ => {}
        }
        seen.latency_sum_us = seen.latency_sum_us.saturating_add(micros);
        let bound = micros.max(1).checked_next_power_of_two().unwrap_or(u64::MAX);
        *seen.latency.entry(bound).or_default() += 1;
    }

    /// What was seen so far.
    #[must_use]
    pub fn snapshot(&self) -> Qos {
        let operations = self.operations.lock();
        Qos { operations: operations.iter().map(|(name, seen)| ((*name).to_owned(), seen.clone())).collect() }
    }
}
