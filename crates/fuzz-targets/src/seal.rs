//! Sealed secrets: what lies in the database and on disk, where others may write.

use std::sync::{Arc, LazyLock};

use orchestrator::{
    client::{clock::SeededEntropy, vault::AesVault},
    core::client::vault::Vault,
};
use zeroize::Zeroizing;

pub(crate) const RECORD: &str = "cred_1";
pub(crate) const SECRET: &[u8] = b"a secret of thirty-two bytes, so";

static VAULT: LazyLock<AesVault> =
    LazyLock::new(|| AesVault::new(&Zeroizing::new([7; 32]), Arc::new(SeededEntropy::new(11))));

/// The one sealed text that opens, of the record and the secret above.
pub(crate) static SEALED: LazyLock<String> = LazyLock::new(|| VAULT.seal(RECORD, SECRET).unwrap());

/// Nothing opens but what was sealed, and that for its record only.
///
/// The input is the record, a line feed, and the sealed text.
pub fn seal(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((record, sealed)) = text.split_once('\n') else { return };
    match VAULT.open(record, sealed) {
        Ok(secret) => {
            assert_eq!((record, sealed), (RECORD, SEALED.as_str()));
            assert_eq!(secret, SECRET);
        }
        Err(_) => assert_ne!((record, sealed), (RECORD, SEALED.as_str())),
    }
    let own = VAULT.seal(record, data).unwrap();
    assert_eq!(VAULT.open(record, &own).unwrap(), data);
}
