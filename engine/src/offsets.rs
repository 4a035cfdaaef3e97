//! Consumer offsets and settings: small state, folded from the log.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::position::LogPosition;

#[derive(Clone, Copy, Debug)]
struct Committed {
    queue_id: u32,
    offset: i64,
    /// Where the record that says so ends.
    end: LogPosition,
}

/// How far each group has consumed each queue. Ordered, so that a snapshot can go through it in pieces.
#[derive(Default)]
pub(crate) struct Offsets {
    groups: BTreeMap<Box<str>, BTreeMap<Box<str>, Vec<Committed>>>,
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
            self.groups.insert(group.into(), BTreeMap::new());
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

    /// The group and topic behind `after` (or else the first), and the group's offsets there: queue id, offset, where
    /// the record that says so ends.
    pub fn next(
        &self,
        after: Option<(&str, &str)>,
    ) -> Option<(&str, &str, impl Iterator<Item = (u32, i64, LogPosition)>)> {
        let in_group = after.and_then(|(group, topic)| {
            let (group, topics) = self.groups.get_key_value(group)?;
            let (topic, queues) = topics.range::<str, _>((Bound::Excluded(topic), Bound::Unbounded)).next()?;
            Some((group, topic, queues))
        });
        let (group, topic, queues) = in_group.or_else(|| {
            let from = after.map_or(Bound::Unbounded, |(group, _)| Bound::Excluded(group));
            let mut groups = self.groups.range::<str, _>((from, Bound::Unbounded));
            groups.find_map(|(group, topics)| topics.first_key_value().map(|(topic, queues)| (group, topic, queues)))
        })?;
        Some((group, topic, queues.iter().map(|entry| (entry.queue_id, entry.offset, entry.end))))
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

    /// The setting behind `after` (or else the first): kind, key, value.
    pub fn next(&self, after: Option<(u8, &str)>) -> Option<(u8, &str, &[u8])> {
        let in_kind = after.and_then(|(kind, key)| {
            let mut values = self.kinds.get(&kind)?.range::<str, _>((Bound::Excluded(key), Bound::Unbounded));
            values.next().map(|(key, value)| (kind, key, value))
        });
        let (kind, key, value) = in_kind.or_else(|| {
            let from = after.map_or(Bound::Unbounded, |(kind, _)| Bound::Excluded(kind));
            let mut kinds = self.kinds.range((from, Bound::Unbounded));
            kinds.find_map(|(kind, values)| values.first_key_value().map(|(key, value)| (*kind, key, value)))
        })?;
        Some((kind, key, value))
    }

    pub fn of_kind(&self, kind: u8) -> impl Iterator<Item = (&str, &[u8])> {
        self.kinds.get(&kind).into_iter().flatten().map(|(key, value)| (&**key, &**value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_offsets_are_met_one_after_the_other() {
        let mut offsets = Offsets::default();
        for (group, topic) in [("b", "T"), ("a", "U"), ("a", "T"), ("c", "T")] {
            offsets.set(group, topic, 1, 5, LogPosition::new(9));
        }
        offsets.remove_group("b");
        let mut met = Vec::new();
        let mut after = None;
        while let Some((group, topic, queues)) = offsets.next(after) {
            assert_eq!(queues.collect::<Vec<_>>(), [(1, 5, LogPosition::new(9))]);
            met.push((group, topic));
            after = Some((group, topic));
        }
        assert_eq!(met, [("a", "T"), ("a", "U"), ("c", "T")]);
        assert!(offsets.next(Some(("b", "X"))).is_some_and(|(group, _, _)| group == "c"), "what went away is passed");
    }

    #[test]
    fn all_settings_are_met_one_after_the_other() {
        let mut settings = Settings::default();
        for (kind, key) in [(2, "b"), (1, "z"), (2, "a"), (7, "a")] {
            settings.put(kind, key, b"v");
        }
        settings.remove(1, "z");
        let mut met = Vec::new();
        let mut after = None;
        while let Some((kind, key, _)) = settings.next(after) {
            met.push((kind, key));
            after = Some((kind, key));
        }
        assert_eq!(met, [(2, "a"), (2, "b"), (7, "a")]);
        assert!(settings.next(Some((3, "x"))).is_some_and(|(kind, _, _)| kind == 7));
    }
}
