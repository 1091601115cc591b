//! The files that Envoy reads.

use std::fs;
use std::io;
use std::path::Path;

use super::merge::Files;

/// The files in place. None where there are none yet.
pub(crate) fn current(directory: &Path) -> Files {
    let entries = fs::read_dir(directory.join("current")).into_iter().flatten().flatten();
    let files = entries
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, fs::read_to_string(entry.path()).ok()?)));
    files.collect()
}

/// Renames what differs into place, each file whole. Returns the names of the files that were written.
///
/// # Errors
/// If a file cannot be written. Those before it are.
pub(crate) fn write(directory: &Path, files: &Files) -> io::Result<Vec<String>> {
    let (new, place) = (directory.join("new"), directory.join("current"));
    for needed in [&new, &place] {
        fs::create_dir_all(needed).map_err(|error| named(needed, &error))?;
    }
    let present = current(directory);
    let mut written = Vec::new();
    for (name, text) in files.iter().filter(|(name, text)| present.get(*name) != Some(*text)) {
        // The API server lets no slash into a key.
        let (from, to) = (new.join(name), place.join(name));
        fs::write(&from, text).map_err(|error| named(&from, &error))?;
        fs::rename(&from, &to).map_err(|error| named(&to, &error))?;
        written.push(name.clone());
    }
    Ok(written)
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_what_differs_is_renamed_into_place() {
        let directory = tempfile::tempdir().unwrap();
        let files = |b: &str| Files::from([("a".into(), "1".into()), ("b".into(), b.into())]);
        assert_eq!(write(directory.path(), &files("2")).unwrap(), ["a", "b"]);
        assert_eq!(write(directory.path(), &files("3")).unwrap(), ["b"]);
        assert_eq!(write(directory.path(), &files("3")).unwrap(), Vec::<String>::new());
        assert_eq!(current(directory.path()), files("3"));
        assert_eq!(fs::read_dir(directory.path().join("new")).unwrap().count(), 0, "renamed, not copied");
        fs::write(directory.path().join("file"), "").unwrap();
        let error = write(&directory.path().join("file"), &files("3")).unwrap_err().to_string();
        assert!(error.contains("file/new: "), "{error}");
    }
}
