//! What every data-availability layer promises, on the local one over memory and over a directory.

use orchestrator::{
    client::da::LocalDa,
    core::{
        madara::da::{DaClient, DaError},
        market::terms::DomainId,
    },
};

async fn suite(layer: &dyn DaClient) {
    let domain = DomainId::local();
    let reference = layer.publish_state_diff(&domain, 1, b"records").await.unwrap();
    assert_eq!(layer.publish_state_diff(&domain, 1, b"records").await.unwrap(), reference);
    assert!(layer.verify_inclusion(&reference).await.unwrap());
    assert_eq!(layer.fetch(&reference).await.unwrap(), b"records");
    layer.validate(&reference, b"records").await.unwrap();
    assert!(matches!(layer.validate(&reference, b"other").await, Err(DaError::Mismatch(_))));
    let other = layer.publish_state_diff(&domain, 2, b"").await.unwrap();
    assert_ne!(layer.commitment(&other).unwrap(), layer.commitment(&reference).unwrap());
    assert_eq!(layer.fetch(&other).await.unwrap(), b"");
    let missing = format!("local/3/0x{}", "ab".repeat(32));
    assert!(!layer.verify_inclusion(&missing).await.unwrap());
    assert!(matches!(layer.fetch(&missing).await, Err(DaError::NotPublished(_))));
    assert!(matches!(layer.fetch("../../etc/passwd").await, Err(DaError::NotPublished(_))));
    let large = vec![0; layer.limits().max_bytes + 1];
    assert!(matches!(layer.publish_state_diff(&domain, 4, &large).await, Err(DaError::TooLarge { .. })));
}

#[tokio::test]
async fn the_local_layer_in_memory() {
    suite(&LocalDa::in_memory()).await;
}

#[tokio::test]
async fn the_local_layer_over_a_directory_finds_damage() {
    let directory = tempfile::tempdir().unwrap();
    let layer = LocalDa::open(directory.path()).unwrap();
    suite(&layer).await;
    let reference = layer.publish_state_diff(&DomainId::local(), 9, b"nine").await.unwrap();
    let file = directory.path().join(hex::encode(layer.commitment(&reference).unwrap().0));
    std::fs::write(file, b"nein").unwrap();
    assert!(matches!(layer.fetch(&reference).await, Err(DaError::Mismatch(_))));
}
