//! The contract of `StorageClient`.

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use orchestrator::{
    client::{
        clock::SystemClock,
        storage::{FilesystemStorage, MemoryStorage},
    },
    core::{
        client::storage::{ByteStream, StorageClient, StorageError},
        market::quantity::Micros,
    },
};

fn body(text: &str) -> ByteStream {
    let parts: Vec<_> = text.as_bytes().chunks(3).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
    stream::iter(parts).boxed()
}

async fn read(storage: &impl StorageClient, key: &str) -> Result<String, StorageError> {
    let parts: Vec<Bytes> = storage.get("b", key).await?.try_collect().await?;
    Ok(String::from_utf8(parts.concat()).unwrap())
}

async fn keys(
    storage: &impl StorageClient,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> (Vec<String>, Option<String>) {
    let page = storage.list("b", prefix, after, limit).await.unwrap();
    (page.objects.into_iter().map(|object| object.key).collect(), page.next)
}

async fn suite<T: StorageClient, G, F: Future<Output = (T, G)>>(make: impl Fn() -> F) {
    let (storage, _guard) = make().await;
    buckets(&storage).await;
    let (storage, _guard) = make().await;
    objects(&storage).await;
    let (storage, _guard) = make().await;
    readers_see_the_old_or_the_new(&storage).await;
    let (storage, _guard) = make().await;
    a_write_that_breaks_off_changes_nothing(&storage).await;
    let (storage, _guard) = make().await;
    listing(&storage).await;
    let (storage, _guard) = make().await;
    names(&storage).await;
}

async fn buckets(storage: &impl StorageClient) {
    storage.delete_bucket("b").await.unwrap();
    let no_bucket =
        |result: Result<(), StorageError>| assert!(matches!(result, Err(StorageError::NoBucket(_))));
    no_bucket(storage.put("b", "k", body("x")).await.map(drop));
    no_bucket(storage.get("b", "k").await.map(drop));
    no_bucket(storage.head("b", "k").await.map(drop));
    no_bucket(storage.list("b", "", None, 1).await.map(drop));
    no_bucket(storage.delete("b", "k").await);
    storage.create_bucket("b").await.unwrap();
    storage.create_bucket("b").await.unwrap();
    storage.put("b", "x/y", body("x")).await.unwrap();
    storage.create_bucket("b").await.unwrap();
    assert!(matches!(storage.delete_bucket("b").await, Err(StorageError::NotEmpty(_))));
    assert_eq!(read(storage, "x/y").await.unwrap(), "x");
    storage.delete("b", "x/y").await.unwrap();
    storage.delete_bucket("b").await.unwrap();
    no_bucket(storage.head("b", "x/y").await.map(drop));
}

async fn objects(storage: &impl StorageClient) {
    storage.create_bucket("b").await.unwrap();
    assert!(matches!(storage.get("b", "a").await.map(drop), Err(StorageError::NoObject(_))));
    assert!(matches!(storage.head("b", "a").await, Err(StorageError::NoObject(_))));
    storage.delete("b", "a").await.unwrap();
    storage.delete("b", "a/b/c").await.unwrap();
    assert_eq!(storage.put("b", "a", body("hello world")).await.unwrap(), 11);
    assert_eq!(read(storage, "a").await.unwrap(), "hello world");
    let info = storage.head("b", "a").await.unwrap();
    assert_eq!((info.key.as_str(), info.size), ("a", 11));
    assert!(info.modified.as_micros() > 0);
    // A key may be the start of another one.
    storage.put("b", "a/b", body("below")).await.unwrap();
    storage.put("b", "a/b/c", body("")).await.unwrap();
    assert_eq!(read(storage, "a").await.unwrap(), "hello world");
    assert_eq!(read(storage, "a/b").await.unwrap(), "below");
    assert_eq!(read(storage, "a/b/c").await.unwrap(), "");
    storage.delete("b", "a").await.unwrap();
    storage.delete("b", "a").await.unwrap();
    assert!(matches!(storage.head("b", "a").await, Err(StorageError::NoObject(_))));
    assert_eq!(read(storage, "a/b").await.unwrap(), "below");
    match storage.presign_get("b", "a/b", Micros::from_secs(60)).await {
        Ok(address) => assert!(address.starts_with("http")),
        Err(error) => assert!(matches!(error, StorageError::NotSupported(_))),
    }
}

async fn readers_see_the_old_or_the_new(storage: &impl StorageClient) {
    storage.create_bucket("b").await.unwrap();
    let old = "o".repeat(300_000);
    storage.put("b", "k", body(&old)).await.unwrap();
    let mut reading = storage.get("b", "k").await.unwrap();
    let first = reading.try_next().await.unwrap().unwrap();
    let writing = stream::iter([Ok(Bytes::from_static(b"new"))]).chain(stream::once(async {
        tokio::task::yield_now().await;
        Ok(Bytes::from_static(b"er"))
    }));
    let mut put = storage.put("b", "k", writing.boxed());
    assert!(futures::poll!(&mut put).is_pending());
    assert_eq!(storage.head("b", "k").await.unwrap().size, 300_000);
    put.await.unwrap();
    let rest: Vec<Bytes> = reading.try_collect().await.unwrap();
    assert_eq!([&first[..], &rest.concat()].concat(), old.as_bytes());
    assert_eq!(read(storage, "k").await.unwrap(), "newer");
}

async fn a_write_that_breaks_off_changes_nothing(storage: &impl StorageClient) {
    storage.create_bucket("b").await.unwrap();
    storage.put("b", "k", body("old")).await.unwrap();
    for key in ["k", "fresh"] {
        let parts = [Ok(Bytes::from_static(b"ne")), Err(StorageError::Full)];
        let result = storage.put("b", key, stream::iter(parts).boxed()).await;
        assert!(matches!(result, Err(StorageError::Full)));
    }
    assert_eq!(read(storage, "k").await.unwrap(), "old");
    assert_eq!(keys(storage, "", None, 9).await, (vec!["k".to_owned()], None));
}

async fn listing(storage: &impl StorageClient) {
    storage.create_bucket("b").await.unwrap();
    let all = ["a", "a-b", "a.b", "a/b", "a/b/c", "a0", "b/1", "b/2", "b/3"];
    for key in all.iter().rev() {
        storage.put("b", key, body(key)).await.unwrap();
    }
    assert_eq!(keys(storage, "", None, 99).await.0, all);
    assert_eq!(keys(storage, "", None, 9).await, (all.map(str::to_owned).to_vec(), None));
    assert_eq!(keys(storage, "a/", None, 9).await.0, ["a/b", "a/b/c"]);
    assert_eq!(keys(storage, "b", None, 2).await, (vec!["b/1".into(), "b/2".into()], Some("b/2".into())));
    assert_eq!(keys(storage, "b", Some("b/2"), 2).await, (vec!["b/3".into()], None));
    assert_eq!(keys(storage, "b", Some("a"), 1).await.0, ["b/1"]);
    assert_eq!(keys(storage, "a", Some("b/1"), 9).await, (vec![], None));
    assert_eq!(keys(storage, "nothing", None, 9).await, (vec![], None));
    let sizes: Vec<_> =
        storage.list("b", "a/", None, 9).await.unwrap().objects.iter().map(|o| o.size).collect();
    assert_eq!(sizes, [3, 5]);
}

async fn names(storage: &impl StorageClient) {
    storage.create_bucket("b").await.unwrap();
    let long = "n".repeat(512);
    storage.put("b", &long, body("long")).await.unwrap();
    assert_eq!(read(storage, &long).await.unwrap(), "long");
    assert_eq!(keys(storage, "", None, 9).await.0, [long]);
    for bad in
        ["", "..", "../b/x", "x/../../y", "/etc/passwd", "x//y", "x/", "a\0b", "a b", "a+", &"n".repeat(513)]
    {
        let invalid = |result: Result<(), StorageError>| {
            assert!(matches!(result, Err(StorageError::InvalidName(_))), "{bad}");
        };
        invalid(storage.put("b", bad, body("x")).await.map(drop));
        invalid(storage.get("b", bad).await.map(drop));
        invalid(storage.head("b", bad).await.map(drop));
        invalid(storage.delete("b", bad).await);
        invalid(storage.create_bucket(bad).await);
        invalid(storage.delete_bucket(bad).await);
    }
}

#[tokio::test]
async fn in_memory() {
    suite(|| async { (MemoryStorage::new(Arc::new(SystemClock::new())), ()) }).await;
}

#[tokio::test]
async fn in_a_directory() {
    suite(|| async {
        let directory = tempfile::tempdir().unwrap();
        (FilesystemStorage::open(directory.path()).await.unwrap(), directory)
    })
    .await;
}

#[cfg(feature = "s3")]
mod at_s3 {
    use orchestrator::client::storage::S3Storage;

    use super::*;
    use crate::contract::aws::{bucket, clients};

    async fn storage() -> (S3Storage, aws_sdk_s3::Client, String) {
        let clients = clients("storage").await;
        let (raw, name) = bucket(&clients).await;
        (S3Storage::new(&clients, &name), raw, name)
    }

    #[tokio::test]
    async fn at_s3() {
        suite(|| async {
            let (storage, ..) = storage().await;
            (storage, ())
        })
        .await;
    }

    fn bytes(size: usize) -> Vec<u8> {
        // Each part differs from the others.
        (0..size).map(|n| (n / 1_000 % 251) as u8).collect()
    }

    fn parts(body: &[u8]) -> Vec<Result<Bytes, StorageError>> {
        body.chunks(1 << 20).map(|part| Ok(Bytes::copy_from_slice(part))).collect()
    }

    async fn uploads(raw: &aws_sdk_s3::Client, bucket: &str) -> usize {
        raw.list_multipart_uploads().bucket(bucket).send().await.unwrap().uploads().len()
    }

    #[tokio::test]
    async fn long_objects_go_in_parts_and_one_that_breaks_off_leaves_nothing() {
        let (storage, raw, name) = storage().await;
        storage.create_bucket("b").await.unwrap();
        let whole = bytes((17 << 20) + 5);
        let size = storage.put("b", "long", stream::iter(parts(&whole)).boxed()).await.unwrap();
        assert_eq!(size, whole.len() as u64);
        assert_eq!(storage.head("b", "long").await.unwrap().size, size);
        let read: Vec<Bytes> = storage.get("b", "long").await.unwrap().try_collect().await.unwrap();
        assert!(read.concat() == whole);
        // Exactly a part, and exactly two.
        for size in [8 << 20, 16 << 20] {
            let body = stream::iter(parts(&whole[..size])).boxed();
            assert_eq!(storage.put("b", "even", body).await.unwrap(), size as u64);
            assert_eq!(storage.head("b", "even").await.unwrap().size, size as u64);
        }

        let mut broken = parts(&whole);
        broken.push(Err(StorageError::Full));
        let refused = storage.put("b", "long", stream::iter(broken).boxed()).await;
        assert!(matches!(refused, Err(StorageError::Full)));
        assert_eq!(uploads(&raw, &name).await, 0);
        assert_eq!(storage.head("b", "long").await.unwrap().size, size, "the old one is there");

        // Given up half-way, by whoever waited for it.
        let endless = stream::iter(parts(&whole)).chain(stream::pending()).boxed();
        let given_up = storage.put("b", "fresh", endless);
        let begun = async {
            while uploads(&raw, &name).await == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            _ = given_up => panic!("it never ends"),
            () = begun => {}
        }
        while uploads(&raw, &name).await > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(storage.head("b", "fresh").await, Err(StorageError::NoObject(_))));
    }

    #[tokio::test]
    async fn a_link_opens_its_object_for_anyone() {
        let (storage, ..) = storage().await;
        storage.create_bucket("b").await.unwrap();
        storage.put("b", "k/1", body("for anyone")).await.unwrap();
        let link = storage.presign_get("b", "k/1", Micros::from_secs(60)).await.unwrap();
        let answer = reqwest_get(&link).await;
        assert_eq!(answer, (200, "for anyone".to_owned()));
        let (status, _) = reqwest_get(&link.replace("k/1", "k/2")).await;
        assert!(status >= 400, "it opens no other");
    }

    async fn reqwest_get(url: &str) -> (u16, String) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let answer = reqwest::get(url).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    #[tokio::test]
    async fn a_bucket_that_is_missing_is_no_missing_object() {
        let clients = clients("nowhere").await;
        let storage = S3Storage::new(&clients, clients.name("nothing"));
        for result in
            [storage.create_bucket("b").await.map(drop), storage.put("b", "k", body("x")).await.map(drop)]
        {
            let error = result.unwrap_err();
            let text = orchestrator::error::chain(&error);
            assert!(matches!(error, StorageError::Unavailable(_) | StorageError::NoBucket(_)), "{text}");
        }
    }
}
