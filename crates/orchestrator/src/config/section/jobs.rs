//! `[jobs]` and `[triggers]`.

use serde::{Deserialize, Serialize};

use super::{
    backend::{Feature, backends},
    section,
};
use crate::config::{HumanDuration, Problems};

backends! {
    /// How workers learn of jobs.
    Dispatch {
        /// They claim from the database, woken in process: the embedded default.
        Database = "database",
        /// Hints come over SQS.
        Sqs = "sqs" needs "sqs",
        /// Hints come over Kafka.
        Kafka = "kafka" needs "kafka",
    }
}

section! {
    /// Jobs.
    Jobs {
        /// How workers learn of jobs: `database`, `sqs` or `kafka`. The jobs themselves are always in the database.
        dispatch: Dispatch = Dispatch::Database;
        /// How long a claim holds without a heartbeat.
        lease: HumanDuration = HumanDuration::secs(30);
        /// Time between heartbeats.
        heartbeat: HumanDuration = HumanDuration::secs(10);
        /// How long a shutdown waits for running jobs.
        drain: HumanDuration = HumanDuration::secs(10);
        /// How long completed jobs are kept.
        retention: HumanDuration = HumanDuration::days(7);
        /// While more jobs than these are due and wait, new requests are told to come again; 0 means without limit.
        max_backlog: u64 = 200_000;
    }
}

impl Jobs {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        problems.require(self.lease.0.get() >= 1_000_000, "jobs.lease", "must be at least 1s");
        problems.require(
            self.heartbeat.0.get() > 0 && self.heartbeat.0.get() * 2 <= self.lease.0.get(),
            "jobs.heartbeat",
            "must be above zero and at most half of jobs.lease, or a lease runs out while its work goes on",
        );
    }
}

section! {
    /// How often the background tasks run.
    Triggers {
        /// Expire unfunded reservations.
        expire_reservations: HumanDuration = HumanDuration::secs(15);
        /// Begin closing allocations whose period has ended.
        end_periods: HumanDuration = HumanDuration::secs(15);
        /// Judge billing periods that have ended.
        close_sla_windows: HumanDuration = HumanDuration::secs(30);
        /// Seal a block when there is something to seal.
        seal_blocks: HumanDuration = HumanDuration::secs(10);
        /// Book confirmed deposits.
        watch_deposits: HumanDuration = HumanDuration::secs(10);
        /// Pay out what accounts have released; on a chain only.
        pay_out: HumanDuration = HumanDuration::secs(30);
        /// Decide disputes whose deadline has passed.
        expire_disputes: HumanDuration = HumanDuration::secs(60);
        /// Compare the database with the providers and repair.
        reconcile: HumanDuration = HumanDuration::secs(300);
        /// Begin and end announced maintenance.
        unit_maintenance: HumanDuration = HumanDuration::secs(30);
        /// End overlaps and expire credentials.
        expire_credentials: HumanDuration = HumanDuration::secs(15);
        /// Move prices inside their bounds.
        reprice: HumanDuration = HumanDuration::secs(3_600);
        /// Judge the day for reputation.
        daily_reputation: HumanDuration = HumanDuration::secs(3_600);
        /// Remove what is kept no longer.
        purge_records: HumanDuration = HumanDuration::secs(600);
    }
}

impl Triggers {
    /// Every trigger with its rate, by the trigger's name.
    #[must_use]
    pub fn rates(&self) -> Vec<(&'static str, HumanDuration)> {
        vec![
            ("expire_reservations", self.expire_reservations),
            ("end_periods", self.end_periods),
            ("close_sla_windows", self.close_sla_windows),
            ("seal_blocks", self.seal_blocks),
            ("watch_deposits", self.watch_deposits),
            ("pay_out", self.pay_out),
            ("expire_disputes", self.expire_disputes),
            ("reconcile", self.reconcile),
            ("unit_maintenance", self.unit_maintenance),
            ("expire_credentials", self.expire_credentials),
            ("reprice", self.reprice),
            ("daily_reputation", self.daily_reputation),
            ("purge_records", self.purge_records),
        ]
    }

    pub(crate) fn validate(&self, problems: &mut Problems) {
        for (name, rate) in self.rates() {
            let key = format!("triggers.{name}");
            problems.require(rate.0.get() >= 100_000, &key, "must be at least 100ms");
        }
    }
}
