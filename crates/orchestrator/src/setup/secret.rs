//! Secrets in files: the vault's key, the built-in provider's admin token. Made at first start, mode 0600, refused when
//! others may read them.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::{
    config::Config,
    core::client::clock::Entropy,
    error::{Error, ErrorCode, Result},
};

/// Takes the place of the vault's key file.
const VAULT_KEY_VARIABLE: &str = "ORCHESTRATOR_VAULT_KEY";

/// Takes the place of the file with the password at Kafka.
#[cfg(feature = "kafka")]
const KAFKA_PASSWORD_VARIABLE: &str = "ORCHESTRATOR_KAFKA_PASSWORD";

/// The key that seals secrets: from the environment, or from its file, which is made when it is missing.
///
/// # Errors
/// [`ErrorCode::InvalidConfig`] when the key is not 64 hex digits, or its file is open to others.
pub fn vault_key(config: &Config, entropy: &dyn Entropy) -> Result<Zeroizing<[u8; 32]>> {
    if let Ok(text) = std::env::var(VAULT_KEY_VARIABLE) {
        return parse_key(&Zeroizing::new(text), VAULT_KEY_VARIABLE);
    }
    let path = vault_key_path(config);
    let text = read_or_make(&path, entropy)?;
    parse_key(&text, &path.display().to_string())
}

/// Where the vault's key comes from, for people.
#[must_use]
pub fn vault_key_place(config: &Config) -> String {
    match std::env::var_os(VAULT_KEY_VARIABLE) {
        Some(_) => format!("environment {VAULT_KEY_VARIABLE}"),
        None => format!("file {}", vault_key_path(config).display()),
    }
}

/// Whether there is a vault key; makes none.
///
/// # Errors
/// As [`vault_key`].
pub fn look_at_vault_key(config: &Config) -> Result<bool> {
    if std::env::var_os(VAULT_KEY_VARIABLE).is_none() && !vault_key_path(config).exists() {
        return Ok(false);
    }
    vault_key(config, &crate::client::clock::SystemEntropy).map(|_| true)
}

/// Where the vault's key lies.
#[must_use]
pub fn vault_key_path(config: &Config) -> PathBuf {
    if config.data.vault_key_file.as_os_str().is_empty() {
        config.data.dir.join("vault.key")
    } else {
        config.data.vault_key_file.clone()
    }
}

fn parse_key(text: &str, place: &str) -> Result<Zeroizing<[u8; 32]>> {
    let mut key = Zeroizing::new([0_u8; 32]);
    hex::decode_to_slice(text.trim(), key.as_mut_slice()).map_err(|_| {
        Error::new(ErrorCode::InvalidConfig, format!("{place}: a vault key is 64 hex digits (256 bits)"))
    })?;
    Ok(key)
}

/// The text of a secret file; a missing one is made with 256 random bits in hex.
///
/// # Errors
/// [`ErrorCode::InvalidConfig`] when others may read it; [`ErrorCode::DataDirUnwritable`] when it can't be made or read.
pub fn read_or_make(path: &Path, entropy: &dyn Entropy) -> Result<Zeroizing<String>> {
    match fs::read_to_string(path) {
        Ok(text) => private(path, text),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut bytes = Zeroizing::new([0_u8; 32]);
            entropy.fill(bytes.as_mut_slice());
            let text = Zeroizing::new(hex::encode(bytes.as_slice()));
            write(path, &text)?;
            Ok(text)
        }
        Err(error) => Err(unusable(path, error)),
    }
}

/// The text of a secret file, when nobody else may read it.
fn private(path: &Path, text: String) -> Result<Zeroizing<String>> {
    let text = Zeroizing::new(text);
    let mode = fs::metadata(path).map_err(|error| unusable(path, error))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display();
        let detail = format!("{path} has mode {mode:03o}: others may read it; run `chmod 600 {path}`");
        return Err(Error::new(ErrorCode::InvalidConfig, detail));
    }
    Ok(text)
}

/// The password of the user at Kafka: from the environment, or from its file.
///
/// # Errors
/// [`ErrorCode::InvalidConfig`] when there is none, or its file is open to others.
#[cfg(feature = "kafka")]
pub fn kafka_password(config: &Config) -> Result<Zeroizing<String>> {
    if let Ok(text) = std::env::var(KAFKA_PASSWORD_VARIABLE) {
        return Ok(Zeroizing::new(text));
    }
    let path = &config.kafka.password_file;
    if path.as_os_str().is_empty() {
        let detail = format!(
            "kafka.password_file: kafka.user has no password; name a file of mode 0600 that holds it, or set \
             {KAFKA_PASSWORD_VARIABLE}"
        );
        return Err(Error::new(ErrorCode::InvalidConfig, detail));
    }
    let text = fs::read_to_string(path).map_err(|error| {
        let detail = format!("kafka.password_file: {}: {error}", path.display());
        Error::new(ErrorCode::InvalidConfig, detail).because(error)
    })?;
    // An editor ends the line; no password ends so.
    Ok(Zeroizing::new(private(path, text)?.trim_end_matches(['\r', '\n']).to_owned()))
}

/// Writes a secret file, mode 0600, durably: a key that is lost after it sealed something loses what it sealed.
///
/// # Errors
/// [`ErrorCode::DataDirUnwritable`].
pub fn write(path: &Path, text: &str) -> Result<()> {
    let write = || {
        let temporary = path.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, error: std::io::Error) -> Error {
    Error::new(ErrorCode::DataDirUnwritable, format!("{}: {error}", path.display())).because(error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::client::clock::SeededEntropy;

    #[test]
    fn a_secret_is_made_once_private_and_refused_when_others_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vault.key");
        let first = read_or_make(&path, &SeededEntropy::new(1)).unwrap();
        let again = read_or_make(&path, &SeededEntropy::new(2)).unwrap();
        assert_eq!(first.trim(), again.trim());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = read_or_make(&path, &SeededEntropy::new(3)).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidConfig);
        assert!(error.detail.contains("chmod 600"));
    }

    #[test]
    fn a_vault_key_has_256_bits() {
        assert!(parse_key(&"ab".repeat(32), "x").is_ok());
        for bad in ["", "ab", &"ab".repeat(33), &"zz".repeat(32)] {
            assert_eq!(parse_key(bad, "x").unwrap_err().code, ErrorCode::InvalidConfig);
        }
    }
}
