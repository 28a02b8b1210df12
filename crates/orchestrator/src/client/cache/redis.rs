//! A cache on Redis, or on what speaks its protocol. One connection carries all calls and is made anew when it breaks; every call is
//! bounded in time. Keys get a prefix, so that a server may be shared.

use std::{future::Future, sync::LazyLock, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use redis::{
    Client, Cmd, FromRedisValue, RedisError, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};

use crate::core::{
    client::cache::{CacheClient, CacheError},
    market::quantity::Micros,
};

/// The longest time that is told to the server, which counts milliseconds since 1970 in 63 bits: a hundred years.
const LONGEST_MS: u64 = 100 * 365 * 24 * 3_600 * 1_000;

/// Counts in one step. A value that is no number, or too long for one, starts anew, as if it had been forgotten; so does one that
/// has no end, because nothing of this cache's has none.
static INCREMENT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local value = redis.call('GET', KEYS[1])
         if value and #value < 19 and string.match(value, '^%d+$') and redis.call('PTTL', KEYS[1]) > 0 then
             return redis.call('INCR', KEYS[1])
         end
         redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
         return 1",
    )
});

/// How the cache behaves.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// `redis://…` or `rediss://…`, with user and password if the server wants them.
    pub url: String,
    /// What all keys begin with.
    pub prefix: String,
    /// The longest that a call takes, connecting included.
    pub timeout: Duration,
}

impl RedisSettings {
    /// The usual times for a server.
    #[must_use]
    pub fn new(url: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self { url: url.into(), prefix: prefix.into(), timeout: Duration::from_millis(250) }
    }
}

/// What a server says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisServer {
    /// Its version, such as `7.0.15`.
    pub version: String,
    /// `standalone`, `sentinel` or `cluster`.
    pub mode: String,
    /// What it does when its memory is full, such as `allkeys-lru`.
    pub eviction: String,
    /// The most bytes it may use; zero says no bound.
    pub max_memory: u64,
}

/// A cache on Redis.
pub struct RedisCache {
    client: Client,
    prefix: String,
    timeout: Duration,
    connection: Mutex<Connection>,
}

/// The connection, and how many there were before it.
struct Connection {
    number: u64,
    manager: ConnectionManager,
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> CacheError {
    CacheError::Unavailable(Box::new(error))
}

impl RedisCache {
    /// A cache on the server at an address. Nothing is sent yet: a server that is down now may be up later.
    ///
    /// # Errors
    /// When the address is none. Needs a tokio runtime.
    pub fn new(settings: &RedisSettings) -> Result<Self, CacheError> {
        // Ignoring the result is right: another part of the program may have installed the same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::open(settings.url.as_str()).map_err(unavailable)?;
        let manager = manager(&client, settings.timeout)?;
        let connection = Mutex::new(Connection { number: 0, manager });
        Ok(Self { client, prefix: settings.prefix.clone(), timeout: settings.timeout, connection })
    }

    fn key(&self, key: &str) -> String {
        format!("{}:{key}", self.prefix)
    }

    /// Runs a call within the time it has.
    async fn call<T, F>(&self, call: impl FnOnce(ConnectionManager) -> F) -> Result<T, CacheError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let (number, manager) = {
            let connection = self.connection.lock();
            (connection.number, connection.manager.clone())
        };
        match tokio::time::timeout(self.timeout, call(manager)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                if error.is_timeout() {
                    self.replace(number)?;
                }
                Err(unavailable(error))
            }
            Err(elapsed) => {
                self.replace(number)?;
                Err(unavailable(elapsed))
            }
        }
    }

    /// Gives a silent connection up: when the network has swallowed it, only the kernel's own patience, a quarter of an hour,
    /// would end it.
    fn replace(&self, number: u64) -> Result<(), CacheError> {
        let mut connection = self.connection.lock();
        if connection.number == number {
            *connection =
                Connection { number: number.wrapping_add(1), manager: manager(&self.client, self.timeout)? };
        }
        Ok(())
    }

    async fn query<T: FromRedisValue>(&self, command: Cmd) -> Result<T, CacheError> {
        self.call(|mut connection| async move { command.query_async(&mut connection).await }).await
    }

    /// What the server says about itself.
    ///
    /// # Errors
    /// When it can't be reached, or doesn't let this user ask.
    pub async fn server(&self) -> Result<RedisServer, CacheError> {
        let text: String = self.query(redis::cmd("INFO")).await?;
        let field = |name: &str| {
            let value =
                |line: &str| line.strip_prefix(name)?.strip_prefix(':').map(str::trim).map(str::to_owned);
            text.lines().find_map(value).unwrap_or_default()
        };
        Ok(RedisServer {
            version: field("redis_version"),
            mode: field("redis_mode"),
            eviction: field("maxmemory_policy"),
            max_memory: field("maxmemory").parse().unwrap_or(0),
        })
    }
}

/// A connection that is made when it is first used, at once or not at all: callers have no time for more attempts.
fn manager(client: &Client, timeout: Duration) -> Result<ConnectionManager, CacheError> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout));
    ConnectionManager::new_lazy_with_config(client.clone(), config).map_err(unavailable)
}

/// Whole milliseconds; a value may go early, never late.
fn milliseconds(ttl: Micros) -> u64 {
    ttl.as_millis().min(LONGEST_MS)
}

#[async_trait]
impl CacheClient for RedisCache {
    async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, CacheError> {
        self.query(Cmd::get(self.key(key))).await
    }

    async fn set(&self, key: &str, value: Vec<u8>, ttl: Micros) -> Result<(), CacheError> {
        match milliseconds(ttl) {
            0 => self.remove(key).await,
            ttl => self.query(Cmd::pset_ex(self.key(key), value, ttl)).await,
        }
    }

    async fn remove(&self, key: &str) -> Result<(), CacheError> {
        self.query(Cmd::del(self.key(key))).await
    }

    async fn increment(&self, key: &str, ttl: Micros) -> Result<u64, CacheError> {
        let mut invocation = INCREMENT.key(self.key(key));
        invocation.arg(milliseconds(ttl).max(1));
        self.call(|mut connection| async move { invocation.invoke_async(&mut connection).await }).await
    }
}
