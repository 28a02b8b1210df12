//! What the embedded default needs of its host: a data directory that can be written, with its parts, held by one process.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{Action, Plan, Resource, Step};
use crate::{
    core::client::{
        database::{Changeset, Committer, DatabaseError, Expect, Reader, Write, WriteOp},
        schema,
    },
    error::{Error, ErrorCode, Result},
};

/// Only the owner may look into the data directory: keys lie there.
const MODE: u32 = 0o700;
/// The file whose lock is held for as long as the daemon lives.
const LOCK_FILE: &str = "orchestrator.lock";
/// The document that counts the starts.
const BOOT: &str = "boot";

/// The data directory and its parts.
#[derive(Debug, Clone)]
pub struct DataDir {
    root: PathBuf,
    parts: Vec<PathBuf>,
}

/// The lock on a data directory. The operating system frees it when the process ends, however it ends.
#[derive(Debug)]
pub struct DataDirLock {
    _file: File,
}

impl DataDir {
    /// A directory with these sub-directories, given relative to it.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, parts: &[&str]) -> Self {
        let root = root.into();
        let parts = parts.iter().map(|part| root.join(part)).collect();
        Self { root, parts }
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn directories(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.root.as_path()).chain(self.parts.iter().map(PathBuf::as_path))
    }

    /// Takes the directory for this process, and keeps it for as long as the lock is not dropped. The directory must be
    /// there.
    ///
    /// # Errors
    /// [`ErrorCode::DataDirLocked`] when another process has it, with its number if it is known;
    /// [`ErrorCode::DataDirUnwritable`].
    pub fn lock(&self) -> Result<DataDirLock> {
        let path = self.root.join(LOCK_FILE);
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = open.map_err(|error| unwritable(&path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(self.held(&mut file)),
            Err(TryLockError::Error(error)) => return Err(unwritable(&path, error)),
        }
        let mut note = || -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())
        };
        note().map_err(|error| unwritable(&path, error))?;
        Ok(DataDirLock { _file: file })
    }

    fn held(&self, file: &mut File) -> Error {
        let mut text = String::new();
        let _ = file.take(32).read_to_string(&mut text);
        let root = self.root.display();
        let holder = match text.trim().parse::<u32>() {
            Ok(pid) => format!("process {pid}"),
            Err(_) => "another process".to_owned(),
        };
        Error::new(
            ErrorCode::DataDirLocked,
            format!("{holder} holds the data directory {root}; stop it, or use another directory"),
        )
    }
}

/// What a directory needs.
fn look_at(path: &Path) -> Result<Action> {
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err(unwritable(path, io::Error::from(io::ErrorKind::NotADirectory))),
        Ok(found) if found.permissions().mode() & 0o777 != MODE => Ok(Action::Change),
        Ok(_) => Ok(Action::Exists),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Action::Create),
        Err(error) => Err(unwritable(path, error)),
    }
}

/// Writes, syncs and removes a file: permission bits tell nothing to root, nor of read-only mounts.
fn probe(path: &Path) -> Result<()> {
    let name = path.join(format!(".probe-{}", std::process::id()));
    let attempt = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&name)?;
        file.write_all(b"probe")?;
        file.sync_all()
    };
    let result = attempt();
    let removed = fs::remove_file(&name);
    result.and(removed).map_err(|error| unwritable(path, error))
}

fn unwritable(path: &Path, error: io::Error) -> Error {
    let path = path.display();
    let detail = match error.kind() {
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            format!("{path} is not a directory, or lies below a file; choose another data directory")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("{path} lies on a read-only file system; choose another data directory")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!("{path} can't be written: the disk is full; make room and start again")
        }
        io::ErrorKind::NotFound => format!("{path} does not exist; `setup` makes it"),
        _ => {
            format!("{path} can't be written by this user ({error}); mend its permissions or choose another")
        }
    };
    Error::new(ErrorCode::DataDirUnwritable, detail).because(error)
}

impl Resource for DataDir {
    fn plan(&self) -> Result<Plan> {
        let step = |path: &Path| {
            let (name, action) = (path.display().to_string(), look_at(path)?);
            Ok(Step { kind: "directory", name, action, changes: Vec::new() })
        };
        Ok(Plan { steps: self.directories().map(step).collect::<Result<_>>()?, ..Plan::default() })
    }

    fn apply(&self) -> Result<Plan> {
        let plan = self.plan()?;
        for (path, step) in self.directories().zip(&plan.steps) {
            let done = match step.action {
                Action::Exists | Action::Remove => Ok(()),
                Action::Create => DirBuilder::new().recursive(true).mode(MODE).create(path),
                Action::Change => fs::set_permissions(path, fs::Permissions::from_mode(MODE)),
            };
            done.map_err(|error| unwritable(path, error))?;
        }
        self.verify()?;
        Ok(plan)
    }

    fn verify(&self) -> Result<()> {
        for path in self.directories() {
            match look_at(path)? {
                Action::Create => {
                    return Err(unwritable(path, io::Error::from(io::ErrorKind::NotFound)));
                }
                Action::Change => {
                    let path = path.display();
                    return Err(Error::new(
                        ErrorCode::DataDirUnwritable,
                        format!("{path} must have mode 0700; `setup` mends it"),
                    ));
                }
                Action::Exists | Action::Remove => probe(path)?,
            }
        }
        Ok(())
    }
}

/// The number of this start of the daemon on this database: 1 at the first, and one more each time. It frees the leases
/// of the process before at once. Two processes never get the same number.
///
/// # Errors
/// Database errors, [`DatabaseError::Conflict`] when other processes start again and again.
pub async fn next_boot_epoch(
    committer: &dyn Committer,
    reader: &dyn Reader,
) -> std::result::Result<u64, DatabaseError> {
    let invalid = || DatabaseError::Invalid("the boot epoch is not a number".to_owned());
    for _ in 0..16 {
        let found = reader.get(schema::META, BOOT).await?;
        let (epoch, op) = match found {
            None => (1, WriteOp::Insert { body: json!({"epoch": 1}).to_string() }),
            Some(document) => {
                let body: serde_json::Value = serde_json::from_str(&document.body).map_err(|source| {
                    DatabaseError::Damaged { collection: schema::META, id: BOOT.to_owned(), source }
                })?;
                let epoch = body.get("epoch").and_then(serde_json::Value::as_u64).ok_or_else(invalid)?;
                let epoch = epoch.saturating_add(1);
                let expect = Expect::Version(document.version);
                (epoch, WriteOp::Replace { expect, body: json!({"epoch": epoch}).to_string() })
            }
        };
        let write = Write::new(schema::META, BOOT, op);
        match committer.commit(Changeset { writes: vec![write] }).await {
            Ok(()) => return Ok(epoch),
            Err(DatabaseError::Conflict { .. } | DatabaseError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(DatabaseError::Conflict { collection: schema::META, id: BOOT.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::db::memory::MemoryDatabase;

    #[test]
    fn directories_are_planned_made_and_checked_once() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path().join("a/data"), &["objects", "keys"]);
        let plan = dir.plan().unwrap();
        assert_eq!(plan.steps.len(), 3);
        assert!(plan.steps.iter().all(|step| step.action == Action::Create));
        assert!(!dir.root().exists());
        assert_eq!(dir.verify().unwrap_err().code, ErrorCode::DataDirUnwritable);
        assert_eq!(dir.apply().unwrap(), plan);
        dir.verify().unwrap();
        assert!(dir.plan().unwrap().is_done());
        assert!(dir.apply().unwrap().is_done());
        let mode = fs::metadata(dir.root().join("keys")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        // Nothing is left of the probes.
        assert_eq!(fs::read_dir(dir.root()).unwrap().count(), 2);
        fs::set_permissions(dir.root(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(dir.verify().is_err());
        assert_eq!(dir.plan().unwrap().steps[0].action, Action::Change);
        dir.apply().unwrap();
        dir.verify().unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_told_and_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        fs::write(&file, "mine").unwrap();
        for root in [file.clone(), file.join("below")] {
            let dir = DataDir::new(root, &[]);
            for error in [dir.plan().unwrap_err(), dir.apply().unwrap_err(), dir.lock().unwrap_err()] {
                assert_eq!(error.code, ErrorCode::DataDirUnwritable, "{error:?}");
                assert!(error.detail.contains("file"), "{error}");
            }
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    }

    #[test]
    fn a_second_holder_is_refused_and_told_who_holds() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path(), &[]);
        dir.apply().unwrap();
        let lock = dir.lock().unwrap();
        let error = dir.lock().unwrap_err();
        assert_eq!(error.code, ErrorCode::DataDirLocked);
        assert!(error.detail.contains(&std::process::id().to_string()), "{error}");
        drop(lock);
        dir.lock().unwrap();
    }

    #[tokio::test]
    async fn each_start_gets_the_next_number() {
        let db = MemoryDatabase::with_schema();
        for wanted in 1..4 {
            assert_eq!(next_boot_epoch(&*db, &*db).await.unwrap(), wanted);
        }
    }
}
