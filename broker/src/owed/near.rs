//! Open messages whose time is about to come, in the order of their due times.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

use rmq_engine::MessageRef;

use crate::owed::soon::CopyPlace;
use crate::owed::{Key, Open, Place};

/// How many milliseconds have a place of their own: the second that runs, the next one, and a little.
const WINDOW_MS: usize = 2048;
const WORDS: usize = WINDOW_MS / 64;
/// Room an empty place keeps, in messages.
const KEPT_MAX: usize = 128;

/// Messages that are due in the same millisecond.
#[derive(Default)]
struct SameMs {
    /// Those before `first` are gone.
    open: Vec<(Place, MessageRef, Option<CopyPlace>)>,
    first: usize,
    is_sorted: bool,
}

/// See the module. A tree costs much more per message, and has only those that are due outside of the window.
pub struct Near {
    /// What is due at `from_ms` stands at that time modulo [`WINDOW_MS`].
    window: Box<[SameMs]>,
    /// A bit for each place of the window that has a message.
    occupied: [u64; WORDS],
    from_ms: i64,
    in_window: usize,
    others: BTreeMap<Key, (MessageRef, Option<CopyPlace>)>,
}

impl Default for Near {
    fn default() -> Self {
        let window = (0..WINDOW_MS).map(|_| SameMs::default()).collect();
        Self { window, occupied: [0; WORDS], from_ms: 0, in_window: 0, others: BTreeMap::new() }
    }
}

fn at(due_ms: i64) -> usize {
    due_ms.rem_euclid(WINDOW_MS as i64) as usize
}

impl SameMs {
    fn push(&mut self, place: Place, message: MessageRef, copy: Option<CopyPlace>) {
        let last = self.open.last();
        self.is_sorted = last.is_none_or(|(last, ..)| self.is_sorted && *last < place);
        self.open.push((place, message, copy));
    }

    fn sort(&mut self) {
        if !self.is_sorted {
            self.open[self.first..].sort_unstable_by_key(|(place, ..)| *place);
            self.is_sorted = true;
        }
    }

    fn open(&self, due_ms: i64) -> impl Iterator<Item = Open> {
        let here = &self.open[self.first..];
        here.iter().map(move |(place, message, copy)| Open { key: (due_ms, *place), message: *message, copy: *copy })
    }

    /// Takes the first one away. Whether there is none any more.
    fn remove_first(&mut self) -> bool {
        self.first += 1;
        if self.first < self.open.len() {
            return false;
        }
        self.first = 0;
        self.open.clear();
        if self.open.capacity() > KEPT_MAX {
            self.open = Vec::new();
        }
        true
    }
}

impl Near {
    pub fn len(&self) -> usize {
        self.in_window + self.others.len()
    }

    /// Lets the window begin with this time, if nothing is open before it.
    pub fn move_to(&mut self, now_ms: i64) {
        let first_ms = self.next_occupied(self.from_ms);
        self.from_ms = first_ms.map_or(now_ms, |first_ms| first_ms.min(now_ms).max(self.from_ms));
    }

    pub fn add(&mut self, Open { key: (due_ms, place), message, copy }: Open) {
        if due_ms < self.from_ms || self.from_ms + WINDOW_MS as i64 <= due_ms {
            self.others.insert((due_ms, place), (message, copy));
            return;
        }
        self.window[at(due_ms)].push(place, message, copy);
        self.occupied[at(due_ms) / 64] |= 1 << (at(due_ms) % 64);
        self.in_window += 1;
    }

    /// Puts into their order those that are due up to a time; [`Self::iter`] and [`Self::after`] need it.
    pub fn sort_until(&mut self, until_ms: i64) {
        let mut from_ms = self.from_ms;
        while let Some(due_ms) = self.next_occupied(from_ms).filter(|due_ms| *due_ms <= until_ms) {
            self.window[at(due_ms)].sort();
            from_ms = due_ms + 1;
        }
    }

    /// When the first one is due.
    pub fn first_ms(&self) -> Option<i64> {
        let other_ms = self.others.first_key_value().map(|((due_ms, _), _)| *due_ms);
        self.next_occupied(self.from_ms).into_iter().chain(other_ms).min()
    }

    /// Takes away the first one.
    pub fn remove(&mut self, key: Key) {
        if self.others.remove(&key).is_some() {
            return;
        }
        debug_assert_eq!(self.window[at(key.0)].open(key.0).next().map(|open| open.key), Some(key), "it is the first");
        if self.window[at(key.0)].remove_first() {
            self.occupied[at(key.0) / 64] &= !(1 << (at(key.0) % 64));
        }
        self.in_window -= 1;
    }

    /// Those up to the time that [`Self::sort_until`] was called for, in order.
    pub fn iter(&self) -> impl Iterator<Item = Open> {
        merged(self.window_from(self.from_ms), self.others.iter().map(open_of))
    }

    /// The same of those that come after `key`.
    pub fn after(&self, key: Key) -> impl Iterator<Item = Open> {
        let in_window = self.window_from(key.0.max(self.from_ms)).skip_while(move |open| open.key <= key);
        merged(in_window, self.others.range((Excluded(key), Unbounded)).map(open_of))
    }

    pub fn release_spare_room(&mut self) {
        for same_ms in self.window.iter_mut().filter(|same_ms| same_ms.open.is_empty()) {
            same_ms.open = Vec::new();
        }
    }

    fn window_from(&self, from_ms: i64) -> impl Iterator<Item = Open> {
        let times = std::iter::successors(self.next_occupied(from_ms), |due_ms| self.next_occupied(due_ms + 1));
        times.flat_map(|due_ms| self.window[at(due_ms)].open(due_ms))
    }

    /// The first time from this one on at which a message in the window is due.
    fn next_occupied(&self, from_ms: i64) -> Option<i64> {
        let end_ms = self.from_ms + WINDOW_MS as i64;
        let mut ms = from_ms;
        while self.in_window > 0 && ms < end_ms {
            let word = self.occupied[at(ms) / 64] >> (at(ms) % 64);
            if word != 0 {
                return Some(ms + i64::from(word.trailing_zeros())).filter(|ms| *ms < end_ms);
            }
            ms += 64 - at(ms) as i64 % 64;
        }
        None
    }
}

fn open_of((key, (message, copy)): (&Key, &(MessageRef, Option<CopyPlace>))) -> Open {
    Open { key: *key, message: *message, copy: *copy }
}

fn merged(one: impl Iterator<Item = Open>, other: impl Iterator<Item = Open>) -> impl Iterator<Item = Open> {
    let (mut one, mut other) = (one.peekable(), other.peekable());
    std::iter::from_fn(move || match (one.peek(), other.peek()) {
        (Some(first), Some(second)) if second.key < first.key => other.next(),
        (None, _) => other.next(),
        _ => one.next(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::owed::OwedQueue;

    fn due_ms() -> impl Strategy<Value = i64> {
        prop_oneof![0..40_i64, 0..5000_i64, -3000..0_i64]
    }

    proptest! {
        #[test]
        fn messages_come_in_the_order_of_their_times(
            steps in prop::collection::vec((0..5_u8, due_ms(), 0..1000_i64), 0..300), from in due_ms(),
        ) {
            let (mut near, mut expected) = (Near::default(), BTreeMap::new());
            for (step, due_ms, offset) in steps {
                prop_assert_eq!(near.first_ms(), expected.first_key_value().map(|((due_ms, _), ())| *due_ms));
                near.sort_until(i64::MAX);
                let first = near.iter().next();
                match first {
                    Some(first) if step == 0 => {
                        near.remove(first.key);
                        prop_assert_eq!(expected.pop_first().map(|(key, ())| key), Some(first.key));
                    }
                    _ if step == 1 => near.move_to(due_ms),
                    _ => {
                        let open = Open::new(due_ms, OwedQueue::Timer, offset, MessageRef::default());
                        if expected.insert(open.key, ()).is_none() {
                            near.add(open);
                        }
                    }
                }
            }
            near.sort_until(i64::MAX);
            prop_assert_eq!(near.len(), expected.len());
            prop_assert_eq!(near.iter().map(|open| open.key).collect::<Vec<_>>(), expected.keys().copied().collect::<Vec<_>>());
            let after = (from, Place::new(OwedQueue::Timer, 500));
            let later: Vec<_> = near.after(after).map(|open| open.key).collect();
            prop_assert_eq!(later, expected.keys().copied().filter(|key| *key > after).collect::<Vec<_>>());
        }
    }
}
