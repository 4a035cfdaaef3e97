//! Open messages whose time is about to come, in the order of their due times.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};

use rmq_engine::MessageRef;

use crate::owed::soon::CopyPlace;
use crate::owed::{Key, Open};

/// Room that is kept when nothing is near, in messages.
const KEPT_MAX: usize = 1 << 17;

#[derive(Default)]
pub struct Near {
    /// Those that came in their order, as nearly all do: each costs a fifth of what a tree takes.
    in_order: VecDeque<Open>,
    /// The others.
    odd: BTreeMap<Key, (MessageRef, Option<CopyPlace>)>,
}

impl Near {
    pub fn len(&self) -> usize {
        self.in_order.len() + self.odd.len()
    }

    pub fn add(&mut self, open: Open) {
        if self.in_order.back().is_none_or(|last| last.key < open.key) {
            self.in_order.push_back(open);
        } else {
            self.add_between(open);
        }
    }

    /// Adds a message while others that may come before it are still to be added.
    pub fn add_between(&mut self, open: Open) {
        self.odd.insert(open.key, (open.message, open.copy));
    }

    pub fn first(&self) -> Option<Open> {
        self.iter().next()
    }

    pub fn remove(&mut self, key: Key) {
        if self.in_order.front().is_some_and(|first| first.key == key) {
            self.in_order.pop_front();
        } else {
            self.odd.remove(&key);
        }
        if self.in_order.is_empty() && self.in_order.capacity() > KEPT_MAX {
            self.in_order = VecDeque::new();
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Open> {
        merged(self.in_order.iter().copied(), self.odd.iter().map(open_of))
    }

    /// Those that come after `key`.
    pub fn after(&self, key: Key) -> impl Iterator<Item = Open> {
        let from = self.in_order.partition_point(|open| open.key <= key);
        merged(self.in_order.range(from..).copied(), self.odd.range((Excluded(key), Unbounded)).map(open_of))
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

    proptest! {
        #[test]
        fn messages_come_in_the_order_of_their_times(
            steps in prop::collection::vec((0..4_u8, 0..50_i64, 0..1000_i64), 0..200), from in 0..50_i64,
        ) {
            let (mut near, mut expected) = (Near::default(), BTreeMap::new());
            for (step, due_ms, offset) in steps {
                match near.first() {
                    Some(first) if step == 0 => {
                        near.remove(first.key);
                        prop_assert_eq!(expected.pop_first().map(|(key, ())| key), Some(first.key));
                    }
                    _ => {
                        let open = Open::new(due_ms, OwedQueue::Timer, offset, MessageRef::default());
                        match expected.insert(open.key, ()) {
                            None if step == 1 => near.add_between(open),
                            None => near.add(open),
                            Some(()) => {}
                        }
                    }
                }
            }
            prop_assert_eq!(near.len(), expected.len());
            prop_assert_eq!(near.iter().map(|open| open.key).collect::<Vec<_>>(), expected.keys().copied().collect::<Vec<_>>());
            let after = (from, crate::owed::Place::new(OwedQueue::Timer, 500));
            let later: Vec<_> = near.after(after).map(|open| open.key).collect();
            prop_assert_eq!(later, expected.keys().copied().filter(|key| *key > after).collect::<Vec<_>>());
        }
    }
}
