//! A file that something waits for.

use std::path::PathBuf;

pub struct Gate(tempfile::TempDir);

impl Gate {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("go")
    }

    pub fn step(&self) -> String {
        format!("await={}", self.path().display())
    }

    pub fn open(&self) {
        std::fs::write(self.path(), "").unwrap();
    }

    pub fn close(&self) {
        std::fs::remove_file(self.path()).unwrap();
    }

    /// In one piece: whoever reads sees all of it or nothing.
    pub fn write(&self, text: &str) {
        let new = self.0.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }
}
