//! A store opened by an offline tool: read as it lies there, its epoch not counted up.

use std::fs::{self, File};
use std::io;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, FlockOperation, fadvise, flock};
use rustix::io::Errno;

use crate::config::Geometry;
use crate::shard::{LogSource, SegmentSource};
use crate::store_dir::files::{ShardFiles, lock_segment, read_full};
use crate::store_dir::{Manifest, StoreError, boot_id, is_rocketmq_store, read_holder, take_lock};

/// A store that no broker runs on as long as this value lives.
#[derive(Debug)]
pub struct StoreView {
    path: PathBuf,
    manifest: Manifest,
    /// Keeps the lock. A copy of a store may have no lock file; nobody can be running on it then.
    _lock: Option<File>,
}

impl StoreView {
    /// Opens it beside other readers. Nothing is written, so a read-only file system will do.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, share_lock)
    }

    /// Opens it alone, to change it. Its epoch is not counted up either.
    pub fn open_alone(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, |path| take_lock(path).map(Some))
    }

    fn open_with(
        path: &Path,
        lock: impl FnOnce(&Path) -> Result<Option<File>, StoreError>,
    ) -> Result<Self, StoreError> {
        let manifest_path = path.join("manifest");
        if !manifest_path.exists() {
            let path = path.to_path_buf();
            let is_foreign = is_rocketmq_store(&path);
            return Err(if is_foreign { StoreError::ForeignStore { path } } else { StoreError::NoStore { path } });
        }
        let lock = lock(path)?;
        let bytes = fs::read(&manifest_path).map_err(|error| StoreError::io(&manifest_path, "cannot read", error))?;
        let manifest =
            Manifest::decode(&bytes).map_err(|reason| StoreError::Manifest { path: manifest_path, reason })?;
        Ok(Self { path: path.to_path_buf(), manifest, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn geometry(&self) -> Geometry {
        self.manifest.geometry
    }

    /// What the next start of a broker will take for the first epoch since this machine was started.
    pub fn powered_since(&self) -> u64 {
        self.manifest.powered_since(boot_id())
    }

    /// The folder of one shard.
    pub fn shard_path(&self, shard: u16) -> PathBuf {
        self.path.join(format!("shard-{shard:02}"))
    }

    /// The files of one shard, to be read.
    pub fn shard(&self, shard: u16) -> ShardView {
        ShardView::new(ShardFiles::new(self.shard_path(shard), self.manifest.geometry), Beside::Nobody)
    }
}

fn share_lock(dir: &Path) -> Result<Option<File>, StoreError> {
    let path = dir.join("lock");
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io(&path, "cannot read", error)),
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Err(StoreError::Locked { path: dir.to_path_buf(), pid: read_holder(&mut file) }),
        Err(errno) => Err(StoreError::io(&path, "cannot lock", errno.into())),
    }
}

/// Who else uses the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    Nobody,
    /// The broker of this process, which has locked them and reads and writes past the page cache.
    Broker,
}

/// The files of one shard, opened for reading only. One segment is open at a time, however many there are.
#[derive(Debug)]
pub struct ShardView {
    files: ShardFiles,
    beside: Beside,
    open: Option<(u64, File)>,
}

impl ShardView {
    pub(super) fn new(files: ShardFiles, beside: Beside) -> Self {
        Self { files, beside, open: None }
    }

    /// Folder of the log.
    pub fn log_path(&self) -> PathBuf {
        self.files.log_path()
    }

    pub fn index_path(&self) -> PathBuf {
        self.files.index_path()
    }

    pub fn segment_path(&self, segment_start: u64) -> PathBuf {
        self.files.segment_path(segment_start)
    }

    pub fn snapshot_path(&self, start: u64) -> PathBuf {
        self.files.snapshot_path(start)
    }

    /// The finished snapshots, each by the position of the log where it was begun, in any order.
    pub fn snapshots(&mut self) -> io::Result<Vec<u64>> {
        self.files.snapshots()
    }

    /// Reads bytes of a finished snapshot from `at` on; fewer than asked only at its end.
    pub fn read_snapshot(&mut self, start: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.files.read_snapshot(start, at, into)
    }
}

impl SegmentSource for ShardView {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        self.files.segments()
    }

    fn read(&mut self, segment_start: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let file = match &mut self.open {
            Some((open, file)) if *open == segment_start => file,
            other => {
                let file = File::open(self.files.segment_path(segment_start))?;
                if self.beside == Beside::Nobody {
                    // Writes of a killed broker may still be on their way into the file: they hold its lock.
                    lock_segment(&file, FlockOperation::NonBlockingLockShared)?;
                }
                // Advice only: without it reading is slower, not wrong.
                let _ = fadvise(&file, 0, None, Advice::Sequential);
                &mut other.insert((segment_start, file)).1
            }
        };
        let got = read_full(file, at, into)?;
        if self.beside == Beside::Broker {
            // Nobody reads it from there again. Advice only, as above.
            let _ = fadvise(&*file, at, NonZero::new(got as u64), Advice::DontNeed);
        }
        Ok(got)
    }
}
