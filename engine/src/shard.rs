//! The shard: one log and the state folded from it. Sans-IO: no file, clock, ring or random number in here.
//!
//! The owner calls plain methods and then, once per turn, [`Shard::pump`]; the storage driver takes
//! [`Shard::next_command`] and returns results with [`Shard::complete`]. What a record did to the state is visible to
//! the owner at once, to readers (rows, bounds) only when the log is durable up to it.

mod append;
pub(crate) mod behind;
mod fetch;
mod find;
pub(crate) mod recover;
pub(crate) mod restore;
mod retain;
mod snapshot;

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::buffer::{BufferPool, UniqueBuffer};
use crate::commit_log::reader::{LogReader, ReadCounters};
use crate::commit_log::writer::LogWriter;
use crate::config::ShardConfig;
use crate::consume_queue::pages::IndexPages;
use crate::consume_queue::table::{Bounds, QueueRef, QueueTable};
use crate::in_flight::{Due, InFlight};
use crate::key_index::KeyIndex;
use crate::offsets::{Offsets, Settings, is_own_group};
use crate::position::LogPosition;
use crate::segments::Segments;
use crate::storage::{CommandId, CommandKind, StorageCommand, StorageDone, StorageError};

pub use append::{AppendError, Placed};
pub use fetch::{
    Boundary, Fetch, FetchRequest, MessageRef, Nothing, PropertyFilter, ReadRecord, Rows, Searched, StoreTime,
    TagFilter,
};
pub use find::{FoundByKey, KeyQueried, KeyQuery};
pub use recover::{LogSource, RecoverError, Recovered, SegmentSource};
pub use retain::OldSegment;
pub(crate) use retain::SegmentTimes;

/// Names something that waits for storage. Chosen by the caller, given back by [`Shard::ready`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Commands for the storage, and what each was about until it is completed.
#[derive(Default)]
pub(crate) struct Commands {
    queue: VecDeque<StorageCommand>,
    last_id: u64,
    outstanding: FxHashMap<CommandId, Outstanding>,
}

#[derive(Clone, Copy, Debug)]
enum Outstanding {
    Write,
    Read { start: u64, len: u32 },
    WriteIndex { at: u64, count: usize },
    ReadIndex { at: u64 },
    Prepare { segment_start: u64, from: Option<u64> },
    RemoveSegment { segment_start: u64 },
    Snapshot,
}

impl Commands {
    fn next_id(&self) -> CommandId {
        CommandId(self.last_id + 1)
    }

    fn issue(&mut self, kind: CommandKind) {
        let outstanding = match &kind {
            CommandKind::Write { .. } => Outstanding::Write,
            CommandKind::Read { segment_start, at, len, .. } => {
                Outstanding::Read { start: segment_start + at, len: *len }
            }
            CommandKind::WriteIndex { at, pages } => Outstanding::WriteIndex { at: *at, count: pages.len() },
            CommandKind::ReadIndex { at, .. } => Outstanding::ReadIndex { at: *at },
            CommandKind::PrepareSegment { segment_start, from, .. } => {
                Outstanding::Prepare { segment_start: *segment_start, from: *from }
            }
            CommandKind::RemoveSegment { segment_start } => {
                Outstanding::RemoveSegment { segment_start: *segment_start }
            }
            CommandKind::WriteSnapshot { .. } | CommandKind::PublishSnapshot { .. } => Outstanding::Snapshot,
        };
        let id = self.next_id();
        self.last_id = id.0;
        self.outstanding.insert(id, outstanding);
        self.queue.push_back(StorageCommand { id, kind });
    }
}

/// Numbers for operators and tests; they only grow.
#[derive(Clone, Copy, Debug, Default)]
pub struct ShardCounters {
    pub messages_appended: u64,
    pub message_bytes_appended: u64,
    pub log_writes: u64,
    pub log_bytes_written: u64,
    pub index_writes: u64,
    pub snapshots: u64,
    pub segments_retired: u64,
    pub reads: ReadCounters,
}

/// One log, its queues, offsets and settings. See the module.
pub struct Shard {
    config: ShardConfig,
    now_ms: i64,
    log: LogWriter,
    reader: LogReader,
    pool: BufferPool,
    segments: Segments,
    /// First position that still exists.
    log_start: u64,
    segment_times: SegmentTimes,
    queues: QueueTable,
    /// Queues with rows in the open batch.
    touched: Vec<QueueRef>,
    pages: IndexPages,
    keys: KeyIndex,
    offsets: Offsets,
    settings: Settings,
    snapshots: snapshot::Snapshots,
    commands: Commands,
    ready: VecDeque<Ticket>,
    arrivals: VecDeque<(Arc<str>, u32)>,
    poison: Option<StorageError>,
    counters: ShardCounters,
}

impl Shard {
    /// End of what is durable: everything placed at or below it survives as the [`crate::Durability`] says.
    pub fn durable(&self) -> LogPosition {
        self.log.durable()
    }

    /// End of what was appended, durable or not.
    pub fn appended(&self) -> LogPosition {
        self.log.appended_end()
    }

    /// The record of a message whose batch is still open: of the one appended last.
    pub fn just_appended(&self, message: MessageRef) -> Option<&[u8]> {
        self.log.in_open_batch(message.position, message.size_bytes)
    }

    /// Whether a failed write has ended this shard's appends until the next start.
    pub fn is_poisoned(&self) -> bool {
        self.poison.is_some()
    }

    pub fn poison_reason(&self) -> Option<StorageError> {
        self.poison
    }

    /// Whether every command given out has been completed and none waits.
    pub fn is_idle(&self) -> bool {
        self.commands.outstanding.is_empty() && self.log.undurable_bytes() == 0
    }

    pub fn config(&self) -> &ShardConfig {
        &self.config
    }

    pub fn counters(&self) -> ShardCounters {
        ShardCounters { reads: self.reader.counters, ..self.counters }
    }

    /// Readable offsets of a queue; 0 and 0 if it does not exist.
    pub fn bounds(&self, topic: &str, queue_id: u32) -> Bounds {
        self.queues
            .find(topic, queue_id)
            .and_then(|queue| self.queues.get(queue))
            .map(|queue| queue.bounds())
            .unwrap_or_default()
    }

    /// This shard's queues of a topic: id, bounds, store time of the last readable message (0: none yet).
    pub fn queues(&self, topic: &str) -> impl Iterator<Item = (u32, Bounds, i64)> {
        self.queues.of_topic(topic).map(|queue| (queue.queue_id, queue.bounds(), queue.visible_store_time_ms))
    }

    /// Every queue of this shard: topic, id, bounds.
    pub fn all_queues(&self) -> impl Iterator<Item = (&str, u32, Bounds)> {
        self.queues.all().map(|queue| (&*queue.topic, queue.queue_id, queue.bounds()))
    }

    /// The group's committed offset, durable or not.
    pub fn offset(&self, group: &str, topic: &str, queue_id: u32) -> Option<i64> {
        self.offsets.get(group, topic, queue_id).map(|(offset, _)| offset)
    }

    /// What the group has in flight of a queue, durable or not; `None` if nothing.
    pub fn in_flight(&self, group: &str, topic: &str, queue_id: u32) -> Option<&InFlight> {
        self.offsets.in_flight(group, topic, queue_id)
    }

    /// Messages in flight, all queues and groups together.
    pub fn in_flight_count(&self) -> usize {
        self.offsets.in_flight_count()
    }

    /// The next message in flight whose time is over. Each is told once; a restart tells it again.
    pub fn next_due(&mut self, now_ms: i64) -> Option<Due> {
        self.offsets.next_due(now_ms)
    }

    /// Tells a message again at `at_ms`, if it is still in flight then.
    pub fn put_off(&mut self, due: &Due, at_ms: i64) {
        self.offsets.put_off(due, at_ms);
    }

    /// Whether the group is done with the message at `offset`: it lies before its offset, or was marked on its own.
    pub fn is_done(&self, group: &str, topic: &str, queue_id: u32, offset: i64) -> bool {
        self.offsets.is_done(group, topic, queue_id, offset)
    }

    /// All committed offsets of clients' groups: group, topic, queue id, offset.
    pub fn offsets(&self) -> impl Iterator<Item = (&str, &str, u32, i64)> {
        self.offsets.iter().filter(|(group, ..)| !is_own_group(group))
    }

    pub fn setting(&self, kind: u8, key: &str) -> Option<&[u8]> {
        self.settings.get(kind, key)
    }

    /// All settings of a kind, by key.
    pub fn settings(&self, kind: u8) -> impl Iterator<Item = (&str, &[u8])> {
        self.settings.of_kind(kind)
    }

    /// A checksum of all that the log adds up to: the same for two shards that have folded the same log, by whatever
    /// way and with whatever snapshots. Walks everything; for tests and for comparing copies.
    pub fn state_digest(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        let mut add = |name: &str, numbers: &[i64], bytes: &[u8]| {
            hasher.update(&(name.len() as u64).to_be_bytes());
            hasher.update(name.as_bytes());
            numbers.iter().for_each(|number| hasher.update(&number.to_be_bytes()));
            hasher.update(&(bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        // A queue that nothing was ever appended to is in memory only.
        let mut queues: Vec<_> = self.queues.all().filter(|queue| queue.next > 0).collect();
        queues.sort_unstable_by_key(|queue| (&queue.topic, queue.queue_id));
        for queue in queues {
            // Not `min`: how exactly it is known depends on when rows went to pages.
            add(&queue.topic, &[queue.queue_id.into(), queue.base, queue.next], &[]);
            for page in &queue.pages {
                add("", &[page.checksum.into(), page.first_position as i64, page.first_store_time_ms], &[]);
            }
            queue.open.iter().for_each(|row| add("", &[], &row.encode()));
        }
        for run in (self.keys.first_run()..self.keys.next_run()).filter_map(|number| self.keys.run(number)) {
            run.pages.iter().for_each(|page| add("", &[page.checksum.into()], &[]));
        }
        let (open_keys, _) = self.keys.open();
        open_keys.iter().for_each(|row| add("", &[row.position as i64, row.hash.into()], &[]));
        let mut after = None;
        while let Some((group, topic, queues)) = self.offsets.next(after) {
            let mut queues: Vec<_> = queues.collect();
            queues.sort_unstable_by_key(|queue| queue.queue_id);
            add(group, &[], topic.as_bytes());
            for queue in queues {
                add("", &[queue.queue_id.into(), queue.offset], &[]);
                queue.done.words().for_each(|(word, bits)| add("", &[word, bits as i64], &[]));
                let Some(in_flight) = queue.in_flight else { continue };
                add(in_flight.attempt(), &[in_flight.next()], &[]);
                for (offset, taken) in in_flight.iter() {
                    let (how, times_before) = (taken.how as i64, taken.times_before.into());
                    add("", &[offset, taken.taken_ms, taken.until_ms, how, times_before], &[]);
                }
            }
            after = Some((group, topic));
        }
        let mut after = None;
        while let Some((kind, key, value)) = self.settings.next(after) {
            add(key, &[kind.into()], value);
            after = Some((kind, key));
        }
        hasher.finalize()
    }

    /// Something that waited for storage and should ask again. May name what has been answered meanwhile.
    pub fn ready(&mut self) -> Option<Ticket> {
        self.ready.pop_front()
    }

    /// Asks to hear, once, when the queue's readable end grows or the queue is removed.
    pub fn watch(&mut self, topic: &str, queue_id: u32) {
        if let Some(queue) = self.queues.find_or_create(topic, queue_id, 0)
            && let Some(queue) = self.queues.get_mut(queue)
        {
            queue.is_watched = true;
        }
    }

    pub fn unwatch(&mut self, topic: &str, queue_id: u32) {
        if let Some(queue) = self.queues.find(topic, queue_id).and_then(|queue| self.queues.get_mut(queue)) {
            queue.is_watched = false;
        }
    }

    /// A watched queue that grew. It is not watched any more.
    pub fn arrival(&mut self) -> Option<(Arc<str>, u32)> {
        self.arrivals.pop_front()
    }

    /// Once per turn: turns what was appended and asked for into storage commands.
    pub fn pump(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        if self.poison.is_none() {
            self.pump_log();
            let takes_few = self.is_taking_snapshot();
            while let Some(write) = self.pages.next_write(takes_few) {
                self.counters.index_writes += 1;
                self.commands.issue(write);
            }
            self.pump_retired();
            self.pump_snapshot();
        }
        while let Some(read) = self.reader.next_read(&mut self.pool) {
            self.commands.issue(read);
        }
        self.reader.trim(self.log.durable(), &mut self.pool);
        self.pages.trim();
    }

    fn pump_log(&mut self) {
        while let Some(segment_start) = self.segments.next_to_prepare(self.now_ms) {
            let len_bytes = self.config.geometry.segment_bytes;
            let from = self.segments.take_retired();
            self.commands.issue(CommandKind::PrepareSegment { segment_start, len_bytes, from });
        }
        self.give_out_writes();
        if self.log.is_time_to_seal() {
            self.seal_batch();
            self.give_out_writes();
        }
    }

    fn give_out_writes(&mut self) {
        while let Some(write) = self.log.next_write(self.commands.next_id(), |segment| self.segments.is_ready(segment))
        {
            if let CommandKind::Write { data, .. } = &write {
                self.counters.log_writes += 1;
                self.counters.log_bytes_written += data.len() as u64;
            }
            self.commands.issue(write);
        }
    }

    /// Gives memory back that only makes the next burst of work quicker: for a core that has had nothing to do for a
    /// while.
    pub fn release_spare_buffers(&mut self) {
        self.pool.release();
        self.pages.release_spare_buffers();
    }

    /// The next thing the storage is to do.
    pub fn next_command(&mut self) -> Option<StorageCommand> {
        self.commands.queue.pop_front()
    }

    /// Takes the result of a command, in any order.
    ///
    /// # Panics
    /// If the command is not outstanding: a driver that completes twice has handed memory to two owners.
    pub fn complete(&mut self, id: CommandId, result: Result<StorageDone, StorageError>) {
        let outstanding = self.commands.outstanding.remove(&id);
        match outstanding.expect("a command is completed once") {
            Outstanding::Write => {
                let written = result.and_then(|done| match done {
                    StorageDone::Written { bytes } => Ok(bytes),
                    _ => Err(StorageError::IO),
                });
                match self.log.on_written(id, written) {
                    Ok(_) => self.show_durable(),
                    Err(error) => self.poison(error, "writing the log"),
                }
            }
            Outstanding::Read { start, len } => {
                let read = result.and_then(|done| match done {
                    StorageDone::Read { into, bytes } => Ok((into, bytes)),
                    _ => Err(StorageError::IO),
                });
                let waiting = self.reader.on_read(start, len, read);
                self.ready.extend(waiting);
            }
            Outstanding::WriteIndex { at, count } => match result {
                Ok(_) => self.pages.on_written(at, count),
                Err(error) => self.poison(error, "writing the index"),
            },
            Outstanding::ReadIndex { at } => {
                let read = result.and_then(|done| match done {
                    StorageDone::IndexRead { into } => Ok(into),
                    _ => Err(StorageError::IO),
                });
                self.on_index_read(at, read);
            }
            Outstanding::Prepare { segment_start, from } => {
                if let Some(from) = from {
                    self.segments.on_retired_taken(from, result.is_ok());
                }
                if let Err(error) = &result {
                    tracing::error!(shard = self.config.shard, segment_start, %error, "cannot prepare the next log segment");
                }
                self.segments.on_prepared(segment_start, result.map(|_| ()), self.now_ms);
            }
            Outstanding::RemoveSegment { segment_start } => {
                self.segments.on_retired_taken(segment_start, result.is_ok());
                if let Err(error) = result {
                    tracing::error!(
                        shard = self.config.shard, segment_start, %error,
                        "an old log segment cannot be removed; no others are until the broker is restarted"
                    );
                }
            }
            Outstanding::Snapshot => self.on_snapshot_written(result.map(|_| ())),
        }
    }

    fn on_index_read(&mut self, at: u64, read: Result<UniqueBuffer, StorageError>) {
        if let Err(error) = &read {
            tracing::error!(shard = self.config.shard, at, %error, "reading the index failed");
        }
        let waiting = self.pages.on_read(at, read);
        self.ready.extend(waiting);
    }

    /// Moves the durable mark over completed writes and shows their rows to readers.
    fn show_durable(&mut self) {
        if self.poison.is_some() {
            return;
        }
        while let Some(touched) = self.log.pop_durable() {
            for rows in &touched {
                let Some(queue) = self.queues.get_mut(rows.queue) else {
                    continue;
                }; // Removed meanwhile.
                queue.visible = rows.max;
                queue.visible_store_time_ms = rows.store_time_ms;
                if std::mem::take(&mut queue.is_watched) {
                    self.arrivals.push_back((Arc::clone(&queue.topic), queue.queue_id));
                }
            }
            self.log.give_back_touched(touched);
        }
        self.segments.forget_before(self.log.durable().bytes(), self.config.geometry.segment_bytes);
    }

    #[cold]
    fn poison(&mut self, error: StorageError, doing: &str) {
        if self.poison.is_none() {
            tracing::error!(
                shard = self.config.shard, %error,
                "{doing} failed: the shard takes no more messages until the broker is restarted"
            );
            self.poison = Some(error);
        }
    }
}
