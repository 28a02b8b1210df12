//! A backup in the making: `NAME.partial`, with a file that says what it is and is locked while it is written, and the
//! contents, which get the backup's name when they are whole. Nothing else by that name is ever touched.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use super::{files, parent_of, unwritable};
use crate::error::{Error, ErrorCode, Result};

/// Says that the directory is an unfinished backup. Locked by whoever writes it.
const MARKER: &str = "backup.unfinished";
/// What will be the backup.
const CONTENTS: &str = "contents";

/// A backup that is not finished; dropped, it is removed.
#[derive(Debug)]
pub(super) struct Partial {
    directory: PathBuf,
    /// Held until the directory is gone.
    _marker: File,
}

impl Partial {
    /// Begins the backup `to`. What an attempt that was killed left is removed.
    ///
    /// # Errors
    /// [`ErrorCode::AlreadyExists`] when something else has the name; [`ErrorCode::InvalidState`] while another process makes
    /// the same backup; those of the disk.
    pub(super) fn begin(to: &Path) -> Result<Self> {
        let mut name = to.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let directory = parent_of(to).join(name);
        files::make_directory(&parent_of(to)).map_err(|error| unwritable(&directory, error))?;
        let marker = mark(&directory).map_err(|error| unwritable(&directory, error))?;
        let Some(marker) = marker else {
            let detail = format!(
                "{} is in the way and is no unfinished backup of this program; move it, or name another directory",
                directory.display()
            );
            return Err(Error::new(ErrorCode::AlreadyExists, detail));
        };
        match marker.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let detail = format!("another process is making this backup, in {}", directory.display());
                return Err(Error::new(ErrorCode::InvalidState, detail));
            }
            Err(TryLockError::Error(error)) => return Err(unwritable(&directory, error)),
        }
        let partial = Self { directory, _marker: marker };
        remove(&partial.contents()).map_err(|error| unwritable(&partial.directory, error))?;
        Ok(partial)
    }

    /// Where the contents are written.
    pub(super) fn contents(&self) -> PathBuf {
        self.directory.join(CONTENTS)
    }
}

/// The marker of our own unfinished backup, made if there is nothing yet; `None` when there is something else.
fn mark(directory: &Path) -> io::Result<Option<File>> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        // What a link leads to is not ours.
        Err(_) if !fs::symlink_metadata(directory)?.is_dir() => return Ok(None),
        _ => {}
    }
    let path = directory.join(MARKER);
    let is_empty = fs::read_dir(directory)?.next().is_none();
    if is_empty {
        match files::make_file(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    match OpenOptions::new().write(true).open(&path) {
        Ok(marker) => Ok(Some(marker)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a directory; a missing one is fine.
fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // The marker last: what can't be removed is still known as ours the next time.
        let removed = remove(&self.contents()).and_then(|()| remove(&self.directory));
        if let Err(error) = removed {
            tracing::warn!(path = %self.directory.display(), %error, "an unfinished backup could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_our_own_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (to, theirs) = (directory.path().join("b"), directory.path().join("b.partial"));
        fs::create_dir(&theirs).unwrap();
        fs::write(theirs.join("thesis.txt"), "years of work").unwrap();
        let refused = Partial::begin(&to).unwrap_err();
        assert_eq!(refused.code, ErrorCode::AlreadyExists);
        assert_eq!(fs::read_to_string(theirs.join("thesis.txt")).unwrap(), "years of work");
        assert_eq!(fs::read_dir(&theirs).unwrap().count(), 1);

        fs::rename(&theirs, directory.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), &theirs).unwrap();
        assert_eq!(Partial::begin(&to).unwrap_err().code, ErrorCode::AlreadyExists);
        fs::remove_file(&theirs).unwrap();
        fs::write(&theirs, "a file").unwrap();
        assert_eq!(Partial::begin(&to).unwrap_err().code, ErrorCode::AlreadyExists);
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "a file");
    }

    #[test]
    fn a_second_attempt_waits_for_nobody_and_one_that_was_killed_is_cleared() {
        let directory = tempfile::tempdir().unwrap();
        let to = directory.path().join("deep/b");
        let first = Partial::begin(&to).unwrap();
        files::make_directory(&first.contents()).unwrap();
        fs::write(first.contents().join("half"), "half").unwrap();
        assert_eq!(Partial::begin(&to).unwrap_err().code, ErrorCode::InvalidState);
        assert!(first.contents().join("half").exists());

        // A process that is killed removes nothing, and holds no lock.
        let place = first.directory.clone();
        let copy = directory.path().join("copy");
        files::copy_tree(&place, &copy, &|_| false).unwrap();
        drop(first);
        assert!(!place.exists());
        fs::rename(&copy, &place).unwrap();
        let second = Partial::begin(&to).unwrap();
        assert!(!second.contents().exists());
        fs::create_dir(second.contents()).unwrap();
        fs::rename(second.contents(), &to).unwrap();
        drop(second);
        assert!(to.is_dir() && !place.exists());
    }
}
