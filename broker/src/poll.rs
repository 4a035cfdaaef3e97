//! Long polls: pulls that found nothing and wait for a message or their deadline.
//!
//! They wait on the core that owns the queue, so the append that ends the wait is on the same thread and
//! cannot slip between the look and the parking.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::request::pull::PullOrder;

/// No client may hold a pull longer than this, whatever it asks for.
pub const HOLD_MS_MAX: i64 = 120_000;

#[derive(Default)]
pub struct LongPolls {
    orders: FxHashMap<u64, (i64, PullOrder)>,
    by_queue: HashMap<Arc<str>, FxHashMap<u32, Vec<u64>>, FxBuildHasher>,
    by_deadline: BTreeSet<(i64, u64)>,
    next: u64,
}

impl LongPolls {
    pub fn len(&self) -> usize {
        self.orders.len()
    }

    pub fn is_empty(&self) -> bool {
        self.orders.is_empty()
    }

    pub fn park(&mut self, order: PullOrder, deadline_ms: i64) {
        let number = self.next;
        self.next += 1;
        if !self.by_queue.contains_key(order.topic.as_str()) {
            self.by_queue.insert(order.topic.as_str().into(), FxHashMap::default());
        }
        if let Some(queues) = self.by_queue.get_mut(order.topic.as_str()) {
            queues.entry(order.queue_id).or_default().push(number);
        }
        self.by_deadline.insert((deadline_ms, number));
        self.orders.insert(number, (deadline_ms, order));
    }

    /// All pulls waiting for a queue, with their deadlines.
    pub fn wake(&mut self, topic: &str, queue_id: u32) -> Vec<(i64, PullOrder)> {
        let numbers = self.by_queue.get_mut(topic).and_then(|queues| queues.remove(&queue_id)).unwrap_or_default();
        let taken = numbers.into_iter().filter_map(|number| self.orders.remove(&number).map(|order| (number, order)));
        let taken: Vec<_> = taken.collect();
        for (number, (deadline_ms, _)) in &taken {
            self.by_deadline.remove(&(*deadline_ms, *number));
        }
        self.forget_topic_if_empty(topic);
        taken.into_iter().map(|(_, order)| order).collect()
    }

    /// The next pull whose deadline has passed.
    pub fn expire(&mut self, now_ms: i64) -> Option<PullOrder> {
        let (deadline_ms, number) = *self.by_deadline.first().filter(|(deadline_ms, _)| *deadline_ms <= now_ms)?;
        self.by_deadline.remove(&(deadline_ms, number));
        let (_, order) = self.orders.remove(&number)?;
        if let Some(queues) = self.by_queue.get_mut(order.topic.as_str())
            && let Some(numbers) = queues.get_mut(&order.queue_id)
        {
            numbers.retain(|waiting| *waiting != number);
            if numbers.is_empty() {
                queues.remove(&order.queue_id);
            }
        }
        self.forget_topic_if_empty(&order.topic);
        Some(order)
    }

    /// When the next deadline is, milliseconds since the epoch.
    pub fn deadline_ms(&self) -> Option<i64> {
        self.by_deadline.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    fn forget_topic_if_empty(&mut self, topic: &str) {
        if self.by_queue.get(topic).is_some_and(|queues| queues.is_empty()) {
            self.by_queue.remove(topic);
        }
    }
}
