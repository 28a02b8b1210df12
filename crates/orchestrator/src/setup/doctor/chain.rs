//! How the chain is: the node, the contract, the operator's key, its coin and its bond, and the beacon node.

use futures::future::BoxFuture;

use super::{Answer, Checkup, Silence, check};
use crate::{
    client::settlement::ethereum::{abi::Settlement, node::Node},
    config::{Config, masked, section::Ethereum},
    core::{
        madara::settlement::SettlementError,
        market::{state::hash::domain_hash, terms::DomainId},
    },
    setup::chain::operator,
};

/// What a transaction takes at least, in wei: below it nothing can be sent.
const LITTLE: u128 = 10_000_000_000_000_000;

/// Asks the node about the contract and the operator.
pub(super) fn chain(config: &Config) -> BoxFuture<'static, Checkup> {
    let (config, chain) = (config.clone(), &config.ethereum);
    let target =
        format!("ethereum: {} on chain {} at {}", chain.contract, chain.chain_id, masked(&chain.rpc_url));
    check("settlement", target, async move { examine(&config).await })
}

async fn examine(all: &Config) -> Result<Answer, Silence> {
    let config = &all.ethereum;
    let silent = |error: SettlementError| Silence {
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
    let key = match operator(all).await {
        Ok(key) => key,
        Err(error) => {
            let fix = match Ethereum::kms_key(all) {
                Some(_) => {
                    "mend `ethereum.kms_key`, the key, or the rights at it (`orchestrator setup --policy`)"
                }
                None => "see that `ethereum.keystore` and `ethereum.password_file` belong together",
            };
            let problem = crate::error::chain(&error);
            answer.find(format!("the operator's key can't be opened: {problem}"), fix);
            return Ok(answer);
        }
    };
    answer.version = Some(format!("chain {chain}, block {head}, signed by {}", key.address()));
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
