//! The KV table: namespace, key, value; kept in one JSON file.
//!
//! The file is RocketMQ's `kvConfig.json`: `{"configTable":{namespace:{key:value}}}`. A change makes a new table, which
//! takes the old one's place once the file has it ([`crate::changes`]), so memory and file never disagree.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::changes::FileWrite;
use crate::limits::{KV_BYTES_MAX, KV_FILE_BYTES_MAX};

/// Namespace of the queue layouts of ordered topics: key topic, value `broker:count;broker:count`.
pub const ORDER_TOPIC_CONFIG: &str = "ORDER_TOPIC_CONFIG";

type Namespaces = BTreeMap<String, BTreeMap<String, String>>;

/// The file's content; the write side borrows, the read side owns.
#[derive(Serialize)]
struct FileView<'a> {
    #[serde(rename = "configTable")]
    namespaces: &'a Namespaces,
}
#[derive(Deserialize)]
struct FileContent {
    #[serde(rename = "configTable", default)]
    namespaces: Option<Namespaces>,
}

/// The KV file is there but cannot be used. It is never overwritten in that case.
#[derive(Debug, thiserror::Error)]
pub enum KvLoadError {
    #[error("kvConfigPath {path}: {error}")]
    Unreadable { path: String, error: io::Error },
    #[error("kvConfigPath {path} is not a KV table in JSON: {error}")]
    Malformed { path: String, error: serde_json::Error },
    #[error("kvConfigPath {path} has {size_bytes} bytes, more than {KV_FILE_BYTES_MAX}")]
    TooLarge { path: String, size_bytes: u64 },
}

/// The table would be too large.
#[derive(Debug, thiserror::Error)]
#[error("the KV table may hold {KV_BYTES_MAX} bytes; this entry would make it {needed_bytes}")]
pub struct KvFull {
    needed_bytes: usize,
}

/// All namespaces, and the file that mirrors them.
#[derive(Clone, Debug)]
pub struct KvTable {
    path: PathBuf,
    namespaces: Namespaces,
    /// Names, keys and values together; kept at or below [`KV_BYTES_MAX`].
    content_bytes: usize,
}

impl KvTable {
    /// Reads the file; a file that does not exist is an empty table.
    pub fn load(path: &Path) -> Result<Self, KvLoadError> {
        let shown = || path.display().to_string();
        let unreadable = |error| KvLoadError::Unreadable { path: shown(), error };
        let namespaces = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Namespaces::new(),
            Err(error) => return Err(unreadable(error)),
            Ok(metadata) if metadata.len() > KV_FILE_BYTES_MAX => {
                return Err(KvLoadError::TooLarge { path: shown(), size_bytes: metadata.len() });
            }
            Ok(metadata) if metadata.len() == 0 => Namespaces::new(),
            Ok(_) => {
                let text = fs::read(path).map_err(unreadable)?;
                let content: FileContent =
                    serde_json::from_slice(&text).map_err(|error| KvLoadError::Malformed { path: shown(), error })?;
                content.namespaces.unwrap_or_default()
            }
        };
        let content_bytes = namespaces
            .iter()
            .flat_map(|(namespace, entries)| {
                entries.iter().map(move |(key, value)| namespace.len() + key.len() + value.len())
            })
            .sum();
        Ok(Self { path: path.to_owned(), namespaces, content_bytes })
    }

    pub fn get(&self, namespace: &str, key: &str) -> Option<&str> {
        Some(self.namespaces.get(namespace)?.get(key)?.as_str())
    }

    /// All entries of a namespace; `None` when there is none of that name.
    pub fn namespace(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(namespace)
    }

    /// The table with this entry.
    pub fn with(&self, namespace: &str, key: &str, value: &str) -> Result<Self, KvFull> {
        let old_bytes = self.get(namespace, key).map_or(0, |old| entry_bytes(namespace, key, old));
        let needed_bytes = self.content_bytes - old_bytes + entry_bytes(namespace, key, value);
        if needed_bytes > KV_BYTES_MAX {
            return Err(KvFull { needed_bytes });
        }
        let mut changed = self.clone();
        changed.insert(namespace, key, value.to_owned());
        Ok(changed)
    }

    /// The table without this entry; `None` if there is none. An emptied namespace stays.
    pub fn without(&self, namespace: &str, key: &str) -> Option<Self> {
        self.get(namespace, key)?;
        let mut changed = self.clone();
        changed.remove(namespace, key);
        Some(changed)
    }

    /// What puts this table into its file.
    pub fn to_file(&self) -> FileWrite {
        let content = serde_json::to_vec(&FileView { namespaces: &self.namespaces });
        let content = content.expect("maps of strings become JSON");
        FileWrite { setting: "kvConfigPath", path: self.path.clone(), content }
    }

    fn insert(&mut self, namespace: &str, key: &str, value: String) {
        self.remove(namespace, key);
        self.content_bytes += entry_bytes(namespace, key, &value);
        let entries = self.namespaces.entry(namespace.to_owned()).or_default();
        entries.insert(key.to_owned(), value);
    }

    fn remove(&mut self, namespace: &str, key: &str) {
        let entries = self.namespaces.get_mut(namespace);
        if let Some(value) = entries.and_then(|entries| entries.remove(key)) {
            self.content_bytes -= entry_bytes(namespace, key, &value);
        }
    }
}

fn entry_bytes(namespace: &str, key: &str, value: &str) -> usize {
    namespace.len() + key.len() + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_a_restart() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("namesrv/kvConfig.json");
        let table = KvTable::load(&path).expect("empty table");
        let table = table.with("ns", "k", "v1").and_then(|table| table.with("ns", "k", "v2")).expect("it fits");
        let table = table.with("ns", "gone", "x").expect("it fits").without("ns", "gone").expect("it was there");
        assert!(table.without("ns", "never").is_none());
        table.to_file().run().expect("written");
        let text = fs::read_to_string(&path).expect("file");
        assert_eq!(text, r#"{"configTable":{"ns":{"k":"v2"}}}"#);
        let reloaded = KvTable::load(&path).expect("reload");
        assert_eq!(reloaded.get("ns", "k"), Some("v2"));
        assert_eq!(reloaded.content_bytes, table.content_bytes);
    }

    #[test]
    fn a_file_that_is_no_table_is_refused_and_kept() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("kvConfig.json");
        fs::write(&path, "{broken").expect("write");
        let error = KvTable::load(&path).expect_err("refused").to_string();
        assert!(error.contains("kvConfig.json"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("file"), "{broken");
    }

    #[test]
    fn the_table_has_a_bound() {
        let folder = tempfile::tempdir().expect("folder");
        let table = KvTable::load(&folder.path().join("kv.json")).expect("empty");
        let value = "x".repeat(KV_BYTES_MAX);
        assert!(table.with("ns", "k", &value).is_err());
    }
}
