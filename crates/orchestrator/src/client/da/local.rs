//! The local data-availability layer: publications lie under their own hash, in a directory or in memory, so that
//! whoever reads them back can check them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use sha3::{Digest, Keccak256};

use crate::core::{
    madara::da::{DaClient, DaError, DaLimits},
    market::{block::Hash32, terms::DomainId},
};

/// Bytes in one publication, at most: what six blobs carry is less, so a block that fits a chain fits here.
const MAX_BYTES: usize = 16 << 20;

#[derive(Clone)]
enum Place {
    Directory(PathBuf),
    Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>),
}

/// The layer. A reference is `<domain>/<block>/<commitment>`.
#[derive(Clone)]
pub struct LocalDa {
    place: Place,
}

fn unavailable(error: impl std::error::Error + Send + Sync + 'static) -> DaError {
    DaError::Unavailable(Box::new(error))
}

fn commitment_of(data: &[u8]) -> Hash32 {
    Hash32(Keccak256::digest(data).into())
}

impl LocalDa {
    /// Opens the layer over a directory, which is made when it is missing.
    ///
    /// # Errors
    /// [`DaError::Unavailable`] when it can't be made.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, DaError> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory).map_err(unavailable)?;
        Ok(Self { place: Place::Directory(directory) })
    }

    /// The layer over a directory that is only looked at; nothing is made.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { place: Place::Directory(directory.into()) }
    }

    /// A layer that forgets everything when it is dropped.
    #[must_use]
    pub fn in_memory() -> Self {
        Self { place: Place::Memory(Arc::default()) }
    }

    async fn load(&self, reference: &str) -> Result<Vec<u8>, DaError> {
        let missing = || DaError::NotPublished(reference.to_owned());
        let name = file_name(self.commitment(reference)?);
        match &self.place {
            Place::Memory(map) => map.lock().get(&name).cloned().ok_or_else(missing),
            Place::Directory(directory) => match tokio::fs::read(directory.join(name)).await {
                Ok(data) => Ok(data),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing()),
                Err(error) => Err(unavailable(error)),
            },
        }
    }
}

fn file_name(commitment: Hash32) -> String {
    hex::encode(commitment.0)
}

/// Writes a file under its final name only when all of it is on the disk.
fn write_durably(directory: &std::path::Path, name: &str, data: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(data)?;
    file.as_file().sync_all()?;
    file.persist(directory.join(name)).map_err(|error| error.error)?;
    std::fs::File::open(directory)?.sync_all()
}

#[async_trait]
impl DaClient for LocalDa {
    async fn publish_state_diff(
        &self,
        domain: &DomainId,
        block: u64,
        data: &[u8],
    ) -> Result<String, DaError> {
        if data.len() > MAX_BYTES {
            return Err(DaError::TooLarge { size: data.len(), limit: MAX_BYTES });
        }
        let commitment = commitment_of(data);
        let name = file_name(commitment);
        match &self.place {
            Place::Memory(map) => {
                map.lock().entry(name).or_insert_with(|| data.to_vec());
            }
            Place::Directory(directory) => {
                let (directory, data) = (directory.clone(), data.to_vec());
                let write = move || write_durably(&directory, &name, &data);
                tokio::task::spawn_blocking(write).await.map_err(unavailable)?.map_err(unavailable)?;
            }
        }
        Ok(format!("{domain}/{block}/{commitment}"))
    }

    async fn verify_inclusion(&self, reference: &str) -> Result<bool, DaError> {
        match self.fetch(reference).await {
            Ok(_) => Ok(true),
            Err(DaError::NotPublished(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn validate(&self, reference: &str, data: &[u8]) -> Result<(), DaError> {
        if commitment_of(data) == self.commitment(reference)? {
            Ok(())
        } else {
            Err(DaError::Mismatch(reference.to_owned()))
        }
    }

    async fn fetch(&self, reference: &str) -> Result<Vec<u8>, DaError> {
        let data = self.load(reference).await?;
        self.validate(reference, &data).await?;
        Ok(data)
    }

    fn commitment(&self, reference: &str) -> Result<Hash32, DaError> {
        let text = reference.rsplit('/').next().unwrap_or_default();
        text.parse().map_err(|_| DaError::NotPublished(reference.to_owned()))
    }

    fn limits(&self) -> DaLimits {
        DaLimits { max_bytes: MAX_BYTES }
    }
}
