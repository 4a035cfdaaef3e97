//! Topics and the brokers that hold their queues.

use std::sync::Arc;

use rmq_net::body::topic::TopicQueueMappingInfo;
use rustc_hash::FxHashMap;

use crate::registration::QueueData;
use crate::route_body::RouteBodies;

/// One topic: who holds queues of it, and the finished route answers.
#[derive(Debug, Default)]
pub struct Topic {
    /// Sorted by broker name, one row per name.
    rows: Vec<(Arc<str>, QueueData)>,
    /// Static topics only: how logical queues map to the brokers' queues, sorted by broker name.
    mappings: Vec<(String, TopicQueueMappingInfo)>,
    bodies: RouteBodies,
}

impl Topic {
    pub fn rows(&self) -> &[(Arc<str>, QueueData)] {
        &self.rows
    }

    pub fn mappings(&self) -> &[(String, TopicQueueMappingInfo)] {
        &self.mappings
    }

    pub fn bodies(&self) -> &RouteBodies {
        &self.bodies
    }

    pub fn bodies_mut(&mut self) -> &mut RouteBodies {
        &mut self.bodies
    }

    pub fn queues_of(&self, broker_name: &str) -> Option<&QueueData> {
        let at = self.position(broker_name).ok()?;
        self.rows.get(at).map(|(_, queues)| queues)
    }

    /// The flags any of its brokers gave: RocketMQ looks at an arbitrary one, they do not differ.
    pub fn sys_flag(&self) -> i32 {
        self.rows.first().map_or(0, |(_, queues)| queues.topic_sys_flag)
    }

    fn position(&self, broker_name: &str) -> Result<usize, usize> {
        self.rows.binary_search_by(|(name, _)| name.as_ref().cmp(broker_name))
    }
}

/// All topics. Every change of a topic drops its finished route answers.
#[derive(Debug, Default)]
pub struct Topics {
    topics: FxHashMap<Box<str>, Topic>,
    row_count: usize,
}

impl Topics {
    pub fn get(&self, topic: &str) -> Option<&Topic> {
        self.topics.get(topic)
    }

    pub fn get_mut(&mut self, topic: &str) -> Option<&mut Topic> {
        self.topics.get_mut(topic)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.topics.iter().map(|(name, topic)| (name.as_ref(), topic))
    }

    /// (topic, broker) pairs.
    pub fn row_count(&self) -> usize {
        self.row_count
    }

    pub fn has_row(&self, topic: &str, broker_name: &str) -> bool {
        let topic = self.topics.get(topic);
        topic.is_some_and(|topic| topic.queues_of(broker_name).is_some())
    }

    /// Stores a broker's queues of a topic.
    pub fn put(&mut self, topic: &str, broker_name: &Arc<str>, queues: QueueData) {
        let topic = match self.topics.get_mut(topic) {
            Some(known) => known,
            None => self.topics.entry(topic.into()).or_default(),
        };
        let added = match topic.position(broker_name) {
            Ok(at) => {
                let Some((_, row)) = topic.rows.get_mut(at) else {
                    return;
                };
                if *row == queues {
                    return;
                }
                *row = queues;
                0
            }
            Err(at) => {
                topic.rows.insert(at, (broker_name.clone(), queues));
                1
            }
        };
        topic.bodies.clear();
        self.row_count += added;
    }

    /// Stores a static topic's mapping; a topic without queues keeps none.
    pub fn put_mapping(&mut self, topic: &str, broker_name: &str, mapping: &TopicQueueMappingInfo) {
        let Some(topic) = self.topics.get_mut(topic) else {
            return;
        };
        let position = topic.mappings.binary_search_by(|(name, _)| name.as_str().cmp(broker_name));
        match position {
            Ok(at) => {
                if let Some((_, old)) = topic.mappings.get_mut(at) {
                    *old = mapping.clone();
                }
            }
            Err(at) => topic.mappings.insert(at, (broker_name.to_owned(), mapping.clone())),
        }
        topic.bodies.clear();
    }

    pub fn remove(&mut self, topic: &str) {
        if let Some(removed) = self.topics.remove(topic) {
            self.row_count -= removed.rows.len();
        }
    }

    /// Removes the rows that `gone` names; a topic without rows goes as well.
    pub fn remove_rows(&mut self, gone: impl Fn(&str, &str) -> bool) {
        let row_count = &mut self.row_count;
        self.topics.retain(|name, topic| {
            let before = topic.rows.len();
            topic.rows.retain(|(broker_name, _)| !gone(name, broker_name));
            let removed = before - topic.rows.len();
            if removed > 0 {
                *row_count -= removed;
                topic.bodies.clear();
            }
            !topic.rows.is_empty()
        });
    }

    /// Removes the rows of one topic only.
    pub fn remove_rows_of(&mut self, topic: &str, gone: impl Fn(&str) -> bool) {
        let Some(entry) = self.topics.get_mut(topic) else {
            return;
        };
        let before = entry.rows.len();
        entry.rows.retain(|(broker_name, _)| !gone(broker_name));
        self.row_count -= before - entry.rows.len();
        entry.bodies.clear();
        if entry.rows.is_empty() {
            self.topics.remove(topic);
        }
    }

    /// Rewrites every row of a broker and returns how many topics have one.
    pub fn rewrite_rows(&mut self, broker_name: &str, rewrite: impl Fn(QueueData) -> QueueData) -> usize {
        let mut count = 0;
        for topic in self.topics.values_mut() {
            let Ok(at) = topic.position(broker_name) else {
                continue;
            };
            if let Some((_, row)) = topic.rows.get_mut(at) {
                *row = rewrite(*row);
                topic.bodies.clear();
                count += 1;
            }
        }
        count
    }
}
