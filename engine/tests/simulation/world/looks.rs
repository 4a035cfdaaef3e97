//! What consumers see besides messages: bounds, and times.

use rmq_engine::{Boundary, Bounds, KeyKind, KeyQueried, KeyQuery, PhysicalOffset, Searched, StoreTime};

use super::{SEARCHED, TICKET, World};
use crate::model::Sent;

/// Rows of one page of the index: how exactly the first offset of a queue is known.
const ROWS_PER_PAGE: i64 = 128;

impl World {
    /// Readers see what is durable: no message less, and none more.
    pub(super) fn check_bounds(&self, topic: &'static str, queue_id: u32, bounds: Bounds) {
        let durable = self.shard.durable();
        let queue = self.state.queues.get(&(topic, queue_id)).map(Vec::as_slice).unwrap_or_default();
        let readable = queue.partition_point(|sent| sent.physical_offset.position() < durable);
        assert_eq!(bounds.max, readable as i64, "readers see what is durable, up to {durable:?}");
        let kept = self.first_kept(topic, queue_id);
        assert!(
            bounds.min <= kept && kept - bounds.min <= ROWS_PER_PAGE,
            "messages from {kept} on are kept, not from {}",
            bounds.min
        );
    }

    /// Offset of the first message that is not retired.
    pub(super) fn first_kept(&self, topic: &'static str, queue_id: u32) -> i64 {
        let queue = self.state.queues.get(&(topic, queue_id)).map(Vec::as_slice).unwrap_or_default();
        queue.partition_point(|sent| sent.physical_offset.position() < self.shard.log_start()) as i64
    }

    /// Lets the disk work until something that waits is to ask again.
    pub(super) fn await_ready(&mut self) {
        self.hand_over();
        while self.shard.ready().is_none() {
            assert!(!self.disk.is_idle(), "what is pending waits for a command");
            self.turn();
        }
    }

    pub(super) fn search_some_time(&mut self) {
        let (topic, queue_id) = self.place();
        let time = self.now_ms + *self.random.pick(&[0, -1, -50, -1000, 3_600_000, -100_000_000]);
        let boundary = *self.random.pick(&[Boundary::Lower, Boundary::Upper]);
        for _ in 0..2000 {
            let bounds = self.shard.bounds(topic, queue_id);
            match self.shard.search_time(topic, queue_id, time, boundary, TICKET) {
                Searched::Pending => self.await_ready(),
                Searched::Failed(_) => return assert!(0 < self.disk.faults.read_error),
                Searched::Done(found) => {
                    assert!(bounds.min <= found && found <= bounds.max, "{found} is outside {bounds:?}");
                    return self.check_time(topic, queue_id, bounds, time, boundary, found);
                }
            }
        }
        panic!("a search never ends");
    }

    /// Where the clock never went back, there is one right answer.
    fn check_time(
        &self,
        topic: &'static str,
        queue_id: u32,
        bounds: Bounds,
        time: i64,
        boundary: Boundary,
        found: i64,
    ) {
        let queue = self.state.queues.get(&(topic, queue_id)).map(Vec::as_slice).unwrap_or_default();
        if !queue.is_sorted_by_key(|sent| sent.store_time_ms) {
            return;
        }
        let readable = &queue[..bounds.max as usize];
        let right = match boundary {
            Boundary::Lower => readable.partition_point(|sent| sent.store_time_ms < time) as i64,
            Boundary::Upper => readable.partition_point(|sent| sent.store_time_ms <= time) as i64 - 1,
        };
        assert_eq!(found, right.clamp(bounds.min, bounds.max));
    }

    pub(super) fn look_at_some_store_time(&mut self) {
        let (topic, queue_id) = self.place();
        let Bounds { min, max } = self.shard.bounds(topic, queue_id);
        let offset = self.random.below(max as usize + 1) as i64;
        let sent = self.state.queues.get(&(topic, queue_id)).and_then(|queue| queue.get(offset as usize));
        let known = sent.map(|sent| sent.store_time_ms).filter(|_| min <= offset && offset < max);
        for _ in 0..2000 {
            match self.shard.store_time(topic, queue_id, offset, TICKET) {
                StoreTime::Pending => self.await_ready(),
                StoreTime::Failed(_) => return assert!(0 < self.disk.faults.read_error),
                StoreTime::Known(time) => return assert_eq!(Some(time), known),
                // More may have become readable while the answer was pending.
                StoreTime::NotFound => return assert_eq!(known, None),
            }
        }
        panic!("a look at a store time never ends");
    }

    pub(super) fn query_some_key(&mut self) {
        let (topic, _) = self.place();
        let (kind, key) = *self.random.pick(&SEARCHED);
        let count_max = *self.random.pick(&[1, 3, 64, usize::MAX]);
        self.query_and_check(topic, kind, key, count_max);
    }

    /// Every durable message with the key is found, the newest first, and nothing else.
    pub(super) fn query_and_check(&mut self, topic: &'static str, kind: KeyKind, key: &str, count_max: usize) {
        let before = self.with_key(topic, kind, key);
        let mut query = KeyQuery::new(topic, kind, key, (i64::MIN, i64::MAX), count_max, usize::MAX);
        for _ in 0..20_000 {
            match self.shard.query_key(&mut query, TICKET) {
                KeyQueried::Pending => self.await_ready(),
                KeyQueried::Failed(_) => return assert!(0 < self.disk.faults.read_error),
                KeyQueried::Done => {
                    let found: Vec<_> = query.into_found().iter().map(|found| found.physical_offset).collect();
                    // More may have become durable while the disk was asked.
                    let after = self.with_key(topic, kind, key);
                    let missed: Vec<_> = before.iter().take(count_max).filter(|at| !found.contains(at)).collect();
                    assert!(missed.is_empty() || found.len() == count_max, "{missed:?} have {key} and are not found");
                    assert!(found.iter().all(|at| after.contains(at)), "{found:?} are not all among {after:?}");
                    return assert!(found.is_sorted_by(|newer, older| older < newer), "{found:?}");
                }
            }
        }
        panic!("a query never ends");
    }

    /// The messages of a topic that have the key and can be read, the newest first.
    fn with_key(&self, topic: &str, kind: KeyKind, key: &str) -> Vec<PhysicalOffset> {
        let queues = self.state.queues.iter().filter(|((of, _), _)| *of == topic).flat_map(|(_, sent)| sent);
        let is_readable = |sent: &&Sent| {
            let position = sent.physical_offset.position();
            self.shard.log_start() <= position && position < self.shard.durable()
        };
        let has_key = |sent: &&Sent| match kind {
            KeyKind::Tag => sent.properties.ends_with(format!("TAGS\x01{key}\x02").as_bytes()),
            KeyKind::Key | KeyKind::Unique => {
                ["x", "y", "u"].contains(&key) && sent.properties.starts_with(b"KEYS\x01x y\x02UNIQ_KEY\x01u")
            }
        };
        let mut found: Vec<_> = queues.filter(is_readable).filter(has_key).map(|sent| sent.physical_offset).collect();
        found.sort_unstable_by(|one, other| other.cmp(one));
        found
    }
}
