//! Where objects lie in a directory, and how to walk them in the order of their keys.
//!
//! A key's last segment is a file; every segment before it is a directory whose name ends in `+`, which no key can have:
//! so `a` and `a/b` live side by side. A segment that is longer than a file name may be is cut into pieces; every piece but
//! the last is a directory whose name ends in `~`, and every piece but the first starts with `~`: a segment may well end in
//! dots, and a piece of it must never be `..`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Longest piece of a segment.
const PIECE: usize = 200;

/// The file of a key, below the bucket's directory.
pub(super) fn path_of(bucket: &Path, key: &str) -> PathBuf {
    let mut path = bucket.to_owned();
    let mut segments = key.split('/').peekable();
    while let Some(mut segment) = segments.next() {
        let mut start = "";
        while let Some((piece, rest)) = segment.split_at_checked(PIECE).filter(|(_, rest)| !rest.is_empty()) {
            path.push(format!("{start}{piece}~"));
            segment = rest;
            start = "~";
        }
        let end = if segments.peek().is_some() { "+" } else { "" };
        path.push(format!("{start}{segment}{end}"));
    }
    path
}

/// A file, or a directory of further segments, as one level of the walk sees it.
struct Entry {
    /// What its keys start with; a directory's ends in a slash, so that the names sort as the keys below them do.
    key: String,
    path: PathBuf,
    directory: bool,
}

/// Collects up to `limit` keys, with their files, that start with `prefix` and come after `after`, in order.
pub(super) fn walk(
    bucket: &Path,
    prefix: &str,
    after: Option<&str>,
    limit: usize,
) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let search = Search { prefix, after: after.unwrap_or(""), limit };
    search.visit(bucket, "", &mut found)?;
    Ok(found)
}

struct Search<'a> {
    prefix: &'a str,
    after: &'a str,
    limit: usize,
}

impl Search<'_> {
    fn visit(&self, directory: &Path, start: &str, found: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
        let mut entries = Vec::new();
        read_level(directory, start, &mut entries)?;
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        for entry in entries {
            if found.len() >= self.limit {
                return Ok(());
            }
            if entry.directory {
                if self.may_hold(&entry.key) {
                    self.visit(&entry.path, &entry.key, found)?;
                }
            } else if entry.key.starts_with(self.prefix) && entry.key.as_str() > self.after {
                found.push((entry.key, entry.path));
            }
        }
        Ok(())
    }

    /// Whether a directory, whose keys all start with `start`, can hold a key that is searched.
    fn may_hold(&self, start: &str) -> bool {
        let prefix = start.starts_with(self.prefix) || self.prefix.starts_with(start);
        prefix && (start > self.after || self.after.starts_with(start))
    }
}

/// Reads one level; pieces of long segments are joined here, so that the order is that of the whole segments. A directory
/// that is gone meanwhile is empty.
fn read_level(directory: &Path, start: &str, entries: &mut Vec<Entry>) -> io::Result<()> {
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in listing {
        let entry = entry?;
        let name = entry.file_name();
        // A name that is no text was not made by us.
        let Some(name) = name.to_str() else { continue };
        let name = name.strip_prefix('~').unwrap_or(name);
        if let Some(piece) = name.strip_suffix('~') {
            read_level(&entry.path(), &format!("{start}{piece}"), entries)?;
        } else if let Some(segment) = name.strip_suffix('+') {
            entries.push(Entry { key: format!("{start}{segment}/"), path: entry.path(), directory: true });
        } else {
            entries.push(Entry { key: format!("{start}{name}"), path: entry.path(), directory: false });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = BTreeSet<String>> {
        let segment = prop_oneof!["[ab.-]{1,3}", "a{199,202}[b.-]{0,1}"];
        let segment = segment.prop_filter("dot segments", |s| s != "." && s != "..");
        let key = proptest::collection::vec(segment, 1..3).prop_map(|parts| parts.join("/"));
        proptest::collection::btree_set(key, 0..12)
    }

    #[test]
    fn a_long_segment_that_ends_in_dots_stays_in_its_bucket() {
        for dots in [".", "..", "../x", "...", "/..x"] {
            let path = path_of(Path::new("/b"), &format!("{}{dots}", "a".repeat(PIECE)));
            let normal = |part| matches!(part, std::path::Component::Normal(_));
            assert!(path.components().skip(1).all(normal), "{}", path.display());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_walk_is_the_sorted_set_of_keys(keys in keys(), prefix in "[ab.-]{0,2}/?", limit in 1_usize..8) {
            let root = tempfile::tempdir().unwrap();
            for key in &keys {
                let path = path_of(root.path(), key);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, key).unwrap();
            }
            let mut after: Option<String> = None;
            let mut seen = Vec::new();
            loop {
                let page = walk(root.path(), &prefix, after.as_deref(), limit).unwrap();
                prop_assert!(page.len() <= limit);
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                for (key, path) in page {
                    prop_assert_eq!(&fs::read_to_string(path).unwrap(), &key);
                    seen.push(key);
                }
            }
            let expected: Vec<_> = keys.iter().filter(|k| k.starts_with(&prefix)).cloned().collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
