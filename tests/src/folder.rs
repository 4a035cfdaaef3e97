use std::path::{Path, PathBuf};

use crate::process::Process;

/// A temporary folder, removed when this is dropped or when the test process ends in any other way.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _leash: Process,
}

impl Folder {
    /// Creates an empty folder in the system's place for temporary files.
    pub fn new() -> Self {
        let path = tempfile::Builder::new().prefix("rmq-tests-").tempdir().expect("a temporary folder").keep();
        let leash = Process::remover(&path);
        Self { path, _leash: leash }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}
