//! The operator's key in KMS, on the AWS emulator of the other tests: what it signs is its own, what is in its way is told, and a
//! nonce is not lost when it does not sign.

use std::{collections::BTreeSet, sync::Arc};

use alloy::{
    consensus::{Transaction as _, TxEnvelope, transaction::SignerRecoverable as _},
    eips::eip2718::Decodable2718 as _,
    primitives::{Address, B256, Bytes, U256},
};
use aws_sdk_kms::{
    config::{BehaviorVersion, Credentials, Region},
    types::{KeySpec, KeyUsageType},
};
use futures::future::join_all;
use orchestrator::{
    client::{
        aws::AwsClients,
        settlement::ethereum::{
            fees::{Caps, Fees},
            kms::KmsKey,
            sender::{Sender, Status},
            signer::{Call, METHODS, Policy, PolicySigner},
        },
    },
    core::{madara::settlement::SettlementError, market::quantity::Micros},
    error::chain,
    resource::aws::{AwsLayout, AwsResources},
};
use serde_json::json;

use super::world::{DEPTH, World, eventually, included, nothing};
use crate::{
    contract::aws::{REGION, clients, endpoint},
    daemon::harness::Place,
};

/// An SDK client that knows nothing of ours.
fn raw() -> aws_sdk_kms::Client {
    let config = aws_sdk_kms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .region(Region::new(REGION))
        .endpoint_url(endpoint());
    aws_sdk_kms::Client::from_conf(config.build())
}

/// A new key: its id and its ARN.
async fn key(kind: KeySpec) -> (String, String) {
    let made = raw().create_key().key_spec(kind).key_usage(KeyUsageType::SignVerify).send().await.unwrap();
    let made = made.key_metadata.unwrap();
    (made.key_id, made.arn.unwrap())
}

async fn new_key() -> (String, String) {
    key(KeySpec::EccSecgP256K1).await
}

async fn opened(clients: &AwsClients, id: &str) -> KmsKey {
    KmsKey::open(clients.clone(), id).await.unwrap()
}

fn policy() -> Policy {
    Policy {
        chain: 31_337,
        contract: Address::repeat_byte(7),
        methods: METHODS,
        gas: 1_000_000,
        caps: Caps { gas: 100, blob: 10 },
    }
}

#[tokio::test]
async fn what_a_key_signs_is_its_own_and_only_what_the_policy_allows() {
    let (clients, (id, arn)) = (clients("kms").await, new_key().await);
    let signer = PolicySigner::new(opened(&clients, &id).await, policy());
    let by_arn = opened(&clients, &arn).await;
    assert_eq!(signer.address(), by_arn.address());
    let fees = Fees { gas: 100, tip: 1, blob: None };
    let call = Call { input: nothing(), gas: 50_000, blobs: Vec::new() };
    let with_blob = Call { blobs: vec![B256::repeat_byte(1)], ..call.clone() };
    // Every one of them: KMS gives either form of a signature, and the chain takes one.
    for nonce in 0..8 {
        let signed = [
            signer.sign(nonce, &call, fees).await.unwrap(),
            signer.sign(nonce, &with_blob, Fees { blob: Some(10), ..fees }).await.unwrap(),
            signer.sign_empty(nonce, fees).await.unwrap(),
        ];
        for signed in signed {
            let read = TxEnvelope::decode_2718(&mut signed.raw.as_slice()).unwrap();
            assert_eq!(read.recover_signer().unwrap(), signer.address());
            assert_eq!((read.nonce(), read.value(), read.tx_hash().0), (nonce, U256::ZERO, signed.hash.0));
            assert!(read.signature().normalize_s().is_none(), "the higher form");
        }
    }
    // The policy speaks first: KMS is not asked when it refuses.
    raw().disable_key().key_id(&id).send().await.unwrap();
    let unknown = Call { input: Bytes::new(), ..call };
    let refused = signer.sign(0, &unknown, fees).await.unwrap_err();
    assert!(matches!(refused, SettlementError::Refused(_)), "{refused:?}");
}

#[tokio::test]
async fn what_is_in_a_keys_way_is_told_when_it_is_opened() {
    let clients = clients("kms").await;
    let refused = async |id: String, words: [&str; 2]| {
        let error = KmsKey::open(clients.clone(), &id).await.err().unwrap();
        assert!(matches!(error, SettlementError::Refused(_)), "{error:?}");
        let told = error.to_string();
        assert!(told.contains(&id) && words.iter().all(|word| told.contains(word)), "{told}");
    };
    let nobodys = uuid::Uuid::from_bytes([7; 16]).to_string();
    refused(nobodys, ["kms:GetPublicKey", "`aws.region`"]).await;
    let (disabled, _) = new_key().await;
    raw().disable_key().key_id(&disabled).send().await.unwrap();
    refused(disabled, ["disabled", "enable it"]).await;
    let (deleted, _) = new_key().await;
    raw().schedule_key_deletion().key_id(&deleted).pending_window_in_days(7).send().await.unwrap();
    refused(deleted, ["kms:", "on its way to be deleted"]).await;
    let (other, _) = key(KeySpec::EccNistP256).await;
    refused(other, ["secp256k1", "ECC_SECG_P256K1"]).await;
}

/// A daemon with this key.
async fn sender(world: &World, key: &KmsKey) -> Arc<Sender> {
    let signer = PolicySigner::new(key.clone(), world.policy());
    Arc::new(world.sender_by(signer, Micros::from_secs(30), world.database.clone()).await.unwrap())
}

async fn rich(world: &World, key: &KmsKey) {
    let (address, coin) = (key.address().to_string(), "0xde0b6b3a7640000");
    world.anvil.ask("anvil_setBalance", json!([address, coin])).await;
}

#[tokio::test]
async fn a_key_that_does_not_sign_costs_no_nonce_and_goes_on_when_it_does() {
    let Some(world) = World::start().await else { return };
    let (clients, (id, _)) = (clients("kms").await, new_key().await);
    let key = opened(&clients, &id).await;
    rich(&world, &key).await;
    let sender = sender(&world, &key).await;
    sender.send("before", nothing(), None).await.unwrap();
    included(&sender, "before").await;

    raw().disable_key().key_id(&id).send().await.unwrap();
    let error = sender.send("a", nothing(), None).await.unwrap_err();
    assert!(error.retryable(), "{error:?}");
    let told = chain(&error);
    assert!(told.contains(&id) && told.contains("enable it"), "{told}");
    let unknown = sender.status("a").await;
    assert!(matches!(unknown, Err(SettlementError::NoTransaction(_))), "{unknown:?}");
    assert_eq!(sender.nonce().await.unwrap(), 1);

    raw().enable_key().key_id(&id).send().await.unwrap();
    sender.send("a", nothing(), None).await.unwrap();
    let block = included(&sender, "a").await;
    world.anvil.mine(DEPTH).await;
    assert_eq!(sender.status("a").await.unwrap(), Status::Final(block));
    assert_eq!(world.entry("a").await.value.nonce, 1);
}

#[tokio::test]
async fn two_replicas_with_one_key_in_kms_never_share_a_nonce() {
    let Some(world) = World::start().await else { return };
    let (clients, (id, _)) = (clients("kms").await, new_key().await);
    let key = opened(&clients, &id).await;
    rich(&world, &key).await;
    let replicas = [sender(&world, &key).await, sender(&world, &key).await];
    let keys = ["a", "b", "c", "both"];
    let calls = keys.iter().enumerate().flat_map(|(n, key)| {
        let who = if *key == "both" { vec![0, 1] } else { vec![n % 2] };
        let replicas = &replicas;
        who.into_iter().map(move |who| replicas[who].send(key, nothing(), None))
    });
    for answer in join_all(calls).await {
        // Who looks while the other one writes is told to look again.
        assert!(answer.as_ref().map_or_else(SettlementError::retryable, |_| true), "{answer:?}");
    }
    eventually("all are mined", async || {
        let _ = replicas[0].tend().await;
        let mined = json!([key.address().to_string(), "latest"]);
        world.anvil.number("eth_getTransactionCount", mined).await == keys.len() as u64
    })
    .await;
    let mut nonces = BTreeSet::new();
    for key in keys {
        nonces.insert(world.entry(key).await.value.nonce);
    }
    assert_eq!(nonces.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn the_daemons_policy_has_the_key_and_nothing_else_of_kms() {
    let (clients, (id, arn)) = (clients("kms").await, new_key().await);
    for named in [&id, &arn] {
        let layout = AwsLayout { signer: Some(named.clone()), ..AwsLayout::default() };
        let policy = AwsResources::new(clients.clone(), layout).policy().await.unwrap();
        let signer = json!({ "Sid": "Signer", "Effect": "Allow",
            "Action": ["kms:GetPublicKey", "kms:Sign"], "Resource": [arn] });
        assert_eq!(policy["Statement"], json!([signer]));
    }
}

/// A configuration of this contract with a key in KMS.
fn place(world: &World, key: &str) -> Place {
    let settings = [
        ("settlement.backend", "ethereum"),
        ("ethereum.domain", &super::world::domain().0),
        ("ethereum.chain_id", "31337"),
        ("ethereum.rpc_url", &world.anvil.url),
        ("ethereum.beacon_url", &world.anvil.url),
        ("ethereum.contract", &world.contract.to_string()),
        ("ethereum.treasury", &world.contract.to_string()),
        ("ethereum.kms_key", key),
        ("aws.endpoint", &endpoint()),
        ("aws.region", REGION),
        ("provider.cohosted", "false"),
    ];
    settings.into_iter().fold(Place::new(), |place, (name, value)| place.with(name, value))
}

#[tokio::test]
async fn the_doctor_and_setup_speak_of_the_key() {
    let Some(world) = World::start().await else { return };
    let (clients, (id, arn)) = (clients("kms").await, new_key().await);
    let (address, place) = (opened(&clients, &id).await.address().to_string(), place(&world, &id));
    let said = place.cli(&["doctor", "--json"]).await.out;
    assert!(said.contains(&format!("signed by {address}")), "{said}");
    // The contract knows another operator: so the key did open.
    assert!(said.contains(&format!("the key is that of {address}")), "{said}");
    let policy = place.cli(&["setup", "--policy"]).await.json().to_string();
    assert!(policy.contains(&arn) && policy.contains("kms:Sign"), "{policy}");

    raw().disable_key().key_id(&id).send().await.unwrap();
    let ill = place.cli(&["doctor", "--json"]).await.out;
    assert!(ill.contains("the operator's key can't be opened") && ill.contains("enable it"), "{ill}");
}
