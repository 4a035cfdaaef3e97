//! The queue locks of orderly consumers (41, 42). In memory only: a restart frees all.

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

    /// Does anyone in the group hold a queue? Then its retries go straight to the DLQ.
    pub fn holds_live_lock(&self, group: &str, now_ms: i64) -> bool {
        self.groups.get(group).is_some_and(|locks| locks.values().any(|lock| lock.is_live(now_ms)))
    }

    /// Forgets expired locks, so that clients that went away leave no memory behind.
    pub fn tick(&mut self, now_ms: i64) {
        self.groups.retain(|_group, locks| {
            locks.retain(|_queue, lock| lock.is_live(now_ms));
            !locks.is_empty()
        });
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
    }

    #[test]
    fn a_group_holds_a_live_lock_until_the_last_one_expires() {
        let mut locks = QueueLocks::default();
        assert!(!locks.holds_live_lock("g", 0));
        locks.lock("g", "one", &queues(&[0]), 0);
        assert!(locks.holds_live_lock("g", LOCK_LIFETIME_MS));
        assert!(!locks.holds_live_lock("g", LOCK_LIFETIME_MS + 1));
        locks.tick(LOCK_LIFETIME_MS);
        assert_eq!(locks.groups.len(), 1);
        locks.tick(LOCK_LIFETIME_MS + 1);
        assert!(locks.groups.is_empty());
        locks.lock("g", "one", &queues(&[0]), 0);
        locks.unlock("g", "one", &queues(&[0]));
        assert!(locks.groups.is_empty());
    }
}
