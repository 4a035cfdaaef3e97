//! Consumer offsets and settings: small state, folded from the log.
//!
//! A group may also be done with single messages above its offset, in any order. When the one at its offset is done, the
//! offset moves on to the next that is not.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::position::LogPosition;

#[derive(Debug)]
struct Committed {
    queue_id: u32,
    offset: i64,
    done: DoneBits,
    /// Where the record that says so ends.
    end: LogPosition,
}

/// Offsets a group is done with although it is not with all before them: 64 of them, from a multiple of 64 on, to a word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DoneBits(BTreeMap<i64, u64>);

impl DoneBits {
    pub fn from_words(words: impl IntoIterator<Item = (i64, u64)>) -> Self {
        Self(words.into_iter().collect())
    }

    /// Number of the word and the word, in order.
    pub fn words(&self) -> impl Iterator<Item = (i64, u64)> {
        self.0.iter().map(|(word, bits)| (*word, *bits))
    }

    fn contains(&self, offset: i64) -> bool {
        self.0.get(&offset.div_euclid(64)).is_some_and(|bits| bits >> offset.rem_euclid(64) & 1 == 1)
    }

    fn insert(&mut self, offset: i64) {
        *self.0.entry(offset.div_euclid(64)).or_default() |= 1 << offset.rem_euclid(64);
    }

    /// The first offset from `offset` on that is not done; what lies before it is forgotten.
    fn advance(&mut self, mut offset: i64) -> i64 {
        while let Some(bits) = self.0.get(&offset.div_euclid(64)) {
            let done = (bits >> offset.rem_euclid(64)).trailing_ones();
            offset += i64::from(done);
            if done == 0 || offset.rem_euclid(64) != 0 {
                break;
            }
        }
        while let Some(word) = self.0.first_entry().filter(|word| *word.key() < offset.div_euclid(64)) {
            word.remove();
        }
        offset
    }
}

/// Groups by which the server keeps track of its own work. No client can name one.
pub fn is_own_group(group: &str) -> bool {
    group.starts_with('\0')
}

/// How far a group is in one queue.
pub(crate) struct Progress<'a> {
    pub queue_id: u32,
    pub offset: i64,
    pub done: &'a DoneBits,
    /// Where the record that says so ends.
    pub end: LogPosition,
}

impl<'a> Progress<'a> {
    fn of(entry: &'a Committed) -> Self {
        Self { queue_id: entry.queue_id, offset: entry.offset, done: &entry.done, end: entry.end }
    }
}

/// Messages of a queue that a group is done with: those at `first + n` for every bit n set, counted from the lowest bit of
/// the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    pub queue_id: u32,
    pub first: i64,
    /// At most 65,535 bytes.
    pub bits: &'a [u8],
}

impl<'a> Done<'a> {
    /// One message only.
    pub fn one(group: &'a str, topic: &'a str, queue_id: u32, offset: i64) -> Self {
        Self { group, topic, queue_id, first: offset, bits: &[1] }
    }

    /// The offsets it names, in order.
    pub fn offsets(&self) -> impl Iterator<Item = i64> + use<'a> {
        let (first, bits) = (self.first, self.bits);
        let is_set = move |n: &usize| bits[n / 8] >> (n % 8) & 1 == 1;
        (0..bits.len() * 8).filter(is_set).map(move |n| first.saturating_add(n as i64))
    }
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

    /// Where the record ends that says that the group is at `offset`, and done with nothing above; `None` if it is not.
    pub fn is_just_at(&self, group: &str, topic: &str, queue_id: u32, offset: i64) -> Option<LogPosition> {
        let entry = self.find(group, topic, queue_id)?;
        (entry.offset == offset && entry.done.0.is_empty()).then_some(entry.end)
    }

    /// Whether the group is done with the message at `offset`.
    pub fn is_done(&self, group: &str, topic: &str, queue_id: u32, offset: i64) -> bool {
        self.find(group, topic, queue_id).is_some_and(|entry| offset < entry.offset || entry.done.contains(offset))
    }

    /// Whether what the record that ends at `end` says is known: of two records about the same the later one is.
    fn is_known(&self, group: &str, topic: &str, queue_id: u32, end: LogPosition) -> bool {
        self.find(group, topic, queue_id).is_some_and(|entry| end <= entry.end)
    }

    /// [`set`](Self::set) while the log is read; a snapshot may have seen the record.
    pub fn set_again(&mut self, group: &str, topic: &str, queue_id: u32, offset: i64, end: LogPosition) {
        if !self.is_known(group, topic, queue_id, end) {
            self.set(group, topic, queue_id, offset, end);
        }
    }

    /// [`mark_done`](Self::mark_done) while the log is read; a snapshot may have seen the record.
    pub fn mark_done_again(&mut self, done: &Done<'_>, end: LogPosition) {
        if !self.is_known(done.group, done.topic, done.queue_id, end) {
            self.mark_done(done, end);
        }
    }

    /// The group goes on from exactly `offset`: whatever it was done with above is not any more.
    pub fn set(&mut self, group: &str, topic: &str, queue_id: u32, offset: i64, end: LogPosition) {
        self.restore(group, topic, queue_id, offset, DoneBits::default(), end);
    }

    pub fn mark_done(&mut self, done: &Done<'_>, end: LogPosition) {
        let entry = self.entry(done.group, done.topic, done.queue_id);
        for offset in done.offsets().filter(|offset| *offset >= entry.offset) {
            entry.done.insert(offset);
        }
        entry.offset = entry.done.advance(entry.offset);
        entry.end = end;
    }

    pub fn restore(&mut self, group: &str, topic: &str, queue_id: u32, offset: i64, done: DoneBits, end: LogPosition) {
        let entry = self.entry(group, topic, queue_id);
        (entry.offset, entry.done, entry.end) = (offset, done, end);
    }

    /// The entry of a queue; a new one begins at offset 0.
    fn entry(&mut self, group: &str, topic: &str, queue_id: u32) -> &mut Committed {
        if !self.groups.contains_key(group) {
            self.groups.insert(group.into(), BTreeMap::new());
        }
        let topics = self.groups.get_mut(group).expect("the group was just looked up or added");
        if !topics.contains_key(topic) {
            topics.insert(topic.into(), Vec::new());
        }
        let queues = topics.get_mut(topic).expect("the topic was just looked up or added");
        let at = queues.iter().position(|entry| entry.queue_id == queue_id).unwrap_or(queues.len());
        if at == queues.len() {
            queues.push(Committed { queue_id, offset: 0, done: DoneBits::default(), end: LogPosition::new(0) });
        }
        &mut queues[at]
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

    /// The group and topic behind `after` (or else the first), and the group's offsets there.
    pub fn next(&self, after: Option<(&str, &str)>) -> Option<(&str, &str, impl Iterator<Item = Progress<'_>>)> {
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
        Some((group, topic, queues.iter().map(Progress::of)))
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
            let queues: Vec<_> = queues.map(|queue| (queue.queue_id, queue.offset, queue.end)).collect();
            assert_eq!(queues, [(1, 5, LogPosition::new(9))]);
            met.push((group, topic));
            after = Some((group, topic));
        }
        assert_eq!(met, [("a", "T"), ("a", "U"), ("c", "T")]);
        assert!(offsets.next(Some(("b", "X"))).is_some_and(|(group, _, _)| group == "c"), "what went away is passed");
    }

    #[test]
    fn an_offset_moves_over_what_is_done_in_any_order() {
        let mut offsets = Offsets::default();
        let end = |position| LogPosition::new(position);
        let mut done = |first, bits: &[u8], position| {
            offsets.mark_done(&Done { group: "g", topic: "T", queue_id: 3, first, bits }, end(position));
            offsets.get("g", "T", 3).map(|(offset, _)| offset)
        };
        assert_eq!(done(1, &[0b101], 1), Some(0), "1 and 3");
        assert_eq!(done(70, &[1], 2), Some(0));
        assert_eq!(done(0, &[1], 3), Some(2));
        assert_eq!(done(2, &[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], 4), Some(2), "3 to 73");
        assert_eq!(done(2, &[1], 5), Some(74));
        assert!([0, 73].iter().all(|offset| offsets.is_done("g", "T", 3, *offset)));
        assert!(!offsets.is_done("g", "T", 3, 74));
        offsets.mark_done(&Done::one("g", "T", 3, 80), end(6));
        offsets.mark_done_again(&Done::one("g", "T", 3, 90), end(6));
        assert_eq!([80, 90].map(|offset| offsets.is_done("g", "T", 3, offset)), [true, false], "known up to 6");
        offsets.set("g", "T", 3, 50, end(7));
        assert_eq!([49, 50, 80].map(|offset| offsets.is_done("g", "T", 3, offset)), [true, false, false]);
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
