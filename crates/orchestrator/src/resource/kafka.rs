//! Examines Kafka: whether its brokers answer, how fast, and whether the topics are there as they should be.

use std::time::Instant;

use super::examination::{Examination, Finding};
use crate::client::job_queue::{KafkaCluster, KafkaJobQueue};

/// Looks at the brokers and the topics; nothing is changed.
pub async fn examine(queue: &KafkaJobQueue) -> Examination {
    let begun = Instant::now();
    let answer = queue.cluster().await;
    let latency = begun.elapsed();
    match answer {
        Ok(cluster) => Examination {
            dependency: "kafka",
            about: about(&cluster),
            latency: Some(latency),
            findings: findings(&cluster),
        },
        Err(error) => Examination {
            dependency: "kafka",
            about: String::new(),
            latency: None,
            findings: vec![Finding::fatal(
                crate::error::chain(&error),
                "check the hosts and ports in kafka.brokers, that a broker runs there, and that the addresses which it advertises can be reached",
            )],
        },
    }
}

fn about(cluster: &KafkaCluster) -> String {
    let broker =
        |broker: &crate::client::job_queue::KafkaBroker| format!("{} (id {})", broker.address, broker.id);
    let brokers: Vec<String> = cluster.brokers.iter().map(broker).collect();
    format!("brokers {}", brokers.join(", "))
}

fn findings(cluster: &KafkaCluster) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !cluster.missing.is_empty() {
        findings.push(Finding::fatal(
            format!("{} topics do not exist: {}", cluster.missing.len(), cluster.missing.join(", ")),
            "run `orchestrator setup`, which makes them, or let an administrator make them",
        ));
    }
    for topic in &cluster.leaderless {
        findings.push(Finding::fatal(
            format!("a partition of {topic} has no leader"),
            "bring the brokers back that hold it",
        ));
    }
    for (topic, partitions) in &cluster.narrow {
        findings.push(Finding::advice(
            format!("{topic} has {partitions} partitions, fewer than kafka.partitions"),
            format!("kafka-topics.sh --alter --topic {topic} --partitions N, or lower kafka.partitions"),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::job_queue::KafkaBroker;

    #[test]
    fn what_is_missing_is_fatal_and_what_is_narrow_is_not() {
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
        assert_eq!(found.iter().map(|finding| finding.fatal).collect::<Vec<_>>(), [true, true, false]);
        assert!(found[2].fix.contains("--topic c"));
    }
}
