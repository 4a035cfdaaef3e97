//! The store's directory: who holds it, what it is, and where a shard's files are.
//!
//! ```text
//!   DIR/lock                     held by the running broker (flock); names its process
//!   DIR/manifest                 format version, shard count, sizes, epoch
//!   DIR/shard-00/log/<20 digits> log segments, named by the position of their first byte
//!   DIR/shard-00/snapshot-<20 digits>  what the log up to about that position adds up to; the last two are kept
//!   DIR/shard-00/index           consume-queue pages, believed only as far as a snapshot or the log vouches for them
//! ```
//!
//! Everything here may block: it is used at start (and by the background job that prepares segments), never by a turn.

mod files;
mod manifest;
mod view;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::buffer::{BLOCK_BYTES, UniqueBuffer};
use crate::config::Geometry;
use crate::position::SHARD_COUNT_MAX;

pub use files::ShardFiles;
pub use manifest::{Manifest, ManifestError, STORE_FORMAT_VERSION};
use view::Beside;
pub use view::{ShardView, StoreView};

/// Whether log files can be opened past the page cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectIo {
    Direct,
    /// The file system refuses O_DIRECT: writes go through the page cache, and a driver that is to keep the promise
    /// "the device has it" syncs every write, whatever the shard's durability.
    Buffered,
}

/// What a store is created with. An existing store keeps what its manifest says.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// 1 to [`SHARD_COUNT_MAX`].
    pub shard_count: u16,
    pub geometry: Geometry,
}

/// Why a store cannot be opened, each with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "store {path} is in use by another process{}; stop it, or give this one a store directory of its own",
        holder(*pid)
    )]
    Locked { path: PathBuf, pid: Option<u32> },
    #[error("store {path} cannot be written ({reason}); mount it read-write, or give its owner write permission")]
    NotWritable { path: PathBuf, reason: io::Error },
    #[error("store {path}: the disk is full; free some space on it or use another disk")]
    Full { path: PathBuf },
    #[error("store manifest {path}: {reason}")]
    Manifest { path: PathBuf, reason: ManifestError },
    #[error(
        "store {path} has log files but no manifest; restore the manifest from a backup, or use an empty directory"
    )]
    ManifestMissing { path: PathBuf },
    #[error(
        "store {path} is one of Apache RocketMQ, which RingMQ cannot read; give RingMQ a folder of its own \
         (storePathRootDir, --store)"
    )]
    ForeignStore { path: PathBuf },
    #[error("there is no store of RingMQ in {path}")]
    NoStore { path: PathBuf },
    #[error("a store has 1 to {SHARD_COUNT_MAX} shards and whole chunks per segment, not {options:?}")]
    BadOptions { options: StoreOptions },
    #[error("{doing} {path}: {reason}")]
    Io { path: PathBuf, doing: &'static str, reason: io::Error },
}

fn holder(pid: Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl StoreError {
    /// Sorts an I/O error into the causes an operator can do something about.
    fn io(path: &Path, doing: &'static str, reason: io::Error) -> Self {
        let path = path.to_path_buf();
        match reason.kind() {
            io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => Self::NotWritable { path, reason },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            _ => Self::Io { path, doing, reason },
        }
    }
}

/// An open store: locked for this process as long as this value lives, its epoch counted up.
#[derive(Debug)]
pub struct StoreDir {
    path: PathBuf,
    manifest: Manifest,
    direct_io: DirectIo,
    /// Keeps the lock.
    _lock: File,
}

impl StoreDir {
    /// Opens the store in a directory, or creates it there if the directory is missing or holds no other store.
    pub fn open(path: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        if options.shard_count == 0 || SHARD_COUNT_MAX < options.shard_count || !options.geometry.is_valid() {
            return Err(StoreError::BadOptions { options });
        }
        let manifest_path = path.join("manifest");
        // Before the lock: RocketMQ has a file of that name as well, and nothing of its store may change.
        if is_rocketmq_store(path) && !manifest_path.exists() {
            return Err(StoreError::ForeignStore { path: path.to_path_buf() });
        }
        make_dir(path)?;
        let lock = take_lock(path)?;
        let mut manifest = match fs::read(&manifest_path) {
            Ok(bytes) => Manifest::decode(&bytes)
                .map_err(|reason| StoreError::Manifest { path: manifest_path.clone(), reason })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if has_segments(path) {
                    return Err(StoreError::ManifestMissing { path: path.to_path_buf() });
                }
                Manifest {
                    shard_count: options.shard_count,
                    geometry: options.geometry,
                    epoch: 0,
                    boot: 0,
                    boot_epoch: 0,
                }
            }
            Err(error) => return Err(StoreError::io(&manifest_path, "cannot read", error)),
        };
        let direct_io = probe_direct_io(path)?;
        manifest.count_opening(boot_id());
        replace_file(path, "manifest", &manifest.encode())?;
        // After the manifest: folders without one would be a store whose manifest was lost.
        for shard in 0..manifest.shard_count {
            let shard = path.join(format!("shard-{shard:02}"));
            make_dir(&shard.join("log"))?;
            // Also of folders that were there: whoever made them may have been killed before this line.
            sync_dir(&shard)?;
        }
        sync_dir(path)?;
        Ok(Self { path: path.to_path_buf(), manifest, direct_io, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn shard_count(&self) -> u16 {
        self.manifest.shard_count
    }

    pub fn geometry(&self) -> Geometry {
        self.manifest.geometry
    }

    /// Number of this opening; larger than that of every earlier one.
    pub fn epoch(&self) -> u64 {
        self.manifest.epoch
    }

    /// First epoch since this machine was started.
    pub fn powered_since(&self) -> u64 {
        self.manifest.boot_epoch
    }

    pub fn direct_io(&self) -> DirectIo {
        self.direct_io
    }

    /// The files of one shard.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn shard_files(&self, shard: u16) -> ShardFiles {
        assert!(shard < self.manifest.shard_count, "the store has this shard");
        ShardFiles::new(self.path.join(format!("shard-{shard:02}")), self.manifest.geometry)
    }

    /// The files of one shard once more, to be read while the broker works with them.
    ///
    /// # Panics
    /// If there is no such shard.
    pub fn shard_view(&self, shard: u16) -> ShardView {
        ShardView::new(self.shard_files(shard), Beside::Broker)
    }
}

/// Names this start of the machine; 0 where the kernel does not say.
fn boot_id() -> u128 {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    u128::from_str_radix(&id.trim().replace('-', ""), 16).unwrap_or(0)
}

/// Whether Apache RocketMQ keeps its messages or settings here. Its default folder, `$HOME/store`, is ours as well.
fn is_rocketmq_store(path: &Path) -> bool {
    ["commitlog", "consumequeue", "config/topics.json"].iter().any(|name| path.join(name).exists())
}

/// Whether there is a log, and so a manifest must be. A first start may have been killed before either.
fn has_segments(path: &Path) -> bool {
    let holds_a_log = |shard: io::Result<fs::DirEntry>| {
        shard.is_ok_and(|shard| fs::read_dir(shard.path().join("log")).is_ok_and(|mut files| files.next().is_some()))
    };
    fs::read_dir(path).is_ok_and(|mut entries| entries.any(holds_a_log))
}

/// Makes a folder and those missing above it, durably: syncing a file need not cover the names of the folders it is in,
/// and a log that is whole in a folder nobody finds is lost.
fn make_dir(path: &Path) -> Result<(), StoreError> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
        .map_err(|error| StoreError::io(path, "cannot create directory", error))?;
    for made in missing {
        match made.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent)?,
            _ => sync_dir(Path::new("."))?,
        }
    }
    Ok(())
}

/// Makes the names in a folder durable.
fn sync_dir(path: &Path) -> Result<(), StoreError> {
    let sync = || File::open(path)?.sync_all();
    sync().map_err(|error| StoreError::io(path, "cannot sync directory", error))
}

fn take_lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join("lock");
    let failed = |error| StoreError::io(&path, "cannot lock", error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(&path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            return Err(StoreError::Locked { path: dir.to_path_buf(), pid: read_holder(&mut file) });
        }
        Err(errno) => return Err(failed(errno.into())),
    }
    file.set_len(0).map_err(failed)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
    Ok(file)
}

/// The process that took the lock, for messages. An offline tool that reads does not write its name there, so what is
/// found may be dead; then nobody is named.
fn read_holder(lock: &mut File) -> Option<u32> {
    let mut holder = String::new();
    lock.read_to_string(&mut holder).ok()?;
    let pid = holder.trim().parse().ok()?;
    Path::new("/proc").join(format!("{pid}")).exists().then_some(pid)
}

/// Writes one block past the page cache to see whether the file system lets us.
fn probe_direct_io(dir: &Path) -> Result<DirectIo, StoreError> {
    let path = dir.join("probe");
    let failed = |error| StoreError::io(&path, "cannot write", error);
    let is_refused =
        |error: &io::Error| matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o640);
    let direct = options.clone().custom_flags(OFlags::DIRECT.bits() as i32).open(&path);
    let mut block = UniqueBuffer::new(BLOCK_BYTES);
    let written = match direct {
        Ok(file) => file.write_all_at(block.as_mut_slice(), 0),
        Err(error) => Err(error),
    };
    let found = match written {
        Ok(()) => DirectIo::Direct,
        Err(error) if is_refused(&error) => {
            let file = options.open(&path).map_err(failed)?;
            file.write_all_at(block.as_mut_slice(), 0).map_err(failed)?;
            DirectIo::Buffered
        }
        Err(error) => return Err(failed(error)),
    };
    fs::remove_file(&path).map_err(failed)?;
    Ok(found)
}

/// Replaces a small file so that a crash leaves the old or the new one, never a part.
fn replace_file(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let path = dir.join(name);
    let temporary = dir.join(format!("{name}.new"));
    let replace = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, &path)?;
        File::open(dir)?.sync_all()
    };
    replace().map_err(|error| StoreError::io(&path, "cannot replace", error))
}
