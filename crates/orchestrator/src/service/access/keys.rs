//! API keys. A key's text is `ork_<key id, 32 hex digits>_<secret, 64 hex digits>`; only the SHA-256 of the secret is
//! stored. Keys that were let in are remembered for a moment, so that a request costs no read of the database; a
//! revocation in this process ends that at once, one elsewhere within [`KeySettings::cache_for`].

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::{
    core::{
        client::{
            clock::Entropy,
            database::{Changeset, Filter, ReaderExt, Sort},
        },
        market::{
            ids::{Id, KeyId},
            party::{ApiKey, Consumer, Oracle, Principal, Provider},
            quantity::{Micros, Timestamp},
        },
    },
    error::{Error, ErrorCode, Result},
    service::{
        page::{Listing, PageRequest, list},
        work::{Call, Draft, Work},
    },
};

const PREFIX: &str = "ork";
const SECRET_BYTES: usize = 32;
const MAX_LABEL: usize = 100;

/// How keys are handled.
#[derive(Debug, Clone, Copy)]
pub struct KeySettings {
    /// How long a key that was let in is not looked up again.
    pub cache_for: Micros,
    /// Keys remembered at most.
    pub cache_size: usize,
}

impl Default for KeySettings {
    fn default() -> Self {
        Self { cache_for: Micros::from_secs(2), cache_size: 10_000 }
    }
}

/// A key that was just made.
#[derive(Debug)]
pub struct NewKey {
    /// What is stored of it.
    pub key: ApiKey,
    /// The text that opens the API; shown this once.
    pub text: String,
}

/// Whom a key let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authenticated {
    /// With which key.
    pub key: KeyId,
    /// Whom.
    pub principal: Principal,
}

struct Remembered {
    secret_sha256: String,
    principal: Principal,
    until: Timestamp,
}

/// Remembered keys. The epoch grows with each revocation: what was read before one is not remembered after it.
#[derive(Default)]
struct Memory {
    keys: HashMap<KeyId, Remembered>,
    epoch: u64,
}

/// Makes, checks, lists and revokes API keys.
pub struct KeyService {
    work: Work,
    entropy: Arc<dyn Entropy>,
    settings: KeySettings,
    memory: Mutex<Memory>,
}

/// What a creation leaves with its request's marker: no secret.
#[derive(Serialize, Deserialize)]
struct Created {
    id: KeyId,
}

impl KeyService {
    /// A service over a unit of work and a source of secrets.
    #[must_use]
    pub fn new(work: Work, entropy: Arc<dyn Entropy>, settings: KeySettings) -> Self {
        Self { work, entropy, settings, memory: Mutex::default() }
    }

    /// Makes a key for `principal`. Operators make keys for everybody, the others for themselves.
    ///
    /// # Errors
    /// [`ErrorCode::Forbidden`] for another's key; [`ErrorCode::InvalidField`] for a wrong label or a tenant that does
    /// not exist; [`ErrorCode::SecretGone`] when the request was carried out before: the secret is not kept.
    pub async fn create(&self, call: &Call, principal: Principal, label: &str) -> Result<NewKey> {
        if principal == Principal::System {
            return Err(Error::new(ErrorCode::Forbidden, "no key opens the daemon's own access"));
        }
        if !call.principal.is_operator() && call.principal != principal {
            return Err(Error::new(ErrorCode::Forbidden, "only operators make keys for others"));
        }
        let label = label.trim();
        if label.is_empty() || label.chars().count() > MAX_LABEL || label.chars().any(char::is_control) {
            return Err(Error::field("label", "a label has 1 to 100 printable characters"));
        }
        self.require_tenant(&principal).await?;
        let mut secret = [0_u8; SECRET_BYTES];
        self.entropy.fill(&mut secret);
        let secret = hex::encode(secret);
        let key = ApiKey {
            id: self.work.ids.next(),
            secret_sha256: hash(&secret),
            principal,
            label: label.to_owned(),
            created_at: self.work.now(),
            revoked_at: None,
        };
        let answer = self
            .work
            .run(call, "key.create", || async {
                let mut changes = Changeset::new();
                changes.insert(&key);
                Ok(Draft::new(changes, Created { id: key.id }))
            })
            .await?;
        if answer.replayed.is_some() {
            return Err(Error::new(
                ErrorCode::SecretGone,
                format!(
                    "this request made {} before, and its secret was shown then; revoke that key and make a new one",
                    answer.value.id
                ),
            )
            .extra(serde_json::json!({ "key": answer.value.id })));
        }
        let text = format!("{PREFIX}_{}_{secret}", key.id.uuid().simple());
        Ok(NewKey { key, text })
    }

    /// Whom the key's text lets in.
    ///
    /// # Errors
    /// [`ErrorCode::Unauthenticated`], in the same words for every wrong key; database errors.
    pub async fn authenticate(&self, text: &str) -> Result<Authenticated> {
        let (id, secret) = parse(text).ok_or_else(refused)?;
        let given = hash(secret);
        let now = self.work.now();
        let epoch = {
            let memory = self.memory.lock();
            if let Some(known) = memory.keys.get(&id)
                && known.until > now
            {
                let principal = known.principal;
                return if same(&known.secret_sha256, &given) {
                    Ok(Authenticated { key: id, principal })
                } else {
                    Err(refused())
                };
            }
            memory.epoch
        };
        let found = self.work.reader.load::<ApiKey>(&id.to_string()).await?.ok_or_else(refused)?.value;
        let matches = same(&found.secret_sha256, &given);
        if !matches || found.revoked_at.is_some() {
            return Err(refused());
        }
        self.remember(epoch, now, &found);
        Ok(Authenticated { key: id, principal: found.principal })
    }

    /// Keys, newest first: all of them for operators, their own for the others.
    ///
    /// # Errors
    /// Database errors.
    pub async fn list(&self, call: &Call, page: PageRequest) -> Result<Listing<ApiKey>> {
        let filter = if call.principal.is_operator() {
            Filter::All
        } else {
            Filter::eq("principal.id", call.principal.tenant())
        };
        list(self.work.reader.as_ref(), filter, Sort::IdDescending, page).await
    }

    /// Takes a key away; one that is revoked already stays as it is.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`] for unknown and others' keys; database errors.
    pub async fn revoke(&self, call: &Call, id: KeyId) -> Result<ApiKey> {
        let answer = self
            .work
            .run(call, "key.revoke", || async {
                let stored = self
                    .work
                    .reader
                    .load::<ApiKey>(&id.to_string())
                    .await?
                    .filter(|key| call.principal.is_operator() || key.value.principal == call.principal)
                    .ok_or_else(|| Error::not_found("key", id))?;
                let mut key = stored.value;
                let mut changes = Changeset::new();
                if key.revoked_at.is_none() {
                    key.revoked_at = Some(self.work.now());
                    changes.replace(stored.version, &key);
                }
                Ok(Draft::new(changes, key))
            })
            .await?;
        let mut memory = self.memory.lock();
        memory.epoch += 1;
        memory.keys.remove(&id);
        Ok(answer.value)
    }

    async fn require_tenant(&self, principal: &Principal) -> Result<()> {
        let reader = &self.work.reader;
        let known = match principal {
            Principal::Operator(_) | Principal::System => true,
            Principal::Provider(id) => reader.load::<Provider>(&id.to_string()).await?.is_some(),
            Principal::Consumer(id) => reader.load::<Consumer>(&id.to_string()).await?.is_some(),
            Principal::Oracle(id) => reader.load::<Oracle>(&id.to_string()).await?.is_some(),
        };
        if known {
            return Ok(());
        }
        Err(Error::field("tenant", format!("there is no `{}`; register it first", principal.tenant())))
    }

    fn remember(&self, epoch: u64, now: Timestamp, key: &ApiKey) {
        let mut memory = self.memory.lock();
        if memory.epoch != epoch {
            return;
        }
        if memory.keys.len() >= self.settings.cache_size {
            memory.keys.retain(|_, known| known.until > now);
        }
        if memory.keys.len() < self.settings.cache_size {
            let known = Remembered {
                secret_sha256: key.secret_sha256.clone(),
                principal: key.principal,
                until: now.plus(self.settings.cache_for),
            };
            memory.keys.insert(key.id, known);
        }
    }
}

fn parse(text: &str) -> Option<(KeyId, &str)> {
    let (id, secret) = text.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
    let well_formed = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    if !well_formed(id, 32) || !well_formed(secret, 2 * SECRET_BYTES) {
        return None;
    }
    Some((KeyId::from_uuid(Uuid::try_parse(id).ok()?), secret))
}

fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

fn same(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

fn refused() -> Error {
    Error::new(ErrorCode::Unauthenticated, "the API key is unknown, wrong or revoked")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_key_is_refused_before_anything_is_read() {
        let id = "0".repeat(32);
        let secret = "a".repeat(64);
        assert!(parse(&format!("ork_{id}_{secret}")).is_some());
        for bad in [
            String::new(),
            "ork".into(),
            format!("ork_{id}"),
            format!("ork_{id}_"),
            format!("ork_{id}_{secret}0"),
            format!("orx_{id}_{secret}"),
            format!("ork_{id}_{}", "A".repeat(64)),
            format!("ork_{}_{secret}", "z".repeat(32)),
        ] {
            assert!(parse(&bad).is_none(), "{bad}");
        }
    }
}
