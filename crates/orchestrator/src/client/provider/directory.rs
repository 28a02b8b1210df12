//! Finds and keeps the adapter of each provider.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::RwLock;
use zeroize::Zeroizing;

use super::{EmbeddedProvider, EmbeddedSettings};
use crate::core::{
    client::{
        provider::{ProviderClient, ProviderDirectory, ProviderError},
        vault::Vault,
    },
    market::{
        ids::ProviderId,
        party::{AdapterConfig, Provider},
    },
};

/// The server that runs beside this daemon.
#[derive(Clone)]
pub struct CoHosted {
    /// Base address of its admin API.
    pub admin_url: String,
    /// Its admin token.
    pub admin_token: Zeroizing<String>,
}

/// An adapter, and what it was made from.
type Made = (AdapterConfig, Arc<dyn ProviderClient>);

/// Makes adapters from what is known of a provider, and keeps each until that changes.
pub struct AdapterDirectory {
    vault: Arc<dyn Vault>,
    co_hosted: Option<CoHosted>,
    settings: EmbeddedSettings,
    made: RwLock<HashMap<ProviderId, Made>>,
}

impl AdapterDirectory {
    /// A directory; `co_hosted` serves the providers that name no address of their own.
    #[must_use]
    pub fn new(vault: Arc<dyn Vault>, co_hosted: Option<CoHosted>, settings: EmbeddedSettings) -> Self {
        Self { vault, co_hosted, settings, made: RwLock::default() }
    }

    fn make(&self, provider: &Provider) -> Result<Arc<dyn ProviderClient>, ProviderError> {
        let AdapterConfig::Embedded { admin_url, sealed_token } = &provider.adapter;
        let ours = || {
            self.co_hosted.as_ref().ok_or_else(|| {
                ProviderError::Refused(
                    "the provider names no server, and none runs beside this daemon".into(),
                )
            })
        };
        let url = match admin_url {
            Some(url) => url.clone(),
            None => ours()?.admin_url.clone(),
        };
        let token = match (sealed_token, admin_url) {
            (Some(sealed), _) => {
                let opened = Zeroizing::new(
                    self.vault
                        .open(&provider.id.to_string(), sealed)
                        .map_err(|error| ProviderError::Refused(error.to_string()))?,
                );
                let text = std::str::from_utf8(&opened).map_err(|e| ProviderError::Refused(e.to_string()))?;
                Zeroizing::new(text.to_owned())
            }
            // Our own token goes to our own server only, never to an address that a tenant chose.
            (None, Some(_)) => {
                return Err(ProviderError::Refused(
                    "a provider with an address of its own needs a token".into(),
                ));
            }
            (None, None) => ours()?.admin_token.clone(),
        };
        Ok(Arc::new(EmbeddedProvider::new(&url, token, self.settings)?))
    }
}

#[async_trait]
impl ProviderDirectory for AdapterDirectory {
    async fn client(&self, provider: &Provider) -> Result<Arc<dyn ProviderClient>, ProviderError> {
        if let Some((adapter, client)) = self.made.read().get(&provider.id)
            && *adapter == provider.adapter
        {
            return Ok(client.clone());
        }
        let client = self.make(provider)?;
        self.made.write().insert(provider.id, (provider.adapter.clone(), client.clone()));
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::{clock::SeededEntropy, vault::AesVault},
        core::market::{ids::Id, quantity::Timestamp, terms::DomainId},
    };

    fn provider(admin_url: Option<&str>, sealed_token: Option<String>) -> Provider {
        Provider {
            id: ProviderId::from_uuid(uuid::Uuid::from_u128(1)),
            name: "p".into(),
            domain: serde_json::from_str::<DomainId>("\"local\"").unwrap(),
            owner: None,
            adapter: AdapterConfig::Embedded { admin_url: admin_url.map(str::to_owned), sealed_token },
            created_at: Timestamp::EPOCH,
        }
    }

    #[tokio::test]
    async fn an_adapter_is_kept_until_the_provider_changes_and_our_token_stays_with_us() {
        let vault = Arc::new(AesVault::new(&Zeroizing::new([1; 32]), Arc::new(SeededEntropy::new(1))));
        let ours =
            CoHosted { admin_url: "http://127.0.0.1:1".into(), admin_token: Zeroizing::new("t".repeat(16)) };
        let directory = AdapterDirectory::new(vault.clone(), Some(ours), EmbeddedSettings::default());
        let first = directory.client(&provider(None, None)).await.unwrap();
        let again = directory.client(&provider(None, None)).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let elsewhere = provider(Some("http://127.0.0.1:2"), None);
        assert!(matches!(directory.client(&elsewhere).await, Err(ProviderError::Refused(_))));
        let sealed = vault.seal(&elsewhere.id.to_string(), b"another token").unwrap();
        let moved = directory.client(&provider(Some("http://127.0.0.1:2"), Some(sealed))).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &moved));
        let foreign = vault.seal("prov_other", b"another token").unwrap();
        let stolen = provider(Some("http://127.0.0.1:2"), Some(foreign));
        assert!(matches!(directory.client(&stolen).await, Err(ProviderError::Refused(_))));
        let alone = AdapterDirectory::new(vault, None, EmbeddedSettings::default());
        assert!(matches!(alone.client(&provider(None, None)).await, Err(ProviderError::Refused(_))));
    }
}
