//! Requests that change a file: 100, 102 and 318. A disk may take its time, and the turn that carries the request must
//! not wait for it: the file is written elsewhere, and the answer follows.
//!
//! ```text
//! handle -> queue -> take_write -> [FileWrite::run, elsewhere] -> on_written -> change in force, take_replies
//! ```
//!
//! One file is written at a time and changes keep their order, so each begins with what the one before left.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rmq_net::connection::ConnectionId;
use rmq_net::frame::Serialization;
use rmq_net::properties::Property;

use crate::config::NamesrvConfig;
use crate::kv::KvTable;

/// A file to be replaced. The setting is the one that names it.
#[derive(Debug, PartialEq, Eq)]
pub struct FileWrite {
    pub(crate) setting: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) content: Vec<u8>,
}

impl FileWrite {
    /// Puts the content in the place of the file: after a crash it is the old or the new one, whole. Blocking.
    pub fn run(&self) -> io::Result<()> {
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        fs::create_dir_all(folder)?;
        let mut temporary = self.path.as_os_str().to_owned();
        temporary.push(".tmp");
        let mut file = File::create(&temporary)?;
        file.write_all(&self.content)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&temporary, &self.path)?;
        File::open(folder)?.sync_all()
    }
}

/// What a request wants changed.
#[derive(Debug)]
pub enum Change {
    Put { namespace: String, key: String, value: String },
    Delete { namespace: String, key: String },
    Configure(Vec<Property>),
}

impl Change {
    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Put { namespace, key, value } => namespace.len() + key.len() + value.len(),
                Self::Delete { namespace, key } => namespace.len() + key.len(),
                Self::Configure(changes) => {
                    let one = |change: &Property| size_of::<Property>() + change.key.len() + change.value.len();
                    changes.iter().map(one).sum()
                }
            }
    }
}

/// What is in force once its file is written.
#[derive(Debug)]
pub enum Staged {
    Kv(KvTable),
    Config(Box<NamesrvConfig>),
}

/// Who waits for the answer.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    pub peer: ConnectionId,
    pub serialization: Serialization,
    pub opaque: i32,
    pub is_oneway: bool,
}

/// An answer that could not be given at once.
#[derive(Debug, PartialEq, Eq)]
pub struct LateReply {
    pub peer: ConnectionId,
    pub frame: Vec<u8>,
}

/// The changes that wait, and the one whose file is being written.
#[derive(Debug, Default)]
pub struct Changes {
    pub waiting: VecDeque<(Asker, Change)>,
    /// Of `waiting`; kept at or below [`CHANGES_BYTES_MAX`](crate::limits::CHANGES_BYTES_MAX).
    pub waiting_bytes: usize,
    /// With what to say if it fails.
    pub in_flight: Option<(Asker, Staged, String)>,
    pub replies: Vec<LateReply>,
}
