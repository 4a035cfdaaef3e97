//! Runs a shard's storage commands on the core's ring.
//!
//! Log writes and reads use O_DIRECT where the file system allows it; index pages go through the page cache,
//! because they are derived data and small. Creating and allocating a segment blocks, so it runs as a
//! background task of the core.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rmq_turn::{Completion, Core, Ring, Token, opcode, types};

use super::segments::{DeviceUse, Segments, ZERO_BYTES};
use crate::buffer::{BufferPool, SharedBuffer, UniqueBuffer, WriteBytes};
use crate::storage::{CommandId, CommandKind, StorageCommand, StorageDone, StorageError};
use crate::store_dir::{DirectIo, ShardFiles};
use crate::{SegmentSource, Shard};

/// What the driver of one shard needs.
pub struct DriverOptions {
    pub files: ShardFiles,
    pub direct_io: DirectIo,
}

/// A device that neither the log nor a reader has used for this long has time for zeroes.
const DEVICE_IDLE_AFTER: Duration = Duration::from_millis(10);

/// What background tasks have finished, with the commands that asked for it.
type Finished = Rc<RefCell<VecDeque<(CommandId, BackgroundDone)>>>;

enum BackgroundDone {
    Segment { start: u64, len_bytes: u64, file: io::Result<File> },
    Renamed { from: u64, to: u64, result: io::Result<()> },
    Removed(io::Result<()>),
    Snapshot(io::Result<()>),
}

pub struct RingDriver {
    files: Arc<ShardFiles>,
    direct_io: DirectIo,
    segments: Segments,
    index: File,
    operations: Vec<Option<Operation>>,
    free: Vec<u32>,
    finished: Finished,
    /// Log writes that wait until zeroes for the same blocks have arrived.
    held: VecDeque<StorageCommand>,
    last_log_write: Instant,
    last_read: Instant,
    zeroes: UniqueBuffer,
}

/// What the kernel works on; keeps every buffer it may touch.
enum Operation {
    Write { id: CommandId, data: WriteBytes },
    Read { id: CommandId, into: UniqueBuffer },
    WriteIndex { id: CommandId, vectors: Box<[libc::iovec]>, len: usize, _pages: Vec<SharedBuffer> },
    ReadIndex { id: CommandId, into: UniqueBuffer },
    Zero { segment_start: u64 },
}

impl RingDriver {
    pub const KIND: u8 = 32;

    /// Opens the shard's files, after recovery has let go of them. Blocking.
    pub fn new(mut options: DriverOptions) -> io::Result<Self> {
        let index = options.files.open_index(options.direct_io)?;
        let mut segments = Segments::default();
        for start in options.files.segments()? {
            let file = options.files.open_segment(start, options.direct_io)?;
            let len_bytes = file.metadata()?.len();
            segments.insert_existing(start, file.into(), len_bytes);
        }
        Ok(Self {
            files: Arc::new(options.files),
            direct_io: options.direct_io,
            segments,
            index,
            operations: Vec::new(),
            free: Vec::new(),
            finished: Finished::default(),
            held: VecDeque::new(),
            last_log_write: Instant::now(),
            last_read: Instant::now(),
            zeroes: BufferPool::new(ZERO_BYTES as usize, 0).take(1),
        })
    }

    /// Ends a turn: lets the shard decide what to write and read, and submits it.
    pub fn run<L>(&mut self, core: &mut Core<L>, shard: &mut Shard) {
        self.take_finished(shard);
        shard.pump(core.clock.wall_ms);
        for _ in 0..self.held.len() {
            if let Some(command) = self.held.pop_front() {
                self.submit(core, command, shard);
            }
        }
        while let Some(command) = shard.next_command() {
            self.submit(core, command, shard);
        }
        let used_until = |last_use: Instant| last_use + DEVICE_IDLE_AFTER;
        let device = if core.clock.monotonic <= used_until(self.last_log_write) {
            DeviceUse::Log
        } else if core.clock.monotonic <= used_until(self.last_read) {
            DeviceUse::Readers
        } else {
            DeviceUse::Idle
        };
        if let Some((segment_start, descriptor, at, len)) = self.segments.next_zeroes(device) {
            let entry = opcode::Write::new(types::Fd(descriptor), self.zeroes.as_mut_ptr(), len as u32).offset(at);
            self.push(&mut core.ring, entry.build(), Operation::Zero { segment_start });
        }
    }

    pub fn on_completion(&mut self, completion: &Completion, shard: &mut Shard) {
        let index = completion.token.index;
        let Some(operation) = self.operations.get_mut(index as usize).and_then(Option::take) else {
            unreachable!("every operation completes once")
        };
        self.free.push(index);
        let outcome = completion.outcome().map_err(|error| StorageError { errno: error.raw_os_error().unwrap_or(5) });
        match operation {
            Operation::Write { id, data } => {
                drop(data); // The kernel is done with it.
                shard.complete(id, outcome.map(|bytes| StorageDone::Written { bytes: u64::from(bytes) }));
            }
            Operation::Read { id, into } => {
                shard.complete(id, outcome.map(|bytes| StorageDone::Read { into, bytes: u64::from(bytes) }));
            }
            Operation::WriteIndex { id, len, vectors, _pages } => {
                drop(vectors);
                let whole =
                    outcome.and_then(|bytes| if bytes as usize == len { Ok(()) } else { Err(StorageError::IO) });
                shard.complete(id, whole.map(|()| StorageDone::IndexWritten));
            }
            Operation::ReadIndex { id, into } => {
                let whole =
                    outcome.and_then(|bytes| if bytes as usize == into.len() { Ok(()) } else { Err(StorageError::IO) });
                shard.complete(id, whole.map(|()| StorageDone::IndexRead { into }));
            }
            Operation::Zero { segment_start } => {
                self.segments.zeroed(segment_start, outcome == Ok(ZERO_BYTES as u32));
            }
        }
    }

    /// Operations the kernel still works on.
    pub fn in_flight(&self) -> usize {
        self.operations.len() - self.free.len()
    }

    fn submit<L>(&mut self, core: &mut Core<L>, command: StorageCommand, shard: &mut Shard) {
        let StorageCommand { id, kind } = command;
        match kind {
            CommandKind::Write { segment_start, at, data, sync } => {
                if !self.segments.begin_write(segment_start, at, data.len() as u64) {
                    let kind = CommandKind::Write { segment_start, at, data, sync };
                    return self.held.push_back(StorageCommand { id, kind });
                }
                let Some(descriptor) = self.segments.descriptor(segment_start) else {
                    return shard.complete(id, Err(StorageError::IO));
                };
                // Without O_DIRECT only a synchronous write says that the device has it.
                let is_sync = sync || self.direct_io == DirectIo::Buffered;
                let flags = if is_sync { libc::RWF_DSYNC } else { 0 };
                let entry = opcode::Write::new(types::Fd(descriptor), data.as_ptr(), data.len() as u32)
                    .offset(at)
                    .rw_flags(flags)
                    .build();
                self.last_log_write = core.clock.monotonic;
                self.push(&mut core.ring, entry, Operation::Write { id, data });
            }
            CommandKind::Read { segment_start, at, len, mut into } => {
                let Some(descriptor) = self.segments.descriptor(segment_start) else {
                    return shard.complete(id, Err(StorageError::IO));
                };
                let entry = opcode::Read::new(types::Fd(descriptor), into.as_mut_ptr(), len).offset(at).build();
                self.last_read = core.clock.monotonic;
                self.push(&mut core.ring, entry, Operation::Read { id, into });
            }
            CommandKind::WriteIndex { at, pages } => {
                let vectors: Box<[libc::iovec]> = pages
                    .iter()
                    .map(|page| libc::iovec { iov_base: page.as_ptr().cast_mut().cast(), iov_len: page.len() })
                    .collect();
                let len = pages.iter().map(SharedBuffer::len).sum();
                let entry =
                    opcode::Writev::new(types::Fd(self.index.as_raw_fd()), vectors.as_ptr(), vectors.len() as u32)
                        .offset(at)
                        .build();
                self.push(&mut core.ring, entry, Operation::WriteIndex { id, vectors, len, _pages: pages });
            }
            CommandKind::ReadIndex { at, mut into } => {
                let descriptor = types::Fd(self.index.as_raw_fd());
                let entry = opcode::Read::new(descriptor, into.as_mut_ptr(), into.len() as u32).offset(at).build();
                self.push(&mut core.ring, entry, Operation::ReadIndex { id, into });
            }
            CommandKind::PrepareSegment { segment_start, len_bytes, from } => {
                self.prepare(core, id, segment_start, len_bytes, from, shard);
            }
            CommandKind::RemoveSegment { segment_start } => {
                self.remove(core, id, segment_start);
            }
            CommandKind::WriteSnapshot { at, bytes, .. } => {
                self.in_background(core, id, move |files| BackgroundDone::Snapshot(files.write_snapshot(at, &bytes)));
            }
            CommandKind::PublishSnapshot { start, log, keep_from } => {
                self.in_background(core, id, move |files| {
                    BackgroundDone::Snapshot(files.publish_snapshot(start, log, keep_from))
                });
            }
        }
    }

    fn prepare<L>(
        &mut self,
        core: &Core<L>,
        id: CommandId,
        segment_start: u64,
        len_bytes: u64,
        from: Option<u64>,
        shard: &mut Shard,
    ) {
        if let Some(from) = from {
            return self.in_background(core, id, move |files| {
                let result = files.rename_segment(from, segment_start);
                BackgroundDone::Renamed { from, to: segment_start, result }
            });
        }
        if self.segments.descriptor(segment_start).is_some() {
            return shard.complete(id, Ok(StorageDone::SegmentReady));
        }
        let direct_io = self.direct_io;
        self.in_background(core, id, move |files| {
            let file = files.create_segment(segment_start, direct_io);
            BackgroundDone::Segment { start: segment_start, len_bytes, file }
        });
    }

    fn remove<L>(&mut self, core: &Core<L>, id: CommandId, segment_start: u64) {
        let file = self.segments.remove(segment_start).map(File::from);
        let (files, finished) = (self.files.clone(), self.finished.clone());
        core.spawn_background(async move {
            let result = rmq_turn::run_blocking(move || files.remove_segment(segment_start)).await;
            let is_removed = result.is_ok();
            finished.borrow_mut().push_back((id, BackgroundDone::Removed(result)));
            // Not on the core: closing the last descriptor frees the file's blocks, for which a file system that
            // discards them waits 160 ms per GiB.
            rmq_turn::run_blocking(move || {
                if let Some(file) = file.filter(|_| is_removed)
                    && let Err(error) = ShardFiles::free_space(&file)
                {
                    tracing::debug!(%error, segment = segment_start, "a removed segment is freed in one piece");
                }
            })
            .await;
        });
    }

    fn in_background<L>(
        &self,
        core: &Core<L>,
        id: CommandId,
        work: impl FnOnce(&ShardFiles) -> BackgroundDone + Send + 'static,
    ) {
        let (files, finished) = (self.files.clone(), self.finished.clone());
        core.spawn_background(async move {
            let done = rmq_turn::run_blocking(move || work(&files)).await;
            finished.borrow_mut().push_back((id, done));
        });
    }

    fn take_finished(&mut self, shard: &mut Shard) {
        loop {
            let Some((id, done)) = self.finished.borrow_mut().pop_front() else { return };
            let failed =
                |error: &io::Error| StorageError { errno: error.raw_os_error().unwrap_or(StorageError::IO.errno) };
            match done {
                BackgroundDone::Segment { start, len_bytes, file: Ok(file) } => {
                    self.segments.insert_new(start, file.into(), len_bytes);
                    shard.complete(id, Ok(StorageDone::SegmentReady));
                }
                BackgroundDone::Segment { start, len_bytes, file: Err(error) } => {
                    tracing::error!(
                        %error,
                        path = %self.files.segment_path(start).display(),
                        bytes = len_bytes,
                        "a log segment could not be made; if the disk is full, free space or move storePathRootDir"
                    );
                    shard.complete(id, Err(failed(&error)));
                }
                BackgroundDone::Renamed { from, to, result } => {
                    if result.is_ok() {
                        self.segments.rename(from, to);
                    }
                    shard.complete(id, result.map(|()| StorageDone::SegmentReady).map_err(|error| failed(&error)));
                }
                BackgroundDone::Removed(result) => {
                    shard.complete(id, result.map(|()| StorageDone::SegmentRemoved).map_err(|error| failed(&error)));
                }
                BackgroundDone::Snapshot(result) => {
                    shard.complete(id, result.map(|()| StorageDone::SnapshotWritten).map_err(|error| failed(&error)));
                }
            }
        }
    }

    fn push(&mut self, ring: &mut Ring, entry: rmq_turn::squeue::Entry, operation: Operation) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.operations.push(None);
            self.operations.len() as u32 - 1
        });
        self.operations[index as usize] = Some(operation);
        let entry = entry.user_data(Token::new(Self::KIND, 0, index).to_user_data());
        // SAFETY: every buffer the entry points to is held by `operation`, which stays in its slot until the
        // completion; heap addresses do not change when the slot table grows. The zeroes and the descriptors
        // live in `self`, which the node drops only after the ring.
        unsafe { ring.push(&entry) };
    }
}
