//! Examines Kafka: whether its brokers answer, how fast, and whether the topics are there as they should be.

use std::time::Instant;

use super::check::{Check, Finding};
use crate::{
    client::job_queue::{KafkaBroker, KafkaCluster, KafkaJobQueue},
    core::market::quantity::Micros,
};

/// Looks at the brokers and the topics; nothing is changed.
pub async fn examine(queue: &KafkaJobQueue) -> Check {
    let begun = Instant::now();
    let answer = queue.cluster().await;
    let latency = Micros(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    let (version, findings) = match answer {
        Ok(cluster) => (Some(about(&cluster)), findings(&cluster)),
        Err(error) => {
            let fix = "check the hosts and ports in kafka.brokers, that a broker runs there, and that the addresses which it advertises can be reached";
            (None, vec![Finding { what: crate::error::chain(&error), fix: fix.to_owned() }])
        }
    };
    Check { name: "job queue", latency, version, findings }
}

/// Kafka tells no version, but its brokers.
fn about(cluster: &KafkaCluster) -> String {
    let broker = |broker: &KafkaBroker| format!("{} (id {})", broker.address, broker.id);
    let brokers: Vec<String> = cluster.brokers.iter().map(broker).collect();
    format!("brokers {}", brokers.join(", "))
}

fn findings(cluster: &KafkaCluster) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |what: String, fix: String| findings.push(Finding { what, fix });
    if !cluster.missing.is_empty() {
        find(
            format!("{} topics do not exist: {}", cluster.missing.len(), cluster.missing.join(", ")),
            "run `orchestrator setup`, which makes them, or let an administrator make them".to_owned(),
        );
    }
    for topic in &cluster.leaderless {
        find(
            format!("a partition of {topic} has no leader: nothing can be sent there"),
            "bring the brokers back that hold it".to_owned(),
        );
    }
    for (topic, partitions) in &cluster.narrow {
        find(
            format!("{topic} has {partitions} partitions, fewer than kafka.partitions"),
            format!("kafka-topics.sh --alter --topic {topic} --partitions N, or lower kafka.partitions"),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_without_a_leader_or_narrow_is_named() {
        let mut cluster = KafkaCluster {
            brokers: vec![KafkaBroker { id: 1, address: "h:9092".to_owned() }],
            missing: vec![],
            narrow: vec![],
            leaderless: vec![],
        };
        assert_eq!(findings(&cluster), []);
        assert_eq!(about(&cluster), "brokers h:9092 (id 1)");
        cluster.missing.push("a".to_owned());
        cluster.leaderless.push("b".to_owned());
        cluster.narrow.push(("c".to_owned(), 3));
        let found = findings(&cluster);
        assert_eq!(found.len(), 3);
        assert!(found[0].what.contains(": a") && found[1].what.contains("of b "));
        assert!(found[2].fix.contains("--topic c"));
    }
}
