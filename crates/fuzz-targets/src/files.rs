//! Where the committed inputs lie: `fuzz/seeds/TARGET` and `fuzz/regressions/TARGET`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A directory of `fuzz/`.
#[must_use]
pub fn directory(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz").join(kind)
}

/// The files of a directory with their names, in order; none when it is missing.
///
/// # Errors
/// Those of reading.
pub fn read(directory: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        files.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
    }
    files.sort();
    Ok(files)
}

/// The committed inputs of a target: seeds, and what was found.
///
/// # Errors
/// Those of reading.
pub fn committed(target: &str) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut all = read(&directory("seeds").join(target))?;
    all.extend(read(&directory("regressions").join(target))?);
    Ok(all)
}
