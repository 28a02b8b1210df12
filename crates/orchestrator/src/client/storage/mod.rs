//! Object storage.

mod filesystem;
mod layout;
mod memory;
#[cfg(feature = "s3")]
mod s3;

pub use filesystem::FilesystemStorage;
pub use memory::MemoryStorage;
#[cfg(feature = "s3")]
pub use s3::{MARKER, S3Storage};

use crate::core::client::storage::StorageError;

/// Checks an object's key: 1 to 512 of the allowed characters, without empty or dot segments.
fn check_key(key: &str) -> Result<(), StorageError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/');
    let segment = |text: &str| !matches!(text, "" | "." | "..");
    if (1..=512).contains(&key.len()) && key.bytes().all(allowed) && key.split('/').all(segment) {
        Ok(())
    } else {
        Err(StorageError::InvalidName(key.to_owned()))
    }
}

/// Checks a bucket's name: a key of one segment that fits into a file name.
fn check_bucket(bucket: &str) -> Result<(), StorageError> {
    check_key(bucket)?;
    if bucket.contains('/') || bucket.len() > 200 {
        return Err(StorageError::InvalidName(bucket.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_not_leave_their_bucket() {
        let long = "a".repeat(512);
        for good in ["a", "a/b", "A-1_.b", "a/..b/c", "...", &long] {
            assert!(check_key(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(513);
        for bad in [
            "", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", "a\\b", "a\0", "ä", "a b",
            &too_long,
        ] {
            assert!(matches!(check_key(bad), Err(StorageError::InvalidName(_))), "{bad}");
        }
        assert!(check_bucket("a/b").is_err());
        assert!(check_bucket(&"a".repeat(201)).is_err());
        assert!(check_bucket("blocks").is_ok());
    }
}
