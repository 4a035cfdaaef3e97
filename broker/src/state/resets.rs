//! Offsets an administrator has set and the group's consumers have not gone to yet.
//!
//! The next pull of such a queue is told where to go on; until then commits of the group do not count, for they come from
//! where it was before. Only the queue's core keeps this, and in memory as RocketMQ does: the offset itself is in the log,
//! and a consumer that asks for it after a restart is told it.

use std::collections::BTreeMap;

type Queues = BTreeMap<(Box<str>, u32), i64>;

/// By group. As large as the number of resets that no consumer has taken, each of which has an offset in the log too.
#[derive(Debug, Default)]
pub struct Resets {
    groups: BTreeMap<Box<str>, Queues>,
}

impl Resets {
    pub fn put(&mut self, group: &str, topic: &str, queue_id: u32, offset: i64) {
        self.groups.entry(group.into()).or_default().insert((topic.into(), queue_id), offset);
    }

    pub fn contains(&self, group: &str, topic: &str, queue_id: u32) -> bool {
        // Nearly always there is none at all, and nothing is allocated to find that out.
        self.groups.get(group).is_some_and(|queues| queues.contains_key(&(topic.into(), queue_id)))
    }

    /// Where the group's consumer of the queue has to go on, which it is told once.
    pub fn take(&mut self, group: &str, topic: &str, queue_id: u32) -> Option<i64> {
        let queues = self.groups.get_mut(group)?;
        let offset = queues.remove(&(topic.into(), queue_id))?;
        if queues.is_empty() {
            self.groups.remove(group);
        }
        Some(offset)
    }

    pub fn remove_group(&mut self, group: &str) {
        self.groups.remove(group);
    }

    pub fn remove_topic(&mut self, topic: &str) {
        self.groups.retain(|_, queues| {
            queues.retain(|(of, _), _| &**of != topic);
            !queues.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_told_once_and_goes_with_its_group_or_topic() {
        let mut resets = Resets::default();
        let put_all = |resets: &mut Resets| {
            for (group, topic) in [("g", "T"), ("g", "U"), ("h", "T")] {
                resets.put(group, topic, 1, 7);
            }
        };
        put_all(&mut resets);
        assert!(resets.contains("g", "T", 1) && !resets.contains("g", "T", 0));
        assert_eq!([resets.take("g", "T", 1), resets.take("g", "T", 1)], [Some(7), None]);
        put_all(&mut resets);
        resets.remove_group("g");
        assert!(!resets.contains("g", "U", 1) && resets.contains("h", "T", 1));
        resets.remove_topic("T");
        assert!(resets.groups.is_empty());
    }
}
