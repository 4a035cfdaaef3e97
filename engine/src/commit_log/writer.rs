//! The write batch: many appends, one write. Decides where batches stand and when they are written.
//!
//! ```text
//!   chunk                                                             chunk end
//!   |== batch ==|== batch ==|..pad..|==== batch ====|..pad..|-- open batch --> free |
//!               ^ right behind: no   ^ next block: writes
//!                 write in flight      were in flight
//! ```
//!
//! Invariants: bytes of sealed batches never change; a block is rewritten only while no other write is in flight,
//! with identical old bytes; writes complete in any order, and `durable` is the end of the completed prefix.

use std::collections::VecDeque;

use crate::buffer::{BLOCK_BYTES, FillingBuffer, SharedBuffer, Slice, UniqueBuffer};
use crate::commit_log::batch::{BATCH_ALIGN_BYTES, BatchHeader};
use crate::config::{Durability, Geometry, ShardConfig, WRITES_IN_FLIGHT_MAX};
use crate::consume_queue::table::QueueRef;
use crate::planted::{self, Bug};
use crate::position::LogPosition;
use crate::storage::{CommandId, CommandKind, StorageError};

const HEADER_BYTES: u64 = BatchHeader::SIZE_BYTES as u64;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// A queue that gets new visible rows once a batch is durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touched {
    pub queue: QueueRef,
    pub max: i64,
    pub store_time_ms: i64,
}

/// The chunk that batches are encoded into.
struct OpenChunk {
    start: u64,
    buffer: FillingBuffer,
}

impl OpenChunk {
    fn end(&self) -> u64 {
        self.start + self.buffer.capacity() as u64
    }

    fn at(&self, position: u64) -> usize {
        (position - self.start) as usize
    }
}

struct OpenBatch {
    start: u64,
    end: u64,
    record_count: u32,
    store_time_ms: i64,
}

/// A chunk nobody appends to any more.
pub(crate) struct ClosedChunk {
    pub start: u64,
    pub buffer: SharedBuffer,
}

enum WriteState {
    /// Sealed, not given to the storage yet.
    Held(CommandKind),
    InFlight(CommandId),
    Completed,
}

/// A sealed batch on its way to the device.
struct SealedWrite {
    segment_start: u64,
    end: u64,
    len: u64,
    touched: Vec<Touched>,
    state: WriteState,
}

/// Where a batch of a given size would go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NextPlace {
    pub position: u64,
    pub is_new_chunk: bool,
    pub chunk_bytes: u64,
}

/// The end of the log as recovery found it.
pub(crate) struct LogEnd {
    pub position: u64,
    pub checksum: u32,
    pub epoch: u64,
    /// The chunk around `position`, filled up to it; none if the position is a chunk's start.
    pub chunk: Option<(u64, UniqueBuffer)>,
}

pub(crate) struct LogWriter {
    shard: u16,
    epoch: u64,
    geometry: Geometry,
    durability: Durability,
    eager_write_bytes: u64,
    chunk: Option<OpenChunk>,
    batch: Option<OpenBatch>,
    /// Number of the open (or else the next) batch since the shard was opened, from 1.
    batch_number: u64,
    /// End of the last sealed batch.
    sealed_end: u64,
    /// End of the last record appended.
    appended_end: u64,
    durable: u64,
    /// End of what is on stable media: recovery has put everything there that it found.
    stable: u64,
    previous_checksum: u32,
    /// Epoch of the last sealed batch; 0 before the first.
    sealed_epoch: u64,
    writes: VecDeque<SealedWrite>,
    in_flight: usize,
    spare_touched: Vec<Vec<Touched>>,
}

impl LogWriter {
    pub fn new(config: &ShardConfig, end: LogEnd) -> Self {
        let chunk = end.chunk.map(|(start, buffer)| {
            let frozen = (end.position - start) as usize;
            let mut buffer = buffer.into_filling(frozen);
            let padded = frozen.next_multiple_of(BLOCK_BYTES);
            buffer.tail_mut(frozen..padded).fill(0);
            OpenChunk { start, buffer }
        });
        Self {
            shard: config.shard,
            epoch: config.epoch,
            geometry: config.geometry,
            durability: config.durability,
            eager_write_bytes: config.eager_write_bytes,
            chunk,
            batch: None,
            batch_number: 1,
            sealed_end: end.position,
            appended_end: end.position,
            durable: end.position,
            stable: end.position,
            previous_checksum: end.checksum,
            sealed_epoch: end.epoch,
            writes: VecDeque::new(),
            in_flight: 0,
            spare_touched: Vec::new(),
        }
    }

    pub fn durable(&self) -> LogPosition {
        if planted::is(Bug::AcknowledgeBeforeCompletion) {
            return LogPosition::new(self.sealed_end);
        }
        if planted::is(Bug::DurableMarkOverHole) {
            let completed = self.writes.iter().rfind(|write| write.is_completed());
            return LogPosition::new(completed.map_or(self.durable, |write| write.end));
        }
        LogPosition::new(self.durable)
    }

    /// Where the last appended record ends.
    pub fn appended_end(&self) -> LogPosition {
        LogPosition::new(self.appended_end)
    }

    /// End of the last sealed batch.
    pub fn sealed_end(&self) -> u64 {
        self.sealed_end
    }

    /// Checksum and epoch of the last sealed batch; zeros before the first.
    pub fn last_sealed(&self) -> (u32, u64) {
        (self.previous_checksum, self.sealed_epoch)
    }

    /// Everything below `position` was forced to stable media.
    pub fn note_stable(&mut self, position: u64) {
        assert!(position <= self.durable, "what is stable is durable");
        self.stable = self.stable.max(position);
    }

    pub fn undurable_bytes(&self) -> u64 {
        self.appended_end - self.durable
    }

    /// Bytes that wait because the device has all the writes it can have; 0 while it can have another.
    pub fn waiting_bytes(&self) -> u64 {
        if self.in_flight < WRITES_IN_FLIGHT_MAX {
            return 0;
        }
        let given = self.writes.iter().rfind(|write| !matches!(write.state, WriteState::Held(_)));
        self.appended_end - given.map_or(self.durable, |write| write.end)
    }

    pub fn batch_number(&self) -> u64 {
        self.batch_number
    }

    pub fn is_batch_open(&self) -> bool {
        self.batch.is_some()
    }

    /// First position that is not (yet) in a closed chunk.
    pub fn open_start(&self) -> u64 {
        self.chunk.as_ref().map_or(self.sealed_end, |chunk| chunk.start)
    }

    /// Whether the open batch takes `bytes` more.
    pub fn fits(&self, bytes: u64) -> bool {
        match (&self.batch, &self.chunk) {
            (Some(batch), Some(chunk)) => batch.end + bytes <= chunk.end(),
            _ => false,
        }
    }

    /// Where the next batch of `bytes` of records goes once the open one is sealed.
    pub fn next_place(&self, bytes: u64) -> NextPlace {
        let bytes = HEADER_BYTES + bytes;
        // A write in flight may still read the padding up to the end of its block.
        let is_quiet = self.writes.is_empty() && self.batch.is_none() || planted::is(Bug::BlockRewrittenInFlight);
        let end = self.batch.as_ref().map_or(self.sealed_end, |batch| batch.end);
        let position = end.next_multiple_of(if is_quiet { BATCH_ALIGN_BYTES } else { BLOCK });
        if let Some(chunk) = &self.chunk
            && position + bytes <= chunk.end()
        {
            return NextPlace { position, is_new_chunk: false, chunk_bytes: 0 };
        }
        let chunk_bytes = bytes.next_multiple_of(self.geometry.chunk_bytes);
        let mut position = self.chunk.as_ref().map_or(end, OpenChunk::end);
        if position + chunk_bytes > self.geometry.segment_end(position) {
            position = self.geometry.segment_end(position);
        }
        NextPlace { position, is_new_chunk: true, chunk_bytes }
    }

    /// Opens a batch at `place` (from [`Self::next_place`], after sealing), in `buffer` if it needs a new chunk.
    /// Returns the chunk that is finished by that.
    pub fn open_batch(&mut self, place: NextPlace, buffer: Option<UniqueBuffer>, now_ms: i64) -> Option<ClosedChunk> {
        assert!(self.batch.is_none(), "one batch is open at a time");
        let closed = if place.is_new_chunk {
            let buffer = buffer.expect("a new chunk comes with its buffer").into_filling(0);
            let closed = self.chunk.replace(OpenChunk { start: place.position, buffer });
            closed.map(|chunk| ClosedChunk { start: chunk.start, buffer: chunk.buffer.into_shared() })
        } else {
            None
        };
        let end = place.position + HEADER_BYTES;
        self.batch = Some(OpenBatch { start: place.position, end, record_count: 0, store_time_ms: now_ms });
        closed
    }

    /// Position of the next record of the open batch.
    pub fn record_position(&self) -> LogPosition {
        LogPosition::new(self.batch.as_ref().expect("a batch is open").end)
    }

    /// Room for the next record of the open batch, which then counts as appended.
    pub fn append(&mut self, bytes: u64) -> &mut [u8] {
        let batch = self.batch.as_mut().expect("a batch is open");
        let chunk = self.chunk.as_mut().expect("an open batch is in the open chunk");
        let (start, end) = (chunk.at(batch.end), chunk.at(batch.end + bytes));
        batch.end += bytes;
        batch.record_count += 1;
        self.appended_end = batch.end;
        chunk.buffer.tail_mut(start..end)
    }

    /// An empty vector for [`Self::seal`], reused from batch to batch.
    pub fn take_touched(&mut self) -> Vec<Touched> {
        self.spare_touched.pop().unwrap_or_default()
    }

    /// Ends the open batch; it will be written as it is.
    pub fn seal(&mut self, touched: Vec<Touched>) {
        let batch = self.batch.take().expect("a batch is open");
        let chunk = self.chunk.as_mut().expect("an open batch is in the open chunk");
        assert!(batch.record_count > 0, "empty batches are not sealed");
        let header = BatchHeader {
            shard: self.shard,
            total_bytes: (batch.end - batch.start) as u32,
            record_count: batch.record_count,
            epoch: self.epoch,
            position: LogPosition::new(batch.start),
            previous_checksum: self.previous_checksum,
            store_time_ms: batch.store_time_ms,
            durable: LogPosition::new(self.durable),
            stable: LogPosition::new(self.stable),
        };
        let (start, end) = (chunk.at(batch.start), chunk.at(batch.end));
        self.previous_checksum = header.seal(chunk.buffer.tail_mut(start..end));
        if !planted::is(Bug::PaddingNotZeroed) {
            chunk.buffer.tail_mut(end..end.next_multiple_of(BLOCK_BYTES)).fill(0);
        }
        chunk.buffer.freeze(end);
        let data = chunk.buffer.write_bytes(start..end);
        let segment_start = self.geometry.segment_of(batch.start);
        let at = batch.start / BLOCK * BLOCK - segment_start;
        let len = data.len() as u64;
        let sync = self.durability == Durability::Sync && !planted::is(Bug::SyncFlagNotSet);
        let state = WriteState::Held(CommandKind::Write { segment_start, at, data, sync });
        self.writes.push_back(SealedWrite { segment_start, end: batch.end, len, touched, state });
        self.sealed_end = batch.end;
        self.sealed_epoch = self.epoch;
        self.batch_number += 1;
    }

    /// Whether the open batch should be written now: at once when the device is idle, when it has grown enough while
    /// the device is busy, and never before older sealed batches.
    pub fn is_time_to_seal(&self) -> bool {
        let Some(batch) = &self.batch else {
            return false;
        };
        if batch.record_count == 0 || self.in_flight < self.writes.iter().filter(|write| !write.is_completed()).count()
        {
            return false;
        }
        self.in_flight == 0
            || (self.in_flight < WRITES_IN_FLIGHT_MAX && batch.end - batch.start >= self.eager_write_bytes)
    }

    /// The next sealed batch the storage may have, if its segment is ready.
    pub fn next_write(&mut self, id: CommandId, is_ready: impl Fn(u64) -> bool) -> Option<CommandKind> {
        if self.in_flight >= WRITES_IN_FLIGHT_MAX {
            return None;
        }
        let write = self.writes.iter_mut().find(|write| matches!(write.state, WriteState::Held(_)))?;
        if !is_ready(write.segment_start) && !planted::is(Bug::SegmentNotAwaited) {
            return None;
        }
        let held = std::mem::replace(&mut write.state, WriteState::InFlight(id));
        let WriteState::Held(kind) = held else { unreachable!("found as held above") };
        self.in_flight += 1;
        Some(kind)
    }

    /// Takes a write's result. `Ok(false)` if the id is not one of ours.
    pub fn on_written(&mut self, id: CommandId, result: Result<u64, StorageError>) -> Result<bool, StorageError> {
        let Some(write) =
            self.writes.iter_mut().find(|write| matches!(write.state, WriteState::InFlight(of) if of == id))
        else {
            return Ok(false);
        };
        self.in_flight -= 1;
        match result {
            Ok(bytes) if bytes == write.len => {
                write.state = WriteState::Completed;
                Ok(true)
            }
            Ok(_) if planted::is(Bug::ShortWriteTakenForWhole) => {
                write.state = WriteState::Completed;
                Ok(true)
            }
            Err(_) if planted::is(Bug::FailedWriteIgnored) => {
                write.state = WriteState::Completed;
                Ok(true)
            }
            Ok(_) => Err(StorageError::IO), // A short write: what is on the device is unknown.
            Err(error) => Err(error),
        }
    }

    /// Moves the durable mark over the next completed batch; the caller shows its rows and gives the vector back.
    pub fn pop_durable(&mut self) -> Option<Vec<Touched>> {
        if !self.writes.front()?.is_completed() {
            return None;
        }
        let write = self.writes.pop_front()?;
        assert!(self.durable < write.end, "the durable mark only grows");
        self.durable = write.end;
        if self.durability == Durability::Sync {
            self.stable = write.end;
        }
        Some(write.touched)
    }

    pub fn give_back_touched(&mut self, mut touched: Vec<Touched>) {
        touched.clear();
        self.spare_touched.push(touched);
    }

    /// The bytes at `position`, if they are in the open batch.
    pub fn in_open_batch(&self, position: u64, len: u32) -> Option<&[u8]> {
        let (batch, chunk) = (self.batch.as_ref()?, self.chunk.as_ref()?);
        let end = position + u64::from(len);
        (batch.start <= position && end <= batch.end).then(|| chunk.buffer.bytes(chunk.at(position)..chunk.at(end)))
    }

    /// What is sealed of the open chunk from `position` on, if that is there.
    pub fn rest_of_chunk(&self, position: u64) -> Option<Slice> {
        let end = self.chunk.as_ref()?.end().min(self.sealed_end);
        self.slice(position, u32::try_from(end.checked_sub(position)?).ok()?)
    }

    /// The bytes at `position`, if they are sealed and in the open chunk.
    pub fn slice(&self, position: u64, len: u32) -> Option<Slice> {
        let chunk = self.chunk.as_ref()?;
        let end = position + u64::from(len);
        if position < chunk.start || self.sealed_end < end || chunk.end() < end {
            return None;
        }
        Some(chunk.buffer.slice(chunk.at(position)..chunk.at(end)))
    }
}

impl SealedWrite {
    fn is_completed(&self) -> bool {
        matches!(self.state, WriteState::Completed)
    }
}
