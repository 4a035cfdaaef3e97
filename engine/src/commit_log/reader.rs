//! Log bytes for readers: finished chunks still in memory, and windows read back from disk.

use std::collections::VecDeque;
use std::ops::Range;

use crate::buffer::{BLOCK_BYTES, BufferPool, SharedBuffer, Slice, UniqueBuffer};
use crate::cache::Cache;
use crate::commit_log::batch::{BATCH_ALIGN_BYTES, BatchError, BatchHeader};
use crate::commit_log::record;
use crate::commit_log::writer::{ClosedChunk, LogWriter};
use crate::config::{
    Geometry, READ_AHEAD_WINDOWS, READS_IN_FLIGHT_MAX, SMALL_READS_PER_CHUNK, SPARE_SMALL_READS_MAX, ShardConfig,
};
use crate::consume_queue::row::Row;
use crate::planted::{self, Bug};
use crate::position::{LogPosition, PhysicalOffset};
use crate::shard::{MessageRef, Ticket};
use crate::storage::{CommandKind, StorageError};

const BLOCK: u64 = BLOCK_BYTES as u64;

/// What a record read alone takes at most, if it is not a large one: the blocks of 4 KiB wherever they start.
const SMALL_BYTES: usize = 2 * BLOCK_BYTES;

/// From so many records of a chunk on, reading all of it costs the device and this core less than reading them alone.
const RECORDS_PER_CHUNK_MIN: usize = 32;

/// Windows kept whatever the bound, the last ones loaded.
const FRESH_WINDOWS: u64 = 4;

/// A range of the log read as one piece: a whole chunk, or the exact blocks of a record that crosses a chunk's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WindowKey {
    start: u64,
    len: u32,
}

enum Window {
    /// Not asked of the storage yet: too many reads are in flight.
    Queued(Vec<Ticket>),
    Loading(Vec<Ticket>),
    Ready(ReadWindow),
    Failed(StorageError),
}

struct ReadWindow {
    buffer: SharedBuffer,
    /// Bytes from the window's start that belong to batches whose headers were found.
    verified: usize,
    /// Parts of them whose checksum fails: their records are checked one by one.
    damaged: Vec<Range<usize>>,
    is_read_ahead_done: bool,
    /// Which load this was, counted from 1.
    load: u64,
}

impl ReadWindow {
    fn unverified(buffer: SharedBuffer, load: u64) -> Self {
        Self { buffer, verified: 0, damaged: Vec::new(), is_read_ahead_done: false, load }
    }
}

/// What asking for bytes of the log gave.
pub(crate) enum Located {
    Found(Slice),
    Pending,
    /// The bytes are there, but are not what was written.
    Damaged,
    Failed(StorageError),
}

/// Bytes of the log in memory that lie together and are known to be what was written.
pub(crate) struct Piece {
    start: u64,
    bytes: Slice,
}

impl Piece {
    /// The record there, if all of it is in this piece.
    pub fn record(&self, row: &Row) -> Option<&[u8]> {
        self.bytes.as_ref().get(self.range(row)?)
    }

    /// To be kept longer than the piece.
    pub fn slice(&self, row: &Row) -> Option<Slice> {
        self.bytes.part(self.range(row)?)
    }

    fn range(&self, row: &Row) -> Option<Range<usize>> {
        let at = usize::try_from(row.position.checked_sub(self.start)?).ok()?;
        Some(at..at + row.size_bytes as usize)
    }
}

/// Numbers for operators.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadCounters {
    /// Windows read from the disk.
    pub windows_read: u64,
    /// Of those, windows asked for before a reader needed them.
    pub windows_read_ahead: u64,
    /// Records that were not what their queue's row promised.
    pub damaged_records: u64,
    /// Reads that failed.
    pub failed_reads: u64,
}

pub(crate) struct LogReader {
    shard: u16,
    geometry: Geometry,
    /// Finished chunks, oldest first.
    tail: VecDeque<ClosedChunk>,
    tail_bytes: u64,
    tail_bytes_max: u64,
    windows: Cache<WindowKey, Window>,
    window_bytes_max: u64,
    queued: VecDeque<WindowKey>,
    /// Reads at the storage, each counted by what it holds up: a chunk as [`SMALL_READS_PER_CHUNK`] small ones.
    in_flight: usize,
    /// For records read alone: a chunk's buffer for each would take a hundred times the memory.
    small: BufferPool,
    loads: u64,
    pub counters: ReadCounters,
}

impl LogReader {
    pub fn new(config: &ShardConfig) -> Self {
        Self {
            shard: config.shard,
            geometry: config.geometry,
            tail: VecDeque::new(),
            tail_bytes: 0,
            tail_bytes_max: config.tail_bytes_max,
            windows: Cache::new(),
            // Read-ahead must not push out what it reads ahead for.
            window_bytes_max: config.read_bytes_max.max(4 * config.geometry.chunk_bytes),
            queued: VecDeque::new(),
            in_flight: 0,
            small: BufferPool::new(SMALL_BYTES, SPARE_SMALL_READS_MAX),
            loads: 0,
            counters: ReadCounters::default(),
        }
    }

    /// Keeps a chunk the writer has finished.
    pub fn keep(&mut self, chunk: ClosedChunk) {
        self.tail_bytes += chunk.buffer.capacity() as u64;
        self.tail.push_back(chunk);
    }

    /// Brings both caches back under their bounds. A chunk stays until all of it is durable.
    pub fn trim(&mut self, durable: LogPosition, pool: &mut BufferPool) {
        while self.tail_bytes_max < self.tail_bytes
            && let Some(oldest) = self.tail.front()
            && oldest.start + oldest.buffer.len() as u64 <= durable.bytes()
        {
            self.tail_bytes -= oldest.buffer.capacity() as u64;
            if let Some(chunk) = self.tail.pop_front() {
                pool.retire(chunk.buffer);
            }
        }
        // A window that was just loaded must still be there when its reader asks again.
        let loads = self.loads;
        let may_go = |window: &Window| match window {
            Window::Ready(window) => window.load + FRESH_WINDOWS <= loads,
            Window::Failed(_) => true,
            Window::Queued(_) | Window::Loading(_) => false,
        };
        while let Some(window) = self.windows.evict_above(self.window_bytes_max, may_go) {
            if let Window::Ready(window) = window {
                // Each pool takes its own size.
                if window.buffer.capacity() == SMALL_BYTES { &mut self.small } else { &mut *pool }
                    .retire(window.buffer);
            }
        }
    }

    /// The durable bytes of the record a queue's row points to, checked against what the row says.
    pub fn record(&mut self, row: &Row, log: &LogWriter, ticket: Ticket) -> Located {
        self.record_in(self.window_of(row.position, row.size_bytes), row, log, ticket)
    }

    /// As [`record`](Self::record), for a reader that wants nothing else around it: unless its chunk is at hand, only the
    /// record's own blocks are read.
    pub fn record_alone(&mut self, row: &Row, log: &LogWriter, ticket: Ticket) -> Located {
        let chunk = self.window_of(row.position, row.size_bytes);
        let key = if self.windows.contains(chunk) { chunk } else { blocks_of(row.position, row.size_bytes) };
        self.record_in(key, row, log, ticket)
    }

    fn record_in(&mut self, key: WindowKey, row: &Row, log: &LogWriter, ticket: Ticket) -> Located {
        let Row { position, size_bytes: len, checksum, .. } = *row;
        if let Some(slice) = self.in_memory(position, len, log) {
            return Located::Found(slice);
        }
        let offset = PhysicalOffset::new(self.shard, LogPosition::new(position));
        let located = self.in_window(key, position, len, log, Some(ticket), |bytes, is_verified| {
            record::is_at(bytes, len, offset) && (is_verified || record::is_intact(bytes, checksum))
        });
        if matches!(located, Located::Damaged) {
            self.counters.damaged_records += 1;
            tracing::error!(shard = self.shard, position, len, "record on disk is not what was written");
        }
        located
    }

    /// Has durable records read that [`record_alone`](Self::record_alone) will be asked for soon; they are in the order of
    /// the log. Where many stand together their whole chunk is read, else each one's own blocks.
    pub fn announce(&mut self, records: &[MessageRef], log: &LogWriter) {
        let geometry = self.geometry;
        let chunk_of = |record: &MessageRef| geometry.chunk_of(record.position);
        for together in records.chunk_by(|one, next| chunk_of(one) == chunk_of(next)) {
            let is_dense = together.len() >= RECORDS_PER_CHUNK_MIN;
            for record in together {
                let MessageRef { position, size_bytes, .. } = *record;
                let chunk = self.window_of(position, size_bytes);
                let key = if is_dense { chunk } else { blocks_of(position, size_bytes) };
                let is_there = self.windows.contains(key) || self.windows.contains(chunk);
                if !is_there && self.in_memory(position, size_bytes, log).is_none() {
                    self.counters.windows_read_ahead += 1;
                    self.request(key, Vec::new());
                }
            }
        }
    }

    /// What is in memory from the record of a row on and needs no further check: for readers that look at many records and
    /// want few of them.
    pub fn piece(&self, row: &Row, log: &LogWriter) -> Option<Piece> {
        let Row { position, size_bytes, .. } = *row;
        if let Some(bytes) = log.rest_of_chunk(position) {
            return Some(Piece { start: position, bytes });
        }
        if let Some(chunk) = self.kept_chunk(position) {
            let bytes = chunk.buffer.slice((position - chunk.start) as usize..chunk.buffer.len());
            return Some(Piece { start: position, bytes });
        }
        let key = self.window_of(position, size_bytes);
        match self.windows.peek(key)? {
            // The first record of a window is read one by one, with what has to be done for the windows behind it.
            Window::Ready(window) if window.is_read_ahead_done && window.damaged.is_empty() => {
                let at = (position - key.start) as usize;
                (at < window.verified)
                    .then(|| Piece { start: position, bytes: window.buffer.slice(at..window.verified) })
            }
            _ => None,
        }
    }

    /// Durable bytes as they are, unchecked.
    pub fn bytes(&mut self, position: u64, len: u32, log: &LogWriter, ticket: Ticket) -> Located {
        match self.in_memory(position, len, log) {
            Some(slice) => Located::Found(slice),
            None => self.in_window(self.window_of(position, len), position, len, log, Some(ticket), |_, _| true),
        }
    }

    fn in_memory(&self, position: u64, len: u32, log: &LogWriter) -> Option<Slice> {
        if let Some(slice) = log.slice(position, len) {
            return Some(slice);
        }
        let chunk = self.kept_chunk(position)?;
        let start = (position - chunk.start) as usize;
        let end = start + len as usize;
        (end <= chunk.buffer.len()).then(|| chunk.buffer.slice(start..end))
    }

    /// The finished chunk in memory that has a byte at `position`.
    fn kept_chunk(&self, position: u64) -> Option<&ClosedChunk> {
        let index = self.tail.partition_point(|chunk| chunk.start <= position).checked_sub(1)?;
        self.tail.get(index).filter(|chunk| position - chunk.start < chunk.buffer.len() as u64)
    }

    fn window_of(&self, position: u64, len: u32) -> WindowKey {
        let start = self.geometry.chunk_of(position);
        let end = position + u64::from(len);
        if end <= start + self.geometry.chunk_bytes {
            return WindowKey { start, len: self.geometry.chunk_bytes as u32 };
        }
        blocks_of(position, len)
    }

    fn in_window(
        &mut self,
        key: WindowKey,
        position: u64,
        len: u32,
        log: &LogWriter,
        ticket: Option<Ticket>,
        is_good: impl FnOnce(&[u8], bool) -> bool,
    ) -> Located {
        let located = match self.windows.get(key) {
            Some(Window::Queued(waiting) | Window::Loading(waiting)) => {
                if let Some(ticket) = ticket
                    && waiting.last() != Some(&ticket)
                {
                    waiting.push(ticket);
                }
                return Located::Pending;
            }
            Some(Window::Failed(error)) => {
                let error = *error;
                self.windows.remove(key); // The next request tries the disk again.
                return Located::Failed(error);
            }
            Some(Window::Ready(window)) => {
                let start = (position - key.start) as usize;
                let range = start..start + len as usize;
                let is_damaged = window.damaged.iter().any(|bad| bad.start < range.end && range.start < bad.end);
                let is_verified = range.end <= window.verified && !is_damaged;
                let located = match window.buffer.as_slice().get(range.clone()) {
                    Some(bytes) if is_good(bytes, is_verified) => Located::Found(window.buffer.slice(range)),
                    _ => Located::Damaged,
                };
                if window.is_read_ahead_done {
                    return located;
                }
                window.is_read_ahead_done = true;
                located
            }
            None => {
                self.request(key, ticket.into_iter().collect());
                Located::Pending
            }
        };
        self.read_ahead(key, log);
        located
    }

    fn request(&mut self, key: WindowKey, waiting: Vec<Ticket>) {
        self.windows.insert(key, Window::Queued(waiting), 0);
        self.queued.push_back(key);
    }

    /// Asks for the windows behind `key` if the one before it was read too: somebody goes through the log.
    fn read_ahead(&mut self, key: WindowKey, log: &LogWriter) {
        let step = self.geometry.chunk_bytes;
        let is_chunk = u64::from(key.len) == step && key.start.is_multiple_of(step);
        let Some(previous) = key.start.checked_sub(step).filter(|_| is_chunk) else {
            return;
        };
        if !self.windows.contains(WindowKey { start: previous, ..key }) {
            return;
        }
        let in_memory_from = self.tail.front().map_or(log.open_start(), |oldest| oldest.start);
        for start in (1..=READ_AHEAD_WINDOWS).map(|ahead| key.start + ahead * step) {
            let next = WindowKey { start, ..key };
            if start + step <= in_memory_from && !self.windows.contains(next) {
                self.counters.windows_read_ahead += 1;
                self.request(next, Vec::new());
            }
        }
    }

    /// The next read the storage may have.
    pub fn next_read(&mut self, pool: &mut BufferPool) -> Option<CommandKind> {
        if self.in_flight >= READS_IN_FLIGHT_MAX * SMALL_READS_PER_CHUNK {
            return None;
        }
        let key = self.queued.pop_front()?;
        let waiting = match self.windows.get(key) {
            Some(Window::Queued(waiting)) => std::mem::take(waiting),
            _ => unreachable!("a queued window stays queued until it is read"),
        };
        self.in_flight += self.weight(key.len);
        self.counters.windows_read += 1;
        let segment_start = self.geometry.segment_of(key.start);
        let len = key.len as usize;
        let into = match len {
            ..=SMALL_BYTES => self.small.take(len),
            _ if len as u64 * 2 < self.geometry.chunk_bytes => UniqueBuffer::new(len),
            _ => pool.take(len),
        };
        self.windows.insert(key, Window::Loading(waiting), into.len() as u64);
        Some(CommandKind::Read { segment_start, at: key.start - segment_start, len: key.len, into })
    }

    /// What a read counts for among those in flight.
    fn weight(&self, len: u32) -> usize {
        if (len as usize) <= SMALL_BYTES { 1 } else { SMALL_READS_PER_CHUNK }
    }

    /// Takes a read's result; returns who waited for it.
    pub fn on_read(&mut self, start: u64, len: u32, result: Result<(UniqueBuffer, u64), StorageError>) -> Vec<Ticket> {
        self.in_flight -= self.weight(len);
        self.loads += 1;
        let loaded = match result {
            Ok((buffer, bytes)) => {
                let filled = bytes.min(u64::from(len)) as usize;
                let buffer = buffer.into_shared(filled);
                Window::Ready(match len as usize {
                    // Its one record is checked by itself, which costs less than the batch around it.
                    ..=SMALL_BYTES => ReadWindow::unverified(buffer, self.loads),
                    _ => verify(buffer, self.shard, start, self.loads),
                })
            }
            Err(error) => {
                self.counters.failed_reads += 1;
                tracing::error!(shard = self.shard, position = start, len, %error, "reading the log failed");
                Window::Failed(error)
            }
        };
        let Some(slot) = self.windows.get(WindowKey { start, len }) else {
            return Vec::new();
        };
        match std::mem::replace(slot, loaded) {
            Window::Loading(waiting) => waiting,
            _ => Vec::new(),
        }
    }
}

/// The blocks a record stands in.
fn blocks_of(position: u64, len: u32) -> WindowKey {
    let start = position / BLOCK * BLOCK;
    WindowKey { start, len: ((position + u64::from(len)).next_multiple_of(BLOCK) - start) as u32 }
}

/// Checks the batches of a window as far as their headers lead from its start. A window that starts inside a large
/// batch shows no header; its records are checked one by one when they are read.
fn verify(buffer: SharedBuffer, shard: u16, start: u64, load: u64) -> ReadWindow {
    let bytes = buffer.as_slice();
    let mut verified = 0;
    let mut damaged = Vec::new();
    if planted::is(Bug::ReadNotVerified) {
        return ReadWindow { verified: bytes.len(), ..ReadWindow::unverified(buffer, load) };
    }
    'batches: loop {
        for align in [BATCH_ALIGN_BYTES, BLOCK] {
            let at = (verified as u64).next_multiple_of(align) as usize;
            let Some(rest) = bytes.get(at..) else {
                continue;
            };
            let Ok(header) = BatchHeader::peek(rest) else {
                continue;
            };
            let size = header.total_bytes as usize;
            match BatchHeader::decode(rest, shard, LogPosition::new(start + at as u64)) {
                Ok(_) => {}
                Err(BatchError::Checksum) => damaged.push(at..at + size),
                Err(_) => continue,
            }
            verified = at + size;
            continue 'batches;
        }
        break;
    }
    ReadWindow { verified, damaged, ..ReadWindow::unverified(buffer, load) }
}
