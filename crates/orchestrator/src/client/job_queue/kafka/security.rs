//! TLS and users. What the driver was built without is told before it is tried: the driver's own words name neither what is
//! missing nor what to do.

use std::{fmt, path::PathBuf};

use rdkafka::ClientConfig;
use zeroize::Zeroizing;

/// How brokers are talked to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaSecurity {
    /// In Kafka's words: `plaintext`, `ssl`, `sasl_plaintext`, `sasl_ssl`.
    pub protocol: &'static str,
    /// Certificates of authorities, as PEM; empty: those of the system.
    pub ca_file: PathBuf,
    /// The user, where the protocol has one.
    pub sasl: Option<KafkaSasl>,
}

/// A user.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSasl {
    /// In Kafka's words: `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`.
    pub mechanism: &'static str,
    /// The name.
    pub user: String,
    /// The password.
    pub password: Zeroizing<String>,
}

impl fmt::Debug for KafkaSasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mechanism, user, .. } = self;
        f.debug_struct("KafkaSasl").field("mechanism", mechanism).field("user", user).finish_non_exhaustive()
    }
}

impl Default for KafkaSecurity {
    fn default() -> Self {
        Self { protocol: "plaintext", ca_file: PathBuf::new(), sasl: None }
    }
}

impl KafkaSecurity {
    /// Sets what the driver must know.
    pub(super) fn apply(&self, config: &mut ClientConfig) {
        config.set("security.protocol", self.protocol);
        if !self.ca_file.as_os_str().is_empty() {
            config.set("ssl.ca.location", self.ca_file.display().to_string());
        }
        if let Some(KafkaSasl { mechanism, user, password }) = &self.sasl {
            config.set("sasl.mechanism", *mechanism);
            config.set("sasl.username", user.as_str()).set("sasl.password", password.as_str());
        }
    }

    /// What the driver of this build lacks for it, and what to do; `None` when it has everything.
    #[must_use]
    pub fn lacking(&self) -> Option<String> {
        let known =
            ClientConfig::new().create_native_config().and_then(|config| config.get("builtin.features"));
        self.lacking_of(&known.unwrap_or_default())
    }

    fn lacking_of(&self, features: &str) -> Option<String> {
        let has =
            |feature: &str| features.trim_end_matches('\0').split(',').any(|known| known.trim() == feature);
        let mechanism = self.sasl.as_ref().map(|sasl| match sasl.mechanism {
            "PLAIN" => ("PLAIN", "sasl_plain"),
            scram => (scram, "sasl_scram"),
        });
        let tls = self.protocol.ends_with("ssl").then_some(("TLS", "ssl"));
        let (what, _) = tls.into_iter().chain(mechanism).find(|(_, feature)| !has(feature))?;
        Some(format!(
            "the Kafka driver of this build lacks {what}; build with `--features cluster,rdkafka/ssl`, which needs OpenSSL, or let \
             a proxy beside the daemon speak it"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secured(protocol: &'static str, mechanism: &'static str) -> KafkaSecurity {
        let password = Zeroizing::new("s3cr3t".to_owned());
        let sasl = KafkaSasl { mechanism, user: "ann".into(), password };
        KafkaSecurity { protocol, ca_file: "/etc/ca.pem".into(), sasl: Some(sasl) }
    }

    #[test]
    fn everything_reaches_the_driver_and_no_password_a_log() {
        let security = secured("sasl_ssl", "SCRAM-SHA-256");
        let mut config = ClientConfig::new();
        security.apply(&mut config);
        for (key, value) in [
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", "/etc/ca.pem"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
            ("sasl.username", "ann"),
            ("sasl.password", "s3cr3t"),
        ] {
            assert_eq!(config.get(key), Some(value), "{key}");
        }
        assert!(!format!("{security:?}").contains("s3cr3t"));
    }

    #[test]
    fn what_the_driver_lacks_is_told_with_what_to_do() {
        assert_eq!(KafkaSecurity::default().lacking(), None);
        let (tls, scram) = (secured("sasl_ssl", "PLAIN"), secured("sasl_plaintext", "SCRAM-SHA-512"));
        let plain = secured("sasl_plaintext", "PLAIN");
        for (security, features, lacks) in [
            (&tls, "gzip,ssl,sasl,sasl_plain", None),
            (&tls, "gzip,sasl,sasl_plain", Some("TLS")),
            (&scram, "ssl,sasl_plain,sasl_scram\0", None),
            (&scram, "sasl_plain", Some("SCRAM-SHA-512")),
            (&plain, "sasl_plain", None),
            (&plain, "", Some("PLAIN")),
        ] {
            let told = security.lacking_of(features);
            assert_eq!(told.is_some(), lacks.is_some(), "{features}: {told:?}");
            let told = told.unwrap_or_default();
            assert!(lacks.is_none_or(|what| told.contains(what) && told.contains("rdkafka/ssl")), "{told}");
        }
        // What the driver of this build says of itself is what it takes.
        for security in [tls, scram, plain] {
            let mut config = ClientConfig::new();
            KafkaSecurity { ca_file: PathBuf::new(), ..security.clone() }.apply(&mut config);
            let made =
                config.set("bootstrap.servers", "127.0.0.1:1").create::<rdkafka::producer::BaseProducer>();
            assert_eq!(made.is_ok(), security.lacking().is_none(), "{security:?}: {:?}", made.err());
        }
    }
}
