//! Copies of the messages that are due within seconds, so that they need not be read back one by one from all over the
//! log when their time comes.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use rmq_engine::{BufferPool, FillingBuffer, Slice, UniqueBuffer};

use crate::owed::Open;

/// Most bytes of copies on one core: 150,000 small messages per second, each due in 5.
pub const BYTES_MAX: usize = 384 << 20;
/// Those that are due later are read from the disk when they come near.
const AHEAD_MS: i64 = 10_000;
const SPAN_MS: i64 = 500;
const CACHE_LINE_BYTES: usize = 64;
const BLOCK_BYTES: usize = 256 << 10;
/// A larger message costs the disk little for what it is, and is not copied.
const RECORD_BYTES_MAX: usize = BLOCK_BYTES / 4;

/// Where a copy begins, counted from 1 over all blocks of what is due in the same [`SPAN_MS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyPlace(NonZeroU32);

/// Copies of what is due in one [`SPAN_MS`].
#[derive(Default)]
struct Span {
    blocks: Vec<FillingBuffer>,
    /// They had to go: places given out for them must not come to mean others.
    is_dropped: bool,
}

pub struct Soon {
    /// By when they are due, in [`SPAN_MS`].
    spans: BTreeMap<i64, Span>,
    blocks: usize,
    blocks_max: usize,
    pool: BufferPool,
    /// Blocks for the next spans: memory that is used for the first time costs more than all else here.
    spare: Vec<UniqueBuffer>,
}

impl Span {
    fn has_room(&self, bytes: usize) -> bool {
        self.blocks.last().is_some_and(|block| block.frozen() + bytes <= BLOCK_BYTES)
    }
}

impl Soon {
    pub fn new(bytes_max: usize) -> Self {
        Self {
            spans: BTreeMap::new(),
            blocks: 0,
            blocks_max: bytes_max / BLOCK_BYTES,
            pool: BufferPool::new(BLOCK_BYTES, 0),
            spare: Vec::new(),
        }
    }

    /// Copies the record of a message, if it is due soon. Full: those that are due last go.
    pub fn keep(&mut self, due_ms: i64, record: &[u8], now_ms: i64) -> Option<CopyPlace> {
        if record.len() > RECORD_BYTES_MAX || due_ms < now_ms || now_ms.saturating_add(AHEAD_MS) < due_ms {
            return None;
        }
        let number = due_ms.div_euclid(SPAN_MS);
        let span = self.spans.entry(number).or_default();
        if span.is_dropped {
            return None;
        }
        if !span.has_room(record.len()) {
            while self.blocks >= self.blocks_max {
                self.drop_last(number)?;
            }
            let block = self.spare.pop().unwrap_or_else(|| self.pool.take(BLOCK_BYTES));
            self.spans.entry(number).or_default().blocks.push(block.into_filling(0));
            self.blocks += 1;
        }
        let span = self.spans.get_mut(&number)?;
        let before = span.blocks.len().saturating_sub(1) * BLOCK_BYTES;
        let block = span.blocks.last_mut()?;
        let (start, end) = (block.frozen(), block.frozen() + record.len());
        block.tail_mut(start..end).copy_from_slice(record);
        block.freeze(end);
        NonZeroU32::new(u32::try_from(before + start + 1).ok()?).map(CopyPlace)
    }

    /// Makes room by what is due last; there is none that is due later than the span `number`: `None`.
    fn drop_last(&mut self, number: i64) -> Option<()> {
        let mut with_blocks = self.spans.range_mut(number + 1..).filter(|(_, span)| !span.blocks.is_empty());
        let span = with_blocks.next_back()?.1;
        span.is_dropped = true;
        let blocks = std::mem::take(&mut span.blocks);
        self.free(blocks);
        Some(())
    }

    /// Whether there still is a copy of a message.
    pub fn has(&self, open: &Open) -> bool {
        let span = self.spans.get(&open.due_ms().div_euclid(SPAN_MS));
        open.copy.is_some() && span.is_some_and(|span| !span.is_dropped)
    }

    /// The copy of a message, which the processor has at hand then: most of the time that a delivery takes would be waiting
    /// for memory, and waiting for many at once takes as long as for one.
    pub fn fetch(&self, open: &Open) -> Option<Slice> {
        let start = open.copy?.0.get() as usize - 1;
        let span = self.spans.get(&open.due_ms().div_euclid(SPAN_MS))?;
        let (block, start) = (span.blocks.get(start / BLOCK_BYTES)?, start % BLOCK_BYTES);
        let copy = block.slice(start..start + open.message.size_bytes() as usize);
        let line_starts = copy.as_ref().iter().step_by(CACHE_LINE_BYTES).copied();
        std::hint::black_box(line_starts.fold(0u8, u8::wrapping_add));
        Some(copy)
    }

    /// Nothing that is due before is asked for any more.
    pub fn forget_before(&mut self, due_ms: i64) {
        while let Some(first) = self.spans.first_entry()
            && *first.key() < due_ms.div_euclid(SPAN_MS)
        {
            let blocks = first.remove().blocks;
            self.free(blocks);
        }
    }

    fn free(&mut self, blocks: Vec<FillingBuffer>) {
        self.blocks -= blocks.len();
        self.spare.extend(blocks.into_iter().filter_map(|block| block.into_shared().try_into_unique().ok()));
    }

    /// Gives back the memory that is not in use.
    pub fn release_spare_buffers(&mut self) {
        self.spare = Vec::new();
        self.pool.release();
    }
}

#[cfg(test)]
mod tests {
    use rmq_engine::{MessageDraft, MessageKeys};

    use super::*;
    use crate::owed::OwedQueue;
    use crate::testing::Cores;

    const NOW_MS: i64 = 1_000_000;

    /// Appends a message and has it kept.
    fn keep(cores: &mut Cores, soon: &mut Soon, due_ms: i64, body: &[u8]) -> Open {
        let shard = &mut cores.broker(0).shard;
        let host = "127.0.0.1:1".parse().expect("an address");
        let draft = MessageDraft {
            topic: "T",
            queue_id: 0,
            flag: 0,
            sys_flag: 0,
            born_timestamp_ms: NOW_MS,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            properties: b"",
            keys: MessageKeys::default(),
        };
        let placed = shard.append(&draft, NOW_MS).expect("room in the log");
        let record = shard.just_appended(placed.message).expect("its batch is open").to_vec();
        assert!(record.windows(body.len()).any(|part| part == body));
        let copy = soon.keep(due_ms, &record, NOW_MS);
        let open = Open { copy, ..Open::new(due_ms, OwedQueue::Timer, placed.queue_offset, placed.message) };
        assert_eq!(soon.has(&open), copy.is_some());
        assert_eq!(soon.fetch(&open).map(|copy| copy.as_ref().to_vec()), copy.map(|_| record));
        cores.run();
        assert_eq!(cores.broker(0).shard.just_appended(placed.message), None, "written");
        open
    }

    #[test]
    fn what_is_due_soon_is_at_hand_until_its_time_is_over() {
        let (mut cores, mut soon) = (Cores::new(1), Soon::new(BYTES_MAX));
        let kept: Vec<_> = (0..2000)
            .map(|number| {
                let due_ms = NOW_MS + number * 7 % AHEAD_MS;
                keep(&mut cores, &mut soon, due_ms, format!("body {number}").as_bytes())
            })
            .collect();
        for at_ms in [NOW_MS, NOW_MS + 700, NOW_MS + 5000, NOW_MS + AHEAD_MS + SPAN_MS] {
            soon.forget_before(at_ms);
            for (number, open) in kept.iter().enumerate() {
                let is_wanted = at_ms.div_euclid(SPAN_MS) <= open.due_ms().div_euclid(SPAN_MS);
                assert_eq!(soon.has(open), is_wanted, "{} at {at_ms}", open.due_ms());
                let body = format!("body {number}");
                let is_its_own = |copy: Slice| copy.as_ref().windows(body.len()).any(|part| part == body.as_bytes());
                assert_eq!(soon.fetch(open).is_some_and(is_its_own), is_wanted, "{body}");
            }
        }
        assert_eq!((soon.blocks, soon.spans.len(), soon.spare.is_empty()), (0, 0, false));
        soon.release_spare_buffers();
        assert!(soon.spare.is_empty());
    }

    #[test]
    fn what_is_past_or_far_or_large_is_not_copied() {
        let (mut cores, mut soon) = (Cores::new(1), Soon::new(BYTES_MAX));
        for (due_ms, size) in [(NOW_MS - 1, 9), (NOW_MS + AHEAD_MS + 1, 9), (NOW_MS, RECORD_BYTES_MAX), (i64::MAX, 9)] {
            assert_eq!(keep(&mut cores, &mut soon, due_ms, &vec![b'x'; size]).copy, None, "{due_ms}");
        }
        assert_eq!(soon.blocks, 0);
    }

    #[test]
    fn what_is_due_last_goes_when_memory_is_full() {
        let (mut cores, mut soon) = (Cores::new(1), Soon::new(8 * BLOCK_BYTES));
        let body = vec![b'x'; BLOCK_BYTES / 8];
        let mut kept = Vec::new();
        for due_ms in [5000, 3000, 4000, 1000, 2000] {
            for _ in 0..14 {
                kept.push(keep(&mut cores, &mut soon, NOW_MS + due_ms, &body));
                assert!(soon.blocks <= 8, "{}", soon.blocks);
            }
        }
        let count_of =
            |soon: &Soon, due_ms| kept.iter().filter(|open| open.due_ms() == NOW_MS + due_ms && soon.has(open)).count();
        assert_eq!([1000, 2000, 3000, 4000].map(|due_ms| count_of(&soon, due_ms)), [14; 4], "two blocks each");
        assert_eq!(count_of(&soon, 5000), 0);
        assert_eq!(keep(&mut cores, &mut soon, NOW_MS + 9000, b"x").copy, None, "nothing is due later that could go");
        soon.forget_before(NOW_MS + 1500);
        assert_eq!(keep(&mut cores, &mut soon, NOW_MS + 5000, b"x").copy, None, "its span is on the disk from now on");
        let last = keep(&mut cores, &mut soon, NOW_MS + 9000, b"x");
        assert!(soon.has(&last));
    }
}
