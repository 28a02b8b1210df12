//! `[api]`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::section;
use crate::{
    config::{HumanDuration, HumanSize, Problems},
    core::market::quantity::Bytes,
};

section! {
    /// The HTTP API.
    Api {
        /// Where it listens.
        listen: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7700);
        /// Largest request body.
        max_body: HumanSize = HumanSize(Bytes(1 << 20));
        /// Longest time for one request.
        timeout: HumanDuration = HumanDuration::secs(30);
        /// Requests that one key may make in a minute; 0 means without limit.
        requests_per_minute: u64 = 60_000;
        /// Requests that are worked on at once; more are told to come again.
        max_in_flight: usize = 1_024;
    }
}

impl Api {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        let body = self.max_body.0.get();
        problems.require(
            (1 << 10..=64 << 20).contains(&body),
            "api.max_body",
            "must lie between 1KiB and 64MiB",
        );
        problems.require(self.max_in_flight > 0, "api.max_in_flight", "must be above zero");
        problems.require(self.timeout.0.get() >= 100_000, "api.timeout", "must be at least 100ms");
    }
}
