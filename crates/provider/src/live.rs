//! What each request must look up at once: allocations and keys in memory, written through by the admin API, so that a
//! revocation holds from the moment the call returns, for requests in flight too.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;

use crate::wire::{Level, Permissions};

/// An allocation, as requests see it.
#[derive(Debug)]
pub struct LiveAllocation {
    /// Its id.
    pub id: String,
    /// Its bucket.
    pub bucket: String,
    /// Quota in bytes.
    pub quota: u64,
    /// When it was made: microseconds since the Unix epoch.
    pub created_at: i64,
    level: AtomicU8,
    /// Bytes sent that the store does not know of yet.
    pub unflushed_egress: AtomicU64,
}

impl LiveAllocation {
    /// An allocation.
    #[must_use]
    pub fn new(id: String, bucket: String, quota: u64, created_at: i64, level: Level) -> Self {
        let this = Self {
            id,
            bucket,
            quota,
            created_at,
            level: AtomicU8::new(0),
            unflushed_egress: AtomicU64::new(0),
        };
        this.set_level(level);
        this
    }

    /// How wide it is open.
    #[must_use]
    pub fn level(&self) -> Level {
        match self.level.load(Ordering::Acquire) {
            0 => Level::Full,
            1 => Level::ReadOnly,
            _ => Level::None,
        }
    }

    /// Opens or narrows it.
    pub fn set_level(&self, level: Level) {
        let code = match level {
            Level::Full => 0,
            Level::ReadOnly => 1,
            Level::None => 2,
        };
        self.level.store(code, Ordering::Release);
    }
}

/// A key, as requests see it.
#[derive(Debug)]
pub struct LiveKey {
    /// S3 secret access key.
    pub secret: String,
    /// What it may do.
    pub permissions: Permissions,
    /// What it opens.
    pub allocation: Arc<LiveAllocation>,
    revoked: AtomicBool,
}

impl LiveKey {
    /// A key that works.
    #[must_use]
    pub const fn new(secret: String, permissions: Permissions, allocation: Arc<LiveAllocation>) -> Self {
        Self { secret, permissions, allocation, revoked: AtomicBool::new(false) }
    }

    /// Whether a request with this key may read now.
    #[must_use]
    pub fn may_read(&self) -> bool {
        !self.revoked.load(Ordering::Acquire) && self.allocation.level() != Level::None
    }

    /// Whether a request with this key may write now.
    #[must_use]
    pub fn may_write(&self) -> bool {
        !self.revoked.load(Ordering::Acquire)
            && self.permissions == Permissions::ReadWrite
            && self.allocation.level() == Level::Full
    }
}

/// The maps.
#[derive(Debug, Default)]
pub struct Live {
    allocations: RwLock<HashMap<String, Arc<LiveAllocation>>>,
    keys: RwLock<HashMap<String, Arc<LiveKey>>>,
}

impl Live {
    /// Adds an allocation.
    pub fn add(&self, allocation: LiveAllocation) {
        self.allocations.write().insert(allocation.id.clone(), Arc::new(allocation));
    }

    /// An allocation.
    #[must_use]
    pub fn allocation(&self, id: &str) -> Option<Arc<LiveAllocation>> {
        self.allocations.read().get(id).cloned()
    }

    /// Every allocation.
    #[must_use]
    pub fn allocations(&self) -> Vec<Arc<LiveAllocation>> {
        self.allocations.read().values().cloned().collect()
    }

    /// Removes an allocation with its keys.
    pub fn remove(&self, id: &str) {
        if let Some(allocation) = self.allocations.write().remove(id) {
            allocation.set_level(Level::None);
        }
        self.keys.write().retain(|_, key| key.allocation.id != id);
    }

    /// Installs or replaces a key; requests in flight with the old one go by the old one's end.
    pub fn put_key(&self, access_key_id: &str, key: LiveKey) {
        if let Some(old) = self.keys.write().insert(access_key_id.to_owned(), Arc::new(key)) {
            old.revoked.store(true, Ordering::Release);
        }
    }

    /// Takes a key away.
    pub fn remove_key(&self, access_key_id: &str) {
        if let Some(key) = self.keys.write().remove(access_key_id) {
            key.revoked.store(true, Ordering::Release);
        }
    }

    /// A key.
    #[must_use]
    pub fn key(&self, access_key_id: &str) -> Option<Arc<LiveKey>> {
        self.keys.read().get(access_key_id).cloned()
    }
}
