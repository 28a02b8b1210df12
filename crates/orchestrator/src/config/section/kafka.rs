//! `[kafka]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Dispatch, section};
use crate::config::{Config, Problems};

/// How brokers are talked to, in Kafka's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KafkaSecurity {
    /// Neither TLS nor a user.
    Plaintext,
    /// TLS.
    Ssl,
    /// A user with a password.
    SaslPlaintext,
    /// Both.
    SaslSsl,
}

impl KafkaSecurity {
    /// Its name in a configuration, and in Kafka's.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Ssl => "ssl",
            Self::SaslPlaintext => "sasl_plaintext",
            Self::SaslSsl => "sasl_ssl",
        }
    }

    /// Whether there is TLS.
    #[must_use]
    pub const fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether there is a user.
    #[must_use]
    pub const fn has_user(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

/// How a user proves to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KafkaMechanism {
    /// Shows the password.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Proves to know it.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with the longer hash.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl KafkaMechanism {
    /// Its name in a configuration, and in Kafka's.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

section! {
    /// Kafka, for `jobs.dispatch = "kafka"`.
    Kafka {
        /// Addresses of brokers, `host:port`, separated by commas.
        brokers: String = String::new();
        /// Partitions of each topic that `setup` makes: the most consumers that share one kind of job.
        partitions: u32 = 12;
        /// Copies of each partition.
        replication: u32 = 1;
        /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`. TLS needs a driver that was built with it.
        security: KafkaSecurity = KafkaSecurity::Plaintext;
        /// With `ssl` and `sasl_ssl`: certificates of the authorities that brokers are trusted by, as PEM. Empty: those of the system.
        ca_file: PathBuf = PathBuf::new();
        /// With `sasl_plaintext` and `sasl_ssl`: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
        mechanism: KafkaMechanism = KafkaMechanism::Plain;
        /// With `sasl_plaintext` and `sasl_ssl`: the user.
        user: String = String::new();
        /// Holds the user's password, mode 0600. `ORCHESTRATOR_KAFKA_PASSWORD` in the environment takes its place.
        password_file: PathBuf = PathBuf::new();
    }
}

/// What `jobs.dispatch = "kafka"` needs, and what contradicts itself.
pub(super) fn validate(config: &Config, problems: &mut Problems) {
    let kafka = &config.kafka;
    if config.jobs.dispatch == Dispatch::Kafka {
        let holds =
            !kafka.brokers.is_empty() && kafka.brokers.split(',').all(|broker| broker.trim().contains(':'));
        problems.require(holds, "kafka.brokers", "must be addresses such as \"host1:9092,host2:9092\"");
        problems.require(kafka.partitions > 0, "kafka.partitions", "must be at least 1");
        problems.require(kafka.replication > 0, "kafka.replication", "must be at least 1");
    }
    let (has_user, word) = (kafka.security.has_user(), kafka.security.as_str());
    problems.require(
        !has_user || !kafka.user.is_empty(),
        "kafka.user",
        format!("must name the user that kafka.security = \"{word}\" asks for"),
    );
    // A user, a password or an authority that is never shown to a broker was meant to protect something.
    let unused = |what: &str| format!("is used with kafka.security = {what} only; now it is \"{word}\"");
    let sasl = unused("\"sasl_plaintext\" or \"sasl_ssl\"");
    problems.require(has_user || kafka.user.is_empty(), "kafka.user", sasl.as_str());
    problems.require(
        has_user || kafka.password_file.as_os_str().is_empty(),
        "kafka.password_file",
        sasl.as_str(),
    );
    problems.require(
        kafka.security.has_tls() || kafka.ca_file.as_os_str().is_empty(),
        "kafka.ca_file",
        unused("\"ssl\" or \"sasl_ssl\""),
    );
}

#[cfg(test)]
mod tests {
    use crate::config::{Layers, load};

    /// The keys under `[kafka]` that a configuration is told of.
    fn told(settings: &[(&str, &str)]) -> Vec<String> {
        let flags =
            settings.iter().map(|(key, value)| (format!("kafka.{key}"), (*value).to_owned())).collect();
        let faults = load(&Layers { flags, ..Layers::default() }).err().map(|error| error.faults);
        let keys = faults.unwrap_or_default().into_iter().map(|fault| fault.key);
        keys.filter(|key| key.starts_with("kafka.")).collect()
    }

    #[test]
    fn what_belongs_together_is_there_together() {
        assert_eq!(told(&[]), Vec::<String>::new());
        assert_eq!(told(&[("security", "ssl"), ("ca_file", "/ca.pem")]), Vec::<String>::new());
        let whole = [("security", "sasl_ssl"), ("user", "ann"), ("mechanism", "SCRAM-SHA-512")];
        assert_eq!(told(&whole), Vec::<String>::new());
        assert_eq!(told(&[("security", "sasl_plaintext")]), ["kafka.user"]);
        assert_eq!(told(&[("user", "ann"), ("password_file", "/p")]), ["kafka.user", "kafka.password_file"]);
        assert_eq!(
            told(&[("security", "sasl_plaintext"), ("user", "a"), ("ca_file", "/c")]),
            ["kafka.ca_file"]
        );
        assert_eq!(told(&[("security", "tls")]), ["kafka.security"]);
        assert_eq!(told(&[("mechanism", "plain")]), ["kafka.mechanism"]);
    }
}
