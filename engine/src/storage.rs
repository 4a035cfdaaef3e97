//! The seam between a shard and the files under it: commands the shard gives out, results it takes back.
//!
//! The shard never touches a file. A driver (the ring, the simulator, [`crate::memory::MemoryStorage`]) takes
//! [`StorageCommand`]s with `Shard::next_command`, carries them out in any order and any number at once, and returns
//! each one's result with `Shard::complete`. Buffers travel inside the commands, so they live until the driver is done.

use std::ops::Range;

use crate::buffer::{SharedBuffer, UniqueBuffer, WriteBytes};

/// Names one command of one shard until it is completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// Something the shard wants done to its files.
#[derive(Debug)]
pub struct StorageCommand {
    pub id: CommandId,
    pub kind: CommandKind,
}

#[derive(Debug)]
pub enum CommandKind {
    /// Write whole blocks of the log. Answer with [`StorageDone::Written`].
    Write {
        /// Position of the segment's first byte: names the file.
        segment_start: u64,
        /// Byte offset in the segment file; a multiple of the block.
        at: u64,
        data: WriteBytes,
        /// Complete only when the data is on stable media.
        sync: bool,
    },
    /// Read part of the log. Answer with [`StorageDone::Read`], the buffer inside.
    Read {
        segment_start: u64,
        /// Byte offset in the segment file; a multiple of the block.
        at: u64,
        /// Bytes to read; a multiple of the block. The buffer may be larger.
        len: u32,
        into: UniqueBuffer,
    },
    /// Write pages of the index file, one behind the other from `at`. Answer with [`StorageDone::IndexWritten`].
    /// The file is derived data: it needs no sync but by [`Self::PublishSnapshot`].
    WriteIndex { at: u64, pages: Vec<SharedBuffer> },
    /// Read one page of the index file (as long as the buffer). Answer with [`StorageDone::IndexRead`].
    ReadIndex { at: u64, into: UniqueBuffer },
    /// Have the segment's file exist with its full length, ideally written once. Until the answer,
    /// [`StorageDone::SegmentReady`], the shard holds writes to it back.
    PrepareSegment {
        segment_start: u64,
        len_bytes: u64,
        /// A segment that is not needed any more: its file becomes the new one, whatever it holds.
        from: Option<u64>,
    },
    /// Remove the file of a segment that is not needed any more, durably. Answer with [`StorageDone::SegmentRemoved`].
    RemoveSegment { segment_start: u64 },
    /// Write a piece of the unfinished snapshot named by its position in the log; `at` 0 begins it anew. Answer with
    /// [`StorageDone::SnapshotWritten`].
    WriteSnapshot { start: u64, at: u64, bytes: Vec<u8> },
    /// Make the unfinished snapshot count, as a whole or not at all, after these positions of the log (what came since
    /// the snapshot before, which saw to the rest), the index and the snapshot are on stable media; then remove
    /// snapshots before `keep_from`. Answer with [`StorageDone::SnapshotWritten`].
    PublishSnapshot { start: u64, log: Range<u64>, keep_from: u64 },
}

/// A command that succeeded.
#[derive(Debug)]
pub enum StorageDone {
    /// `bytes` less than asked counts as a failed write.
    Written {
        bytes: u64,
    },
    /// `bytes` may be less than asked at the end of a file.
    Read {
        into: UniqueBuffer,
        bytes: u64,
    },
    IndexWritten,
    IndexRead {
        into: UniqueBuffer,
    },
    SegmentReady,
    SegmentRemoved,
    SnapshotWritten,
}

/// A command that failed, as the operating system said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", std::io::Error::from_raw_os_error(*errno))]
pub struct StorageError {
    pub errno: i32,
}

impl StorageError {
    /// An I/O error without further detail (EIO): short writes, answers that do not fit their command.
    pub const IO: Self = Self { errno: 5 };
}
