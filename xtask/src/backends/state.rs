//! What runs: a file of the cache, written after every change so that a run that is cut short leaves nothing that nobody knows of.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::process::Process;

/// A server that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Its process.
    pub process: Process,
    /// On 127.0.0.1.
    pub port: u16,
    /// What it says.
    pub log: PathBuf,
    /// Its data, removed at its end.
    pub data: PathBuf,
    /// Asked for by `backends up`, and so not ended with a test run.
    pub keep: bool,
}

/// The servers by name.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// By name.
    pub servers: BTreeMap<String, Running>,
}

impl State {
    /// Reads the file; without one, nothing runs.
    ///
    /// # Errors
    /// When it can't be read: then nobody knows what runs.
    pub fn load(path: &Path) -> Result<Self, String> {
        match fs::read_to_string(path) {
            Ok(text) => {
                serde_json::from_str(&text).map_err(|error| format!("{} is damaged: {error}", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("{} can't be read: {error}", path.display())),
        }
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// Says which file.
    pub fn save(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        let scratch = path.with_extension("tmp");
        fs::write(&scratch, text)
            .and_then(|()| fs::rename(&scratch, path))
            .map_err(|error| format!("{} can't be written: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        assert_eq!(State::load(&path).unwrap(), State::default());
        let process = Process { pid: 7, started: 8, boot: "b".to_owned() };
        let (log, data) = (PathBuf::from("/l"), PathBuf::from("/d"));
        let mut state = State::default();
        state.servers.insert("redis".to_owned(), Running { process, port: 9, log, data, keep: true });
        state.save(&path).unwrap();
        assert_eq!(State::load(&path).unwrap(), state);
        fs::write(&path, "{").unwrap();
        assert!(State::load(&path).is_err());
    }
}
