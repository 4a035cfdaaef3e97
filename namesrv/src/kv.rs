//! The KV table: namespace, key, value; kept in one JSON file.
//!
//! The file is RocketMQ's `kvConfig.json`: `{"configTable":{namespace:{key:value}}}`. A change is on disk
//! (temporary file, fsync, rename) before it is answered; when that fails the table keeps its old content,
//! so memory and file never disagree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

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

/// A change did not happen.
#[derive(Debug, thiserror::Error)]
pub enum KvChangeError {
    #[error("the KV table may hold {KV_BYTES_MAX} bytes; this entry would make it {needed_bytes}")]
    Full { needed_bytes: usize },
    #[error("cannot write kvConfigPath {path}: {error}")]
    NotWritten { path: String, error: io::Error },
}

/// All namespaces, and the file that mirrors them.
#[derive(Debug)]
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

    pub fn put(&mut self, namespace: &str, key: &str, value: &str) -> Result<(), KvChangeError> {
        let is_new_namespace = !self.namespaces.contains_key(namespace);
        let old = self.get(namespace, key).map(str::to_owned);
        let old_bytes = old.as_ref().map_or(0, |old| entry_bytes(namespace, key, old));
        let needed_bytes = self.content_bytes - old_bytes + entry_bytes(namespace, key, value);
        if needed_bytes > KV_BYTES_MAX {
            return Err(KvChangeError::Full { needed_bytes });
        }
        self.insert(namespace, key, value.to_owned());
        if let Err(error) = self.persist() {
            match old {
                Some(old) => self.insert(namespace, key, old),
                None => self.remove(namespace, key),
            }
            if is_new_namespace {
                self.namespaces.remove(namespace);
            }
            return Err(error);
        }
        Ok(())
    }

    /// Removing what is not there succeeds, as in RocketMQ. An emptied namespace stays.
    pub fn delete(&mut self, namespace: &str, key: &str) -> Result<(), KvChangeError> {
        let Some(old) = self.get(namespace, key).map(str::to_owned) else {
            return Ok(());
        };
        self.remove(namespace, key);
        if let Err(error) = self.persist() {
            self.insert(namespace, key, old);
            return Err(error);
        }
        Ok(())
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

    fn persist(&self) -> Result<(), KvChangeError> {
        let view = FileView { namespaces: &self.namespaces };
        serde_json::to_vec(&view)
            .map_err(io::Error::from)
            .and_then(|text| replace_file(&self.path, &text))
            .map_err(|error| KvChangeError::NotWritten { path: self.path.display().to_string(), error })
    }
}

fn entry_bytes(namespace: &str, key: &str, value: &str) -> usize {
    namespace.len() + key.len() + value.len()
}

/// Puts `content` in the place of the file at `path`: after a crash it is the old or the new one, whole.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    fs::create_dir_all(folder)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&temporary, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_a_restart() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("namesrv/kvConfig.json");
        let mut table = KvTable::load(&path).expect("empty table");
        table.put("ns", "k", "v1").expect("put");
        table.put("ns", "k", "v2").expect("overwrite");
        table.put("ns", "gone", "x").expect("put");
        table.delete("ns", "gone").expect("delete");
        table.delete("ns", "never").expect("delete of nothing");
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
    fn a_change_that_cannot_be_written_is_undone() {
        let folder = tempfile::tempdir().expect("folder");
        let blocked = folder.path().join("file");
        fs::write(&blocked, "").expect("write");
        let path = blocked.join("kvConfig.json"); // its folder is a file
        let mut table = KvTable { path, namespaces: Namespaces::new(), content_bytes: 0 };
        assert!(table.put("ns", "k", "v").is_err());
        assert_eq!(table.get("ns", "k"), None);
        assert_eq!(table.content_bytes, 0);
    }

    #[test]
    fn the_table_has_a_bound() {
        let folder = tempfile::tempdir().expect("folder");
        let mut table = KvTable::load(&folder.path().join("kv.json")).expect("empty");
        let value = "x".repeat(KV_BYTES_MAX);
        let refused = table.put("ns", "k", &value);
        assert!(matches!(refused, Err(KvChangeError::Full { .. })));
    }
}
