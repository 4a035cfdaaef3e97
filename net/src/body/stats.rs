//! Statistics of topics, groups and the broker.
#![forbid(unsafe_code)]

use super::queue::{MessageQueue, write_queue_map};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Reply to GET_TOPIC_STATS_INFO (202).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicStatsTable {
    pub offset_table: BTreeMap<MessageQueue, TopicOffset>,
    /// Messages per second.
    pub topic_put_tps: f64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicOffset {
    /// Store time of the newest message, ms; 0 for an empty queue.
    pub last_update_timestamp: i64,
    pub max_offset: i64,
    pub min_offset: i64,
}

impl TopicStatsTable {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"offsetTable\":".to_vec();
        write_queue_map(&mut out, &self.offset_table);
        out.extend_from_slice(b",\"topicPutTps\":");
        out.extend_from_slice(&super::encode(&self.topic_put_tps));
        out.push(b'}');
        out
    }
}

/// Reply to GET_CONSUME_STATS (208).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeStats {
    /// Messages per second.
    pub consume_tps: f64,
    pub offset_table: BTreeMap<MessageQueue, OffsetWrapper>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OffsetWrapper {
    pub broker_offset: i64,
    pub consumer_offset: i64,
    /// Store time of the last consumed message, ms.
    pub last_timestamp: i64,
    pub pull_offset: i64,
}

impl ConsumeStats {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"consumeTps\":".to_vec();
        out.extend_from_slice(&super::encode(&self.consume_tps));
        out.extend_from_slice(b",\"offsetTable\":");
        write_queue_map(&mut out, &self.offset_table);
        out.push(b'}');
        out
    }
}

/// Reply to VIEW_BROKER_STATS_DATA (315).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerStatsData {
    pub stats_day: BrokerStatsItem,
    pub stats_hour: BrokerStatsItem,
    pub stats_minute: BrokerStatsItem,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BrokerStatsItem {
    /// Average per call.
    pub avgpt: f64,
    pub sum: i64,
    /// Per second.
    pub tps: f64,
}
