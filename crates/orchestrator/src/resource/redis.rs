//! Examines a Redis cache: whether it answers, how fast, its version, and what it does when its memory is full.

use std::time::Instant;

use super::check::{Check, Finding};
use crate::{
    client::cache::{RedisCache, RedisServer},
    core::{client::cache::CacheError, market::quantity::Micros},
};

/// Looks at the server; nothing is changed.
pub async fn examine(cache: &RedisCache) -> Check {
    let begun = Instant::now();
    let answer = cache.server().await;
    let latency = Micros(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    let (version, findings) = match answer {
        Ok(server) => (Some(format!("redis {} ({})", server.version, server.mode)), findings(&server)),
        Err(error) => (None, vec![unreachable(&error)]),
    };
    Check { name: "cache", latency, version, findings }
}

fn unreachable(error: &CacheError) -> Finding {
    let what = crate::error::chain(error);
    let denied = ["NOAUTH", "WRONGPASS", "NOPERM", "invalid username-password", "authentication failed"];
    let fix = if denied.iter().any(|sign| what.contains(sign)) {
        "put a user and password that may run INFO, GET, SET, DEL and EVALSHA into cache.url: redis://user:password@host:port"
    } else {
        "check the host and port in cache.url and that the server runs; rediss:// is for TLS; until then the daemon goes on without its cache, slower"
    };
    Finding { what, fix: fix.to_owned() }
}

fn findings(server: &RedisServer) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |what: &str, fix: &str| findings.push(Finding { what: what.into(), fix: fix.into() });
    if server.max_memory > 0 && server.eviction == "noeviction" {
        find(
            "it refuses to store anything when its memory is full (maxmemory-policy is noeviction)",
            "set maxmemory-policy to allkeys-lru: what is forgotten here costs time only",
        );
    }
    if server.mode == "cluster" {
        find(
            "it is a node of a Redis cluster, which sends clients to other nodes",
            "name a single server, or a proxy before the cluster, in cache.url",
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(max_memory: u64, eviction: &str, mode: &str) -> RedisServer {
        let (version, mode) = ("7.0.15".to_owned(), mode.to_owned());
        RedisServer { version, mode, eviction: eviction.to_owned(), max_memory }
    }

    #[test]
    fn a_server_that_evicts_or_has_no_bound_is_fine_and_others_are_named() {
        assert_eq!(findings(&server(1, "allkeys-lru", "standalone")), []);
        assert_eq!(findings(&server(0, "noeviction", "standalone")), []);
        assert!(findings(&server(1, "noeviction", "standalone"))[0].fix.contains("allkeys-lru"));
        assert!(findings(&server(0, "noeviction", "cluster"))[0].fix.contains("cache.url"));
        let denied = std::io::Error::other("WRONGPASS invalid");
        assert!(unreachable(&CacheError::Unavailable(Box::new(denied))).fix.contains("password"));
    }
}
