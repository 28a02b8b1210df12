//! Files of a backup: copied durably, listed with their hashes, compared with the list.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Relative to the backup, with `/` between its parts.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Of its bytes, in hex.
    pub sha256: String,
}

/// Makes a directory that only its owner may look into, and those above it.
pub fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// An empty file that only its owner may read.
pub fn make_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Copies a file and waits for the disk.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (mut source, mut target) = (File::open(from)?, make_file(to)?);
    io::copy(&mut source, &mut target)?;
    target.sync_all()
}

/// Copies a directory with all that is below it; what is still being written, which has names of its own, is left out.
pub fn copy_tree(from: &Path, to: &Path, leave_out: &dyn Fn(&str) -> bool) -> io::Result<()> {
    make_directory(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if leave_out(&name.to_string_lossy()) {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        if entry.file_type()?.is_dir() {
            copy_tree(&source, &target, leave_out)?;
        } else {
            match copy(&source, &target) {
                // Removed since it was listed. What the copy must have is looked for afterwards.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !source.exists() => {}
                copied => copied?,
            }
        }
    }
    File::open(to)?.sync_all()
}

/// Writes a file whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = make_file(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes the names in a directory durable.
pub fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Every file below a directory, by path, in order.
pub fn list(root: &Path) -> io::Result<Vec<Entry>> {
    let mut paths = Vec::new();
    collect(root, &mut paths)?;
    paths.sort();
    paths.into_iter().map(|path| entry(root, &path)).collect()
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => collect(&entry.path(), paths)?,
            false => paths.push(entry.path()),
        }
    }
    Ok(())
}

fn entry(root: &Path, path: &Path) -> io::Result<Entry> {
    let (bytes, sha256) = hash(path)?;
    let path = path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
    Ok(Entry { path, bytes, sha256 })
}

fn hash(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut hasher, mut bytes, mut buffer) = (Sha256::new(), 0_u64, vec![0_u8; 1 << 16]);
    loop {
        let read = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            return Ok((bytes, hex::encode(hasher.finalize())));
        };
        hasher.update(part);
        bytes += part.len() as u64;
    }
}

/// What is wrong with the files below `root`, compared with the list; empty when they are the same. `ignored` is not looked at.
pub fn differences(root: &Path, listed: &[Entry], ignored: &str) -> io::Result<Vec<String>> {
    let found = list(root)?;
    let mut problems = Vec::new();
    for entry in listed {
        match found.iter().find(|known| known.path == entry.path) {
            None => problems.push(format!("{} is missing", entry.path)),
            Some(known) if known.bytes != entry.bytes => {
                problems.push(format!("{} has {} bytes instead of {}", entry.path, known.bytes, entry.bytes));
            }
            Some(known) if known.sha256 != entry.sha256 => {
                problems.push(format!("{} is damaged: its bytes have another hash", entry.path));
            }
            Some(_) => {}
        }
    }
    let strange = found.iter().filter(|known| known.path != ignored);
    let strange = strange.filter(|known| listed.iter().all(|entry| entry.path != known.path));
    problems.extend(strange.map(|known| format!("{} does not belong to the backup", known.path)));
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn each_way_in_which_files_differ_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir_all(from.join("deep/er")).unwrap();
        fs::write(from.join("one"), "1").unwrap();
        fs::write(from.join("deep/er/two"), "22").unwrap();
        fs::write(from.join("deep/.half"), "half written").unwrap();
        copy_tree(&from, &to, &|name| name.starts_with('.')).unwrap();
        let listed = list(&to).unwrap();
        assert_eq!(listed.iter().map(|e| e.path.as_str()).collect::<Vec<_>>(), ["deep/er/two", "one"]);
        assert_eq!(differences(&to, &listed, "").unwrap(), Vec::<String>::new());
        assert_eq!(fs::metadata(to.join("one")).unwrap().permissions().mode() & 0o777, 0o600);

        fs::write(to.join("one"), "2").unwrap();
        fs::write(to.join("deep/er/two"), "222").unwrap();
        fs::write(to.join("three"), "").unwrap();
        let problems = differences(&to, &listed, "").unwrap();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("deep/er/two has 3 bytes instead of 2"));
        assert!(problems[1].contains("one is damaged"));
        assert!(problems[2].contains("three does not belong"));
        assert_eq!(differences(&to, &listed, "three").unwrap().len(), 2);
        fs::remove_file(to.join("one")).unwrap();
        assert!(differences(&to, &listed, "three").unwrap()[1].contains("one is missing"));
    }
}
