//! The five servers: what each is made of, its command line, how tests are told about it, and the question that shows that it works.

use std::path::Path;

use super::{install::Installed, probe};

/// A back end of a cluster, as tests need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// AWS, the reference: SQS, S3, SNS, EventBridge.
    LocalStack,
    /// AWS with permissions enforced.
    MiniStack,
    /// The MongoDB protocol over WiredTiger, as a replica set of one.
    MongoDb,
    /// A cache.
    Redis,
    /// A broker with the Kafka protocol.
    Kafka,
}

impl Server {
    /// All, in the order of the table.
    pub const ALL: [Self; 5] = [Self::LocalStack, Self::MiniStack, Self::MongoDb, Self::Redis, Self::Kafka];

    /// Its name in tables, files and options.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LocalStack => "localstack",
            Self::MiniStack => "ministack",
            Self::MongoDb => "mongodb",
            Self::Redis => "redis",
            Self::Kafka => "kafka",
        }
    }

    /// What it stands in for.
    pub const fn stands_for(self) -> &'static str {
        match self {
            Self::LocalStack => "AWS",
            Self::MiniStack => "AWS with permissions enforced",
            Self::MongoDb => "MongoDB",
            Self::Redis => "Redis",
            Self::Kafka => "Kafka",
        }
    }

    /// The variable that tells tests where it is.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::LocalStack => "ORCHESTRATOR_TEST_AWS_ENDPOINT",
            Self::MiniStack => "ORCHESTRATOR_TEST_AWS_ENFORCED",
            Self::MongoDb => "ORCHESTRATOR_TEST_MONGODB_URL",
            Self::Redis => "ORCHESTRATOR_TEST_REDIS_URL",
            Self::Kafka => "ORCHESTRATOR_TEST_KAFKA_BROKERS",
        }
    }

    /// The variable with its command line, for tests that stop and start a server of their own.
    pub const fn command_variable(self) -> &'static str {
        match self {
            Self::LocalStack => "ORCHESTRATOR_TEST_AWS_COMMAND",
            Self::MiniStack => "ORCHESTRATOR_TEST_AWS_ENFORCED_COMMAND",
            Self::MongoDb => "ORCHESTRATOR_TEST_MONGODB_COMMAND",
            Self::Redis => "ORCHESTRATOR_TEST_REDIS_COMMAND",
            Self::Kafka => "ORCHESTRATOR_TEST_KAFKA_COMMAND",
        }
    }

    /// The value of [`variable`](Self::variable) on a port.
    pub fn address(self, port: u16) -> String {
        match self {
            Self::LocalStack | Self::MiniStack => format!("http://127.0.0.1:{port}"),
            Self::MongoDb => format!("mongodb://127.0.0.1:{port}/?directConnection=true"),
            Self::Redis => format!("redis://127.0.0.1:{port}"),
            Self::Kafka => format!("127.0.0.1:{port}"),
        }
    }

    /// Its command line, with `{port}` and `{dir}` (an existing directory of its own) to be filled in.
    pub fn template(self, installed: &Installed) -> Vec<String> {
        let venv = |program: &str| path(&installed.directory.join("venv/bin").join(program));
        match self {
            Self::LocalStack => [
                localstack_environment(),
                vec![venv("python"), "-m".to_owned(), "localstack.runtime.main".to_owned()],
            ]
            .concat(),
            Self::MiniStack => words(&[
                "env",
                "AUTH=true",
                "BIND_HOST=127.0.0.1",
                "MINISTACK_HOST=127.0.0.1",
                "GATEWAY_PORT={port}",
                "IOT_MTLS_ENABLED=0",
                "SFTP_ENABLED=0",
                "TMPDIR={dir}",
                &venv("ministack"),
            ]),
            Self::MongoDb => words(&[
                &venv("secantusd-py"),
                "--host",
                "127.0.0.1",
                "--port",
                "{port}",
                "--storage-path",
                "{dir}",
                "--sync-on-commit",
                "--enable-test-commands",
                "--log-level",
                "WARNING",
            ]),
            Self::Redis => redis_command(&installed.directory.join("debian")),
            Self::Kafka => words(&[
                &path(&installed.directory.join("tansu")),
                "broker",
                "--listener-url",
                "tcp://127.0.0.1:{port}",
                "--advertised-listener-url",
                "tcp://127.0.0.1:{port}",
                "--storage-engine",
                "memory://tansu/",
            ]),
        }
    }

    /// Asks the server on a port something that only a working one answers.
    ///
    /// # Errors
    /// What went wrong.
    pub fn probe(self, port: u16) -> Result<(), String> {
        match self {
            Self::LocalStack => probe::aws_queues(port),
            Self::MiniStack => probe::aws_enforces(port),
            Self::MongoDb => probe::mongodb(port),
            Self::Redis => probe::redis(port),
            Self::Kafka => probe::kafka(port),
        }
    }
}

fn localstack_environment() -> Vec<String> {
    words(&[
        "env",
        "GATEWAY_LISTEN=127.0.0.1:{port}",
        // The default server listens on every interface, whatever GATEWAY_LISTEN says.
        "GATEWAY_SERVER=hypercorn",
        "LOCALSTACK_HOST=127.0.0.1:{port}",
        "SQS_ENDPOINT_STRATEGY=path",
        "S3_SKIP_SIGNATURE_VALIDATION=0",
        "DNS_ADDRESS=0",
        "DISABLE_EVENTS=1",
        "SKIP_SSL_CERT_DOWNLOAD=1",
        "LOCALSTACK_VOLUME_DIR={dir}",
        "TMPDIR={dir}",
    ])
}

/// Redis keeps nothing on disk. Its libraries lie beside it, where the loader has to be told to look.
fn redis_command(root: &Path) -> Vec<String> {
    let libraries = ["usr/lib", "lib"]
        .map(|lib| path(&root.join(lib).join(format!("{}-linux-gnu", std::env::consts::ARCH))));
    words(&[
        "env",
        &format!("LD_LIBRARY_PATH={}", libraries.join(":")),
        &path(&root.join("usr/bin/redis-server")),
        "--bind",
        "127.0.0.1",
        "--port",
        "{port}",
        "--dir",
        "{dir}",
        "--save",
        "",
        "--appendonly",
        "no",
    ])
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

/// A template with port and directory filled in.
pub fn fill(template: &[String], port: u16, directory: &Path) -> Vec<String> {
    let port = port.to_string();
    let fill = |word: &String| word.replace("{port}", &port).replace("{dir}", &path(directory));
    template.iter().map(fill).collect()
}
