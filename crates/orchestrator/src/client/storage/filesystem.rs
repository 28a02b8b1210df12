//! Object storage in a directory. An object is written to a temporary file beside the buckets, synced, renamed into place,
//! and the directory is synced: readers see the old object or the new one, and what was acknowledged survives a crash.
//!
//! The directory belongs to one process at a time; the lock of the data directory sees to that.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::UNIX_EPOCH,
};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use parking_lot::RwLock;
use tokio::io::AsyncWriteExt;
use tokio_util::io::ReaderStream;

use super::{check_bucket, check_key, layout};
use crate::core::{
    client::storage::{ByteStream, ObjectInfo, ObjectPage, StorageClient, StorageError},
    market::quantity::{Micros, Timestamp},
};

/// Holds what is being written. No bucket can have this name.
const TEMPORARY: &str = "+tmp";

/// Bytes that are read at once.
const READ_BUFFER: usize = 64 << 10;

/// Object storage in a directory.
pub struct FilesystemStorage {
    root: PathBuf,
    /// Held for reading while a file is put in place, for writing while directories are removed, so that none vanishes
    /// under a file that is about to enter it.
    tree: Arc<RwLock<()>>,
    started: AtomicU64,
}

/// A file that is removed unless it was renamed; also when the write is dropped half-way.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "a temporary file could not be removed");
        }
    }
}

fn failed(error: io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StorageError::Full
        }
        _ => StorageError::Unavailable(Box::new(error)),
    }
}

/// Runs file work where it may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StorageError::Unavailable(Box::new(error))))
}

impl FilesystemStorage {
    /// Opens the storage in `root`, makes the directory if need be, and removes what a crash left half written.
    ///
    /// # Errors
    /// [`StorageError::Full`] or [`StorageError::Unavailable`] when the directory can't be made or written.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let root = root.into();
        let temporary = root.join(TEMPORARY);
        blocking(move || {
            fs::create_dir_all(&temporary).map_err(failed)?;
            for entry in fs::read_dir(&temporary).map_err(failed)? {
                fs::remove_file(entry.map_err(failed)?.path()).map_err(failed)?;
            }
            // Said at the start, not with the first object: whether anything can be written here.
            let probe = temporary.join("probe");
            fs::File::create_new(&probe).map_err(failed)?;
            fs::remove_file(&probe).map_err(failed)
        })
        .await?;
        Ok(Self { root, tree: Arc::default(), started: AtomicU64::new(0) })
    }

    /// Whether the storage of a directory, which need not be open, has an object.
    #[must_use]
    pub fn is_in(root: &Path, bucket: &str, key: &str) -> bool {
        check_bucket(bucket).is_ok()
            && check_key(key).is_ok()
            && layout::path_of(&root.join(bucket), key).is_file()
    }

    /// The directory of a bucket.
    fn bucket(&self, bucket: &str) -> Result<PathBuf, StorageError> {
        check_bucket(bucket)?;
        Ok(self.root.join(bucket))
    }

    /// The directory of a bucket and the file of a key in it.
    fn object(&self, bucket: &str, key: &str) -> Result<(PathBuf, PathBuf), StorageError> {
        let bucket = self.bucket(bucket)?;
        check_key(key)?;
        let path = layout::path_of(&bucket, key);
        Ok((bucket, path))
    }
}

/// Writes the whole stream to a new file and syncs it.
async fn write(path: &Path, body: ByteStream) -> Result<u64, StorageError> {
    let mut file = tokio::fs::File::create_new(path).await.map_err(failed)?;
    let written = fill(&mut file, body).await;
    // A file that is only dropped is closed some time later, when the last write has ended: until then what a refused object
    // took of a full disk would not be free.
    drop(file.into_std().await);
    written
}

async fn fill(file: &mut tokio::fs::File, mut body: ByteStream) -> Result<u64, StorageError> {
    let mut size = 0_u64;
    while let Some(part) = body.try_next().await? {
        file.write_all(&part).await.map_err(failed)?;
        size = size.saturating_add(u64::try_from(part.len()).unwrap_or(u64::MAX));
    }
    file.flush().await.map_err(failed)?;
    file.sync_all().await.map_err(failed)?;
    Ok(size)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Makes the directories from `bucket` down to `path` and syncs each one that gets a new entry. The bucket must exist.
fn make_directories(bucket: &Path, path: &Path) -> io::Result<()> {
    if path == bucket || path.is_dir() {
        return Ok(());
    }
    let Some(parent) = path.parent() else { return Ok(()) };
    make_directories(bucket, parent)?;
    match fs::create_dir(path) {
        Ok(()) => sync_directory(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Renames a synced file to its place and makes that durable.
fn put_in_place(bucket: &Path, from: &Path, to: &Path) -> io::Result<()> {
    let parent = to.parent().unwrap_or(bucket);
    make_directories(bucket, parent)?;
    fs::rename(from, to)?;
    sync_directory(parent)
}

/// Removes the directories above a removed file that have become empty, up to the bucket.
fn remove_empty_parents(bucket: &Path, path: &Path) {
    let mut parent = path.parent();
    while let Some(directory) = parent.filter(|directory| *directory != bucket) {
        if fs::remove_dir(directory).is_err() {
            return;
        }
        parent = directory.parent();
    }
}

fn no_object(key: &str, error: io::Error) -> StorageError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StorageError::NoObject(key.to_owned()),
        _ => failed(error),
    }
}

fn require_bucket(bucket: &Path, name: &str) -> Result<(), StorageError> {
    match fs::metadata(bucket) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StorageError::NoBucket(name.to_owned())),
        Err(error) => Err(failed(error)),
    }
}

fn info(key: String, metadata: &fs::Metadata) -> ObjectInfo {
    let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let micros = modified.and_then(|since| i64::try_from(since.as_micros()).ok()).unwrap_or(0);
    ObjectInfo { key, size: metadata.len(), modified: Timestamp(micros) }
}

#[async_trait]
impl StorageClient for FilesystemStorage {
    async fn create_bucket(&self, bucket: &str) -> Result<(), StorageError> {
        let path = self.bucket(bucket)?;
        let root = self.root.clone();
        blocking(move || {
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
            sync_directory(&root).map_err(failed)
        })
        .await
    }

    async fn delete_bucket(&self, bucket: &str) -> Result<(), StorageError> {
        let path = self.bucket(bucket)?;
        let (root, tree, name) = (self.root.clone(), self.tree.clone(), bucket.to_owned());
        blocking(move || {
            let _alone = tree.write();
            if !layout::walk(&path, "", None, 1).map_err(failed)?.is_empty() {
                return Err(StorageError::NotEmpty(name));
            }
            // What is left are directories that a crash emptied or made in vain.
            match fs::remove_dir_all(&path) {
                Ok(()) => sync_directory(&root).map_err(failed),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(failed(error)),
            }
        })
        .await
    }

    async fn put(&self, bucket: &str, key: &str, body: ByteStream) -> Result<u64, StorageError> {
        let (directory, target) = self.object(bucket, key)?;
        let name = bucket.to_owned();
        {
            let (directory, name) = (directory.clone(), name.clone());
            blocking(move || require_bucket(&directory, &name)).await?;
        }
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join(TEMPORARY).join(format!("{}-{number}", std::process::id()));
        let temporary = Temporary(path);
        let size = write(&temporary.0, body).await?;
        let tree = self.tree.clone();
        blocking(move || {
            // Moved in here, so that a caller that goes away does not take the file from under the rename.
            let temporary = temporary;
            let _shared = tree.read();
            require_bucket(&directory, &name)?;
            put_in_place(&directory, &temporary.0, &target).map_err(failed)?;
            Ok(size)
        })
        .await
    }

    async fn get(&self, bucket: &str, key: &str) -> Result<ByteStream, StorageError> {
        let (directory, path) = self.object(bucket, key)?;
        let (name, key) = (bucket.to_owned(), key.to_owned());
        let file = blocking(move || {
            require_bucket(&directory, &name)?;
            fs::File::open(&path).map_err(|error| no_object(&key, error))
        })
        .await?;
        let file = tokio::fs::File::from_std(file);
        Ok(ReaderStream::with_capacity(file, READ_BUFFER).map_err(failed).boxed())
    }

    async fn head(&self, bucket: &str, key: &str) -> Result<ObjectInfo, StorageError> {
        let (directory, path) = self.object(bucket, key)?;
        let (name, key) = (bucket.to_owned(), key.to_owned());
        blocking(move || {
            require_bucket(&directory, &name)?;
            match fs::metadata(&path) {
                Ok(metadata) => Ok(info(key, &metadata)),
                Err(error) => Err(no_object(&key, error)),
            }
        })
        .await
    }

    async fn list(
        &self,
        bucket: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ObjectPage, StorageError> {
        let directory = self.bucket(bucket)?;
        let (name, prefix, after) = (bucket.to_owned(), prefix.to_owned(), after.map(str::to_owned));
        blocking(move || {
            require_bucket(&directory, &name)?;
            let mut found = layout::walk(&directory, &prefix, after.as_deref(), limit.saturating_add(1))
                .map_err(failed)?;
            let more = found.len() > limit;
            found.truncate(limit);
            let next = found.last().filter(|_| more).map(|(key, _)| key.clone());
            let mut objects = Vec::with_capacity(found.len());
            for (key, path) in found {
                match fs::metadata(path) {
                    Ok(metadata) => objects.push(info(key, &metadata)),
                    // Removed since the walk saw it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            Ok(ObjectPage { objects, next })
        })
        .await
    }

    async fn delete(&self, bucket: &str, key: &str) -> Result<(), StorageError> {
        let (directory, path) = self.object(bucket, key)?;
        let (tree, name) = (self.tree.clone(), bucket.to_owned());
        blocking(move || {
            let _alone = tree.write();
            require_bucket(&directory, &name)?;
            match fs::remove_file(&path) {
                Ok(()) => {
                    if let Some(parent) = path.parent() {
                        sync_directory(parent).map_err(failed)?;
                    }
                    remove_empty_parents(&directory, &path);
                    Ok(())
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    Ok(())
                }
                Err(error) => Err(failed(error)),
            }
        })
        .await
    }

    async fn presign_get(&self, _: &str, _: &str, _: Micros) -> Result<String, StorageError> {
        Err(StorageError::NotSupported("a presigned address"))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::stream;

    use super::*;

    fn files(path: &Path) -> usize {
        fs::read_dir(path).unwrap().count()
    }

    #[test]
    fn a_full_disk_is_told_apart() {
        // ENOSPC, EDQUOT and EFBIG.
        for code in [28, 122, 27] {
            assert!(matches!(failed(io::Error::from_raw_os_error(code)), StorageError::Full));
        }
        assert!(matches!(failed(io::Error::from_raw_os_error(5)), StorageError::Unavailable(_)));
    }

    #[tokio::test]
    async fn a_write_that_breaks_off_or_is_dropped_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let storage = FilesystemStorage::open(root.path()).await.unwrap();
        storage.create_bucket("b").await.unwrap();
        let parts = [Ok(Bytes::from_static(b"half")), Err(StorageError::Full)];
        let result = storage.put("b", "x/y", stream::iter(parts).boxed()).await;
        assert!(matches!(result, Err(StorageError::Full)));
        assert_eq!(files(&root.path().join(TEMPORARY)), 0);
        assert_eq!(files(&root.path().join("b")), 0);

        let endless = stream::iter([Ok(Bytes::from_static(b"half"))]).chain(stream::pending()).boxed();
        let mut put = storage.put("b", "x/y", endless);
        while files(&root.path().join(TEMPORARY)) == 0 {
            assert!(futures::poll!(&mut put).is_pending());
            tokio::task::yield_now().await;
        }
        drop(put);
        assert_eq!(files(&root.path().join(TEMPORARY)), 0);
    }

    /// A process that is being started has every file of this one open until it becomes its own program, and a removed file
    /// takes its place on the device until then: so no test mounts while another is on a device.
    static ONE_DEVICE: std::sync::Mutex<()> = std::sync::Mutex::new(());

    /// A small file system of its own, where this process may mount one.
    struct Device(
        tempfile::TempDir,
        #[expect(dead_code, reason = "held")] std::sync::MutexGuard<'static, ()>,
    );

    impl Device {
        fn mount(options: &str) -> Option<Self> {
            let alone = ONE_DEVICE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let directory = tempfile::tempdir().unwrap();
            let mut mount = std::process::Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(directory.path());
            let mounted = mount.stderr(std::process::Stdio::null()).status().is_ok_and(|s| s.success());
            mounted.then_some(Self(directory, alone))
        }

        fn remount(&self, options: &str) {
            let mut mount = std::process::Command::new("mount");
            mount.args(["-o", &format!("remount,{options}")]).arg(self.0.path());
            assert!(mount.status().unwrap().success());
        }
    }

    impl Drop for Device {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(self.0.path()).status();
        }
    }

    async fn put(storage: &FilesystemStorage, key: &str, bytes: usize) -> Result<(), StorageError> {
        let part = Bytes::from(vec![7; 64 << 10]);
        let parts = std::iter::repeat_n(part, bytes >> 16).map(Ok);
        storage.put("b", key, stream::iter(parts).boxed()).await.map(|_| ())
    }

    #[tokio::test]
    async fn a_device_that_is_really_full_refuses_keeps_what_it_has_and_goes_on() {
        // Without the right to mount, the error codes above are all that can be tested.
        let Some(device) = Device::mount("size=1m") else { return };
        let storage = FilesystemStorage::open(device.0.path()).await.unwrap();
        storage.create_bucket("b").await.unwrap();
        put(&storage, "kept", 512 << 10).await.unwrap();
        for key in ["kept", "x/y/new"] {
            let refused = put(&storage, key, 2 << 20).await;
            assert!(matches!(refused, Err(StorageError::Full)), "{refused:?}");
        }
        assert_eq!(files(&device.0.path().join(TEMPORARY)), 0);
        assert_eq!(files(&device.0.path().join("b")), 1, "no directory of the object that was refused");
        assert_eq!(storage.head("b", "kept").await.unwrap().size, 512 << 10);
        put(&storage, "x/y/new", 256 << 10).await.unwrap();
        storage.delete("b", "kept").await.unwrap();
        put(&storage, "kept", 512 << 10).await.unwrap();
    }

    #[tokio::test]
    async fn a_read_only_directory_is_refused_when_it_is_opened_and_when_it_becomes_one() {
        let Some(device) = Device::mount("size=1m") else { return };
        let storage = FilesystemStorage::open(device.0.path()).await.unwrap();
        storage.create_bucket("b").await.unwrap();
        put(&storage, "kept", 64 << 10).await.unwrap();
        device.remount("ro");
        assert!(matches!(put(&storage, "new", 64 << 10).await, Err(StorageError::Unavailable(_))));
        assert_eq!(storage.head("b", "kept").await.unwrap().size, 64 << 10);
        let again = FilesystemStorage::open(device.0.path()).await;
        assert!(matches!(again, Err(StorageError::Unavailable(_))));
        device.remount("rw");
        FilesystemStorage::open(device.0.path()).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_in_the_place_of_the_directory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("storage"), "a file").unwrap();
        let refused = FilesystemStorage::open(root.path().join("storage")).await;
        assert!(matches!(refused, Err(StorageError::Unavailable(_))));
    }

    #[tokio::test]
    async fn opening_removes_what_a_crash_left_half_written() {
        let root = tempfile::tempdir().unwrap();
        FilesystemStorage::open(root.path()).await.unwrap();
        fs::write(root.path().join(TEMPORARY).join("1-1"), "half").unwrap();
        FilesystemStorage::open(root.path()).await.unwrap();
        assert_eq!(files(&root.path().join(TEMPORARY)), 0);
    }

    #[tokio::test]
    async fn removing_an_object_removes_its_empty_directories() {
        let root = tempfile::tempdir().unwrap();
        let storage = FilesystemStorage::open(root.path()).await.unwrap();
        storage.create_bucket("b").await.unwrap();
        storage.put("b", "x/y/z", stream::iter([Ok(Bytes::new())]).boxed()).await.unwrap();
        storage.delete("b", "x/y/z").await.unwrap();
        assert_eq!(files(&root.path().join("b")), 0);
    }
}
