//! Reads a whole store and says whether it is what was written.

use std::io;
use std::ops::{ControlFlow, Range};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

use rustc_hash::FxHashMap;

use crate::commit_log::batch::{BatchError, BatchHeader, Proof};
use crate::commit_log::internal::{InternalRecord, InternalRecordError};
use crate::commit_log::record::{Record, RecordError, body_crc, is_indexed};
use crate::commit_log::writer::LogEnd;
use crate::config::ShardConfig;
use crate::inspect::{Stored, records_of};
use crate::position::{LogPosition, PhysicalOffset};
use crate::shard::SegmentSource;
use crate::shard::recover::Scan;
use crate::shard::restore::examine;
use crate::store_dir::{ShardView, StoreView};

/// Problems of one shard that are told one by one; the rest is only counted.
const PROBLEMS_TOLD_MAX: usize = 100;
/// Ranges of lost messages that are told one by one, per shard; the rest is only counted.
const LOST_TOLD_MAX: usize = 1000;

/// What was found in one shard. Positions are bytes of its log.
#[derive(Clone, Debug)]
pub struct ShardReport {
    pub shard: u16,
    /// Start positions of the segment files, in order.
    pub segments: Vec<u64>,
    /// Where the log begins: more than 0 after old segments were removed.
    pub start: u64,
    /// End of the last batch that follows the ones before it.
    pub end: u64,
    pub batches: u64,
    /// Bytes of the batches, their headers included.
    pub batch_bytes: u64,
    pub records: u64,
    pub messages: u64,
    /// When the first and the last batch were opened, milliseconds since 1970; `None` without batches.
    pub store_times_ms: Option<(i64, i64)>,
    /// Epochs of the first and the last batch; `None` without batches.
    pub epochs: Option<(u64, u64)>,
    /// The finished snapshots, oldest first.
    pub snapshots: Vec<SnapshotReport>,
    /// `None` if reading failed before the end; a [`Problem::Io`] says why.
    pub ending: Option<Ending>,
    /// The first ones of what a broker would refuse, other than a damaged end.
    pub problems: Vec<Problem>,
    pub problem_count: u64,
}

/// What was found in one snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotReport {
    /// Position of the log where it was begun; names the file.
    pub start: u64,
    pub path: PathBuf,
    /// How far the log was durable when it was finished, or why a broker would not use it.
    pub as_of: Result<u64, String>,
}

/// How a log ends.
#[derive(Clone, Debug)]
pub enum Ending {
    /// Nothing is written behind the last batch.
    Clean,
    /// At `position` there are remains of what was being written when the broker or the machine went down. None of it
    /// was acknowledged.
    Torn { position: u64, reason: BatchError },
    /// The log was durable up to `durable` once, and the machine was restarted since: a loss of power took messages
    /// that were acknowledged under ASYNC_FLUSH, which does not promise more.
    LostPower { durable: u64 },
    /// The log went on, and what followed is damaged: a broker does not start.
    Damaged(Damage),
}

/// Damage before the end of a log.
#[derive(Clone, Debug)]
pub struct Damage {
    /// The segment file.
    pub path: PathBuf,
    /// Byte of the file where the batch stands that cannot be read.
    pub at: u64,
    /// The same as a position of the log.
    pub position: u64,
    pub reason: BatchError,
    pub behind: Behind,
}

/// Intact batches behind a damaged one.
#[derive(Clone, Debug, Default)]
pub struct Behind {
    /// Where the first one stands, and the end of the last.
    pub range: Option<(u64, u64)>,
    pub batches: u64,
    pub batch_bytes: u64,
    pub messages: u64,
    /// The first ones of the messages that are missing between those before and those behind.
    pub lost: Vec<LostRange>,
    /// Messages known to be missing. More may be: those of queues with no message behind.
    pub lost_messages: u64,
}

/// Messages of one queue that cannot be read, by their queue offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostRange {
    pub topic: String,
    pub queue_id: u32,
    pub offsets: Range<i64>,
}

/// What a broker would not accept, in a log or beside it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the log cannot be read: {0}")]
    Io(String),
    #[error("log segment {missing:020} is missing between its neighbours")]
    MissingSegment { missing: u64 },
    #[error("the batch at position {position} has epoch {found}, the manifest says {ours}: an old manifest")]
    EpochFromTheFuture { position: u64, found: u64, ours: u64 },
    #[error("the record at position {position} cannot be read, though its batch is intact: {reason}")]
    UnreadableRecord { position: u64, reason: InternalRecordError },
    #[error(
        "the body of the message at position {position} ({topic}, queue {queue_id}, offset {offset}) has another CRC"
    )]
    BodyCrc { position: u64, topic: String, queue_id: u32, offset: i64 },
    #[error("the message at position {position} ({topic}, queue {queue_id}) has offset {found} instead of {expected}")]
    OffsetMismatch { position: u64, topic: String, queue_id: u32, found: i64, expected: i64 },
    #[error("the log ends at {end}, but was durable up to {as_of} when the snapshot begun at {snapshot} was taken")]
    EndsBeforeSnapshot { end: u64, as_of: u64, snapshot: u64 },
    #[error("the log begins at {start}, what was before is retired, and no snapshot can be read")]
    NoSnapshot { start: u64 },
}

impl ShardReport {
    /// Whether everything that was promised to be there is there. What a crash leaves behind is not damage.
    pub fn is_sound(&self) -> bool {
        let is_ended = matches!(self.ending, Some(Ending::Clean | Ending::Torn { .. } | Ending::LostPower { .. }));
        is_ended && self.problem_count == 0 && self.snapshots.iter().all(|snapshot| snapshot.as_of.is_ok())
    }

    fn add(&mut self, problem: Problem) {
        self.problem_count += 1;
        if self.problems.len() < PROBLEMS_TOLD_MAX {
            self.problems.push(problem);
        }
    }
}

/// Reads every shard of the store, as many at once as there are processors. The reports are in the shards' order.
pub fn check(store: &StoreView) -> Vec<ShardReport> {
    let shard_count = store.manifest().shard_count;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(usize::from(shard_count));
    let next = AtomicU16::new(0);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let shard = next.fetch_add(1, Ordering::Relaxed);
                    if shard >= shard_count {
                        return;
                    }
                    let report = check_shard(store, shard);
                    reports.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    reports.sort_by_key(|report| report.shard);
    reports
}

/// Reads one shard.
fn check_shard(store: &StoreView, shard: u16) -> ShardReport {
    let report = ShardReport {
        shard,
        segments: Vec::new(),
        start: 0,
        end: 0,
        batches: 0,
        batch_bytes: 0,
        records: 0,
        messages: 0,
        store_times_ms: None,
        epochs: None,
        snapshots: Vec::new(),
        ending: None,
        problems: Vec::new(),
        problem_count: 0,
    };
    let mut checking = Checking { report, queues: QueueOffsets::default(), anchors: Vec::new() };
    if let Err(error) = checking.run(store, &mut store.shard(shard)) {
        checking.report.add(Problem::Io(error.to_string()));
    }
    checking.report
}

/// The place in the chain of batches that a snapshot names.
struct Anchor {
    position: u64,
    checksum: u32,
    epoch: u64,
    is_met: bool,
}

struct Checking {
    report: ShardReport,
    queues: QueueOffsets,
    /// Of the snapshots that can be read.
    anchors: Vec<Anchor>,
}

impl Checking {
    fn run(&mut self, store: &StoreView, view: &mut ShardView) -> io::Result<()> {
        self.snapshots(store, view)?;
        let geometry = store.geometry();
        let shard = self.report.shard;
        let mut segments = view.segments()?;
        segments.sort_unstable();
        self.report.segments.clone_from(&segments);
        for pair in segments.windows(2) {
            for missing in (pair[0]..pair[1]).step_by(geometry.segment_bytes as usize).skip(1) {
                self.report.add(Problem::MissingSegment { missing });
            }
        }
        let mut scan = Scan::new(view, shard, geometry, &segments);
        let mut end = scan.beginning(segments.first().copied().unwrap_or(0))?;
        self.report.start = end.position;
        self.meet(&end);
        let stopped_because = loop {
            match scan.next_batch(&end)? {
                Ok((header, records, checksum)) => {
                    self.batch(&header, records, store.manifest().epoch);
                    end.position = header.position.bytes() + u64::from(header.total_bytes);
                    (end.checksum, end.epoch) = (checksum, header.epoch);
                    self.meet(&end);
                }
                Err(reason) => break reason,
            }
        };
        self.report.end = end.position;
        self.judge_snapshots();
        let ending = self.ending(&mut scan, &end, stopped_because, store.powered_since())?;
        self.report.ending = Some(match ending {
            Ending::Damaged(damage) => {
                let path = view.segment_path(damage.position - damage.at);
                Ending::Damaged(Damage { path, ..damage })
            }
            ending => ending,
        });
        Ok(())
    }

    fn snapshots(&mut self, store: &StoreView, view: &mut ShardView) -> io::Result<()> {
        let mut config = ShardConfig::new(self.report.shard, store.manifest().epoch);
        config.geometry = store.geometry();
        let mut starts = view.snapshots()?;
        starts.sort_unstable();
        for start in starts {
            let path = view.snapshot_path(start);
            let as_of = match examine(&config, start, |at, into| view.read_snapshot(start, at, into)) {
                Ok((begun, as_of)) => {
                    let (checksum, epoch) = (begun.checksum, begun.epoch);
                    self.anchors.push(Anchor { position: start, checksum, epoch, is_met: false });
                    Ok(as_of)
                }
                Err(reason) => Err(reason.to_string()),
            };
            self.report.snapshots.push(SnapshotReport { start, path, as_of });
        }
        Ok(())
    }

    /// Notes the snapshots that were begun where the log was at `end`.
    fn meet(&mut self, end: &LogEnd) {
        for anchor in self.anchors.iter_mut().filter(|anchor| anchor.position == end.position) {
            // Nothing is known of the batch before the log's beginning but its checksum, and what the snapshot says.
            let is_beginning = end.position == self.report.start && self.report.batches == 0;
            anchor.is_met = anchor.checksum == end.checksum && (is_beginning || anchor.epoch == end.epoch);
        }
    }

    fn judge_snapshots(&mut self) {
        let end = self.report.end;
        for anchor in self.anchors.iter().filter(|anchor| anchor.position <= end && !anchor.is_met) {
            let named = self.report.snapshots.iter_mut().filter(|snapshot| snapshot.start == anchor.position);
            named.for_each(|snapshot| {
                snapshot.as_of = Err("it was not begun where a batch of this log ends".to_owned())
            });
        }
        let newest = self
            .report
            .snapshots
            .iter()
            .rev()
            .find_map(|snapshot| Some((snapshot.start, *snapshot.as_of.as_ref().ok()?)));
        match newest {
            Some((snapshot, as_of)) if end < as_of => {
                self.report.add(Problem::EndsBeforeSnapshot { end, as_of, snapshot });
            }
            None if self.report.start > 0 => self.report.add(Problem::NoSnapshot { start: self.report.start }),
            _ => {}
        }
    }

    fn batch(&mut self, header: &BatchHeader, records: &[u8], epoch_max: u64) {
        let position = header.position.bytes();
        let report = &mut self.report;
        report.batches += 1;
        report.batch_bytes += u64::from(header.total_bytes);
        let first_ms = report.store_times_ms.map_or(header.store_time_ms, |(first, _)| first);
        report.store_times_ms = Some((first_ms, header.store_time_ms));
        let first_epoch = report.epochs.map_or(header.epoch, |(first, _)| first);
        report.epochs = Some((first_epoch, header.epoch));
        if epoch_max < header.epoch {
            report.add(Problem::EpochFromTheFuture { position, found: header.epoch, ours: epoch_max });
        }
        for (position, stored) in records_of(header, records) {
            match stored {
                Ok(Stored::Message(record)) => self.message(&record, position),
                Ok(Stored::Internal(record)) => self.queues.internal(&record),
                Err(reason) => self.report.add(Problem::UnreadableRecord { position, reason }),
            }
            self.report.records += 1;
        }
    }

    fn message(&mut self, record: &Record<'_>, position: u64) {
        self.report.messages += 1;
        let (queue_id, offset) = (record.queue_id, record.queue_offset);
        if record.physical_offset != PhysicalOffset::new(self.report.shard, LogPosition::new(position)).to_wire() {
            let reason = RecordError::Malformed { field: "physicalOffset" }.into();
            self.report.add(Problem::UnreadableRecord { position, reason });
        }
        if record.body_crc != body_crc(record.body) {
            let topic = record.topic.to_owned();
            self.report.add(Problem::BodyCrc { position, topic, queue_id, offset });
        }
        if !is_indexed(record.sys_flag) {
            return;
        }
        let expected = self.queues.place(record).unwrap_or(offset);
        if expected != offset {
            let topic = record.topic.to_owned();
            self.report.add(Problem::OffsetMismatch { position, topic, queue_id, found: offset, expected });
        }
    }

    fn ending(
        &mut self,
        scan: &mut Scan<'_, ShardView>,
        end: &LogEnd,
        reason: BatchError,
        powered_since: u64,
    ) -> io::Result<Ending> {
        let end_position = LogPosition::new(end.position);
        let mut behind = Behind::default();
        let (mut is_damaged, mut lost_power) = (false, None);
        let queues = &mut self.queues;
        scan.look_behind(end, &mut |header, records| {
            behind.batch(queues, header, records);
            match header.proof_against(end_position, end.epoch, powered_since) {
                Proof::Damage => is_damaged = true,
                Proof::LostPower => lost_power = lost_power.max(Some(header.durable.bytes())),
                Proof::None => {}
            }
            ControlFlow::Continue(())
        })?;
        let position = end.position;
        if is_damaged {
            let at = position - scan.geometry.segment_of(position);
            return Ok(Ending::Damaged(Damage { path: PathBuf::new(), at, position, reason, behind }));
        }
        if let Some(durable) = lost_power {
            return Ok(Ending::LostPower { durable });
        }
        let candidates = scan.candidates(position);
        let rest_of_chunk = scan.geometry.chunk_of(end.position) + scan.geometry.chunk_bytes - end.position;
        let mut is_zero = |position, len| -> io::Result<bool> {
            let bytes = scan.bytes(position, len)?;
            Ok(bytes[..bytes.len().min(len as usize)].iter().all(|byte| *byte == 0))
        };
        let mut torn = if is_zero(position, rest_of_chunk)? { None } else { Some(position) };
        for candidate in candidates {
            if torn.is_none() && !is_zero(candidate, BatchHeader::SIZE_BYTES as u64)? {
                torn = Some(candidate);
            }
        }
        Ok(match torn.or((behind.batches > 0).then_some(position)) {
            None => Ending::Clean,
            Some(position) => Ending::Torn { position, reason },
        })
    }
}

impl Behind {
    fn batch(&mut self, queues: &mut QueueOffsets, header: &BatchHeader, records: &[u8]) {
        let position = header.position.bytes();
        let first = self.range.map_or(position, |(first, _)| first);
        self.range = Some((first, position + u64::from(header.total_bytes)));
        self.batches += 1;
        self.batch_bytes += u64::from(header.total_bytes);
        for (_, stored) in records_of(header, records) {
            match stored {
                Ok(Stored::Message(record)) => {
                    self.messages += 1;
                    if is_indexed(record.sys_flag) {
                        self.message(queues, &record);
                    }
                }
                Ok(Stored::Internal(record)) => queues.internal(&record),
                // A batch behind the damage that holds what we cannot read lies behind all the same.
                Err(_) => {}
            }
        }
    }

    fn message(&mut self, queues: &mut QueueOffsets, record: &Record<'_>) {
        // Fewer than expected: the topic was removed and made again in what is missing.
        let Some(expected) = queues.place(record).filter(|expected| *expected < record.queue_offset) else { return };
        let offsets = expected..record.queue_offset;
        self.lost_messages += offsets.end.abs_diff(offsets.start);
        if self.lost.len() < LOST_TOLD_MAX {
            self.lost.push(LostRange { topic: record.topic.to_owned(), queue_id: record.queue_id, offsets });
        }
    }
}

/// The next offset of every queue met so far.
#[derive(Default)]
struct QueueOffsets {
    topics: FxHashMap<Box<str>, FxHashMap<u32, i64>>,
}

impl QueueOffsets {
    /// Notes a message; what its offset should have been, if one of its queue was met before.
    fn place(&mut self, record: &Record<'_>) -> Option<i64> {
        if !self.topics.contains_key(record.topic) {
            self.topics.insert(record.topic.into(), FxHashMap::default());
        }
        self.topics.get_mut(record.topic)?.insert(record.queue_id, record.queue_offset.saturating_add(1))
    }

    fn internal(&mut self, record: &InternalRecord<'_>) {
        if let InternalRecord::TopicRemoved { topic } = record {
            self.topics.remove(*topic);
        }
    }
}
