//! Messages that were given to a consumer of a group and are not acknowledged yet.
//!
//! Such a message is neither before the group's offset nor done. Whoever took it has until its time is over; then it
//! may be given again: in order from its place in the queue, otherwise as a copy that takes its place elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;

/// Most messages of one shard that may be in flight, all groups together; about 100 bytes each.
pub const IN_FLIGHT_MAX: usize = 1 << 20;
/// How far above a group's offset in a queue messages may be given: what is done there costs memory (a bit each) until the
/// offset moves.
pub const IN_FLIGHT_SPAN_MAX: i64 = 1 << 20;

/// How a message was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TakenHow {
    /// When its time is over, it counts as one try more.
    Counted = 0,
    /// When its time is over, it does not count as a try: its consumer only put it off.
    Uncounted = 1,
    /// In the queue's order: it stays in its place.
    InOrder = 2,
}

impl TakenHow {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [Self::Counted, Self::Uncounted, Self::InOrder].into_iter().find(|how| *how as u8 == byte)
    }
}

/// One message in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// When it was given, milliseconds since 1970. Names the delivery: an acknowledgement of an earlier one does not count.
    pub taken_ms: i64,
    /// From when on it may be given again.
    pub until_ms: i64,
    pub how: TakenHow,
    /// How often it was given in order before.
    pub times_before: u32,
}

/// Messages of a queue given to a consumer: those at `first + n` for every bit n set, counted from the lowest bit of the
/// first byte. What lies between `first` and `next` and is not among them was not wanted: the group is done with it. A
/// message in flight already is given anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Take<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    pub queue_id: u32,
    pub first: i64,
    /// Where the next one who does not ask for order begins.
    pub next: i64,
    /// At most 65,535 bytes.
    pub bits: &'a [u8],
    pub taken_ms: i64,
    pub until_ms: i64,
    pub how: TakenHow,
    /// In order: names the attempt, so that one whose answer was lost may be repeated. Else empty.
    pub attempt: &'a str,
}

impl Take<'_> {
    /// The offsets given, in order.
    pub fn offsets(&self) -> impl Iterator<Item = i64> {
        let is_set = |n: &usize| self.bits[n / 8] >> (n % 8) & 1 == 1;
        (0..self.bits.len() * 8).filter(is_set).map(|n| self.first.saturating_add(n as i64))
    }
}

/// What a group has in flight of one queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    pub(crate) number: u32,
    pub(crate) next: i64,
    pub(crate) attempt: Box<str>,
    pub(crate) taken: BTreeMap<i64, Taken>,
}

impl InFlight {
    /// The first offset never given to anybody.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// The attempt that took last in order; empty if it had no name.
    pub fn attempt(&self) -> &str {
        &self.attempt
    }

    pub fn len(&self) -> usize {
        self.taken.len()
    }

    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    pub fn get(&self, offset: i64) -> Option<&Taken> {
        self.taken.get(&offset)
    }

    /// In offset order.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Taken)> {
        self.taken.iter().map(|(offset, taken)| (*offset, taken))
    }

    pub(crate) fn remove_first_in(&mut self, from: i64, to: i64) -> Option<(i64, Taken)> {
        let offset = if from < to { *self.taken.range(from..to).next()?.0 } else { return None };
        self.taken.remove(&offset).map(|taken| (offset, taken))
    }

    /// Takes `offset` anew or for the first time. Returns what it replaces.
    pub(crate) fn take(&mut self, offset: i64, take: &Take<'_>) -> Option<Taken> {
        let before = self.taken.get(&offset).copied();
        let times_before = before.filter(|_| take.how == TakenHow::InOrder).map_or(0, |before| {
            let is_same_delivery = before.taken_ms == take.taken_ms;
            let is_repeated = !take.attempt.is_empty() && *self.attempt == *take.attempt;
            before.times_before + u32::from(!is_same_delivery && !is_repeated)
        });
        let taken = Taken { taken_ms: take.taken_ms, until_ms: take.until_ms, how: take.how, times_before };
        self.taken.insert(offset, taken)
    }
}

/// A queue, and a group that has messages of it in flight.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct QueueOfGroup {
    pub group: Box<str>,
    pub topic: Box<str>,
    pub queue_id: u32,
}

/// A message whose time is over.
#[derive(Clone, Debug)]
pub struct Due {
    pub(crate) number: u32,
    pub queue: Arc<QueueOfGroup>,
    pub offset: i64,
    pub taken: Taken,
}

/// When the time of what is in flight is over, all queues together.
#[derive(Default)]
pub(crate) struct DueTimes {
    /// Time, number of the queue and group, offset.
    times: BTreeSet<(i64, u32, i64)>,
    queues: FxHashMap<u32, Arc<QueueOfGroup>>,
    last_number: u32,
    /// Messages in flight.
    pub count: usize,
}

impl DueTimes {
    /// For a queue and group that have nothing in flight yet.
    pub fn open(&mut self, group: &str, topic: &str, queue_id: u32) -> InFlight {
        // A number is in use only while its queue has something in flight, and there are fewer of those than numbers.
        loop {
            self.last_number = self.last_number.wrapping_add(1);
            if !self.queues.contains_key(&self.last_number) {
                break;
            }
        }
        let number = self.last_number;
        self.queues.insert(number, Arc::new(QueueOfGroup { group: group.into(), topic: topic.into(), queue_id }));
        InFlight { number, next: 0, attempt: Box::default(), taken: BTreeMap::new() }
    }

    pub fn insert(&mut self, number: u32, offset: i64, taken: &Taken) {
        self.count += 1;
        self.times.insert((taken.until_ms, number, offset));
    }

    pub fn remove(&mut self, number: u32, offset: i64, taken: &Taken) {
        self.count -= 1;
        self.times.remove(&(taken.until_ms, number, offset));
    }

    /// Looks again at `at_ms`, if the message is still in flight then.
    pub fn put_off(&mut self, due: &Due, at_ms: i64) {
        self.times.insert((at_ms, due.number, due.offset));
    }

    /// Forgets everything that is in flight of a queue and group.
    pub fn close(&mut self, in_flight: &InFlight) {
        for (offset, taken) in &in_flight.taken {
            self.remove(in_flight.number, *offset, taken);
        }
        self.queues.remove(&in_flight.number);
    }

    /// Takes the first that is due out of the table: its queue and group, its offset.
    pub fn pop(&mut self, now_ms: i64) -> Option<(u32, Arc<QueueOfGroup>, i64)> {
        while let Some((at_ms, number, offset)) = self.times.first().copied().filter(|(at_ms, ..)| *at_ms <= now_ms) {
            self.times.remove(&(at_ms, number, offset));
            if let Some(queue) = self.queues.get(&number) {
                return Some((number, Arc::clone(queue), offset));
            }
        }
        None
    }
}
