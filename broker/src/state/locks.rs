//! The queue locks of orderly consumers (41, 42). In memory only: a restart frees all.
//!
//! Core 0 owns [`QueueLocks`]. Every core knows from [`LockedGroups`] which groups hold a lock at all, because that
//! decides where a message sent to their retry topic goes.

use std::sync::Arc;

use rmq_net::body::MessageQueue;
use rustc_hash::FxHashMap;

/// A lock not renewed for this long is free. Consumers renew every 20 s and believe in a lock
/// for 30 s, so the broker's 60 s always outlives them.
pub const LOCK_LIFETIME_MS: i64 = 60_000;

#[derive(Debug)]
struct Lock {
    client_id: Box<str>,
    renewed_ms: i64,
}

impl Lock {
    fn is_live(&self, now_ms: i64) -> bool {
        now_ms - self.renewed_ms <= LOCK_LIFETIME_MS
    }
}

/// Which client holds which queue, by consumer group.
#[derive(Debug, Default)]
pub struct QueueLocks {
    groups: FxHashMap<Box<str>, FxHashMap<MessageQueue, Lock>>,
}

impl QueueLocks {
    /// Locks or renews what is free, expired or already the client's. Returns the wanted queues
    /// the client holds now.
    pub fn lock(&mut self, group: &str, client_id: &str, wanted: &[MessageQueue], now_ms: i64) -> Vec<MessageQueue> {
        if wanted.is_empty() {
            return Vec::new();
        }
        let locks = self.groups.entry(group.into()).or_default();
        let mut held = Vec::with_capacity(wanted.len());
        for queue in wanted {
            let is_free = locks.get(queue).is_none_or(|lock| &*lock.client_id == client_id || !lock.is_live(now_ms));
            if is_free {
                let lock = Lock { client_id: client_id.into(), renewed_ms: now_ms };
                locks.insert(queue.clone(), lock);
                held.push(queue.clone());
            }
        }
        held
    }

    /// Frees the queues among `given` that the client holds.
    pub fn unlock(&mut self, group: &str, client_id: &str, given: &[MessageQueue]) {
        let Some(locks) = self.groups.get_mut(group) else {
            return;
        };
        for queue in given {
            if locks.get(queue).is_some_and(|lock| &*lock.client_id == client_id) {
                locks.remove(queue);
            }
        }
        if locks.is_empty() {
            self.groups.remove(group);
        }
    }

    /// Frees all that a client holds for the group. False: that is nothing.
    pub fn unlock_all(&mut self, group: &str, client_id: &str) -> bool {
        let Some(locks) = self.groups.get_mut(group) else {
            return false;
        };
        let count = locks.len();
        locks.retain(|_queue, lock| &*lock.client_id != client_id);
        let is_changed = locks.len() < count;
        if locks.is_empty() {
            self.groups.remove(group);
        }
        is_changed
    }

    /// The group's lock that lives longest, if any is live.
    pub fn change_of(&self, group: &str, now_ms: i64) -> LockChange {
        let locks = self.groups.get(group);
        let live = locks.into_iter().flat_map(FxHashMap::values).filter(|lock| lock.is_live(now_ms));
        let until_ms = live.map(|lock| lock.renewed_ms + LOCK_LIFETIME_MS).max();
        LockChange { group: group.into(), until_ms }
    }

    /// Forgets expired locks, so that clients that went away leave no memory behind.
    pub fn tick(&mut self, now_ms: i64) {
        self.groups.retain(|_group, locks| {
            locks.retain(|_queue, lock| lock.is_live(now_ms));
            !locks.is_empty()
        });
    }
}

/// Until when the group holds a queue lock, this moment included, ms since the epoch; `None` when it holds none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockChange {
    pub group: Arc<str>,
    pub until_ms: Option<i64>,
}

/// Which groups hold a live queue lock: on every core, told by the owner of the locks.
#[derive(Debug, Default)]
pub struct LockedGroups {
    until_ms: FxHashMap<Arc<str>, i64>,
}

impl LockedGroups {
    pub fn apply(&mut self, change: LockChange) {
        match change.until_ms {
            Some(until_ms) => self.until_ms.insert(change.group, until_ms),
            None => self.until_ms.remove(&change.group),
        };
    }

    /// Does anyone in the group hold a queue? Then its retries go straight to the DLQ.
    pub fn is_locked(&self, group: &str, now_ms: i64) -> bool {
        self.until_ms.get(group).is_some_and(|until_ms| now_ms <= *until_ms)
    }

    /// Forgets groups whose locks have expired.
    pub fn tick(&mut self, now_ms: i64) {
        self.until_ms.retain(|_group, until_ms| now_ms <= *until_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(ids: &[i32]) -> Vec<MessageQueue> {
        ids.iter()
            .map(|id| MessageQueue { broker_name: "broker-a".into(), queue_id: *id, topic: "orders".into() })
            .collect()
    }

    #[test]
    fn a_queue_belongs_to_one_client_until_it_lets_go_or_expires() {
        let mut locks = QueueLocks::default();
        assert_eq!(locks.lock("g", "one", &queues(&[0, 1]), 0), queues(&[0, 1]));
        assert_eq!(locks.lock("g", "two", &queues(&[1, 2]), 10), queues(&[2]));
        assert_eq!(locks.lock("h", "two", &queues(&[1]), 10), queues(&[1]));
        assert_eq!(locks.lock("g", "one", &queues(&[1]), 50_000), queues(&[1]));
        assert_eq!(locks.lock("g", "two", &queues(&[0, 1]), 60_000), vec![]);
        assert_eq!(locks.lock("g", "two", &queues(&[0, 1]), 60_001), queues(&[0]));
        locks.unlock("g", "two", &queues(&[0, 1]));
        assert_eq!(locks.lock("g", "three", &queues(&[0, 1]), 60_002), queues(&[0]));
        assert_eq!(locks.lock("g", "one", &[], 0), vec![]);
        assert!(locks.unlock_all("g", "two") && !locks.unlock_all("g", "two"));
        assert_eq!(locks.lock("g", "one", &queues(&[0, 1, 2]), 60_003), queues(&[1, 2]));
    }

    #[test]
    fn a_group_holds_a_live_lock_until_the_last_one_expires() {
        let (mut locks, mut groups) = (QueueLocks::default(), LockedGroups::default());
        assert_eq!(locks.change_of("g", 0).until_ms, None);
        locks.lock("g", "one", &queues(&[0]), 0);
        locks.lock("g", "one", &queues(&[1]), 7);
        groups.apply(locks.change_of("g", 7));
        assert!(groups.is_locked("g", LOCK_LIFETIME_MS + 7) && !groups.is_locked("h", 7));
        assert!(!groups.is_locked("g", LOCK_LIFETIME_MS + 8));
        locks.unlock("g", "one", &queues(&[1]));
        groups.apply(locks.change_of("g", 7));
        assert!(groups.is_locked("g", LOCK_LIFETIME_MS) && !groups.is_locked("g", LOCK_LIFETIME_MS + 1));
        locks.tick(LOCK_LIFETIME_MS);
        groups.tick(LOCK_LIFETIME_MS);
        assert_eq!((locks.groups.len(), groups.until_ms.len()), (1, 1));
        assert_eq!(locks.change_of("g", LOCK_LIFETIME_MS + 1).until_ms, None);
        locks.tick(LOCK_LIFETIME_MS + 1);
        groups.tick(LOCK_LIFETIME_MS + 1);
        assert!(locks.groups.is_empty() && groups.until_ms.is_empty());
        locks.lock("g", "one", &queues(&[0]), 0);
        locks.unlock("g", "one", &queues(&[0]));
        assert!(locks.groups.is_empty());
        groups.apply(locks.change_of("g", 0));
        assert!(!groups.is_locked("g", 0));
    }
}
