//! Letting go of the oldest part of the log, segment by segment.

use std::collections::VecDeque;

use crate::consume_queue::row::ROWS_PER_PAGE;
use crate::consume_queue::table::Queue;
use crate::position::LogPosition;
use crate::shard::Shard;
use crate::storage::CommandKind;

/// A whole segment at the beginning of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OldSegment {
    pub start: LogPosition,
    /// When its last batch was written.
    pub last_store_time_ms: i64,
    /// Whether it may go. Otherwise a restart may still need it: [`Shard::want_snapshot`] changes that sooner or later.
    pub is_free: bool,
}

/// When the last batch of each segment was written, oldest segment first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SegmentTimes(VecDeque<(u64, i64)>);

impl SegmentTimes {
    pub fn new(times: Vec<(u64, i64)>) -> Self {
        Self(times.into())
    }

    /// Notes a batch written at `time_ms` to the segment, the last one or one behind it.
    pub fn note(&mut self, segment_start: u64, time_ms: i64) {
        match self.0.back_mut() {
            Some((start, last_ms)) if *start == segment_start => *last_ms = time_ms,
            Some((start, _)) if segment_start < *start => {}
            _ => self.0.push_back((segment_start, time_ms)),
        }
    }

    pub fn to_vec(&self) -> Vec<(u64, i64)> {
        self.0.iter().copied().collect()
    }

    /// Forgets segments before `log_start`.
    pub fn forget_before(&mut self, log_start: u64) {
        while self.0.front().is_some_and(|(start, _)| *start < log_start) {
            self.0.pop_front();
        }
    }
}

impl Shard {
    /// First position of the log that still exists.
    pub fn log_start(&self) -> LogPosition {
        LogPosition::new(self.log_start)
    }

    /// The oldest segment, unless the log is still being written to it.
    pub fn oldest_segment(&self) -> Option<OldSegment> {
        let (start, last_store_time_ms) = self.segment_times.0.front().copied()?;
        let end = start + self.config.geometry.segment_bytes;
        let is_whole = start == self.log_start && end <= self.log.durable().bytes();
        let is_free = self.snapshots.oldest_replay_start().is_some_and(|needed| end <= needed);
        is_whole.then_some(OldSegment { start: LogPosition::new(start), last_store_time_ms, is_free })
    }

    /// Lets go of the oldest segment: its messages are gone for readers at once, its file is used again for a later
    /// segment or removed. False, and nothing is done, if there is none that is free.
    pub fn retire_oldest_segment(&mut self) -> bool {
        let Some(OldSegment { start, is_free: true, .. }) = self.oldest_segment() else { return false };
        self.log_start = start.bytes() + self.config.geometry.segment_bytes;
        self.segment_times.forget_before(self.log_start);
        self.trim_queues();
        self.segments.retire(start.bytes());
        self.counters.segments_retired += 1;
        true
    }

    /// Takes the rows of records that are gone out of the queues, page by page, and out of the key index, run by run.
    pub(super) fn trim_queues(&mut self) {
        let log_start = self.log_start;
        for queue in self.queues.all_mut() {
            let dead = dead_pages(queue, log_start);
            queue.pages.drain(..dead).for_each(|entry| self.pages.free(entry.page));
            queue.base += (dead * ROWS_PER_PAGE) as i64;
            // Which rows of a page that is left are gone, only reading it would tell; a reader passes over them.
            let gone =
                if queue.pages.is_empty() { queue.open.partition_point(|row| row.position < log_start) } else { 0 };
            queue.min = queue.min.max(queue.base + gone as i64);
        }
        self.keys.trim(log_start, &mut self.pages);
    }

    pub(super) fn pump_retired(&mut self) {
        if let Some(segment_start) = self.segments.next_to_remove() {
            self.commands.issue(CommandKind::RemoveSegment { segment_start });
        }
    }
}

/// Pages all of whose records are before `log_start`: those that the next rows do not begin behind it.
fn dead_pages(queue: &Queue, log_start: u64) -> usize {
    let next_rows = |index: usize| match queue.pages.get(index + 1) {
        Some(page) => Some(page.first_position),
        None => queue.open.first().map(|row| row.position),
    };
    let is_dead = |index: usize| next_rows(index).is_some_and(|position| position <= log_start);
    let (mut low, mut high) = (0, queue.pages.len());
    while low < high {
        let middle = low.midpoint(high);
        if is_dead(middle) { low = middle + 1 } else { high = middle }
    }
    low
}
