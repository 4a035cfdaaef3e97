//! Consumer offsets and settings: small state, folded from the log.
//!
//! A group may also be done with single messages above its offset, in any order. When the one at its offset is done, the
//! offset moves on to the next that is not. And it may have messages in flight: see [`crate::in_flight`].

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::in_flight::{Due, DueTimes, InFlight, Take, Taken};
use crate::position::LogPosition;

#[derive(Debug)]
struct Committed {
    queue_id: u32,
    offset: i64,
    done: DoneBits,
    /// Never empty.
    in_flight: Option<Box<InFlight>>,
    /// Where the record that says so ends.
    end: LogPosition,
}

impl Committed {
    /// The message at `offset` is not in flight any more.
    fn land(&mut self, offset: i64, due: &mut DueTimes) {
        let Some(in_flight) = &mut self.in_flight else { return };
        if let Some(taken) = in_flight.taken.remove(&offset) {
            due.remove(in_flight.number, offset, &taken);
        }
        if in_flight.is_empty() {
            self.land_all(due);
        }
    }

    fn land_all(&mut self, due: &mut DueTimes) {
        if let Some(in_flight) = self.in_flight.take() {
            due.close(&in_flight);
        }
    }
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

    /// All from `from` up to `to`, that one not included.
    fn insert_all(&mut self, from: i64, to: i64) {
        let mut at = from;
        while at < to {
            let in_word = at.rem_euclid(64);
            let count = (64 - in_word).min(to - at);
            *self.0.entry(at.div_euclid(64)).or_default() |= u64::MAX >> (64 - count) << in_word;
            at += count;
        }
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
    pub in_flight: Option<&'a InFlight>,
    /// Where the record that says so ends.
    pub end: LogPosition,
}

impl<'a> Progress<'a> {
    fn of(entry: &'a Committed) -> Self {
        let Committed { queue_id, offset, done, in_flight, end } = entry;
        Self { queue_id: *queue_id, offset: *offset, done, in_flight: in_flight.as_deref(), end: *end }
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
    groups: Groups,
    due: DueTimes,
}

type Groups = BTreeMap<Box<str>, BTreeMap<Box<str>, Vec<Committed>>>;

/// The entry of a queue; a new one begins at offset 0.
fn entry_of<'a>(groups: &'a mut Groups, group: &str, topic: &str, queue_id: u32) -> &'a mut Committed {
    if !groups.contains_key(group) {
        groups.insert(group.into(), BTreeMap::new());
    }
    let topics = groups.get_mut(group).expect("the group was just looked up or added");
    if !topics.contains_key(topic) {
        topics.insert(topic.into(), Vec::new());
    }
    let queues = topics.get_mut(topic).expect("the topic was just looked up or added");
    let at = queues.iter().position(|entry| entry.queue_id == queue_id).unwrap_or(queues.len());
    if at == queues.len() {
        let (done, end) = (DoneBits::default(), LogPosition::new(0));
        queues.push(Committed { queue_id, offset: 0, done, in_flight: None, end });
    }
    &mut queues[at]
}

impl Offsets {
    fn find(&self, group: &str, topic: &str, queue_id: u32) -> Option<&Committed> {
        self.groups.get(group)?.get(topic)?.iter().find(|entry| entry.queue_id == queue_id)
    }

    pub fn get(&self, group: &str, topic: &str, queue_id: u32) -> Option<(i64, LogPosition)> {
        self.find(group, topic, queue_id).map(|entry| (entry.offset, entry.end))
    }

    /// Where the record ends that says that the group is at `offset`, and has neither finished nor taken anything above;
    /// `None` if it is not.
    pub fn is_just_at(&self, group: &str, topic: &str, queue_id: u32, offset: i64) -> Option<LogPosition> {
        let entry = self.find(group, topic, queue_id)?;
        (entry.offset == offset && entry.done.0.is_empty() && entry.in_flight.is_none()).then_some(entry.end)
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

    /// [`take`](Self::take) while the log is read; a snapshot may have seen the record.
    pub fn take_again(&mut self, take: &Take<'_>, end: LogPosition) {
        if !self.is_known(take.group, take.topic, take.queue_id, end) {
            self.take(take, end);
        }
    }

    /// The group goes on from exactly `offset`: whatever it was done with above is not any more, and nothing is in flight.
    pub fn set(&mut self, group: &str, topic: &str, queue_id: u32, offset: i64, end: LogPosition) {
        self.restore(group, topic, queue_id, offset, DoneBits::default(), end);
    }

    pub fn mark_done(&mut self, done: &Done<'_>, end: LogPosition) {
        let entry = entry_of(&mut self.groups, done.group, done.topic, done.queue_id);
        let from = entry.offset;
        let mut is_first_done = false;
        for offset in done.offsets().filter(|offset| *offset >= from) {
            entry.done.insert(offset);
            entry.land(offset, &mut self.due);
            is_first_done |= offset == from;
        }
        if is_first_done {
            entry.offset = entry.done.advance(from);
        }
        entry.end = end;
    }

    /// Messages are given to a consumer; those between that were not wanted are done.
    pub fn take(&mut self, take: &Take<'_>, end: LogPosition) {
        let entry = entry_of(&mut self.groups, take.group, take.topic, take.queue_id);
        let mut in_flight = entry.in_flight.take().unwrap_or_else(|| {
            let mut opened = self.due.open(take.group, take.topic, take.queue_id);
            opened.next = entry.offset;
            Box::new(opened)
        });
        let due = &mut self.due;
        let mut pass_over = |in_flight: &mut InFlight, done: &mut DoneBits, from: i64, to: i64| {
            done.insert_all(from, to);
            while let Some((offset, taken)) = in_flight.remove_first_in(from, to) {
                due.remove(in_flight.number, offset, &taken);
            }
        };
        let mut unwanted_from = take.first.max(entry.offset);
        let is_open = |offset: &i64| entry.offset <= *offset && !entry.done.contains(*offset);
        let wanted: Vec<i64> = take.offsets().filter(is_open).collect();
        for offset in &wanted {
            pass_over(&mut in_flight, &mut entry.done, unwanted_from, *offset);
            unwanted_from = offset.saturating_add(1);
        }
        pass_over(&mut in_flight, &mut entry.done, unwanted_from, take.next);
        for offset in wanted {
            if let Some(before) = in_flight.take(offset, take) {
                self.due.remove(in_flight.number, offset, &before);
            }
            self.due.insert(in_flight.number, offset, &in_flight.taken[&offset]);
        }
        in_flight.next = in_flight.next.max(take.next);
        in_flight.attempt = take.attempt.into();
        entry.offset = entry.done.advance(entry.offset);
        entry.end = end;
        entry.in_flight = Some(in_flight);
        if entry.in_flight.as_ref().is_some_and(|in_flight| in_flight.is_empty()) {
            entry.land_all(&mut self.due);
        }
    }

    /// The queue as a snapshot tells it.
    pub fn restore(&mut self, group: &str, topic: &str, queue_id: u32, offset: i64, done: DoneBits, end: LogPosition) {
        let entry = entry_of(&mut self.groups, group, topic, queue_id);
        entry.land_all(&mut self.due);
        (entry.offset, entry.done, entry.end) = (offset, done, end);
    }

    /// What is in flight of the queue as a snapshot tells it, after [`restore`](Self::restore).
    pub fn restore_in_flight(
        &mut self,
        group: &str,
        topic: &str,
        queue_id: u32,
        next: i64,
        attempt: &str,
        taken: impl Iterator<Item = (i64, Taken)>,
    ) {
        let entry = entry_of(&mut self.groups, group, topic, queue_id);
        entry.land_all(&mut self.due);
        let mut in_flight = self.due.open(group, topic, queue_id);
        (in_flight.next, in_flight.attempt) = (next, attempt.into());
        for (offset, taken) in taken {
            if in_flight.taken.insert(offset, taken).is_none() {
                self.due.insert(in_flight.number, offset, &taken);
            }
        }
        entry.in_flight = Some(Box::new(in_flight));
        if entry.in_flight.as_ref().is_some_and(|in_flight| in_flight.is_empty()) {
            entry.land_all(&mut self.due);
        }
    }

    /// What the group has in flight of the queue.
    pub fn in_flight(&self, group: &str, topic: &str, queue_id: u32) -> Option<&InFlight> {
        self.find(group, topic, queue_id)?.in_flight.as_deref()
    }

    /// Messages in flight, all queues and groups together.
    pub fn in_flight_count(&self) -> usize {
        self.due.count
    }

    /// The next message whose time is over. It is told once.
    pub fn next_due(&mut self, now_ms: i64) -> Option<Due> {
        while let Some((number, queue, offset)) = self.due.pop(now_ms) {
            let in_flight = self.in_flight(&queue.group, &queue.topic, queue.queue_id);
            let taken = in_flight.filter(|in_flight| in_flight.number == number).and_then(|of| of.get(offset));
            if let Some(taken) = taken.copied().filter(|taken| taken.until_ms <= now_ms) {
                return Some(Due { number, queue, offset, taken });
            }
        }
        None
    }

    /// Tells a message again at `at_ms` or later, if it is still in flight then.
    pub fn put_off(&mut self, due: &Due, at_ms: i64) {
        self.due.put_off(due, at_ms);
    }

    pub fn has_group(&self, group: &str) -> bool {
        self.groups.contains_key(group)
    }

    pub fn has_topic(&self, topic: &str) -> bool {
        self.groups.values().any(|topics| topics.contains_key(topic))
    }

    pub fn remove_group(&mut self, group: &str) {
        for mut entry in self.groups.remove(group).into_iter().flat_map(BTreeMap::into_values).flatten() {
            entry.land_all(&mut self.due);
        }
    }

    pub fn remove_topic(&mut self, topic: &str) {
        let due = &mut self.due;
        self.groups.retain(|_, topics| {
            for mut entry in topics.remove(topic).into_iter().flatten() {
                entry.land_all(due);
            }
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
