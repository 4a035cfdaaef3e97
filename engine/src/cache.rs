//! A bounded cache that evicts what was not used since the hand last passed (second chance).

use std::collections::VecDeque;
use std::hash::Hash;

use rustc_hash::FxHashMap;

struct Entry<V> {
    value: V,
    bytes: u64,
    is_used: bool,
}

/// Values by key, each with the bytes it counts for.
pub(crate) struct Cache<K, V> {
    entries: FxHashMap<K, Entry<V>>,
    /// The clock's circle. May hold keys that were removed meanwhile; they are skipped.
    circle: VecDeque<K>,
    bytes: u64,
}

/// Entries the hand looks at per call: bounds the work when most entries cannot be evicted.
const STEPS_MAX: usize = 64;

impl<K: Copy + Eq + Hash, V> Cache<K, V> {
    pub fn new() -> Self {
        Self { entries: FxHashMap::default(), circle: VecDeque::new(), bytes: 0 }
    }

    pub fn get(&mut self, key: K) -> Option<&mut V> {
        let entry = self.entries.get_mut(&key)?;
        entry.is_used = true;
        Some(&mut entry.value)
    }

    /// As [`get`](Self::get), without counting as a use.
    pub fn peek(&self, key: K) -> Option<&V> {
        self.entries.get(&key).map(|entry| &entry.value)
    }

    pub fn contains(&self, key: K) -> bool {
        self.entries.contains_key(&key)
    }

    pub fn insert(&mut self, key: K, value: V, bytes: u64) {
        if let Some(previous) = self.entries.insert(key, Entry { value, bytes, is_used: true }) {
            self.bytes -= previous.bytes;
        } else {
            self.circle.push_back(key);
        }
        self.bytes += bytes;
    }

    pub fn remove(&mut self, key: K) -> Option<V> {
        let entry = self.entries.remove(&key)?;
        self.bytes -= entry.bytes;
        if self.circle.len() > 2 * self.entries.len() + STEPS_MAX {
            let entries = &self.entries;
            self.circle.retain(|key| entries.contains_key(key));
        }
        Some(entry.value)
    }

    /// Takes out one entry if more than `bytes_max` are held and one may go.
    pub fn evict_above(&mut self, bytes_max: u64, may_go: impl Fn(&V) -> bool) -> Option<V> {
        if self.bytes <= bytes_max {
            return None;
        }
        for _ in 0..STEPS_MAX {
            let key = self.circle.pop_front()?;
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            if !entry.is_used && may_go(&entry.value) {
                self.bytes -= entry.bytes;
                return self.entries.remove(&key).map(|entry| entry.value);
            }
            entry.is_used = false;
            self.circle.push_back(key);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_gets_a_second_chance() {
        let mut cache = Cache::new();
        for key in 0..4 {
            cache.insert(key, key, 10);
        }
        assert_eq!(cache.evict_above(40, |_| true), None);
        assert_eq!(cache.evict_above(30, |_| true), Some(0));
        cache.get(1);
        assert_eq!(cache.evict_above(20, |_| true), Some(2));
        assert_eq!(cache.evict_above(10, |value| *value != 3), Some(1));
        assert_eq!(cache.evict_above(0, |value| *value != 3), None);
        assert_eq!((cache.remove(3), cache.bytes), (Some(3), 0));
    }
}
