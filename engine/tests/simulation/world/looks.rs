//! What consumers see besides messages: bounds, and times.

use rmq_engine::{Boundary, Bounds, Searched, StoreTime};

use super::{TICKET, World};

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
}
