//! Examines a Redis cache: whether it answers, how fast, its version, and what it does when its memory is full.

use std::time::Instant;

use super::examination::{Examination, Finding};
use crate::{
    client::cache::{RedisCache, RedisServer},
    core::client::cache::CacheError,
};

/// Looks at the server; nothing is changed.
pub async fn examine(cache: &RedisCache) -> Examination {
    let begun = Instant::now();
    let answer = cache.server().await;
    let latency = begun.elapsed();
    match answer {
        Ok(server) => Examination {
            dependency: "cache",
            about: format!("redis {} ({})", server.version, server.mode),
            latency: Some(latency),
            findings: findings(&server),
        },
        Err(error) => Examination {
            dependency: "cache",
            about: String::new(),
            latency: None,
            findings: vec![unreachable(&error)],
        },
    }
}

/// The daemon works without its cache, only slower: nothing here is fatal.
fn unreachable(error: &CacheError) -> Finding {
    let problem = crate::error::chain(error);
    let fix = if ["NOAUTH", "WRONGPASS", "NOPERM", "invalid username-password"]
        .iter()
        .any(|sign| problem.contains(sign))
    {
        "put a user and password that may run INFO, GET, SET, DEL and EVALSHA into cache.url: redis://user:password@host:port"
    } else {
        "check the host and port in cache.url, that the server runs, and that no firewall is between; rediss:// is for TLS only"
    };
    Finding::advice(problem, fix)
}

fn findings(server: &RedisServer) -> Vec<Finding> {
    let mut findings = Vec::new();
    if server.max_memory == 0 {
        findings.push(Finding::advice(
            "the server's memory has no bound",
            "set maxmemory, so that the cache can't crowd out what else runs on that host",
        ));
    } else if server.eviction == "noeviction" {
        findings.push(Finding::advice(
            "a full server refuses to cache (maxmemory-policy is noeviction)",
            "set maxmemory-policy to allkeys-lru",
        ));
    }
    if server.mode == "cluster" {
        findings.push(Finding::advice(
            "the server is a node of a Redis cluster, which sends clients to other nodes",
            "name a single server or a proxy in cache.url",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(max_memory: u64, eviction: &str) -> RedisServer {
        let (version, mode) = ("7.0.15".to_owned(), "standalone".to_owned());
        RedisServer { version, mode, eviction: eviction.to_owned(), max_memory }
    }

    #[test]
    fn a_bounded_server_that_evicts_is_fine_and_others_are_named() {
        assert_eq!(findings(&server(1, "allkeys-lru")), []);
        assert!(findings(&server(0, "noeviction"))[0].problem.contains("no bound"));
        assert!(findings(&server(1, "noeviction"))[0].fix.contains("allkeys-lru"));
        let denied = std::io::Error::other("WRONGPASS invalid");
        assert!(unreachable(&CacheError::Unavailable(Box::new(denied))).fix.contains("password"));
    }
}
