//! Consumer offsets and settings: small state, folded from the log.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use crate::position::LogPosition;

#[derive(Clone, Copy, Debug)]
struct Committed {
    queue_id: u32,
    offset: i64,
    /// Where the record that says so ends.
    end: LogPosition,
}

/// How far each group has consumed each queue.
#[derive(Default)]
pub(crate) struct Offsets {
    groups: FxHashMap<Box<str>, FxHashMap<Box<str>, Vec<Committed>>>,
}

impl Offsets {
    fn find(&self, group: &str, topic: &str, queue_id: u32) -> Option<&Committed> {
        self.groups.get(group)?.get(topic)?.iter().find(|entry| entry.queue_id == queue_id)
    }

    pub fn get(&self, group: &str, topic: &str, queue_id: u32) -> Option<(i64, LogPosition)> {
        self.find(group, topic, queue_id).map(|entry| (entry.offset, entry.end))
    }

    pub fn set(&mut self, group: &str, topic: &str, queue_id: u32, offset: i64, end: LogPosition) {
        if !self.groups.contains_key(group) {
            self.groups.insert(group.into(), FxHashMap::default());
        }
        let Some(topics) = self.groups.get_mut(group) else {
            return;
        };
        if !topics.contains_key(topic) {
            topics.insert(topic.into(), Vec::new());
        }
        let Some(queues) = topics.get_mut(topic) else {
            return;
        };
        match queues.iter_mut().find(|entry| entry.queue_id == queue_id) {
            Some(entry) => (entry.offset, entry.end) = (offset, end),
            None => queues.push(Committed { queue_id, offset, end }),
        }
    }

    pub fn has_group(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    pub fn has_topic(&self, topic: &str) -> bool {
        self.groups.values().any(|topics| topics.contains_key(topic))
    }

    pub fn remove_group(&mut self, group: &str) {
        self.groups.remove(group);
    }

    pub fn remove_topic(&mut self, topic: &str) {
        self.groups.retain(|_, topics| {
            topics.remove(topic);
            !topics.is_empty()
        });
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, u32, i64)> {
        self.groups.iter().flat_map(|(group, topics)| {
            topics.iter().flat_map(move |(topic, queues)| {
                queues.iter().map(move |entry| (&**group, &**topic, entry.queue_id, entry.offset))
            })
        })
    }
}

/// Opaque values by kind and key.
#[derive(Default)]
pub(crate) struct Settings {
    kinds: BTreeMap<u8, BTreeMap<Box<str>, Box<[u8]>>>,
}

impl Settings {
    pub fn get(&self, kind: u8, key: &str) -> Option<&[u8]> {
        self.kinds.get(&kind)?.get(key).map(|value| &**value)
    }

    pub fn put(&mut self, kind: u8, key: &str, value: &[u8]) {
        self.kinds.entry(kind).or_default().insert(key.into(), value.into());
    }

    pub fn remove(&mut self, kind: u8, key: &str) {
        if let Some(values) = self.kinds.get_mut(&kind) {
            values.remove(key);
        }
    }

    pub fn of_kind(&self, kind: u8) -> impl Iterator<Item = (&str, &[u8])> {
        self.kinds.get(&kind).into_iter().flatten().map(|(key, value)| (&**key, &**value))
    }
}
