//! Loading a snapshot.

use std::cmp::Ordering;
use std::io;

use rustc_hash::FxHashMap;

use crate::commit_log::record::TOPIC_BYTES_MAX;
use crate::config::ShardConfig;
use crate::consume_queue::pages::IndexPages;
use crate::consume_queue::row::ROWS_PER_PAGE;
use crate::consume_queue::table::{PageEntry, QueueTable};
use crate::in_flight::{Taken, TakenHow};
use crate::key_index::{KeyIndex, KeyRow, KeyRun, TimeSpan};
use crate::offsets::{DoneBits, Offsets, Settings};
use crate::position::LogPosition;
use crate::shard::SegmentTimes;
use crate::shard::recover::{Fold, Seen};
use crate::snapshot::{
    Decoder, End, InFlightState, Part, ProgressState, QueueName, QueueState, SnapshotError, Start, TakenRun,
};

/// What a snapshot said.
pub(super) struct Restored {
    pub fold: Fold,
    pub start: Start,
    /// How far the log must at least go.
    pub as_of: u64,
    /// Where the log began; older segments were to go.
    pub log_start: u64,
}

/// Reads the whole snapshot that begins at `start`, only to see that it could be loaded: where it was begun, and how
/// far the log must at least go.
pub(crate) fn examine(
    config: &ShardConfig,
    start: u64,
    read: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
) -> Result<(Start, u64), SnapshotError> {
    restore(config, start, read).map(|restored| (restored.start, restored.as_of))
}

/// Loads the snapshot that begins at `start`. `read` fills a buffer from an offset of its file on.
pub(super) fn restore(
    config: &ShardConfig,
    start: u64,
    read: impl FnMut(u64, &mut [u8]) -> io::Result<usize>,
) -> Result<Restored, SnapshotError> {
    let mut decoder = Decoder::new(read);
    let Part::Start(begin) = decoder.next_part()? else {
        return Err(SnapshotError::Contradiction("it does not say where it was begun"));
    };
    if begin.shard != config.shard || begin.position != start {
        return Err(SnapshotError::Contradiction("it is of another shard or place"));
    }
    let mut loading = Loading::default();
    let end = loop {
        match decoder.next_part()? {
            Part::Start(_) => return Err(SnapshotError::Contradiction("it begins twice")),
            Part::Pages { queue, first_offset, pages } => loading.pages(queue, first_offset, pages)?,
            Part::Queues { as_of, queues } => {
                for queue in queues {
                    loading.queue(queue, as_of)?;
                }
            }
            Part::KeyRuns { first_run, runs } => loading.key_runs(first_run, runs)?,
            Part::OpenKeys { as_of, times, rows } => loading.open_keys = Some((as_of, times, rows)),
            Part::Offsets(offsets) => {
                for of in offsets {
                    for progress in of.queues {
                        loading.progress(&of.group, &of.topic, progress)?;
                    }
                }
            }
            Part::Settings(settings) => {
                for setting in settings {
                    loading.settings.put(setting.kind, &setting.key, &setting.value);
                }
            }
            Part::End(end) => break end,
        }
    };
    let Some((keys_as_of, key_times, key_rows)) = loading.open_keys.take() else {
        return Err(SnapshotError::Contradiction("it does not tell the key index"));
    };
    let (first_run, key_runs) = std::mem::take(&mut loading.key_runs);
    let mut keys = KeyIndex::new(config.key_rows_max, config.indexes_keys);
    keys.restore(first_run, key_runs, key_rows, key_times, keys_as_of);
    let queue_pages = || loading.queues.all().flat_map(|queue| &queue.pages).map(|entry| entry.page);
    let used = || queue_pages().chain(keys.used_pages());
    if used().any(|page| end.next_page <= page) || end.as_of < begin.position {
        return Err(SnapshotError::Contradiction("its end contradicts its parts"));
    }
    let End { as_of, log_start, segment_times, next_page, held_pages, freed_pages } = end;
    let pages = IndexPages::restored(config.index_bytes_max, next_page, held_pages, freed_pages, used());
    let Loading { queues, seen, offsets, settings, .. } = loading;
    let segment_times = SegmentTimes::new(segment_times);
    let fold = Fold { queues, seen, offsets, settings, segment_times, keys, ..Fold::new(config, pages) };
    Ok(Restored { fold, start: begin, as_of, log_start })
}

#[derive(Default)]
struct Loading {
    queues: QueueTable,
    seen: Seen,
    offsets: Offsets,
    settings: Settings,
    /// Pages told before their queue: its offset of the first one, and they themselves.
    told: FxHashMap<QueueName, (i64, Vec<PageEntry>)>,
    /// Number of the first run of the key index, and the runs.
    key_runs: (u64, Vec<KeyRun>),
    /// What else is in the key index, as of where in the log.
    open_keys: Option<(u64, TimeSpan, Vec<KeyRow>)>,
}

impl Loading {
    fn progress(&mut self, group: &str, topic: &str, state: ProgressState) -> Result<(), SnapshotError> {
        let ProgressState { queue_id, offset, done, in_flight, end } = state;
        let (done, end) = (DoneBits::from_words(done), LogPosition::new(end));
        self.offsets.restore(group, topic, queue_id, offset, done, end);
        let Some(InFlightState { next, attempt, taken: runs }) = in_flight else { return Ok(()) };
        let mut all = Vec::new();
        for TakenRun { first, count, taken_ms, until_ms, how, times_before } in runs {
            let how = TakenHow::from_byte(how).ok_or(SnapshotError::Contradiction("a message is in flight somehow"))?;
            let taken = Taken { taken_ms, until_ms, how, times_before };
            all.extend((0..i64::from(count)).map(|n| (first.saturating_add(n), taken)));
        }
        self.offsets.restore_in_flight(group, topic, queue_id, next, &attempt, all.into_iter());
        Ok(())
    }

    fn pages(&mut self, queue: QueueName, first_offset: i64, pages: Vec<PageEntry>) -> Result<(), SnapshotError> {
        let (base, told) = self.told.entry(queue).or_insert((first_offset, Vec::new()));
        // What was retired in between is missing at the front only.
        let told_end = base.checked_add((told.len() * ROWS_PER_PAGE) as i64);
        if told_end != Some(first_offset) {
            if told_end.is_none_or(|end| first_offset < end) {
                return Err(SnapshotError::Contradiction("pages of a queue are told twice"));
            }
            (*base, *told) = (first_offset, Vec::new());
        }
        told.extend(pages);
        Ok(())
    }

    fn key_runs(&mut self, first_run: u64, runs: Vec<KeyRun>) -> Result<(), SnapshotError> {
        let (told_first, told) = &mut self.key_runs;
        // What was retired in between is missing at the front only.
        match first_run.cmp(&(*told_first + told.len() as u64)) {
            Ordering::Less => return Err(SnapshotError::Contradiction("runs of the key index are told twice")),
            Ordering::Equal => told.extend(runs),
            Ordering::Greater => self.key_runs = (first_run, runs),
        }
        Ok(())
    }

    fn queue(&mut self, state: QueueState, as_of: u64) -> Result<(), SnapshotError> {
        let wrong = || SnapshotError::Contradiction("a queue's rows do not fit its offsets");
        let rows_per_page = ROWS_PER_PAGE as i64;
        let QueueState { name, min, base, next, last_store_time_ms, pages, open } = state;
        let (told_base, mut all_pages) = self.told.remove(&name).unwrap_or((base, Vec::new()));
        let retired = base.checked_sub(told_base).filter(|rows| 0 <= *rows && rows % rows_per_page == 0);
        let retired = (retired.ok_or_else(wrong)? / rows_per_page) as usize;
        all_pages.drain(..retired.min(all_pages.len()));
        all_pages.extend(pages);
        let rows = (all_pages.len() * ROWS_PER_PAGE + open.len()) as i64;
        let is_sound = 0 <= base
            && base <= min
            && min <= next
            && base.checked_add(rows) == Some(next)
            && open.len() < ROWS_PER_PAGE
            && name.topic.len() <= TOPIC_BYTES_MAX;
        if !is_sound {
            return Err(wrong());
        }
        // Told twice: its topic was removed in between and made again.
        self.queues.remove_queue(&name.topic, name.queue_id);
        let queue_ref = self.queues.find_or_create(&name.topic, name.queue_id, base).ok_or_else(wrong)?;
        let queue = self.queues.get_mut(queue_ref).ok_or_else(wrong)?;
        queue.min = min;
        queue.next = next;
        queue.visible = next;
        queue.last_store_time_ms = last_store_time_ms;
        queue.visible_store_time_ms = last_store_time_ms;
        queue.pages = all_pages;
        queue.open = open;
        self.seen.note(queue_ref, as_of);
        Ok(())
    }
}
