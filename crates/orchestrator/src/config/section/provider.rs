//! `[provider]`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use super::{DatabaseBackend, section};
use crate::{
    config::{Config, HumanSize, Problems},
    core::market::quantity::Bytes,
};

section! {
    /// The built-in provider: an S3 server over a directory.
    Provider {
        /// Whether `orchestrator run` hosts it; else run `orchestrator provider` beside it.
        cohosted: bool = true;
        /// Where its S3 endpoint listens.
        s3_listen: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7701);
        /// Where its admin API listens.
        admin_listen: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7702);
        /// The S3 address that consumers are told, when it is not that of `s3_listen`.
        public_endpoint: String = String::new();
        /// Its directory. Empty: `provider` in the data directory.
        dir: PathBuf = PathBuf::new();
        /// What it gives out.
        capacity: HumanSize = HumanSize(Bytes(100 << 30));
        /// Its region.
        region: String = "local-1".into();
        /// Its country, ISO 3166-1 alpha-2.
        country: String = "CH".into();
    }
}

impl Provider {
    pub(crate) fn validate(&self, config: &Config, problems: &mut Problems) {
        problems.require(self.capacity.0.get() >= 1 << 20, "provider.capacity", "must be at least 1MiB");
        problems.require(self.capacity.0 <= Bytes::MAX, "provider.capacity", "must be below 8PiB");
        problems.require(!self.region.is_empty(), "provider.region", "must not be empty");
        let country = self.country.len() == 2 && self.country.bytes().all(|b| b.is_ascii_uppercase());
        problems.require(country, "provider.country", "must be two capital letters, such as \"CH\"");
        if !self.cohosted {
            return;
        }
        problems.require(
            config.database.backend == DatabaseBackend::Sqlite,
            "provider.cohosted",
            "must be false when replicas share a database: run `orchestrator provider` as a process of its own, and register it",
        );
        let clash = |a: SocketAddr, b: SocketAddr| a.port() != 0 && a == b;
        problems.require(
            !clash(self.s3_listen, config.api.listen) && !clash(self.s3_listen, self.admin_listen),
            "provider.s3_listen",
            "must differ from api.listen and provider.admin_listen",
        );
        problems.require(
            !clash(self.admin_listen, config.api.listen),
            "provider.admin_listen",
            "must differ from api.listen",
        );
    }
}
