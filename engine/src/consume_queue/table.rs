//! The queues of a shard: bounds, open rows, and the directory of full pages of each.

use std::sync::Arc;

use rkyv::{Archive, Deserialize, Serialize};
use rustc_hash::FxHashMap;

use crate::config::QUEUE_COUNT_MAX;
use crate::consume_queue::row::{ROWS_PER_PAGE, Row};
use crate::key_index::TopicHash;

/// The readable part of a queue: offsets from `min` to below `max`. An unknown queue has 0 and 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    pub min: i64,
    pub max: i64,
}

/// A full page of rows in the index file.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageEntry {
    pub page: u32,
    /// CRC-32 of the page: the file is derived data and written without care, so nothing in it is believed unchecked.
    pub checksum: u32,
    /// Position of the first row's record.
    pub first_position: u64,
    pub first_store_time_ms: i64,
}

/// Names a queue without its topic's name. Stays wrong for ever once the queue is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct QueueRef {
    index: u32,
    generation: u32,
}

pub(crate) struct Queue {
    pub topic: Arc<str>,
    pub topic_hash: TopicHash,
    pub queue_id: u32,
    /// Tells the queue from others that had its place in the table.
    pub generation: u32,
    /// Smallest readable offset.
    pub min: i64,
    /// Offset of the very first row in `pages` (or `open`).
    pub base: i64,
    /// Offset the next appended message gets.
    pub next: i64,
    /// Durable end: readers see offsets below it.
    pub visible: i64,
    pub visible_store_time_ms: i64,
    pub last_store_time_ms: i64,
    pub pages: Vec<PageEntry>,
    /// The rows behind the last full page; fewer than a page.
    pub open: Vec<Row>,
    /// Sequence number of the batch that last touched the queue.
    pub touched_in: u64,
    pub is_watched: bool,
}

/// Where a row is to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowPlace {
    Open(usize),
    Page { entry: usize, slot: usize },
}

impl Queue {
    pub fn bounds(&self) -> Bounds {
        Bounds { min: self.min, max: self.visible }
    }

    /// Place of the row for `offset`, which must be between `base` and `next`.
    pub fn place(&self, offset: i64) -> RowPlace {
        let row = (offset - self.base) as usize;
        let entry = row / ROWS_PER_PAGE;
        if entry < self.pages.len() {
            RowPlace::Page { entry, slot: row % ROWS_PER_PAGE }
        } else {
            RowPlace::Open(row - self.pages.len() * ROWS_PER_PAGE)
        }
    }
}

/// All queues of a shard. Queues live in a slab; topics map their queue ids to it.
#[derive(Default)]
pub(crate) struct QueueTable {
    topics: FxHashMap<Arc<str>, Vec<u32>>,
    slab: Vec<Option<Queue>>,
    free: Vec<u32>,
    generation: u32,
}

const NONE: u32 = u32::MAX;

impl QueueTable {
    pub fn find(&self, topic: &str, queue_id: u32) -> Option<QueueRef> {
        let index = *self.topics.get(topic)?.get(queue_id as usize)?;
        let generation = self.slab.get(index as usize)?.as_ref()?.generation;
        Some(QueueRef { index, generation })
    }

    /// The queue, made empty with offsets from `base` on if it does not exist. `None` if the id is out of range.
    pub fn find_or_create(&mut self, topic: &str, queue_id: u32, base: i64) -> Option<QueueRef> {
        if let Some(found) = self.find(topic, queue_id) {
            return Some(found);
        }
        self.create(topic, queue_id, base)
    }

    #[cold]
    fn create(&mut self, topic: &str, queue_id: u32, base: i64) -> Option<QueueRef> {
        if queue_id >= QUEUE_COUNT_MAX {
            return None;
        }
        let name = match self.topics.get_key_value(topic) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(topic),
        };
        self.generation = self.generation.wrapping_add(1);
        let queue = Queue {
            topic_hash: TopicHash::of(&name),
            topic: Arc::clone(&name),
            queue_id,
            generation: self.generation,
            min: base,
            base,
            next: base,
            visible: base,
            visible_store_time_ms: 0,
            last_store_time_ms: 0,
            pages: Vec::new(),
            open: Vec::new(),
            touched_in: 0,
            is_watched: false,
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            (self.slab.len() - 1) as u32
        });
        self.slab[index as usize] = Some(queue);
        let ids = self.topics.entry(name).or_default();
        if ids.len() <= queue_id as usize {
            ids.resize(queue_id as usize + 1, NONE);
        }
        ids[queue_id as usize] = index;
        Some(QueueRef { index, generation: self.generation })
    }

    pub fn get(&self, queue: QueueRef) -> Option<&Queue> {
        self.slab.get(queue.index as usize)?.as_ref().filter(|found| found.generation == queue.generation)
    }

    pub fn get_mut(&mut self, queue: QueueRef) -> Option<&mut Queue> {
        self.slab.get_mut(queue.index as usize)?.as_mut().filter(|found| found.generation == queue.generation)
    }

    /// Every queue of the topic, by ascending queue id.
    pub fn of_topic(&self, topic: &str) -> impl Iterator<Item = &Queue> {
        let ids = self.topics.get(topic).map_or(&[][..], Vec::as_slice);
        ids.iter().filter_map(|index| self.slab.get(*index as usize)?.as_ref())
    }

    pub fn all(&self) -> impl Iterator<Item = &Queue> {
        self.slab.iter().flatten()
    }

    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.slab.iter_mut().flatten()
    }

    /// Places for queues, some of them free. A queue keeps its place.
    pub fn slots(&self) -> usize {
        self.slab.len()
    }

    pub fn in_slot(&self, slot: usize) -> Option<&Queue> {
        self.slab.get(slot)?.as_ref()
    }

    /// Takes all queues of the topic out.
    pub fn remove_topic(&mut self, topic: &str) -> Vec<Queue> {
        let ids = self.topics.remove(topic).unwrap_or_default();
        ids.into_iter().filter_map(|index| self.take_out(index)).collect()
    }

    /// Takes one queue out.
    pub fn remove_queue(&mut self, topic: &str, queue_id: u32) -> Option<Queue> {
        let ids = self.topics.get_mut(topic)?;
        let index = std::mem::replace(ids.get_mut(queue_id as usize)?, NONE);
        if ids.iter().all(|index| *index == NONE) {
            self.topics.remove(topic);
        }
        self.take_out(index)
    }

    fn take_out(&mut self, index: u32) -> Option<Queue> {
        let queue = self.slab.get_mut(index as usize)?.take()?;
        self.free.push(index);
        Some(queue)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_queue_is_not_found_under_its_old_reference() {
        let mut table = QueueTable::default();
        let first = table.find_or_create("T", 3, 0).unwrap();
        assert_eq!(table.find("T", 3), Some(first));
        assert_eq!(table.find("T", 2), None);
        assert_eq!(table.remove_topic("T").len(), 1);
        let second = table.find_or_create("T", 1, 0).unwrap();
        assert!(table.get(first).is_none() && table.get(second).is_some());
        assert!(table.find_or_create("T", QUEUE_COUNT_MAX, 0).is_none());
    }

    #[test]
    fn an_idle_queue_is_small() {
        assert!(size_of::<Queue>() <= 192, "{}", size_of::<Queue>());
    }
}
