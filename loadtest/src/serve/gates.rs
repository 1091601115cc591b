//! Gates: whether a release may go on, and whether it is to be taken back.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

/// Gates that are open; every other one is closed.
///
/// With a file they survive a restart, which Flagger's do not: a release that was approved stays so.
pub(super) struct Gates {
    open: Mutex<BTreeSet<String>>,
    file: Option<PathBuf>,
}

/// The file of the gates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GatesError {
    /// It cannot be read.
    #[error("failed to read the gates from {0} (--gates-file)")]
    Read(PathBuf, #[source] io::Error),
    /// It holds something else.
    #[error("failed to read the gates from {0} (--gates-file): expected a JSON list of names")]
    Decode(PathBuf, #[source] serde_json::Error),
    /// It cannot be written; the gate is as it was.
    #[error("failed to write the gates to {0} (--gates-file)")]
    Write(PathBuf, #[source] io::Error),
}

/// Names of gates kept at most: canaries of the largest clusters, with room to spare. Callers choose the names.
const MOST_OPEN: usize = 100_000;

/// What setting a gate led to.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetError {
    #[error(transparent)]
    File(#[from] GatesError),
    #[error("{MOST_OPEN} gates are open, close some")]
    TooMany,
}

impl Gates {
    /// All gates closed but those of the file, which need not be there yet.
    pub(super) fn new(file: Option<PathBuf>) -> Result<Gates, GatesError> {
        let open = match &file {
            None => BTreeSet::new(),
            Some(path) => match std::fs::read(path) {
                Ok(text) => serde_json::from_slice(&text).map_err(|error| GatesError::Decode(path.clone(), error))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
                Err(error) => return Err(GatesError::Read(path.clone(), error)),
            },
        };
        Ok(Gates { open: Mutex::new(open), file })
    }

    pub(super) fn is_open(&self, gate: &str) -> bool {
        self.open.lock().contains(gate)
    }

    pub(super) fn set(&self, gate: String, open: bool) -> Result<(), SetError> {
        let mut gates = self.open.lock();
        let mut changed = gates.clone();
        if open {
            changed.insert(gate);
        } else {
            changed.remove(&gate);
        }
        if changed.len() > MOST_OPEN {
            return Err(SetError::TooMany);
        }
        if let Some(path) = self.file.as_deref().filter(|_| changed != *gates) {
            write(path, &changed).map_err(|error| GatesError::Write(path.to_owned(), error))?;
        }
        *gates = changed;
        Ok(())
    }
}

/// Whole or not at all, whenever the process ends.
fn write(path: &Path, open: &BTreeSet<String>) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, serde_json::to_vec(open)?)?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn gates_are_closed_until_they_are_opened_and_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = Some(folder.path().join("gates.json"));
        let gates = Gates::new(file.clone()).unwrap();
        assert!(!gates.is_open("podinfo.test"));
        gates.set("podinfo.test".to_owned(), true).unwrap();
        gates.set("rollback.podinfo.test".to_owned(), true).unwrap();
        gates.set("rollback.podinfo.test".to_owned(), false).unwrap();
        let gates = Gates::new(file).unwrap();
        assert!(gates.is_open("podinfo.test") && !gates.is_open("rollback.podinfo.test"));
    }

    #[test]
    fn a_gate_that_cannot_be_kept_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let gates = Gates::new(Some(folder.path().join("missing/gates.json"))).unwrap();
        assert!(gates.set("podinfo.test".to_owned(), true).unwrap_err().to_string().contains("--gates-file"));
        assert!(!gates.is_open("podinfo.test"));
    }

    #[test]
    fn another_file_is_not_overwritten() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "something else").unwrap();
        assert!(matches!(Gates::new(Some(file.path().to_owned())), Err(GatesError::Decode(..))));
    }
}
