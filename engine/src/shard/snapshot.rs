//! Taking a snapshot while the shard goes on: one part per turn, each made from what the turn finds. Parts gather while
//! the ones before are written.

use crate::config::SNAPSHOT_RETRY_MS;
use crate::consume_queue::row::{ROWS_PER_PAGE, Row};
use crate::consume_queue::table::{PageEntry, Queue};
use crate::in_flight::{InFlight, Taken};
use crate::key_index::KeyRun;
use crate::offsets::Progress;
use crate::planted::{self, Bug};
use crate::shard::Shard;
use crate::snapshot::{
    Encoder, End, InFlightState, OffsetState, PART_BYTES, Part, ProgressState, QueueName, QueueState, SettingState,
    Start, TakenRun,
};
use crate::storage::{CommandKind, StorageError};

/// Parts that gather at most while others are written: on its way through a service thread a write takes many turns.
const GATHERED_BYTES_MAX: usize = 2 << 20;

/// The snapshots of a shard: those that count, and the one being taken.
#[derive(Default)]
pub(super) struct Snapshots {
    /// Where the finished ones that are kept begin in the log, oldest first. The last one is what a start uses; the
    /// one before is there in case the last one cannot be read.
    kept: Vec<u64>,
    taking: Option<Taking>,
    is_wanted: bool,
    /// Size of the last one.
    bytes: u64,
    /// When the last try failed.
    failed_at_ms: Option<i64>,
}

struct Taking {
    /// Where replay will begin.
    start: u64,
    stage: Stage,
    encoder: Encoder,
    /// Parts that are encoded and not given out yet.
    gathered: Vec<u8>,
    /// A command is under way.
    is_writing: bool,
}

/// What the next part is about.
enum Stage {
    Start,
    Queues {
        slot: usize,
        told: Option<Told>,
    },
    Keys {
        next_run: u64,
    },
    Offsets {
        after: Option<(Box<str>, Box<str>)>,
    },
    Settings {
        after: Option<(u8, Box<str>)>,
    },
    End,
    /// All parts are written; the log and the index are not yet where the parts say they are.
    Settle {
        as_of: u64,
        pages_added: u64,
    },
    Publish {
        as_of: u64,
    },
}

/// How much of a queue with very many pages has been told.
struct Told {
    generation: u32,
    next_offset: i64,
}

impl Snapshots {
    pub fn new(kept: Vec<u64>) -> Self {
        Self { kept, ..Self::default() }
    }

    /// Where a restart would begin to read the log if it had to use the older of the two snapshots kept; `None` while
    /// there are not two.
    pub fn oldest_replay_start(&self) -> Option<u64> {
        if self.kept.len() < 2 { None } else { self.kept.first().copied() }
    }
}

impl Shard {
    /// Asks for a snapshot as soon as may be, for a quick start after a stop. Nothing is done if the last one says
    /// all there is to say.
    pub fn want_snapshot(&mut self) {
        self.snapshots.is_wanted = true;
    }

    /// Whether a snapshot is under way or wanted. Never for ever: one that fails is given up for a while.
    pub fn is_taking_snapshot(&self) -> bool {
        self.poison.is_none() && (self.snapshots.is_wanted || self.snapshots.taking.is_some())
    }

    pub(super) fn pump_snapshot(&mut self) {
        if self.snapshots.taking.is_none() {
            self.begin_snapshot();
        }
        let Some(mut taking) = self.snapshots.taking.take() else { return };
        let has_more_parts = !matches!(taking.stage, Stage::Settle { .. } | Stage::Publish { .. });
        if has_more_parts && taking.gathered.len() < GATHERED_BYTES_MAX {
            let part = self.next_part(&mut taking);
            taking.gathered.append(&mut taking.encoder.encode(&part));
        }
        self.write_snapshot(&mut taking);
        self.snapshots.taking = Some(taking);
    }

    /// Gives out the next command for the snapshot, if none is under way.
    fn write_snapshot(&mut self, taking: &mut Taking) {
        if taking.is_writing {
            return;
        }
        if !taking.gathered.is_empty() {
            let bytes = std::mem::take(&mut taking.gathered);
            let at = taking.encoder.bytes_written - bytes.len() as u64;
            taking.is_writing = true;
            return self.commands.issue(CommandKind::WriteSnapshot { start: taking.start, at, bytes });
        }
        let Stage::Settle { as_of, pages_added } = taking.stage else { return };
        let is_log_there = as_of <= self.log.durable().bytes() || planted::is(Bug::SnapshotAheadOfLog);
        let are_pages_there = self.pages.is_written(pages_added) || planted::is(Bug::SnapshotAheadOfPages);
        if !(is_log_there && are_pages_there) {
            return;
        }
        taking.stage = Stage::Publish { as_of };
        taking.is_writing = true;
        let newest = self.snapshots.kept.last().copied();
        self.commands.issue(CommandKind::PublishSnapshot {
            start: taking.start,
            log: newest.unwrap_or(self.log_start)..as_of,
            keep_from: newest.unwrap_or(taking.start),
        });
    }

    fn begin_snapshot(&mut self) {
        let start = self.log.sealed_end();
        let newest = self.snapshots.kept.last().copied();
        let log_bytes = start - newest.unwrap_or(self.log_start);
        let log_bytes_min = self.config.snapshot_log_bytes.max(4 * self.snapshots.bytes);
        // A clock that was set back must not make the wait longer.
        let is_resting = |at_ms: i64| (at_ms..at_ms + SNAPSHOT_RETRY_MS).contains(&self.now_ms);
        let is_time = log_bytes >= log_bytes_min && !self.snapshots.failed_at_ms.is_some_and(is_resting);
        if !is_time && !self.snapshots.is_wanted {
            return;
        }
        self.snapshots.is_wanted = false;
        if log_bytes > 0 {
            self.pages.hold();
            let encoder = Encoder::default();
            let gathered = Vec::new();
            self.snapshots.taking = Some(Taking { start, stage: Stage::Start, encoder, gathered, is_writing: false });
        }
    }

    fn next_part(&self, taking: &mut Taking) -> Part {
        match &mut taking.stage {
            Stage::Start => {
                taking.stage = Stage::Queues { slot: 0, told: None };
                let (checksum, epoch) = self.log.last_sealed();
                Part::Start(Start { shard: self.config.shard, position: taking.start, checksum, epoch })
            }
            Stage::Queues { slot, told } => {
                let part = self.queues_part(slot, told);
                if *slot >= self.queues.slots() {
                    taking.stage = Stage::Keys { next_run: 0 };
                }
                part
            }
            Stage::Keys { next_run } if *next_run < self.keys.next_run() => self.key_runs_part(next_run),
            Stage::Keys { .. } => {
                taking.stage = Stage::Offsets { after: None };
                let (rows, times) = self.keys.open();
                Part::OpenKeys { as_of: self.log.appended_end().bytes(), times, rows: rows.to_vec() }
            }
            Stage::Offsets { after } => {
                let (offsets, is_last) = self.offsets_part(after);
                if is_last {
                    taking.stage = Stage::Settings { after: None };
                }
                Part::Offsets(offsets)
            }
            Stage::Settings { after } => {
                let (settings, is_last) = self.settings_part(after);
                if is_last {
                    taking.stage = Stage::End;
                }
                Part::Settings(settings)
            }
            Stage::End => {
                let as_of = self.log.appended_end().bytes();
                taking.stage = Stage::Settle { as_of, pages_added: self.pages.added() };
                let next_page = self.pages.next_page();
                let (held_pages, freed_pages) = self.pages.unused();
                let segment_times = self.segment_times.to_vec();
                let log_start = self.log_start;
                Part::End(End { as_of, log_start, segment_times, next_page, held_pages, freed_pages })
            }
            Stage::Settle { .. } | Stage::Publish { .. } => unreachable!("every part is written by then"),
        }
    }

    fn queues_part(&self, slot: &mut usize, told: &mut Option<Told>) -> Part {
        let mut queues = Vec::new();
        let mut bytes = 0;
        while bytes < PART_BYTES && *slot < self.queues.slots() {
            let Some(queue) = self.queues.in_slot(*slot) else {
                (*slot, *told) = (*slot + 1, None);
                continue;
            };
            // Of a queue that took the place of another one, nothing has been told.
            let told_before = told.take().filter(|told| told.generation == queue.generation);
            let next_offset = told_before.map_or(queue.base, |told| told.next_offset.max(queue.base));
            let pages = &queue.pages[(next_offset - queue.base) as usize / ROWS_PER_PAGE..];
            let pages_max = PART_BYTES / size_of::<PageEntry>();
            if pages.len() > pages_max {
                let next_offset_after = next_offset + (pages_max * ROWS_PER_PAGE) as i64;
                *told = Some(Told { generation: queue.generation, next_offset: next_offset_after });
                if queues.is_empty() {
                    let pages = pages[..pages_max].to_vec();
                    return Part::Pages { queue: name(queue), first_offset: next_offset, pages };
                }
                *told = Some(Told { generation: queue.generation, next_offset });
                break;
            }
            bytes += size_of::<QueueState>() + queue.topic.len();
            bytes += size_of_val(pages) + queue.open.len() * size_of::<Row>();
            queues.push(QueueState {
                name: name(queue),
                min: queue.min,
                base: queue.base,
                next: queue.next,
                last_store_time_ms: queue.last_store_time_ms,
                pages: pages.to_vec(),
                open: queue.open.clone(),
            });
            *slot += 1;
        }
        Part::Queues { as_of: self.log.appended_end().bytes(), queues }
    }

    /// Tells runs of the key index from number `next_run` on.
    fn key_runs_part(&self, next_run: &mut u64) -> Part {
        let first_run = self.keys.first_run().max(*next_run);
        let (mut runs, mut bytes) = (Vec::new(), 0);
        while bytes < PART_BYTES
            && let Some(run) = self.keys.run(first_run + runs.len() as u64)
        {
            bytes += size_of::<KeyRun>() + size_of_val(&run.pages[..]);
            runs.push(run.clone());
        }
        *next_run = first_run + runs.len() as u64;
        Part::KeyRuns { first_run, runs }
    }

    fn offsets_part(&self, after: &mut Option<(Box<str>, Box<str>)>) -> (Vec<OffsetState>, bool) {
        let mut offsets = Vec::new();
        let mut bytes = 0;
        while bytes < PART_BYTES {
            let Some((group, topic, queues)) = self.offsets.next(after.as_ref().map(|(g, t)| (&**g, &**t))) else {
                return (offsets, true);
            };
            let queues: Vec<_> = queues.map(progress).collect();
            bytes += size_of::<OffsetState>() + group.len() + topic.len() + size_of_val(&queues[..]);
            bytes += queues.iter().map(progress_bytes).sum::<usize>();
            offsets.push(OffsetState { group: group.to_owned(), topic: topic.to_owned(), queues });
            *after = Some((group.into(), topic.into()));
        }
        (offsets, false)
    }

    fn settings_part(&self, after: &mut Option<(u8, Box<str>)>) -> (Vec<SettingState>, bool) {
        let mut settings = Vec::new();
        let mut bytes = 0;
        while bytes < PART_BYTES {
            let Some((kind, key, value)) = self.settings.next(after.as_ref().map(|(kind, key)| (*kind, &**key))) else {
                return (settings, true);
            };
            bytes += size_of::<SettingState>() + key.len() + value.len();
            settings.push(SettingState { kind, key: key.to_owned(), value: value.to_vec() });
            *after = Some((kind, key.into()));
        }
        (settings, false)
    }

    pub(super) fn on_snapshot_written(&mut self, result: Result<(), StorageError>) {
        let Some(mut taking) = self.snapshots.taking.take() else { return };
        taking.is_writing = false;
        match (result, &taking.stage) {
            (Err(error), _) => {
                tracing::warn!(shard = self.config.shard, %error, "a snapshot could not be written; the next start will have to read more of the log");
                self.pages.unhold();
                self.snapshots.failed_at_ms = Some(self.now_ms);
            }
            (Ok(()), Stage::Publish { as_of }) => {
                self.log.note_stable(*as_of);
                self.pages.release();
                self.snapshots.bytes = taking.encoder.bytes_written;
                self.snapshots.kept.push(taking.start);
                if self.snapshots.kept.len() > 2 {
                    self.snapshots.kept.remove(0);
                }
                self.counters.snapshots += 1;
            }
            (Ok(()), _) => self.snapshots.taking = Some(taking),
        }
    }
}

fn progress(of: Progress<'_>) -> ProgressState {
    let done = of.done.words().collect();
    let in_flight = of.in_flight.map(in_flight);
    ProgressState { queue_id: of.queue_id, offset: of.offset, done, in_flight, end: of.end.bytes() }
}

fn in_flight(of: &InFlight) -> InFlightState {
    let mut runs: Vec<TakenRun> = Vec::new();
    for (offset, &Taken { taken_ms, until_ms, how, times_before }) in of.iter() {
        let run = TakenRun { first: offset, count: 1, taken_ms, until_ms, how: how as u8, times_before };
        match runs.last_mut() {
            Some(last) if (TakenRun { first: offset - i64::from(last.count), count: last.count, ..run }) == *last => {
                last.count += 1;
            }
            _ => runs.push(run),
        }
    }
    InFlightState { next: of.next(), attempt: of.attempt().to_owned(), taken: runs }
}

/// About as many bytes as it takes in a part.
fn progress_bytes(state: &ProgressState) -> usize {
    let in_flight = state.in_flight.as_ref().map_or(0, |of| size_of_val(&of.taken[..]) + of.attempt.len());
    size_of_val(&state.done[..]) + in_flight
}

fn name(queue: &Queue) -> QueueName {
    QueueName { topic: (*queue.topic).to_owned(), queue_id: queue.queue_id, generation: queue.generation }
}
