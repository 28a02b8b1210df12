//! The bytes of objects as files. A file is written under `tmp/`, synced, renamed into `objects/`, and the directory is
//! synced; only then may the store name it. Names are random, so that no S3 key can reach outside; what the store does
//! not name is swept at start.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
};

/// A random file name: 32 hex digits, spread over 256 directories by the first two.
pub type BlobId = String;

/// The directory of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: PathBuf,
}

impl Blobs {
    /// Opens the directory, makes what is missing and removes what a crash left in `tmp/`.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn open(root: &Path) -> io::Result<Self> {
        let this = Self { root: root.to_owned() };
        let temporary = root.join("tmp");
        if temporary.exists() {
            fs::remove_dir_all(&temporary)?;
        }
        fs::create_dir_all(&temporary)?;
        for shard in 0..=u8::MAX {
            fs::create_dir_all(root.join("objects").join(format!("{shard:02x}")))?;
        }
        fs::File::open(root.join("objects"))?.sync_all()?;
        Ok(this)
    }

    /// Removes every file that `known` does not name, and tells how many there were.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn sweep(&self, known: &HashSet<BlobId>) -> io::Result<usize> {
        let mut removed = 0;
        for shard in fs::read_dir(self.root.join("objects"))? {
            for file in fs::read_dir(shard?.path())? {
                let file = file?;
                if file.file_name().to_str().is_none_or(|name| !known.contains(name)) {
                    fs::remove_file(file.path())?;
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Starts a new file.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn create(&self) -> io::Result<(Draft, fs::File)> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(|_| io::Error::other("no entropy"))?;
        let id = hex::encode(random);
        let path = self.root.join("tmp").join(&id);
        let file = fs::File::create_new(&path)?;
        Ok((Draft { blobs: self.clone(), id, current: Some(path) }, file))
    }

    /// Where a blob lies.
    #[must_use]
    pub fn path(&self, id: &str) -> PathBuf {
        self.shard(id).join(id)
    }

    /// Removes blobs that the store no longer names; those that are gone already are fine.
    pub fn remove(&self, ids: &[BlobId]) {
        for id in ids {
            if let Err(error) = fs::remove_file(self.path(id))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(blob = id, %error, "a blob could not be removed; the next start will");
            }
        }
    }

    fn shard(&self, id: &str) -> PathBuf {
        self.root.join("objects").join(id.get(..2).unwrap_or("00"))
    }
}

/// A file that is not named by the store yet: removed when dropped, unless [`Draft::keep`] was called.
#[derive(Debug)]
pub struct Draft {
    blobs: Blobs,
    /// Its name.
    pub id: BlobId,
    current: Option<PathBuf>,
}

impl Draft {
    /// Makes the bytes durable under their final name.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn publish(&mut self, file: &fs::File) -> io::Result<()> {
        file.sync_all()?;
        if let Some(from) = &self.current {
            let to = self.blobs.path(&self.id);
            fs::rename(from, &to)?;
            self.current = Some(to);
        }
        fs::File::open(self.blobs.shard(&self.id))?.sync_all()
    }

    /// The store names it now.
    pub fn keep(mut self) {
        self.current = None;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = self.current.take() {
            // What stays behind is swept at the next start.
            let _ = fs::remove_file(path);
        }
    }
}
