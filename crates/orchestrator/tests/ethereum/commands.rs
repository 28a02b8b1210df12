//! What people type against a chain, and what oracles and strangers do there: `verify`, `challenge` and `doctor` as commands, a signature
//! that an oracle brings, and money that was paid in for nobody.

use std::{path::Path, process::Output};

use alloy::{
    hex,
    primitives::{Address as ChainAddress, B256},
    signers::{SignerSync as _, local::PrivateKeySigner},
    sol_types::SolCall as _,
};
use orchestrator::{
    client::settlement::ethereum::abi::Settlement,
    core::{
        client::database::{Filter, ReaderExt as _},
        market::{
            account::{Account, AccountKey},
            block::{Block, BlockState},
            state::account_key_hash,
        },
    },
    error::ErrorCode,
    service::{
        proof::{ProofAt, verify_accounts_proof},
        work::Call,
    },
};
use serde_json::Value;

use super::{
    market::{Daemon, Market, OWNERS},
    rollup::Rollup,
    world::{OPERATOR_KEY, ORACLE, ORACLE_KEY, USER, domain},
};
use crate::daemon::harness::without_configuration;

/// Anvil publishes it: the key of [`USER`].
const USER_KEY: [u8; 32] = hex!("5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a");

async fn orchestrator(arguments: &[&str]) -> Output {
    let mut command = without_configuration(&[], arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// What names the contract.
fn place<'a>(url: &'a str, contract: &'a str) -> Vec<&'a str> {
    vec!["--chain", url, "--contract", contract, "--domain", "ethereum-test", "--genesis-time", "0"]
}

/// Turns until nothing is left to do.
async fn settle(market: &Market, daemon: &Daemon) {
    for _ in 0..100 {
        daemon.turn().await;
        market.pass().await;
        let blocks = market.world.database.list_all::<Block>(Filter::All).await.unwrap();
        if !blocks.is_empty() && market.is_over().await {
            return;
        }
    }
    panic!("it never ends");
}

/// A key file and its password.
fn keystore(directory: &Path, key: &[u8; 32]) -> (String, String) {
    let (file, password) = (directory.join("key"), directory.join("password"));
    std::fs::write(&password, "word\n").unwrap();
    PrivateKeySigner::encrypt_keystore(directory, &mut rand::rngs::OsRng, key, "word", Some("key")).unwrap();
    (file.display().to_string(), password.display().to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_and_doctor_tell_of_a_chain_what_is_so() {
    let Some(market) = Market::start(&OWNERS).await else { return };
    let daemon = market.daemon().await;
    settle(&market, &daemon).await;
    let (url, contract) = (market.world.anvil.url.clone(), format!("{:#x}", market.world.contract));

    let verify = [vec!["verify", "--json"], place(&url, &contract)].concat();
    let output = orchestrator(&verify).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!((&report["deposits"], &report["credits_checked"]), (&2.into(), &false.into()), "{report}");
    assert!(report["signatures"].as_u64() >= Some(1) && report["problems"] == serde_json::json!([]));
    let output = orchestrator(&[vec!["verify"], place(&url, &contract)].concat()).await;
    assert!(text(&output.stdout).contains("credits not checked"), "{}", text(&output.stdout));
    let output = orchestrator(&[vec!["challenge"], place(&url, &contract)].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("are right"));

    // The mistakes: no contract, another's address, another domain, a node that is not there.
    for (change, said) in [
        (vec!["--chain", &url, "--contract", OWNERS[0]], "there is no settlement contract"),
        (vec!["--chain", &url, "--contract", &contract, "--domain", "other"], "not that of domain `other`"),
        (vec!["--chain", "http://127.0.0.1:1", "--contract", &contract], "does not answer"),
        (vec!["--chain", &url], "--contract"),
    ] {
        let output = orchestrator(&[vec!["verify"], change.clone()].concat()).await;
        assert_ne!(output.status.code(), Some(0), "{change:?}");
        assert!(text(&output.stderr).contains(said), "{change:?}: {}", text(&output.stderr));
    }

    // The daemon's own look at it.
    let directory = tempfile::tempdir().unwrap();
    let (key, password) = keystore(directory.path(), &OPERATOR_KEY);
    let file = directory.path().join("orchestrator.toml");
    let config = format!(
        "[data]\ndir = \"{}\"\n[settlement]\nbackend = \"ethereum\"\n[ethereum]\ndomain = \"ethereum-test\"\nchain_id = 31337\n\
         rpc_url = \"{url}\"\nbeacon_url = \"{url}\"\ngenesis_time = 0\ncontract = \"{contract}\"\nkeystore = \"{key}\"\n\
         password_file = \"{password}\"\ntreasury = \"{USER}\"\nfinality = \"depth\"\nfinal_depth = 2\n",
        directory.path().join("data").display()
    );
    std::fs::write(&file, config).unwrap();
    let file = file.display().to_string();
    let look = async || {
        let report = json(&orchestrator(&["doctor", "--json", "--config", &file]).await);
        let checkups = report.as_array().or(report["checkups"].as_array()).unwrap().clone();
        checkups.into_iter().find(|it| it["name"] == "settlement").unwrap()
    };
    let checkup = look().await;
    assert_eq!(checkup["findings"], serde_json::json!([]), "{checkup}");
    assert!(checkup["version"].as_str().unwrap().starts_with("chain 31337"), "{checkup}");
    market.world.depose().await;
    let checkup = look().await;
    assert!(checkup["findings"].to_string().contains("setOperator"), "{checkup}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn challenge_shows_a_wrong_block_and_takes_the_bond() {
    let Some(rollup) = Rollup::start().await else { return };
    rollup.lie().await;
    let (url, contract) = (rollup.world.anvil.url.clone(), rollup.contract());
    let challenge = [vec!["challenge", "--json"], place(&url, &contract)].concat();
    let output = orchestrator(&challenge).await;
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!((&report["right"], &report["wrong"], &report["sent"]), (&0.into(), &1.into(), &Value::Null));
    assert!(report["call"].as_str().unwrap().starts_with("0x"), "{report}");

    let directory = tempfile::tempdir().unwrap();
    let (key, password) = keystore(directory.path(), &USER_KEY);
    let with_key = [challenge.clone(), vec!["--keystore", &key, "--password-file", &password]].concat();
    let output = orchestrator(&with_key).await;
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(json(&output)["sent"].as_str().unwrap().contains("the block fell"), "{output:?}");
    // Nothing wrong is left.
    let output = orchestrator(&challenge).await;
    assert_eq!((output.status.code(), &json(&output)["wrong"]), (Some(0), &Value::Null));
}

#[tokio::test]
async fn a_block_waits_for_the_signature_that_an_oracle_brings() {
    let Some(mut market) = Market::start(&OWNERS).await else { return };
    market.hosts_oracle = false;
    let daemon = market.daemon().await;
    let blocks = async || market.world.database.list_all::<Block>(Filter::All).await.unwrap();
    for _ in 0..10 {
        daemon.turn().await;
        market.pass().await;
    }
    let waiting = blocks().await.remove(0).value;
    assert_eq!((waiting.state, market.called("register").await), (BlockState::Published, 0));
    let (call, number) = (Call::system("test"), waiting.header.number);
    let asked = daemon.attestations.attested(&call, &domain(), number).await.unwrap();
    assert_eq!((asked.needed, asked.signers.len()), (1, 0));
    let sign = |key: &[u8; 32], digest: [u8; 32]| {
        let key = PrivateKeySigner::from_bytes(&B256::from(*key)).unwrap();
        format!("0x{}", hex::encode(key.sign_hash_sync(&B256::from(digest)).unwrap().as_bytes()))
    };
    let digest = asked.digest.unwrap().0;
    // Not everybody's signature counts, nor that of something else.
    for wrong in [sign(&USER_KEY, digest), sign(&ORACLE_KEY, [1; 32]), "0x12".to_owned()] {
        let refused = daemon.attestations.attest(&call, &domain(), number, &wrong).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidField, "{refused:?}");
    }
    let right = sign(&ORACLE_KEY, digest);
    let taken = daemon.attestations.attest(&call, &domain(), number, &right).await.unwrap().value;
    assert_eq!(format!("{}", taken.signer).to_lowercase(), ORACLE);
    daemon.attestations.attest(&call, &domain(), number, &right).await.unwrap();
    assert_eq!(daemon.attestations.attested(&call, &domain(), number).await.unwrap().signers.len(), 1);
    for _ in 0..30 {
        if blocks().await[0].value.state == BlockState::Final {
            return;
        }
        daemon.turn().await;
        market.pass().await;
    }
    panic!("{:?}", blocks().await);
}

#[tokio::test]
async fn what_was_paid_in_for_nobody_goes_back_to_its_owner() {
    let Some(market) = Market::start(&OWNERS).await else { return };
    let daemon = market.daemon().await;
    // Under a name that is no account's, and for an account of the market by somebody who does not own it.
    let foreign = AccountKey::Consumer(market.consumers[0]).to_string();
    let stranger = ChainAddress::repeat_byte(0x77);
    let names = [("my savings", USER.parse::<ChainAddress>().unwrap()), (&foreign, stranger)];
    for (name, owner) in names {
        market.deposit_named(name, owner, 40).await;
    }
    settle(&market, &daemon).await;
    let accounts = market.world.database.list_all::<Account>(Filter::All).await.unwrap();
    let unclaimed: Vec<_> = accounts
        .iter()
        .map(|stored| &stored.value)
        .filter(|account| matches!(account.key, AccountKey::Unclaimed(_)))
        .collect();
    assert!(unclaimed.iter().all(|it| (it.balance.0, it.withdrawable.0) == (0, 40)), "{unclaimed:?}");
    assert_eq!(unclaimed.len(), 2);
    let own = daemon.accounts.account(&Call::system("test"), foreign.parse().unwrap()).await.unwrap();
    assert_eq!(own.balance.0, super::market::FUNDS, "nobody pays in for others");

    // Who made it takes it back: the proof is to be had under its hash, and the name is known to its owner.
    let owner = orchestrator::core::market::address::Address(stranger.into_array());
    let hash = account_key_hash(&domain(), Some(&owner), &foreign.parse().unwrap());
    let accounts = [AccountKey::Unclaimed(hash)];
    let call = Call::system("test");
    let proved = daemon.proofs.accounts_proof(&call, &accounts, ProofAt::Final).await.unwrap();
    assert!(verify_accounts_proof(&proved));
    let leaf = &proved.proof.leaves[0];
    let claim = Settlement::withdrawManyCall {
        number: proved.header.number,
        parts: Settlement::StateParts {
            market: proved.proof.market_root.0.into(),
            nextIndex: proved.proof.next_index,
            total: proved.proof.total.0,
        },
        claims: vec![Settlement::Claim {
            owner: stranger,
            index: leaf.index,
            balance: leaf.balance.0,
            withdrawable: leaf.withdrawable.0,
            name: foreign,
        }],
        siblings: proved.proof.siblings.iter().map(|hash| hash.0.into()).collect(),
    };
    let contract = format!("{:#x}", market.world.contract);
    market.world.anvil.send(USER, Some(&contract), &claim.abi_encode()).await;
    assert_eq!(market.tokens(&daemon, stranger).await, 40);
}
