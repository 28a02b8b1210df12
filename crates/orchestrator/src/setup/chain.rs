//! Settlement layer and data availability, as the configuration names them.

use std::sync::Arc;

use super::clients::settlement_layer;
use crate::{
    config::{Config, section::SettlementBackend},
    core::{
        client::{clock::Clock, database::DatabaseClient},
        madara::{da::DaClient, settlement::SettlementClient},
    },
    error::Result,
};

/// Both layers of the one settlement domain.
pub type Layers = (Arc<dyn SettlementClient>, Arc<dyn DaClient>);

/// Opens both layers.
///
/// # Errors
/// When one can't be opened or reached, or is not what the configuration says.
pub async fn layers(
    config: &Config,
    database: &Arc<dyn DatabaseClient>,
    clock: &Arc<dyn Clock>,
) -> Result<Layers> {
    match config.settlement.backend {
        SettlementBackend::Local => settlement_layer(config, clock.clone()),
        #[cfg(feature = "ethereum")]
        SettlementBackend::Ethereum => ethereum::open(config, database, clock).await,
        #[cfg(not(feature = "ethereum"))]
        SettlementBackend::Ethereum => {
            let _ = database;
            Err(crate::error::Error::new(
                crate::error::ErrorCode::NotSupported,
                "this build has no Ethereum; build with `--features ethereum`",
            ))
        }
    }
}

#[cfg(feature = "ethereum")]
pub(super) use ethereum::operator;

#[cfg(feature = "ethereum")]
mod ethereum {
    use std::sync::Arc;

    use super::Layers;
    use crate::{
        client::{
            da::ethereum::{Beacon, BlockIds, DaSettings, EthereumDa},
            settlement::ethereum::{
                EthereumSettlement,
                deposits::LogSettings,
                fees::Caps,
                key::{Key, open_keystore},
                node::{Finality, Node},
                oracles::Oracles,
                sender::{Sender, SenderRules},
                signer::{METHODS, Policy, PolicySigner},
            },
        },
        config::{
            Config,
            section::{ChainFinality, Ethereum},
        },
        core::{
            client::{clock::Clock, database::DatabaseClient},
            madara::settlement::SettlementError,
            market::terms::DomainId,
        },
        error::{Error, Result},
        setup::clients::unready,
    };

    const GWEI: u128 = 1_000_000_000;

    pub(super) async fn open(
        config: &Config,
        database: &Arc<dyn DatabaseClient>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Layers> {
        let key = operator(config).await.map_err(|error| unready("operator's key", error))?;
        let config = &config.ethereum;
        let failed = |error| unready("settlement layer", error);
        let contract = config.contract.parse().map_err(|error| unready("settlement layer", error))?;
        let policy = Policy {
            chain: config.chain_id,
            contract,
            methods: METHODS,
            gas: config.max_gas,
            caps: Caps {
                gas: u128::from(config.max_fee_gwei) * GWEI,
                blob: u128::from(config.max_blob_fee_gwei) * GWEI,
            },
        };
        let signer = PolicySigner::new(key, policy);
        let oracle = oracle(config).await?;
        let node = Node::new(&config.rpc_url, config.timeout.0).map_err(failed)?;
        let rules = SenderRules { finality: finality(config), bump_after: config.bump_after.0 };
        let ports = (Arc::clone(database) as _, Arc::clone(database) as _);
        let sender = Sender::connect(node, signer, ports, Arc::clone(clock), rules).await.map_err(failed)?;
        let sender = Arc::new(sender);
        let domain = DomainId(config.domain.clone());
        let treasury = config.treasury.parse().map_err(Error::internal)?;
        let logs = LogSettings {
            from_block: config.from_block,
            log_range: config.log_range,
            confirmations: config.confirmations,
        };
        let parties = (treasury, Oracles::new(config.chain_id, contract, oracle));
        let settlement = EthereumSettlement::connect(domain.clone(), Arc::clone(&sender), logs, parties)
            .await
            .map_err(failed)?;
        let settlement = if config.pay_out { settlement } else { settlement.without_payouts() };
        let ids = match config.genesis_time {
            0 => BlockIds::Numbers,
            genesis => BlockIds::Slots { genesis, seconds: config.slot_seconds },
        };
        let beacon = Beacon::new(&config.beacon_url, ids, config.timeout.0)
            .map_err(|error| unready("data-availability layer", error))?;
        let settings =
            DaSettings { from_block: config.from_block, log_range: config.log_range, poll: config.poll.0 };
        let da = EthereumDa::new(domain, sender, beacon, settings);
        Ok((Arc::new(settlement), Arc::new(da)))
    }

    fn finality(config: &Ethereum) -> Finality {
        match config.finality {
            ChainFinality::Finalized => Finality::Finalized,
            ChainFinality::Safe => Finality::Safe,
            ChainFinality::Depth => Finality::Depth(config.final_depth),
        }
    }

    /// The operator's key, wherever it is.
    ///
    /// # Errors
    /// [`SettlementError::Refused`] when it can't be had, [`SettlementError::Unavailable`] when KMS does not answer.
    pub async fn operator(config: &Config) -> std::result::Result<Key, SettlementError> {
        #[cfg(feature = "kms")]
        if let Some(id) = Ethereum::kms_key(config) {
            use crate::{
                client::{aws::AwsClients, settlement::ethereum::kms::KmsKey},
                setup::backends::aws_settings,
            };
            // A connection of its own, as all that goes to the chain has: it is opened without queues and buckets, too.
            let clients = AwsClients::new(&aws_settings(config)).await;
            let clients = clients.map_err(|error| SettlementError::Refused(error.to_string()))?;
            return Ok(KmsKey::open(clients, id).await?.into());
        }
        let Ethereum { keystore, password_file, .. } = &config.ethereum;
        Ok(open_keystore(keystore, password_file).await?.into())
    }

    /// The key of the oracle that this daemon hosts, if it hosts one.
    async fn oracle(config: &Ethereum) -> Result<Option<alloy::signers::local::PrivateKeySigner>> {
        if config.oracle_keystore.as_os_str().is_empty() {
            return Ok(None);
        }
        let key = open_keystore(&config.oracle_keystore, &config.oracle_password_file).await;
        Ok(Some(key.map_err(|error| unready("oracle's key", error))?))
    }
}
