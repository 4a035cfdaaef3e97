//! What the shard should hold, told in the plainest way: a list of everything that was appended.

use std::collections::{BTreeMap, BTreeSet};

use rmq_engine::PhysicalOffset;
use rmq_engine::in_flight::{Taken, TakenHow};

/// A message as it was sent and placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub physical_offset: PhysicalOffset,
    pub body: Vec<u8>,
    pub properties: Vec<u8>,
    pub flag: i32,
    pub store_time_ms: i64,
}

#[derive(Clone, Debug)]
pub enum Entry {
    Message { topic: &'static str, queue_id: u32, queue_offset: i64, sent: Sent },
    Offset { group: &'static str, topic: &'static str, queue_id: u32, offset: i64 },
    Done { group: &'static str, topic: &'static str, queue_id: u32, first: i64, bits: Vec<u8> },
    Taken(TakenEntry),
    GroupRemoved { group: &'static str },
    TopicRemoved { topic: &'static str },
    Setting { kind: u8, key: &'static str, value: Option<Vec<u8>> },
}

/// Messages given to a consumer: see `rmq_engine::in_flight::Take`.
#[derive(Clone, Debug)]
pub struct TakenEntry {
    pub group: &'static str,
    pub topic: &'static str,
    pub queue_id: u32,
    pub first: i64,
    pub next: i64,
    pub bits: Vec<u8>,
    pub taken_ms: i64,
    pub until_ms: i64,
    pub how: TakenHow,
    pub attempt: &'static str,
}

impl Entry {
    /// Whether both say the same about how far the same group is in the same queue.
    pub fn is_same_offset(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Offset { group, topic, queue_id, offset },
                Self::Offset { group: group2, topic: topic2, queue_id: queue_id2, offset: offset2 },
            ) => (group, topic, queue_id, offset) == (group2, topic2, queue_id2, offset2),
            _ => false,
        }
    }
}

/// One record of the log.
#[derive(Clone, Debug)]
pub struct Appended {
    /// Where the record ends in the log.
    pub end: u64,
    /// Number of the append it came with: messages of one batch share it.
    pub append: u64,
    pub entry: Entry,
}

/// The state all entries up to some point add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub queues: BTreeMap<(&'static str, u32), Vec<Sent>>,
    pub offsets: BTreeMap<(&'static str, &'static str, u32), i64>,
    /// What groups are done with at or above their offsets.
    pub done: BTreeSet<(&'static str, &'static str, u32, i64)>,
    /// What groups have in flight, and the last attempt of each queue that has something.
    pub taken: BTreeMap<(&'static str, &'static str, u32, i64), Taken>,
    pub attempts: BTreeMap<(&'static str, &'static str, u32), &'static str>,
    pub settings: BTreeMap<(u8, &'static str), Vec<u8>>,
}

impl State {
    pub fn of(history: &[Appended]) -> Self {
        let mut state = Self::default();
        for appended in history {
            state.add(&appended.entry);
        }
        state
    }

    pub fn add(&mut self, entry: &Entry) {
        match entry {
            Entry::Message { topic, queue_id, queue_offset, sent } => {
                let queue = self.queues.entry((topic, *queue_id)).or_default();
                assert_eq!(*queue_offset, queue.len() as i64, "queue offsets are contiguous");
                queue.push(sent.clone());
            }
            Entry::Offset { group, topic, queue_id, offset } => {
                self.offsets.insert((group, topic, *queue_id), *offset);
                self.done.retain(|(of, from, id, _)| (of, from, id) != (group, topic, queue_id));
                self.taken.retain(|(of, from, id, _), _| (of, from, id) != (group, topic, queue_id));
                self.forget_attempts();
            }
            Entry::Done { group, topic, queue_id, first, bits } => {
                let at = self.offsets.entry((group, topic, *queue_id)).or_default();
                for n in (0..bits.len() * 8).filter(|n| bits[n / 8] & (1 << (n % 8)) != 0) {
                    let offset = first + n as i64;
                    if *at <= offset {
                        self.done.insert((group, topic, *queue_id, offset));
                        self.taken.remove(&(*group, *topic, *queue_id, offset));
                    }
                }
                while self.done.remove(&(group, topic, *queue_id, *at)) {
                    *at += 1;
                }
                self.forget_attempts();
            }
            Entry::Taken(entry) => self.take(entry),
            Entry::GroupRemoved { group } => {
                self.offsets.retain(|(of, _, _), _| of != group);
                self.done.retain(|(of, ..)| of != group);
                self.taken.retain(|(of, ..), _| of != group);
                self.forget_attempts();
            }
            Entry::TopicRemoved { topic } => {
                self.queues.retain(|(of, _), _| of != topic);
                self.offsets.retain(|(_, of, _), _| of != topic);
                self.done.retain(|(_, of, ..)| of != topic);
                self.taken.retain(|(_, of, ..), _| of != topic);
                self.forget_attempts();
            }
            Entry::Setting { kind, key, value: Some(value) } => {
                self.settings.insert((*kind, key), value.clone());
            }
            Entry::Setting { kind, key, value: None } => {
                self.settings.remove(&(*kind, *key));
            }
        }
    }

    fn take(&mut self, entry: &TakenEntry) {
        let TakenEntry { group, topic, queue_id, taken_ms, until_ms, how, attempt, .. } = *entry;
        let queue = (group, topic, queue_id);
        let at = *self.offsets.entry(queue).or_default();
        let is_wanted = |offset: i64| {
            let n = (offset - entry.first) as usize;
            entry.bits.get(n / 8).is_some_and(|byte| byte & (1 << (n % 8)) != 0)
        };
        let last_attempt = self.attempts.get(&queue).copied().unwrap_or_default();
        for offset in entry.first.max(at)..entry.next {
            let message = (group, topic, queue_id, offset);
            if !is_wanted(offset) {
                self.taken.remove(&message);
                self.done.insert(message);
            } else if !self.done.contains(&message) {
                let before = self.taken.get(&message).filter(|_| how == TakenHow::InOrder);
                let is_more =
                    |before: &&Taken| before.taken_ms != taken_ms && (attempt.is_empty() || attempt != last_attempt);
                let times_before =
                    before.map_or(0, |before| before.times_before) + u32::from(before.filter(is_more).is_some());
                self.taken.insert(message, Taken { taken_ms, until_ms, how, times_before });
            }
        }
        self.attempts.insert(queue, attempt);
        let mut at = at;
        while self.done.remove(&(group, topic, queue_id, at)) {
            at += 1;
        }
        self.offsets.insert(queue, at);
        self.forget_attempts();
    }

    fn forget_attempts(&mut self) {
        let taken = &self.taken;
        self.attempts.retain(|(group, topic, queue_id), _| {
            taken.keys().any(|(of, from, id, _)| (of, from, id) == (group, topic, queue_id))
        });
    }
}
