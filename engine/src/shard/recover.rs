//! What a crash can leave behind, and how much of it we believe.
//!
//! The newest snapshot that can be read is the beginning, or else an empty shard. From where it was begun, the log is
//! read batch by batch, as long as each batch is the one that was written behind
//! the one before it: right place, right shard, an epoch that does not go back, the checksum of its predecessor in
//! its header, and its own checksum intact. The first place where no candidate passes is the end, unless a batch
//! further on proves that the log once went on there: then it is damaged, and the shard is not opened. Whatever else
//! stands behind the end was never acknowledged, or belongs to an earlier life of the bytes. The new epoch, which the
//! caller has made durable before, keeps it from ever being taken for part of the log again.

use std::collections::VecDeque;
use std::io;

use rustc_hash::FxHashMap;

use crate::buffer::{BLOCK_BYTES, BufferPool, UniqueBuffer};
use crate::commit_log::batch::{BATCH_ALIGN_BYTES, BatchError, BatchHeader, VerifiedBatch};
use crate::commit_log::internal::{self, InternalRecord, InternalRecordError};
use crate::commit_log::reader::LogReader;
use crate::commit_log::record::{self, Record, RecordError, is_indexed, row_code};
use crate::commit_log::writer::{LogEnd, LogWriter};
use crate::config::{Geometry, SPARE_CHUNKS_MAX, ShardConfig};
use crate::consume_queue::pages::IndexPages;
use crate::consume_queue::row::Row;
use crate::consume_queue::table::{QueueRef, QueueTable};
use crate::key_index::{KeyIndex, MessageKeys, TopicHash};
use crate::offsets::{Done, Offsets, Settings};
use crate::planted::{self, Bug};
use crate::position::{LogPosition, PhysicalOffset};
use crate::segments::Segments;
use crate::shard::append::push_row;
use crate::shard::restore::{Restored, restore};
use crate::shard::snapshot::Snapshots;
use crate::shard::{Commands, SegmentTimes, Shard, ShardCounters};
use crate::snapshot::{SnapshotError, Start};
use crate::storage::{CommandKind, StorageError};

/// The log of one shard, to be read. May block: it is used at start and by offline tools only.
pub trait SegmentSource {
    /// Start positions of the segment files that exist, in any order.
    fn segments(&mut self) -> io::Result<Vec<u64>>;
    /// Reads bytes of a segment file from `at` on; fewer than asked only at the file's end.
    fn read(&mut self, segment_start: u64, at: u64, into: &mut [u8]) -> io::Result<usize>;
    /// The bytes at `at` and in steps from there to the end of the segment are going to be asked for by [`Self::peek`].
    fn announce(&mut self, _segment_start: u64, _at: u64, _step: u64) {}
    /// Reads a few bytes far from those read before: what stands around them is not wanted.
    fn peek(&mut self, segment_start: u64, at: u64, into: &mut [u8]) -> io::Result<usize> {
        self.read(segment_start, at, into)
    }
}

/// The files of one shard as recovery needs them.
pub trait LogSource: SegmentSource {
    /// Writes pages of the index file.
    fn write_index(&mut self, at: u64, pages: &[u8]) -> io::Result<()>;
    /// Forces everything read so far to stable media. What recovery has believed is shown to consumers, so it must
    /// not be lost by a power failure that comes later.
    fn make_stable(&mut self) -> io::Result<()>;
    /// The finished snapshots, each by the position of the log where it was begun, in any order.
    fn snapshots(&mut self) -> io::Result<Vec<u64>>;
    /// Reads bytes of a finished snapshot from `at` on; fewer than asked only at its end.
    fn read_snapshot(&mut self, start: u64, at: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Removes a finished snapshot, durably.
    fn remove_snapshot(&mut self, start: u64) -> io::Result<()>;
}

/// What recovery found, for the start-up log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// End of the last good batch.
    pub end: LogPosition,
    /// Where the log was read from: where the snapshot in use was begun, or its own beginning.
    pub replayed_from: LogPosition,
    pub batches: u64,
    pub records: u64,
    pub messages: u64,
    /// Why the log ends there: what the bytes behind the last batch are not.
    pub stopped_because: BatchError,
}

/// Why a shard cannot be opened. None of these goes away by trying again.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("reading the log failed: {0}")]
    Io(#[from] io::Error),
    #[error("segment and chunk size do not fit each other: {0:?}")]
    BadGeometry(Geometry),
    #[error("the log's last batch has epoch {found}, the manifest says {ours}: was an old manifest restored?")]
    EpochFromTheFuture { found: u64, ours: u64 },
    #[error("log segment {missing:020} is missing between its neighbours")]
    MissingSegment { missing: u64 },
    #[error(
        "the log begins at {log_start}, what was before is retired, and no snapshot can be read; restore the newest `snapshot` file of the shard from a backup"
    )]
    NoSnapshot { log_start: u64 },
    #[error(
        "the log ends at {end}, but was durable up to {as_of} when the snapshot begun at {snapshot} was taken; `rmq store check` says more; restore the store from a backup, or go on without what is missing: `rmq store repair`"
    )]
    EndsBeforeSnapshot { end: u64, as_of: u64, snapshot: u64 },
    #[error(
        "shard {shard}: log segment {segment_start:020} is damaged from byte {at} on (position {position}): messages that were \
         acknowledged are unreadable there, and intact ones follow from position {intact_from} on. The log was not changed; \
         `rmq store check` says which messages are affected; restore the store from a backup, or cut the log off there: \
         `rmq store repair`"
    )]
    Damaged { shard: u16, segment_start: u64, at: u64, position: u64, intact_from: u64 },
    #[error("the batch at position {position} is intact but holds a record we cannot read: {reason}")]
    UnreadableRecord { position: u64, reason: InternalRecordError },
    #[error("the message at position {position} has queue offset {found}, its queue is at {expected}")]
    OffsetMismatch { position: u64, found: i64, expected: i64 },
}

/// Pages of the index written at once while the log is scanned.
const INDEX_FLUSH_PAGES: usize = 64;
/// Read at once while the log is scanned, at least.
const SCAN_BYTES: u64 = 4 << 20;

impl Shard {
    /// Opens a shard: folds its log into the state it had, up to the first byte that cannot be believed. An empty
    /// source gives an empty shard.
    pub fn recover(config: ShardConfig, source: &mut dyn LogSource) -> Result<(Self, Recovered), RecoverError> {
        if !config.geometry.is_valid() {
            return Err(RecoverError::BadGeometry(config.geometry));
        }
        let mut segments = source.segments()?;
        segments.sort_unstable();
        let first_segment = segments.first().copied().unwrap_or(0);
        let Beginning { mut fold, mut end, snapshots, as_of, log_start } = beginning(&config, source, first_segment)?;
        let replayed_from = LogPosition::new(end.position);
        let mut scan = Scan::new(source, config.shard, config.geometry, &segments);
        scan.check_complete(log_start, end.position)?;
        let mut batches = 0;
        let stopped_because = loop {
            match scan.next_batch(&end)? {
                Ok((header, records, checksum)) => {
                    if header.epoch > config.epoch {
                        return Err(RecoverError::EpochFromTheFuture { found: header.epoch, ours: config.epoch });
                    }
                    let position = header.position.bytes();
                    fold.segment_times.note(config.geometry.segment_of(position), header.store_time_ms);
                    fold.batch(records, position + BatchHeader::SIZE_BYTES as u64)?;
                    end.position = position + u64::from(header.total_bytes);
                    (end.checksum, end.epoch) = (checksum, header.epoch);
                    batches += 1;
                }
                Err(reason) => break reason,
            }
            if fold.pages.unwritten_pages() >= INDEX_FLUSH_PAGES {
                fold.flush_index(scan.source)?;
            }
        };
        if end.position < as_of {
            let snapshot = replayed_from.bytes();
            return Err(RecoverError::EndsBeforeSnapshot { end: end.position, as_of, snapshot });
        }
        scan.check_no_gap(end.position)?;
        if !planted::is(Bug::DamageTakenForEnd) {
            scan.check_undamaged(&end, config.powered_since)?;
        }
        end.chunk = scan.open_chunk(end.position)?;
        fold.flush_index(scan.source)?;
        if !planted::is(Bug::RecoveredNotMadeStable) {
            source.make_stable()?;
        }
        let recovered = Recovered {
            end: LogPosition::new(end.position),
            replayed_from,
            batches,
            records: fold.records,
            messages: fold.messages,
            stopped_because,
        };
        Ok((fold.into_shard(config, end, log_start, snapshots, &segments), recovered))
    }
}

/// What the log is folded into.
struct Beginning {
    fold: Fold,
    end: LogEnd,
    /// The snapshot it came from, last, and the one before.
    snapshots: Vec<u64>,
    /// How far the log must at least go.
    as_of: u64,
    /// What is before was retired, even if its files are still there.
    log_start: u64,
}

/// The newest snapshot that can be read, or an empty shard if the log is there from its very beginning.
fn beginning(config: &ShardConfig, source: &mut dyn LogSource, first_segment: u64) -> Result<Beginning, RecoverError> {
    let mut snapshots = source.snapshots()?;
    snapshots.sort_unstable();
    let mut unreadable = Vec::new();
    let mut restored = None;
    while let Some(start) = snapshots.pop() {
        match restore(config, start, |at, into| source.read_snapshot(start, at, into)) {
            Ok(found) => {
                restored = Some(found);
                break;
            }
            Err(SnapshotError::Io(error)) => return Err(RecoverError::Io(error)),
            Err(reason) => {
                tracing::error!(shard = config.shard, snapshot = start, %reason, "a snapshot is damaged; it is left out");
                unreadable.push(start);
            }
        }
    }
    if restored.is_none() && first_segment > 0 {
        return Err(RecoverError::NoSnapshot { log_start: first_segment });
    }
    // What is folded from here on takes places in the index that these may name.
    for start in unreadable {
        source.remove_snapshot(start)?;
    }
    Ok(match restored {
        Some(Restored { fold, start: Start { position, checksum, epoch, .. }, as_of, log_start }) => {
            let log_start = log_start.max(first_segment);
            if epoch > config.epoch {
                return Err(RecoverError::EpochFromTheFuture { found: epoch, ours: config.epoch });
            }
            let log_end = LogEnd { position, checksum, epoch, chunk: None };
            snapshots.drain(..snapshots.len().saturating_sub(1));
            snapshots.push(position);
            Beginning { fold, end: log_end, snapshots, as_of, log_start }
        }
        None => Beginning {
            fold: Fold::new(config, IndexPages::new(config.index_bytes_max)),
            end: LogEnd { position: 0, checksum: 0, epoch: 0, chunk: None },
            snapshots: Vec::new(),
            as_of: 0,
            log_start: 0,
        },
    })
}

/// Reads the log forward in large pieces.
pub(crate) struct Scan<'a, S: SegmentSource + ?Sized> {
    pub source: &'a mut S,
    pub shard: u16,
    pub geometry: Geometry,
    pub segments: &'a [u64],
    buffer: Vec<u8>,
    buffer_start: u64,
}

impl<'a, S: SegmentSource + ?Sized> Scan<'a, S> {
    /// Over the segments that exist, in order.
    pub fn new(source: &'a mut S, shard: u16, geometry: Geometry, segments: &'a [u64]) -> Self {
        Self { source, shard, geometry, segments, buffer: Vec::new(), buffer_start: 0 }
    }

    /// The end before the first batch of a log that begins at `position`. After old segments were removed, only that
    /// batch says what its predecessor was.
    pub fn beginning(&mut self, position: u64) -> io::Result<LogEnd> {
        let mut end = LogEnd { position, checksum: 0, epoch: 0, chunk: None };
        if position > 0 {
            let first = BatchHeader::peek(self.bytes(position, BatchHeader::SIZE_BYTES as u64)?);
            end.checksum = first.map_or(0, |header| header.previous_checksum);
        }
        Ok(end)
    }

    /// At least `len` bytes from `position` on, fewer only at the segment's end.
    pub fn bytes(&mut self, position: u64, len: u64) -> io::Result<&[u8]> {
        let buffer_end = self.buffer_start + self.buffer.len() as u64;
        let segment_end = self.geometry.segment_end(position);
        let end = (position + len).min(segment_end);
        if position < self.buffer_start || buffer_end < end {
            let segment_start = self.geometry.segment_of(position);
            self.buffer.clear();
            self.buffer_start = position;
            if self.segments.binary_search(&segment_start).is_ok() {
                let want = len.max(SCAN_BYTES).min(segment_end - position);
                self.buffer.resize(want as usize, 0);
                let got = self.source.read(segment_start, position - segment_start, &mut self.buffer)?;
                self.buffer.truncate(got);
            }
        }
        let from = (position - self.buffer_start) as usize;
        Ok(self.buffer.get(from..).unwrap_or_default())
    }

    /// Where the writer can have put the batch behind `e`: right there, at the next block, in a new chunk, in a new
    /// segment. In growing order, some maybe equal.
    pub fn candidates(&self, e: u64) -> [u64; 4] {
        [
            e.next_multiple_of(BATCH_ALIGN_BYTES),
            e.next_multiple_of(BLOCK_BYTES as u64),
            e.next_multiple_of(self.geometry.chunk_bytes),
            e.next_multiple_of(self.geometry.segment_bytes),
        ]
    }

    /// The batch that was written behind `end`, or why there is none.
    pub fn next_batch(&mut self, end: &LogEnd) -> io::Result<Result<VerifiedBatch<'_>, BatchError>> {
        let shard = self.shard;
        let mut candidates = self.candidates(end.position).into_iter().peekable();
        let mut first_reason = None;
        while let Some(position) = candidates.next() {
            if candidates.peek() == Some(&position) {
                continue;
            }
            match self.check(position, end)? {
                Ok(total) => {
                    let bytes = self.bytes(position, u64::from(total))?;
                    return Ok(BatchHeader::decode(bytes, shard, LogPosition::new(position)));
                }
                Err(reason) => first_reason = first_reason.or(Some(reason)),
            }
        }
        Ok(Err(first_reason.unwrap_or(BatchError::NoBatch)))
    }

    /// Whether the batch at `position` is intact and follows `end`; its length if so.
    fn check(&mut self, position: u64, end: &LogEnd) -> io::Result<Result<u32, BatchError>> {
        let shard = self.shard;
        let head = self.bytes(position, BatchHeader::SIZE_BYTES as u64)?;
        let total = match BatchHeader::peek(head) {
            Ok(header) => header.total_bytes,
            Err(reason) => return Ok(Err(reason)),
        };
        if u64::from(total) > self.geometry.segment_end(position) - position {
            let available_bytes = self.geometry.segment_end(position) - position;
            return Ok(Err(BatchError::Truncated { total_bytes: total, available_bytes }));
        }
        let bytes = self.bytes(position, u64::from(total))?;
        let (header, _, _) = match BatchHeader::decode(bytes, shard, LogPosition::new(position)) {
            Ok(decoded) => decoded,
            Err(reason) => return Ok(Err(reason)),
        };
        let is_successor = header.previous_checksum == end.checksum || planted::is(Bug::ChainNotChecked);
        let is_older = header.epoch < end.epoch && !planted::is(Bug::EpochNotChecked);
        if !is_successor || is_older {
            return Ok(Err(BatchError::Stale { epoch: header.epoch }));
        }
        Ok(Ok(total))
    }

    /// Every segment between the beginning of the log and the place where replay begins must be there: its messages
    /// are in the queues.
    fn check_complete(&self, log_start: u64, replay_start: u64) -> Result<(), RecoverError> {
        let step = self.geometry.segment_bytes;
        let mut needed = (log_start..replay_start).step_by(step as usize);
        match needed.find(|start| self.segments.binary_search(start).is_err()) {
            Some(missing) => Err(RecoverError::MissingSegment { missing }),
            None => Ok(()),
        }
    }

    /// A log that ends where a segment file is missing, while a later one holds batches, was taken apart by hand:
    /// files are made durable before they are written.
    fn check_no_gap(&mut self, end: u64) -> Result<(), RecoverError> {
        let missing = self.geometry.segment_of(end);
        let Some(last) = self.segments.last().copied().filter(|last| missing < *last) else {
            return Ok(());
        };
        if self.segments.binary_search(&missing).is_ok() {
            return Ok(());
        }
        let shard = self.shard;
        for start in self.segments.iter().copied().skip_while(|start| *start < missing) {
            let head = self.bytes(start, BatchHeader::SIZE_BYTES as u64)?;
            if BatchHeader::peek(head).is_ok_and(|header| header.shard == shard && header.position.bytes() == start) {
                tracing::error!(missing, start, last, "a log segment is missing before one that holds messages");
                return Err(RecoverError::MissingSegment { missing });
            }
        }
        Ok(())
    }

    /// The chunk the log goes on in, with what it holds already.
    fn open_chunk(&mut self, end: u64) -> Result<Option<(u64, UniqueBuffer)>, RecoverError> {
        let start = self.geometry.chunk_of(end);
        if start == end {
            return Ok(None);
        }
        let mut buffer = UniqueBuffer::new(self.geometry.chunk_bytes as usize);
        let len = (end - start) as usize;
        let segment_start = self.geometry.segment_of(start);
        let got = self.source.read(segment_start, start - segment_start, &mut buffer.as_mut_slice()[..len])?;
        if got < len {
            return Err(RecoverError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(Some((start, buffer)))
    }
}

/// Up to where queues from a snapshot have seen the log.
#[derive(Default)]
pub(super) struct Seen {
    queues: FxHashMap<QueueRef, u64>,
    max: u64,
}

impl Seen {
    pub fn note(&mut self, queue: QueueRef, as_of: u64) {
        self.queues.insert(queue, as_of);
        self.max = self.max.max(as_of);
    }

    /// Whether the queue has seen the record at `position` already.
    fn has_seen(&self, queue: QueueRef, position: u64) -> bool {
        !planted::is(Bug::SeenRecordsFoldedAgain)
            && position < self.max
            && self.queues.get(&queue).is_some_and(|as_of| position < *as_of)
    }
}

/// The state of a shard while its log is read.
pub(super) struct Fold {
    pub shard: u16,
    pub queues: QueueTable,
    pub seen: Seen,
    pub segment_times: SegmentTimes,
    pub pages: IndexPages,
    pub keys: KeyIndex,
    pub offsets: Offsets,
    pub settings: Settings,
    pub messages: u64,
    pub records: u64,
}

impl Fold {
    pub fn new(config: &ShardConfig, pages: IndexPages) -> Self {
        Self {
            shard: config.shard,
            queues: QueueTable::default(),
            seen: Seen::default(),
            segment_times: SegmentTimes::default(),
            pages,
            keys: KeyIndex::new(config.key_rows_max, config.indexes_keys),
            offsets: Offsets::default(),
            settings: Settings::default(),
            messages: 0,
            records: 0,
        }
    }

    fn batch(&mut self, mut records: &[u8], mut position: u64) -> Result<(), RecoverError> {
        let unreadable = |position, reason| RecoverError::UnreadableRecord { position, reason };
        while !records.is_empty() {
            let (size, magic) = record::peek(records).map_err(|reason| unreadable(position, reason.into()))?;
            let Some((bytes, rest)) = records.split_at_checked(size as usize) else {
                return Err(unreadable(position, RecordError::Truncated.into()));
            };
            if magic == internal::MAGIC {
                let end = LogPosition::new(position + u64::from(size));
                let record = InternalRecord::decode(bytes).map_err(|reason| unreadable(position, reason))?;
                self.internal(&record, position, end);
            } else {
                let record = Record::decode(bytes).map_err(|reason| unreadable(position, reason.into()))?;
                self.message(&record, bytes, position)?;
            }
            self.records += 1;
            position += u64::from(size);
            records = rest;
        }
        Ok(())
    }

    fn message(&mut self, record: &Record<'_>, bytes: &[u8], position: u64) -> Result<(), RecoverError> {
        let malformed =
            |field| RecoverError::UnreadableRecord { position, reason: RecordError::Malformed { field }.into() };
        if record.physical_offset != PhysicalOffset::new(self.shard, LogPosition::new(position)).to_wire() {
            return Err(malformed("physicalOffset"));
        }
        self.messages += 1;
        if !is_indexed(record.sys_flag) {
            return Ok(());
        }
        // A queue whose beginning was retired starts where its first message says.
        let base = record.queue_offset.max(0);
        let queue = self.queues.find_or_create(record.topic, record.queue_id, base);
        let queue_ref = queue.ok_or_else(|| malformed("queueId"))?;
        let Record { topic, properties, store_timestamp_ms, .. } = *record;
        let keys = MessageKeys::of(properties);
        self.keys.add(TopicHash::of(topic), &keys, position, store_timestamp_ms, &mut self.pages);
        if self.seen.has_seen(queue_ref, position) {
            return Ok(());
        }
        let queue = self.queues.get_mut(queue_ref).ok_or_else(|| malformed("queueId"))?;
        if record.queue_offset != queue.next {
            return Err(RecoverError::OffsetMismatch { position, found: record.queue_offset, expected: queue.next });
        }
        let row = Row {
            position,
            tags_code: row_code(properties, &keys),
            store_time_ms: record.store_timestamp_ms,
            size_bytes: record.size_bytes,
            checksum: record::checksum_but_body(bytes).unwrap_or_default(),
        };
        push_row(queue, row, &mut self.pages);
        queue.visible = queue.next;
        queue.visible_store_time_ms = row.store_time_ms;
        Ok(())
    }

    /// Settings from a snapshot may have seen the record already. That is harmless: whatever came later comes again too.
    fn internal(&mut self, record: &InternalRecord<'_>, position: u64, end: LogPosition) {
        match *record {
            InternalRecord::Offset { group, topic, queue_id, offset } => {
                self.offsets.set_again(group, topic, queue_id, offset, end);
            }
            InternalRecord::Done { group, topic, queue_id, first, bits } => {
                self.offsets.mark_done_again(&Done { group, topic, queue_id, first, bits }, end);
            }
            InternalRecord::Taken(take) => self.offsets.take_again(&take, end),
            InternalRecord::GroupOffsetsRemoved { group } => self.offsets.remove_group(group),
            InternalRecord::TopicRemoved { topic } => {
                self.remove_queues(topic, position);
                self.offsets.remove_topic(topic);
            }
            InternalRecord::Setting { kind, key, value } => self.settings.put(kind, key, value),
            InternalRecord::SettingRemoved { kind, key } => self.settings.remove(kind, key),
        }
    }

    /// Removes the topic's queues but those that were made after the record at `position` said so.
    fn remove_queues(&mut self, topic: &str, position: u64) {
        let queue_ids: Vec<u32> = self.queues.of_topic(topic).map(|queue| queue.queue_id).collect();
        for queue_id in queue_ids {
            let is_newer = self.queues.find(topic, queue_id).is_some_and(|queue| self.seen.has_seen(queue, position));
            if !is_newer && let Some(queue) = self.queues.remove_queue(topic, queue_id) {
                queue.pages.iter().for_each(|entry| self.pages.free(entry.page));
            }
        }
    }

    /// Writes the full pages gathered so far, so that a long log does not need its whole index in memory.
    fn flush_index(&mut self, source: &mut dyn LogSource) -> io::Result<()> {
        let mut bytes = Vec::new();
        while let Some(CommandKind::WriteIndex { at, pages }) = self.pages.next_write(true) {
            bytes.clear();
            for page in &pages {
                bytes.extend_from_slice(page.as_slice());
            }
            source.write_index(at, &bytes)?;
            self.pages.on_written(at, pages.len());
        }
        self.pages.trim();
        Ok(())
    }

    fn into_shard(
        self,
        config: ShardConfig,
        end: LogEnd,
        log_start: u64,
        snapshots: Vec<u64>,
        segments: &[u64],
    ) -> Shard {
        let geometry = config.geometry;
        let first_needed = geometry.segment_of(end.position);
        let mut writable = Segments::with_ready(segments.iter().copied().filter(|start| *start >= first_needed));
        writable.want(first_needed);
        let mut segment_times = self.segment_times;
        segment_times.forget_before(log_start);
        // Those that were to go before the restart.
        segments.iter().filter(|start| **start < log_start).for_each(|start| writable.retire(*start));
        let mut shard = Shard {
            now_ms: 0,
            log: LogWriter::new(&config, end),
            reader: LogReader::new(&config),
            pool: BufferPool::new(geometry.chunk_bytes as usize, SPARE_CHUNKS_MAX),
            segments: writable,
            log_start,
            segment_times,
            queues: self.queues,
            touched: Vec::new(),
            pages: self.pages,
            keys: self.keys,
            offsets: self.offsets,
            settings: self.settings,
            snapshots: Snapshots::new(snapshots),
            commands: Commands::default(),
            ready: VecDeque::new(),
            arrivals: VecDeque::new(),
            poison: None::<StorageError>,
            counters: ShardCounters::default(),
            config,
        };
        // A segment may have gone after the snapshot was taken.
        shard.trim_queues();
        shard
    }
}
