//! Copies of the messages that are due within seconds, so that they need not be read back one by one from all over the
//! log when their time comes.

use std::collections::BTreeMap;

use rmq_engine::{BufferPool, FillingBuffer, MessageRef, Slice, UniqueBuffer};
use rustc_hash::FxHashMap;

/// Most bytes of copies, and of what finds them, on one core: 130,000 small messages per second, each due in 5.
pub const BYTES_MAX: usize = 384 << 20;
/// Those that are due later are read from the disk when they come near.
pub const AHEAD_MS: i64 = 10_000;
const SPAN_MS: i64 = 500;
const CACHE_LINE_BYTES: usize = 64;
const BLOCK_BYTES: usize = 256 << 10;
/// What finding a copy costs: an entry, its control byte, and what a hash table keeps free.
const STARTS_BYTES: usize = (size_of::<(u64, u32)>() + 1) * 8 / 7;
/// A larger message costs the disk little for what it is, and is not copied.
const RECORD_BYTES_MAX: usize = BLOCK_BYTES / 4;

/// What is due in one [`SPAN_MS`].
#[derive(Default)]
struct Span {
    blocks: Vec<FillingBuffer>,
    /// Where the copy of a message begins, counted over all blocks, by the message's place in the log.
    starts: FxHashMap<u64, u32>,
    bytes: usize,
}

pub struct Soon {
    /// By when they are due, in [`SPAN_MS`].
    spans: BTreeMap<i64, Span>,
    bytes: usize,
    bytes_max: usize,
    pool: BufferPool,
    /// Blocks for the next spans: at most as many as are in use.
    spare: Vec<UniqueBuffer>,
}

impl Span {
    fn copy(&self, message: MessageRef) -> Option<Slice> {
        let start = *self.starts.get(&message.position().bytes())? as usize;
        let (block, start) = (start / BLOCK_BYTES, start % BLOCK_BYTES);
        Some(self.blocks.get(block)?.slice(start..start + message.size_bytes() as usize))
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.blocks.last().is_some_and(|block| block.frozen() + bytes <= BLOCK_BYTES)
    }
}

impl Soon {
    pub fn new(bytes_max: usize) -> Self {
        Self { spans: BTreeMap::new(), bytes: 0, bytes_max, pool: BufferPool::new(BLOCK_BYTES, 0), spare: Vec::new() }
    }

    /// Copies a message that was just appended, if it is due soon. Full: those that are due last go.
    pub fn keep(&mut self, due_ms: i64, message: MessageRef, record: &[u8], now_ms: i64) {
        if record.len() > RECORD_BYTES_MAX || due_ms < now_ms || now_ms + AHEAD_MS < due_ms {
            return;
        }
        let number = due_ms.div_euclid(SPAN_MS);
        let needed = match self.spans.get(&number) {
            Some(span) if span.has_room(record.len()) => 0,
            _ => BLOCK_BYTES,
        };
        while self.bytes + needed > self.bytes_max {
            let Some(last) = self.spans.last_entry().filter(|last| *last.key() > number) else { return };
            let span = last.remove();
            self.free(span);
        }
        let span = self.spans.entry(number).or_default();
        if needed > 0 {
            let block = self.spare.pop().unwrap_or_else(|| self.pool.take(BLOCK_BYTES));
            span.blocks.push(block.into_filling(0));
        }
        let before = span.blocks.len().saturating_sub(1) * BLOCK_BYTES;
        let Some(block) = span.blocks.last_mut() else { return };
        let (start, end) = (block.frozen(), block.frozen() + record.len());
        block.tail_mut(start..end).copy_from_slice(record);
        block.freeze(end);
        let Ok(start) = u32::try_from(before + start) else { return };
        span.starts.insert(message.position().bytes(), start);
        let bytes = span.blocks.len() * BLOCK_BYTES + span.starts.capacity() * STARTS_BYTES;
        self.bytes = self.bytes - span.bytes + bytes;
        span.bytes = bytes;
    }

    pub fn has(&self, due_ms: i64, message: MessageRef) -> bool {
        let span = self.spans.get(&due_ms.div_euclid(SPAN_MS));
        span.is_some_and(|span| span.starts.contains_key(&message.position().bytes()))
    }

    /// The copy of a message, which the processor has at hand then: most of the time that a delivery takes would be waiting
    /// for memory, and waiting for many at once takes as long as for one.
    pub fn fetch(&self, due_ms: i64, message: MessageRef) -> Option<Slice> {
        let copy = self.spans.get(&due_ms.div_euclid(SPAN_MS))?.copy(message)?;
        let line_starts = copy.as_ref().iter().step_by(CACHE_LINE_BYTES).copied();
        std::hint::black_box(line_starts.fold(0u8, u8::wrapping_add));
        Some(copy)
    }

    /// Nothing that is due before is asked for any more.
    pub fn forget_before(&mut self, due_ms: i64) {
        while let Some(first) = self.spans.first_entry()
            && *first.key() < due_ms.div_euclid(SPAN_MS)
        {
            let span = first.remove();
            self.free(span);
        }
    }

    fn free(&mut self, span: Span) {
        self.bytes -= span.bytes;
        self.spare.extend(span.blocks.into_iter().filter_map(|block| block.into_shared().try_into_unique().ok()));
        self.spare.truncate(self.bytes / BLOCK_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use rmq_engine::MessageDraft;

    use super::*;
    use crate::testing::Cores;

    const NOW_MS: i64 = 1_000_000;

    /// Appends a message and has it kept.
    fn keep(cores: &mut Cores, soon: &mut Soon, due_ms: i64, body: &[u8]) -> MessageRef {
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
            tags_code: 0,
        };
        let message = shard.append(&draft, NOW_MS).expect("room in the log").message;
        let record = shard.just_appended(message).expect("its batch is open").to_vec();
        assert!(record.windows(body.len()).any(|part| part == body));
        soon.keep(due_ms, message, &record, NOW_MS);
        if let Some(copy) = soon.fetch(due_ms, message) {
            assert_eq!(copy.as_ref(), record);
        }
        cores.run();
        assert_eq!(cores.broker(0).shard.just_appended(message), None, "written");
        message
    }

    #[test]
    fn what_is_due_soon_is_at_hand_until_its_time_is_over() {
        let (mut cores, mut soon) = (Cores::new(1), Soon::new(BYTES_MAX));
        let kept: Vec<_> = (0..2000)
            .map(|number| {
                let due_ms = NOW_MS + number * 7 % AHEAD_MS;
                (due_ms, keep(&mut cores, &mut soon, due_ms, format!("body {number}").as_bytes()))
            })
            .collect();
        for at_ms in [NOW_MS, NOW_MS + 700, NOW_MS + 5000, NOW_MS + AHEAD_MS + SPAN_MS] {
            soon.forget_before(at_ms);
            for (due_ms, message) in &kept {
                let is_wanted = at_ms.div_euclid(SPAN_MS) <= due_ms.div_euclid(SPAN_MS);
                assert_eq!(soon.has(*due_ms, *message), is_wanted, "{due_ms} at {at_ms}");
            }
        }
        assert_eq!((soon.bytes, soon.spans.len(), soon.spare.len()), (0, 0, 0));
    }

    #[test]
    fn what_is_past_or_far_or_large_is_not_copied() {
        let (mut cores, mut soon) = (Cores::new(1), Soon::new(BYTES_MAX));
        for (due_ms, size) in [(NOW_MS - 1, 9), (NOW_MS + AHEAD_MS + 1, 9), (NOW_MS, RECORD_BYTES_MAX), (i64::MAX, 9)] {
            let message = keep(&mut cores, &mut soon, due_ms, &vec![b'x'; size]);
            assert!(!soon.has(due_ms, message), "{due_ms}");
        }
        assert_eq!(soon.bytes, 0);
    }

    #[test]
    fn what_is_due_last_goes_when_memory_is_full() {
        let bytes_max = 8 * BLOCK_BYTES;
        let (mut cores, mut soon) = (Cores::new(1), Soon::new(bytes_max));
        let body = vec![b'x'; BLOCK_BYTES / 8];
        let mut kept = Vec::new();
        for due_ms in [5000, 3000, 4000, 1000, 2000] {
            for _ in 0..14 {
                kept.push((NOW_MS + due_ms, keep(&mut cores, &mut soon, NOW_MS + due_ms, &body)));
                assert!(soon.bytes <= bytes_max + BLOCK_BYTES, "{}", soon.bytes);
            }
        }
        let count_of =
            |due_ms| kept.iter().filter(|(at, message)| *at == NOW_MS + due_ms && soon.has(*at, *message)).count();
        assert_eq!([1000, 2000, 3000].map(count_of), [14; 3], "two blocks each");
        assert_eq!([4000, 5000].map(count_of), [0; 2]);
        let last = keep(&mut cores, &mut soon, NOW_MS + 9000, b"x");
        assert!(soon.has(NOW_MS + 9000, last), "there is room for one block more");
    }
}
