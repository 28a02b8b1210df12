//! Backups of the embedded default: made beside a daemon that runs, complete in themselves, checked before they are called
//! a backup and again before anything is restored from them.
//!
//! A backup is a directory: `database.db`, `chain/` (the local settlement and data-availability layers), `storage/`, `keys/` and, written
//! last, `manifest.json` with the hash of every file. Database and settlement layer are copied as of one instant (see
//! [`Frozen`]): the copy is what a crash at that instant would have left, and a start after a restore is a start after that
//! crash. Storage holds content under its hash and is only added to, so what is copied later has all that the database names.
//!
//! The built-in provider's objects are the customers', and as large as they like: they are not in it.

mod files;
mod partial;
mod restore;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use partial::Partial;
pub use restore::{Restored, interrupted, restore};

use super::{clients, first, secret};
use crate::{
    client::{
        clock::SystemClock,
        da::LocalDa,
        db::sqlite::backup::{Copy, Frozen},
        settlement::LocalSettlement,
        storage::FilesystemStorage,
    },
    config::{
        Config,
        section::{DatabaseBackend, Settlement, StorageBackend},
    },
    core::{
        client::{clock::Clock, schema},
        market::{quantity::Timestamp, terms::DomainId},
    },
    error::{Error, ErrorCode, Result},
    metadata,
    service::{block, settlement::verify_ledger, sla},
};

const MANIFEST: &str = "manifest.json";
const DATABASE: &str = "database.db";
const CHAIN: &str = "chain";
const SETTLEMENT: &str = "chain/settlement.db";
const DA: &str = "chain/da";
const STORAGE: &str = "storage";
const KEYS: &str = "keys";
/// The form of backups that this program writes; newer ones are refused.
const FORMAT: u32 = 1;

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of the backup.
    pub format: u32,
    /// The program that made it.
    pub program: String,
    /// The instant that it shows, by the clock of the machine.
    #[serde(with = "readable")]
    pub made_at: Timestamp,
    /// Documents in each collection of the database.
    pub documents: BTreeMap<String, u64>,
    /// Settled blocks.
    pub blocks: u64,
    /// The state root of the last settled block, in hex.
    pub state_root: String,
    /// Whether the keys are in it: whoever has such a backup can open every secret in it.
    pub keys: bool,
    /// Whether the storage is in it; one elsewhere is not.
    pub storage: bool,
    /// Every file but this one.
    pub files: Vec<files::Entry>,
}

/// A time as people write it.
mod readable {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::core::market::quantity::Timestamp;

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Timestamp::parse_rfc3339(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Manifest {
    /// The size of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Makes a backup in the directory `to`, which must not be there yet. May run beside the daemon, which goes on meanwhile.
///
/// # Errors
/// [`ErrorCode::NotSupported`] when the database is not embedded; [`ErrorCode::NotFound`] when there is none yet;
/// [`ErrorCode::AlreadyExists`]; [`ErrorCode::StorageFull`]; [`ErrorCode::Internal`] with all problems when the check of the finished
/// backup finds any. Nothing of a backup that failed is left behind.
pub async fn backup(config: &Config, to: &Path, keys: bool) -> Result<Manifest> {
    embedded(config)?;
    let database = config.data.dir.join("orchestrator.db");
    if !database.exists() {
        let detail = format!("there is no database in {}: nothing to back up", config.data.dir.display());
        return Err(Error::new(ErrorCode::NotFound, detail));
    }
    if to.exists() {
        let detail =
            format!("{} exists; name a directory that does not, backups are never changed", to.display());
        return Err(Error::new(ErrorCode::AlreadyExists, detail));
    }
    let partial = Partial::begin(to)?;
    let contents = partial.contents();
    let sources = Sources { database, chain: Settlement::directory(config), config: config.clone(), keys };
    let place = contents.clone();
    let manifest =
        tokio::task::spawn_blocking(move || sources.copy(&place)).await.map_err(Error::internal)??;
    let manifest = look_into(&contents, manifest).await?;
    let text = serde_json::to_vec_pretty(&manifest).map_err(Error::internal)?;
    let finish = || {
        files::write(&contents.join(MANIFEST), &text)?;
        files::sync(&contents)?;
        std::fs::rename(&contents, to)?;
        files::sync(&parent_of(to))
    };
    finish().map_err(|error| unwritable(to, error))?;
    drop(partial);
    check_backup(to).await
}

/// Checks a backup: every file against its hash, every page of its databases, the ledger from what was published, and that
/// everything the database names is in the storage. Leaves it as it is.
///
/// # Errors
/// [`ErrorCode::NotFound`] when there is none; [`ErrorCode::NotSupported`] when a newer program made it;
/// [`ErrorCode::Internal`] with every problem that was found.
pub async fn check_backup(from: &Path) -> Result<Manifest> {
    let path = from.join(MANIFEST);
    let text = std::fs::read(&path).map_err(|error| {
        let detail = format!("{} is no backup: {} can't be read: {error}", from.display(), path.display());
        Error::new(ErrorCode::NotFound, detail).because(error)
    })?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| damaged(from, &[format!("{MANIFEST} can't be read: {error}")]))?;
    if manifest.format > FORMAT {
        let detail = format!(
            "{} has form {}, and this program knows forms up to {FORMAT}; use the program that made it ({})",
            from.display(),
            manifest.format,
            manifest.program
        );
        return Err(Error::new(ErrorCode::NotSupported, detail));
    }
    let problems = files::differences(from, &manifest.files, MANIFEST)
        .map_err(|error| damaged(from, &[error.to_string()]))?;
    if !problems.is_empty() {
        return Err(damaged(from, &problems));
    }
    let found = look_into(from, manifest.clone()).await?;
    if found == manifest {
        return Ok(manifest);
    }
    Err(damaged(from, &["its contents are not what its manifest says".to_owned()]))
}

/// Only the embedded database is ours to copy.
fn embedded(config: &Config) -> Result<()> {
    if config.database.backend == DatabaseBackend::Sqlite {
        return Ok(());
    }
    Err(Error::new(
        ErrorCode::NotSupported,
        "only the embedded database is backed up by this command; back up MongoDB by its own means (such as mongodump \
         --oplog, or snapshots of its volumes)",
    ))
}

fn parent_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn damaged(from: &Path, problems: &[String]) -> Error {
    let detail = format!("the backup {} can't be used: {}", from.display(), problems.join("; "));
    Error::new(ErrorCode::Internal, detail)
}

fn unwritable(path: &Path, error: io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::StorageFull,
        _ => ErrorCode::DataDirUnwritable,
    };
    Error::new(code, format!("{}: {error}", path.display())).because(error)
}

/// What is copied.
struct Sources {
    database: PathBuf,
    chain: PathBuf,
    config: Config,
    keys: bool,
}

impl Sources {
    fn copy(&self, to: &Path) -> Result<Manifest> {
        let failed = |error| unwritable(to, error);
        files::make_directory(&to.join(CHAIN)).map_err(failed)?;
        let settlement = self.chain.join("settlement.db");
        let mut sources = vec![(self.database.as_path(), DATABASE)];
        if settlement.exists() {
            sources.push((&settlement, SETTLEMENT));
        }
        let paths: Vec<&Path> = sources.iter().map(|(path, _)| *path).collect();
        let frozen = Frozen::at_one_instant(&paths)?;
        let made_at = SystemClock::new().now();
        for (which, (_, name)) in sources.iter().enumerate() {
            let copy = to.join(name);
            files::make_file(&copy).map_err(failed)?;
            frozen.copy(which, &copy)?;
        }
        drop(frozen);
        // Temporary files of the data-availability layer start with a dot.
        self.tree(&self.chain.join("da"), &to.join(DA), &|name| name.starts_with('.'))?;
        let storage = self.config.storage.backend == StorageBackend::Filesystem;
        if storage {
            self.tree(&self.config.data.dir.join("storage"), &to.join(STORAGE), &|name| {
                name.starts_with('+')
            })?;
        }
        if self.keys {
            self.copy_keys(&to.join(KEYS))?;
        }
        Ok(Manifest {
            format: FORMAT,
            program: format!("{} {}", metadata::NAME, metadata::VERSION),
            made_at,
            documents: BTreeMap::new(),
            blocks: 0,
            state_root: String::new(),
            keys: self.keys,
            storage,
            files: Vec::new(),
        })
    }

    fn tree(&self, from: &Path, to: &Path, leave_out: &dyn Fn(&str) -> bool) -> Result<()> {
        if !from.is_dir() {
            return Ok(());
        }
        files::copy_tree(from, to, leave_out).map_err(|error| unwritable(to, error))
    }

    fn copy_keys(&self, to: &Path) -> Result<()> {
        files::make_directory(to).map_err(|error| unwritable(to, error))?;
        for (name, path) in key_files(&self.config) {
            if path.is_file() {
                files::copy(&path, &to.join(name)).map_err(|error| unwritable(to, error))?;
            }
        }
        files::sync(to).map_err(|error| unwritable(to, error))
    }
}

/// The names of the keys in a backup, and where they lie.
fn key_files(config: &Config) -> [(&'static str, PathBuf); 3] {
    [
        ("vault.key", secret::vault_key_path(config)),
        ("operator.key", config.data.dir.join(first::OPERATOR_KEY_FILE)),
        ("provider-admin.token", first::provider_token_path(config)),
    ]
}

/// Reads what lies in the directory, checks that it fits together, and fills the manifest in.
async fn look_into(directory: &Path, manifest: Manifest) -> Result<Manifest> {
    let (blocks, state_root) = ledger(directory).await?;
    let place = directory.to_owned();
    let looked = tokio::task::spawn_blocking(move || {
        let database = Copy::open(&place.join(DATABASE))?;
        database.check()?;
        let named = [
            (block::RECORDS_BUCKET, database.texts(schema::BLOCKS.0, "records_key")?),
            (sla::EVIDENCE_BUCKET, database.texts(schema::VERDICTS.0, "evidence_key")?),
        ];
        let files = files::list(&place).map_err(|error| unwritable(&place, error))?;
        Ok::<_, Error>((database.rows()?, named, files))
    });
    let (documents, named, mut files) = looked
        .await
        .map_err(Error::internal)?
        .map_err(|error| damaged(directory, &[format!("{DATABASE}: {}", crate::error::chain(&error))]))?;
    if manifest.storage {
        let mut missing = Vec::new();
        for (bucket, keys) in named {
            for key in keys {
                if !FilesystemStorage::is_in(&directory.join(STORAGE), bucket, &key) {
                    missing.push(format!("{bucket}/{key}, which the database names, is not in the storage"));
                }
            }
        }
        if !missing.is_empty() {
            return Err(damaged(directory, &missing));
        }
    }
    files.retain(|file| file.path != MANIFEST);
    Ok(Manifest { documents, blocks, state_root, files, ..manifest })
}

/// Rebuilds the ledger of the copied settlement layer: how many blocks there are, and their state root.
async fn ledger(directory: &Path) -> Result<(u64, String)> {
    let path = directory.join(SETTLEMENT);
    if !path.exists() {
        return Ok((0, String::new()));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let settlement = LocalSettlement::look_at(&path, DomainId::local(), clock)
        .map_err(|error| clients::unready("copied settlement layer", error))?;
    let da = LocalDa::at(directory.join(DA));
    let report = verify_ledger(&settlement, &da).await?;
    if !report.holds() {
        return Err(damaged(directory, &report.problems));
    }
    Ok((report.blocks, report.state_root.to_string()))
}
