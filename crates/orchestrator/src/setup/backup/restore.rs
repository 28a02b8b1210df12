//! Puts a backup in place of what a data directory holds. Everything is staged beside its place first, then what was there is
//! renamed aside, then the staged is renamed in. A restore that was interrupted is told by a file, with which no daemon
//! starts; running it again begins anew. Nothing is ever removed but what was staged.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{CHAIN, DATABASE, KEYS, Manifest, STORAGE, check_backup, embedded, files, key_files, unwritable};
use crate::{
    client::{
        clock::SystemClock,
        db::sqlite::{Options, SqliteDatabase},
    },
    config::{Config, section::Settlement},
    core::{
        client::{
            clock::Clock,
            database::{Changeset, Committer, DatabaseClient, Filter, ReaderExt},
            schema,
        },
        market::quantity::Timestamp,
    },
    error::{Error, ErrorCode, Result},
    resource::Resource as _,
    service::{allocation::restored, job::subject::Subject},
    setup::host,
};

/// There while a restore is under way.
const MARKER: &str = "restore.unfinished";
/// Subjects go so far ahead: the provider refuses generations below those that it saw after the backup was made.
const GENERATIONS: u64 = 1 << 32;
/// Documents of one commit.
const BATCH: usize = 500;

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// What was restored.
    pub backup: Manifest,
    /// Where what was there before lies now.
    pub set_aside: Vec<PathBuf>,
    /// What is left to do for a person.
    pub notes: Vec<String>,
}

/// Refuses a data directory in which a restore was interrupted.
///
/// # Errors
/// [`ErrorCode::InvalidState`] with what to do.
pub fn interrupted(config: &Config) -> Result<()> {
    if !config.data.dir.join(MARKER).exists() {
        return Ok(());
    }
    let detail = format!(
        "a restore of {} was interrupted; run `orchestrator restore --replace` again, with the same backup",
        config.data.dir.display()
    );
    Err(Error::new(ErrorCode::InvalidState, detail))
}

/// Puts the backup `from` in place. What is there is set aside when `replace` says so; else it is a reason to refuse.
///
/// # Errors
/// As [`check_backup`]; [`ErrorCode::DataDirLocked`] while a daemon runs; [`ErrorCode::AlreadyExists`] when there is something and
/// `replace` was not said; [`ErrorCode::StorageFull`] and others of the disk, after which nothing has changed or
/// [`interrupted`] tells.
pub async fn restore(config: &Config, from: &Path, replace: bool) -> Result<Restored> {
    embedded(config)?;
    let manifest = check_backup(from).await?;
    let directory = host::data_dir(config);
    directory.apply()?;
    let _lock = directory.lock()?;
    let now = SystemClock::new().now();
    let (parts, mut notes) = parts(config, from, &manifest, now);
    let present: Vec<_> = parts.iter().filter(|part| part.in_the_way()).collect();
    if let (Some(first), false) = (present.first(), replace) {
        let detail =
            format!("{} exists; --replace sets it, and all that belongs to it, aside", first.place.display());
        return Err(Error::new(ErrorCode::AlreadyExists, detail));
    }
    let staging = parts.clone();
    tokio::task::spawn_blocking(move || staging.iter().try_for_each(Part::stage))
        .await
        .map_err(Error::internal)??;
    prepare(&staged(&config.data.dir.join("orchestrator.db")), manifest.made_at, now).await?;

    let marker = config.data.dir.join(MARKER);
    let swap = || -> Result<Vec<PathBuf>> {
        fs::write(&marker, from.display().to_string()).map_err(|error| unwritable(&marker, error))?;
        files::sync(&config.data.dir).map_err(|error| unwritable(&marker, error))?;
        let aside = parts.iter().map(Part::set_aside).collect::<Result<Vec<_>>>()?;
        parts.iter().try_for_each(Part::put_in_place)?;
        files::sync(&config.data.dir).map_err(|error| unwritable(&marker, error))?;
        fs::remove_file(&marker).map_err(|error| unwritable(&marker, error))?;
        Ok(aside.into_iter().flatten().collect())
    };
    let set_aside = swap()?;
    if !manifest.keys {
        notes.push("the backup has no keys: put vault.key back before the daemon is started".into());
    }
    notes.push(
        "allocations that were made after the backup are unknown now; providers keep their data until a person decides"
            .into(),
    );
    Ok(Restored { backup: manifest, set_aside, notes })
}

/// Something to be replaced: a file or a directory.
#[derive(Debug, Clone)]
struct Part {
    /// Where it belongs.
    place: PathBuf,
    /// What comes there, if anything.
    source: Option<PathBuf>,
    /// Where what is there goes.
    aside: PathBuf,
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Beside its place, so that it is put there by a rename.
fn staged(place: &Path) -> PathBuf {
    with_suffix(place, ".restoring")
}

/// Everything that is replaced, and what is left for a person to do.
fn parts(config: &Config, from: &Path, manifest: &Manifest, now: Timestamp) -> (Vec<Part>, Vec<String>) {
    let suffix = format!(".replaced-{}", now.as_micros() / 1_000);
    let database = config.data.dir.join("orchestrator.db");
    let aside = with_suffix(&database, &suffix);
    let part = |place: PathBuf, source: Option<PathBuf>| {
        let aside = with_suffix(&place, &suffix);
        Part { place, source, aside }
    };
    let mut parts = vec![part(database.clone(), Some(from.join(DATABASE)))];
    // The log of another database would ruin this one. It keeps the name that its own database has now.
    for log in ["-wal", "-shm"] {
        let aside = with_suffix(&aside, log);
        parts.push(Part { place: with_suffix(&database, log), source: None, aside });
    }
    parts.push(part(Settlement::directory(config), Some(from.join(CHAIN))));
    if manifest.storage {
        let source = from.join(STORAGE);
        parts.push(part(config.data.dir.join("storage"), source.is_dir().then_some(source)));
    }
    let mut notes = Vec::new();
    for (name, place) in key_files(config) {
        let source = from.join(KEYS).join(name);
        let same = || matches!((fs::read(&source), fs::read(&place)), (Ok(a), Ok(b)) if a == b);
        // The provider's own token stays with the provider, whose directory is not restored.
        if !source.is_file() || same() || (name == "provider-admin.token" && place.exists()) {
            continue;
        }
        if let Some(parent) = place.parent()
            && !parent.is_dir()
        {
            notes.push(format!("{name} was not put back: {} does not exist", parent.display()));
            continue;
        }
        parts.push(part(place, Some(source)));
    }
    (parts, notes)
}

impl Part {
    /// Whether there is something that would be lost. Directories that `setup` makes are empty at first.
    fn in_the_way(&self) -> bool {
        match fs::symlink_metadata(&self.place) {
            Ok(found) if found.is_dir() => fs::read_dir(&self.place)
                .is_ok_and(|entries| entries.filter_map(io::Result::ok).next().is_some()),
            Ok(_) => true,
            Err(_) => false,
        }
    }

    fn stage(&self) -> Result<()> {
        let Some(source) = &self.source else { return Ok(()) };
        let staged = staged(&self.place);
        let copy = || {
            remove(&staged)?;
            match source.is_dir() {
                true => files::copy_tree(source, &staged, &|_| false),
                false => files::copy(source, &staged),
            }
        };
        copy().map_err(|error| unwritable(&staged, error))
    }

    fn set_aside(&self) -> Result<Option<PathBuf>> {
        match fs::rename(&self.place, &self.aside) {
            Ok(()) => Ok(Some(self.aside.clone())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unwritable(&self.place, error)),
        }
    }

    fn put_in_place(&self) -> Result<()> {
        if self.source.is_none() {
            return Ok(());
        }
        fs::rename(staged(&self.place), &self.place).map_err(|error| unwritable(&self.place, error))
    }
}

/// Removes what an earlier attempt staged.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Brings the staged database to the present layout, and tells it that it was restored.
async fn prepare(path: &Path, made_at: Timestamp, now: Timestamp) -> Result<()> {
    let database = SqliteDatabase::open(path, Options::default())?;
    database.connect(schema::ALL).await?;
    let subjects = database.list_all::<Subject>(Filter::All).await?;
    for batch in subjects.chunks(BATCH) {
        let mut changes = Changeset::new();
        for subject in batch {
            let mut next = subject.value.clone();
            next.generation = next.generation.saturating_add(GENERATIONS);
            changes.replace(subject.version, &next);
        }
        database.commit(changes).await?;
    }
    restored::note(database.as_ref(), database.as_ref(), made_at, now).await?;
    Ok(database.disconnect().await?)
}
