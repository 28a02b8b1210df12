//! Kafka as the way of hints: what `setup` makes of topics, shows, mends, refuses and leaves alone; what `doctor` and `ready` say;
//! and replicas that go on when one of them is killed.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _, process::Command, time::Duration};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use reqwest::Method;
use serde_json::Value;

use super::{
    servers::{OwnServer, variable},
    survive::{end, under_load},
    world::{Cluster, Shape, prefix},
};
use crate::daemon::{
    harness::{Finished, Place, free_port, wait_for},
    judge::judge,
};

const TIMEOUT: Duration = Duration::from_secs(30);
/// Three for each kind of job: both phases, and dead letters.
const PER_KIND: usize = 3;

/// A client that knows nothing of the daemon's.
struct Outside(BaseConsumer);

impl Outside {
    fn new(brokers: &str, group: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers).set("group.id", group);
        Self(config.create().unwrap())
    }

    /// Topics of a prefix with their numbers of partitions.
    fn topics(&self, prefix: &str) -> Vec<(String, usize)> {
        let metadata = self.0.fetch_metadata(None, TIMEOUT).unwrap();
        let ours = metadata.topics().iter().filter(|topic| topic.name().starts_with(prefix));
        let mut topics: Vec<_> =
            ours.map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect();
        topics.sort();
        topics
    }

    /// How many messages of a topic were ever sent, and how many the group has acknowledged.
    fn sent_and_done(&self, topic: &str, partitions: i32) -> (i64, i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        let committed = self.0.committed_offsets(list, TIMEOUT).unwrap();
        let (mut sent, mut done) = (0, 0);
        for element in committed.elements() {
            sent += self.0.fetch_watermarks(topic, element.partition(), TIMEOUT).unwrap().1;
            if let Offset::Offset(offset) = element.offset() {
                done += offset;
            }
        }
        (sent, done)
    }
}

/// A configuration with nothing elsewhere but Kafka.
struct Alone {
    place: Place,
    prefix: String,
    brokers: String,
}

impl Alone {
    fn at(brokers: &str) -> Self {
        let prefix = prefix();
        let place = Place::new()
            .with("jobs.dispatch", "kafka")
            .with("kafka.brokers", brokers)
            .with("kafka.partitions", "2")
            .with("aws.prefix", &prefix)
            .with("provider.cohosted", "false");
        Self { place, prefix, brokers: brokers.to_owned() }
    }

    fn shared() -> Self {
        Self::at(&variable("ORCHESTRATOR_TEST_KAFKA_BROKERS"))
    }

    fn with(self, key: &str, value: &str) -> Self {
        Self { place: self.place.with(key, value), ..self }
    }

    fn topics(&self) -> Vec<(String, usize)> {
        Outside::new(&self.brokers, "outside").topics(&self.prefix)
    }

    /// The topics in what `setup` with these arguments did or would do: name, action, changes.
    async fn steps(&self, args: &[&str]) -> Vec<(String, String, String)> {
        let args: Vec<&str> = ["setup", "--json"].iter().chain(args).copied().collect();
        let plan = self.place.cli(&args).await.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let steps = plan["steps"].as_array().unwrap().iter().filter(|step| step["kind"] == "topic");
        steps.map(|step| (text(&step["name"]), text(&step["action"]), step["changes"].to_string())).collect()
    }

    async fn all_are(&self, args: &[&str], action: &str) -> usize {
        let steps = self.steps(args).await;
        assert!(steps.iter().all(|(_, found, _)| found == action), "{action}: {steps:?}");
        steps.len()
    }

    /// What `doctor` says of the job queue.
    async fn examined(&self) -> (Option<i32>, Value) {
        let Finished { code, out, .. } = self.place.cli(&["doctor", "--json"]).await;
        let all: Value = serde_json::from_str(&out).unwrap();
        let one = all.as_array().unwrap().iter().find(|one| one["name"] == "job queue").unwrap();
        (code, one.clone())
    }

    /// Checks that `doctor` finds this with this fix.
    async fn finds(&self, what: &str, fix: &str) {
        let (code, one) = self.examined().await;
        assert_eq!(code, Some(4), "{one}");
        let has = |finding: &Value, key: &str, part: &str| finding[key].as_str().unwrap().contains(part);
        let findings = one["findings"].as_array().unwrap();
        let found = findings.iter().any(|finding| has(finding, "what", what) && has(finding, "fix", fix));
        assert!(found, "no {what:?} with {fix:?}: {one}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn setup_makes_the_topics_once_and_leaves_them_to_their_owner() {
    let alone = Alone::shared();
    let all = alone.all_are(&["--plan"], "create").await;
    assert!(all > 0 && all % PER_KIND == 0, "{all}");
    assert_eq!(alone.topics(), [], "a plan made something");
    alone.finds(&format!("{all} topics do not exist"), "run `orchestrator setup`").await;

    alone.place.cli(&["setup"]).await.ends(0, &["made", "everything is ready"]);
    let made = alone.topics();
    assert_eq!(made.len(), all);
    for (name, partitions) in &made {
        assert_eq!(*partitions, if name.ends_with("-dead") { 1 } else { 2 }, "{name}");
    }
    for args in [&["--plan"][..], &[]] {
        assert_eq!(alone.all_are(args, "exists").await, all);
    }
    assert_eq!(alone.topics(), made);
    let (code, well) = alone.examined().await;
    assert_eq!((code, &well["findings"]), (Some(0), &serde_json::json!([])), "{well}");
    assert!(well["version"].as_str().unwrap().contains(&alone.brokers), "{well}");

    let kept = format!("--delete --topic '{}-.*'", alone.prefix);
    alone.place.cli(&["setup", "--destroy", "--yes"]).await.ends(0, &["nothing to remove", "stay", &kept]);
    let told = alone.place.cli(&["setup", "--destroy", "--yes", "--json"]).await.json();
    assert!(told["notes"][0].as_str().unwrap().contains(&kept), "{told}");
    assert_eq!(alone.topics(), made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_few_partitions_are_shown_and_mended_or_refused_with_the_fix() {
    let alone = Alone::shared();
    alone.place.cli(&["setup"]).await.ends(0, &[]);
    let made = alone.topics();
    let alone = alone.with("kafka.partitions", "3");
    let changes = |steps: &[(String, String, String)]| {
        let changed = steps.iter().filter(|(_, action, _)| action == "change");
        changed.inspect(|(_, _, changes)| assert!(changes.contains("partitions: 2 → 3"), "{changes}")).count()
    };
    let narrow = made.iter().filter(|(_, partitions)| *partitions == 2).count();
    assert_eq!(changes(&alone.steps(&["--plan"]).await), narrow);
    assert_eq!(alone.topics(), made, "a plan changed something");
    alone.finds("has 2 partitions, fewer than kafka.partitions", "--alter --topic").await;

    let done = alone.place.cli(&["setup"]).await;
    let now = alone.topics();
    if done.code == Some(0) {
        // A broker that adds partitions.
        done.ends(0, &["changed", "partitions: 2 → 3", "everything is ready"]);
        assert!(now.iter().all(|(name, has)| *has == 3 || name.ends_with("-dead")), "{now:?}");
        alone.all_are(&[], "exists").await;
    } else {
        done.ends(1, &["has 2 partitions", "--alter --topic", "or set kafka.partitions = 2"]);
        assert!(!done.out.contains("everything is ready"), "{}", done.out);
        assert_eq!(now, made);
    }
    // More than are wanted are no fault.
    let alone = alone.with("kafka.partitions", "1");
    alone.all_are(&[], "exists").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_does_not_answer_is_named() {
    let alone = Alone::at(&format!("127.0.0.1:{}", free_port()));
    let setup = alone.place.cli(&["setup"]);
    let (setup, (), ()) =
        tokio::join!(setup, alone.finds("Broker transport failure", "kafka.brokers"), async {
            alone.place.cli(&["setup", "--plan"]).await.ends(1, &["unavailable", "kafka.brokers"])
        });
    setup.ends(1, &["unavailable", "kafka.brokers"]);
    assert!(!setup.out.contains("everything is ready"), "{}", setup.out);
    let removed = alone.place.cli(&["setup", "--destroy", "--yes"]).await;
    removed.ends(0, &["stay"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_kept_and_what_the_driver_lacks_is_told() {
    const SECRET: &str = "s3cr3t-of-kafka";
    let alone = Alone::at(&format!("127.0.0.1:{}", free_port()))
        .with("log.filter", "debug")
        .with("kafka.security", "sasl_plaintext")
        .with("kafka.user", "ann");
    let missing = alone.place.cli(&["setup", "--plan"]).await;
    missing.ends(1, &["invalid_config", "kafka.password_file", "ORCHESTRATOR_KAFKA_PASSWORD"]);
    alone.finds("kafka.user has no password", "look at kafka.security").await;

    let file = alone.place.dir.path().join("password");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
    let alone = alone.with("kafka.password_file", &file.display().to_string());
    alone.place.cli(&["setup", "--plan"]).await.ends(1, &["others may read it", "chmod 600"]);
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let tried = alone.place.cli(&["setup", "--plan"]).await;
    let shown = alone.place.cli(&["config", "show"]).await;
    shown.ends(0, &["ann", &file.display().to_string()]);
    for finished in [&tried, &shown] {
        assert!(!format!("{}{}", finished.out, finished.err).contains(SECRET), "{}", finished.err);
    }
    tried.ends(1, &["kafka.brokers", "unavailable"]);

    let place = alone.place.with("kafka.security", "sasl_ssl").with("kafka.mechanism", "SCRAM-SHA-256");
    let tried = place.cli(&["setup", "--plan"]).await;
    // A driver that was built with TLS finds that nobody is there.
    match tried.err.contains("unavailable") {
        true => tried.ends(1, &["kafka.brokers"]),
        false => tried.ends(1, &["invalid_config", "kafka.security", "lacks TLS", "rdkafka/ssl"]),
    }
}

/// Stops a process without ending it, or lets it go on.
fn signal(server: &OwnServer, name: &str) {
    assert!(Command::new("kill").args([&format!("-{name}"), &server.id()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_not_ready_while_its_job_queue_does_not_answer() {
    let broker = OwnServer::start("ORCHESTRATOR_TEST_KAFKA_COMMAND").await;
    let alone = Alone::at(&format!("127.0.0.1:{}", broker.port));
    let setup = || async { (alone.place.cli(&["setup"]).await.code == Some(0)).then_some(()) };
    wait_for("a broker that answers", setup).await;
    let running = alone.place.start().await;
    let asked = || async {
        let (status, body) = running.api.send(Method::GET, "/health/ready", None, None).await?;
        let all = body["dependencies"].as_array()?;
        let of = |name: &str| all.iter().find(|one| one["name"] == name).unwrap().clone();
        Some((status.as_u16(), body["status"].clone(), of("job queue"), of("queue")))
    };
    let is_ready = || async {
        let (status, word, jobs, _) = asked().await?;
        (status == 200 && word == "ready" && jobs["ok"] == true && jobs["needed"] == true).then_some(())
    };
    wait_for("every dependency", is_ready).await;
    signal(&broker, "STOP");
    wait_for("the job queue to be missed", || async {
        let (status, word, jobs, queue) = asked().await?;
        (status == 503 && word == "not_ready" && jobs["ok"] == false && queue["ok"] == true).then_some(())
    })
    .await;
    signal(&broker, "CONT");
    wait_for("the job queue to be back", is_ready).await;
    running.stop_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_learn_of_jobs_by_kafka_go_on_when_one_is_killed() {
    const PARTITIONS: i32 = 2;
    let brokers = variable("ORCHESTRATOR_TEST_KAFKA_BROKERS");
    let more = vec![
        ("jobs.dispatch", "kafka".to_owned()),
        ("kafka.brokers", brokers.clone()),
        ("kafka.partitions", PARTITIONS.to_string()),
    ];
    let mut cluster = Cluster::of(Shape { replicas: 2, more, ..Shape::default() }).await;
    let outside = Outside::new(&brokers, &format!("{}-workers", cluster.prefix));
    let topic = format!("{}-provision-process", cluster.prefix);
    let load = under_load(&cluster, 41, 2).await;
    cluster.replicas[0].kill();
    let (sent_before, _) = outside.sent_and_done(&topic, PARTITIONS);
    wait_for("more work to be told of", || async {
        (outside.sent_and_done(&topic, PARTITIONS).0 > sent_before + 1).then_some(())
    })
    .await;
    let mut consumers = load.finish().await;
    judge(&cluster.operator, &cluster.provider, &mut consumers).await;
    // The one that is left has taken over what the other one had, and every hint was seen to its end.
    wait_for("the end of all hints", || async {
        let (sent, done) = outside.sent_and_done(&topic, PARTITIONS);
        (sent > sent_before && done == sent).then_some(())
    })
    .await;
    end(cluster).await;
}
