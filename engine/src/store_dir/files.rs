//! The files of one shard, for recovery and for whoever prepares segments. Blocking.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, FallocateFlags, FlockOperation, OFlags, fadvise, fallocate, flock};
use rustix::io::Errno;

use crate::buffer::BLOCK_BYTES;
use crate::config::Geometry;
use crate::shard::{LogSource, SegmentSource};
use crate::store_dir::DirectIo;

/// How long writes of a killed predecessor may still be under way in the kernel.
const PREDECESSOR_WAIT: Duration = Duration::from_secs(30);

/// What of a removed segment is given back at once, and the pause behind it.
const FREED_BYTES: u64 = 16 << 20;
const FREED_PAUSE: Duration = Duration::from_millis(1);

const SNAPSHOT_PREFIX: &str = "snapshot-";

/// The files of one shard. As a [`LogSource`] it reads through the page cache and keeps no segment open afterwards.
#[derive(Debug)]
pub struct ShardFiles {
    dir: PathBuf,
    geometry: Geometry,
    open: BTreeMap<u64, OpenSegment>,
    index: Option<File>,
    snapshot: Option<(u64, File)>,
}

#[derive(Debug)]
struct OpenSegment {
    file: File,
    /// What the kernel was told last. With read-ahead, a look at the start of every chunk reads the whole segment.
    advice: Advice,
}

impl OpenSegment {
    fn advise(&mut self, advice: Advice) {
        if self.advice != advice {
            // Advice only: without it reading is slower, not wrong.
            let _ = fadvise(&self.file, 0, None, advice);
            self.advice = advice;
        }
    }
}

impl ShardFiles {
    pub(super) fn new(dir: PathBuf, geometry: Geometry) -> Self {
        Self { dir, geometry, open: BTreeMap::new(), index: None, snapshot: None }
    }

    pub fn index_path(&self) -> PathBuf {
        self.dir.join("index")
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub fn segment_path(&self, segment_start: u64) -> PathBuf {
        self.log_path().join(format!("{segment_start:020}"))
    }

    /// Opens an existing segment for reading and writing and takes its lock.
    ///
    /// The lock is what makes a restart after `kill -9` safe: writes that the dead process had in flight can reach
    /// the file later than its death, and until then they hold the file open, and with it the lock. Recovery and
    /// the driver open segments only here, so they never meet such a write.
    pub fn open_segment(&self, segment_start: u64, direct_io: DirectIo) -> io::Result<File> {
        let file = open_for_writing(&self.segment_path(segment_start), direct_io, false)?;
        lock_segment(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }

    /// Makes a segment file of full length, durably, with its space allocated, and opens it. Its bytes are zeros, or
    /// what an earlier use left in them. Writing it once before use makes later writes cheaper; that is the caller's.
    pub fn create_segment(&self, segment_start: u64, direct_io: DirectIo) -> io::Result<File> {
        let file = open_for_writing(&self.segment_path(segment_start), direct_io, true)?;
        lock_segment(&file, FlockOperation::NonBlockingLockExclusive)?;
        match fallocate(&file, FallocateFlags::empty(), 0, self.geometry.segment_bytes) {
            Ok(()) => {}
            // Not every file system can allocate ahead; the length is what we rely on.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => file.set_len(self.geometry.segment_bytes)?,
            Err(errno) => return Err(errno.into()),
        }
        file.sync_all()?;
        File::open(self.log_path())?.sync_all()?;
        Ok(file)
    }

    /// Gives the file of a segment that is not needed any more to a new one, durably. Who has it open keeps it.
    pub fn rename_segment(&self, from: u64, to: u64) -> io::Result<()> {
        fs::rename(self.segment_path(from), self.segment_path(to))?;
        File::open(self.log_path())?.sync_all()
    }

    /// Removes the file of a segment that is not needed any more, durably.
    pub fn remove_segment(&self, segment_start: u64) -> io::Result<()> {
        fs::remove_file(self.segment_path(segment_start))?;
        File::open(self.log_path())?.sync_all()
    }

    /// Gives the space of a removed segment back piece by piece: a file system mounted with `discard` tells the device of
    /// each, and while a device discards a GiB at once, no write of the log gets through. What an error leaves is freed
    /// when the file is closed.
    pub fn free_space(file: &File) -> io::Result<()> {
        let mut len_bytes = file.metadata()?.len();
        while len_bytes > 0 {
            len_bytes = len_bytes.saturating_sub(FREED_BYTES);
            file.set_len(len_bytes)?;
            std::thread::sleep(FREED_PAUSE);
        }
        Ok(())
    }

    /// Opens the index file, made if missing.
    pub fn open_index(&self, direct_io: DirectIo) -> io::Result<File> {
        open_for_writing(&self.index_path(), direct_io, true)
    }

    /// A finished snapshot, named by the position of the log where it was begun.
    pub fn snapshot_path(&self, start: u64) -> PathBuf {
        self.dir.join(format!("{SNAPSHOT_PREFIX}{start:020}"))
    }

    /// Writes a piece of the snapshot that is being taken; `at` 0 begins it anew.
    pub fn write_snapshot(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(at == 0).mode(0o640);
        options.open(self.unfinished_snapshot())?.write_all_at(bytes, at)
    }

    /// Makes the snapshot that is being taken count, after all it rests on is on stable media: these positions of the
    /// log, and the index. Removes those before `keep_from`.
    pub fn publish_snapshot(&self, start: u64, log: Range<u64>, keep_from: u64) -> io::Result<()> {
        for segment in (self.geometry.segment_of(log.start)..log.end).step_by(self.geometry.segment_bytes as usize) {
            // Not `open_segment`: the driver holds its lock. Any descriptor will do for a sync.
            File::open(self.segment_path(segment))?.sync_data()?;
        }
        self.open_index(DirectIo::Buffered)?.sync_data()?;
        let unfinished = self.unfinished_snapshot();
        File::open(&unfinished)?.sync_all()?;
        fs::rename(&unfinished, self.snapshot_path(start))?;
        File::open(&self.dir)?.sync_all()?;
        for old in self.finished_snapshots()?.into_iter().filter(|old| *old < keep_from) {
            fs::remove_file(self.snapshot_path(old))?;
        }
        Ok(())
    }

    fn unfinished_snapshot(&self) -> PathBuf {
        self.dir.join("snapshot.new")
    }

    fn finished_snapshots(&self) -> io::Result<Vec<u64>> {
        let mut starts = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let digits = name.to_str().and_then(|name| name.strip_prefix(SNAPSHOT_PREFIX));
            starts.extend(digits.filter(|digits| digits.len() == 20).and_then(|digits| digits.parse::<u64>().ok()));
        }
        Ok(starts)
    }

    fn segment(&mut self, segment_start: u64, advice: Advice) -> io::Result<&File> {
        if !self.open.contains_key(&segment_start) {
            let file = self.open_segment(segment_start, DirectIo::Buffered)?;
            self.open.insert(segment_start, OpenSegment { file, advice: Advice::Normal });
        }
        let open = self.open.get_mut(&segment_start).ok_or(io::ErrorKind::NotFound)?;
        open.advise(advice);
        Ok(&open.file)
    }
}

fn open_for_writing(path: &Path, direct_io: DirectIo, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create).truncate(false).mode(0o640);
    if direct_io == DirectIo::Direct {
        options.custom_flags(OFlags::DIRECT.bits() as i32);
    }
    options.open(path)
}

/// Waits for the lock of a segment, taken without blocking as `operation` says.
pub(super) fn lock_segment(file: &File, operation: FlockOperation) -> io::Result<()> {
    let started = Instant::now();
    loop {
        match flock(file, operation) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if started.elapsed() < PREDECESSOR_WAIT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

impl SegmentSource for ShardFiles {
    fn segments(&mut self) -> io::Result<Vec<u64>> {
        let mut starts = Vec::new();
        for entry in fs::read_dir(self.log_path())? {
            let name = entry?.file_name();
            let name = name.to_string_lossy();
            let start = name
                .parse::<u64>()
                .ok()
                .filter(|start| name.len() == 20 && start.is_multiple_of(self.geometry.segment_bytes));
            match start {
                Some(start) => starts.push(start),
                None => {
                    tracing::warn!(%name, dir = %self.dir.display(), "not a log segment; ignored")
                }
            }
        }
        Ok(starts)
    }

    fn read(&mut self, segment_start: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        read_full(self.segment(segment_start, Advice::Sequential)?, at, into)
    }

    fn announce(&mut self, segment_start: u64, at: u64, step: u64) {
        let (end, block) = (self.geometry.segment_bytes, NonZero::new(BLOCK_BYTES as u64));
        // Only a hint: a file that cannot be opened will say so when it is read.
        let Ok(file) = self.segment(segment_start, Advice::Random) else { return };
        for at in (at..end).step_by(step as usize) {
            let _ = fadvise(file, at, block, Advice::WillNeed);
        }
    }

    fn peek(&mut self, segment_start: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        read_full(self.segment(segment_start, Advice::Random)?, at, into)
    }
}

impl LogSource for ShardFiles {
    fn write_index(&mut self, at: u64, pages: &[u8]) -> io::Result<()> {
        if self.index.is_none() {
            self.index = Some(self.open_index(DirectIo::Buffered)?);
        }
        match &self.index {
            Some(file) => file.write_all_at(pages, at),
            None => Ok(()),
        }
    }

    fn make_stable(&mut self) -> io::Result<()> {
        for OpenSegment { file, .. } in std::mem::take(&mut self.open).into_values() {
            file.sync_data()?;
            // The log is read past the page cache from now on; what recovery cached is only in the way.
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
        }
        // A process that was killed may have made or renamed a segment and not come to this: what is written into that
        // from now on would be gone with its name.
        File::open(self.log_path())?.sync_all()?;
        self.index = None; // Derived data: losing it costs nothing but this very work.
        self.snapshot = None;
        Ok(())
    }

    fn snapshots(&mut self) -> io::Result<Vec<u64>> {
        self.finished_snapshots()
    }

    fn read_snapshot(&mut self, start: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let path = self.snapshot_path(start);
        let file = match &mut self.snapshot {
            Some((open, file)) if *open == start => file,
            other => &mut other.insert((start, File::open(path)?)).1,
        };
        read_full(file, at, into)
    }

    fn remove_snapshot(&mut self, start: u64) -> io::Result<()> {
        fs::remove_file(self.snapshot_path(start))?;
        File::open(&self.dir)?.sync_all()
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_full(file: &File, at: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
