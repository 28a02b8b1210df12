//! How the chain is: the node, the contract, the operator's key, its coin and its bond, and the beacon node.

use futures::future::BoxFuture;

use super::{Answer, Checkup, Silence, check};
use crate::{
    client::settlement::ethereum::{abi::Settlement, node::Node, signer::open_keystore},
    config::{Config, masked, section::Ethereum},
    core::market::{state::hash::domain_hash, terms::DomainId},
};

/// What a transaction takes at least, in wei: below it nothing can be sent.
const LITTLE: u128 = 10_000_000_000_000_000;

/// Asks the node about the contract and the operator.
pub(super) fn chain(config: &Config) -> BoxFuture<'static, Checkup> {
    let config = config.ethereum.clone();
    let target =
        format!("ethereum: {} on chain {} at {}", config.contract, config.chain_id, masked(&config.rpc_url));
    check("settlement", target, async move { examine(&config).await })
}

async fn examine(config: &Ethereum) -> Result<Answer, Silence> {
    let silent = |error: crate::core::madara::settlement::SettlementError| Silence {
        what: crate::error::chain(&error),
        fix: "see that `ethereum.rpc_url` names a node that runs and is in step with the chain".to_owned(),
    };
    let mut answer = Answer::default();
    let node = Node::new(&config.rpc_url, config.timeout.0).map_err(silent)?;
    let chain = node.chain_id().await.map_err(silent)?;
    let head = node.head().await.map_err(silent)?.number;
    answer.version = Some(format!("chain {chain}, block {head}"));
    if chain != config.chain_id {
        answer.find(
            format!("the node is on chain {chain}"),
            "name a node of `ethereum.chain_id`, or mend that key",
        );
        return Ok(answer);
    }
    let Ok(contract) = config.contract.parse() else { return Ok(answer) };
    let wanted = domain_hash(&DomainId(config.domain.clone()));
    match node.read(contract, &Settlement::DOMAINCall {}, head).await {
        Ok(found) if found.0 == wanted.0 => {}
        Ok(_) => answer
            .find("the contract is that of another domain", "mend `ethereum.domain` or `ethereum.contract`"),
        Err(error) => {
            answer.find(error.to_string(), "name the settlement contract's address in `ethereum.contract`");
            return Ok(answer);
        }
    }
    let (path, password) = (config.keystore.clone(), config.password_file.clone());
    let key = tokio::task::spawn_blocking(move || open_keystore(&path, &password)).await;
    let Some(Ok(key)) = key.ok() else {
        answer.find(
            "the operator's key can't be opened",
            "see that `ethereum.keystore` and `ethereum.password_file` belong together",
        );
        return Ok(answer);
    };
    let operator = node.read(contract, &Settlement::operatorCall {}, head).await.map_err(silent)?;
    if operator != key.address() {
        let problem = format!("the contract's operator is {operator}, the key is that of {}", key.address());
        answer.find(problem, "use the operator's key, or let the contract's owner call `setOperator`");
    }
    let bond = node
        .read(contract, &Settlement::bondsCall { operator: key.address() }, head)
        .await
        .map_err(silent)?;
    if bond == 0 {
        answer.find(
            "the operator has no bond, so no block can be registered",
            "post it with the contract's `postBond`",
        );
    }
    let coin = node.balance(key.address()).await.map_err(silent)?;
    if coin < LITTLE {
        answer.find(format!("the operator has {coin} wei left for fees"), "send it coin");
    }
    Ok(answer)
}
