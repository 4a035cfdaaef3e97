//! Statistics of topics, groups and the broker.
#![forbid(unsafe_code)]

use super::heartbeat::SubscriptionData;
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

/// Reply to GET_BROKER_CONSUME_STATS (317).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumeStatsList {
    pub broker_addr: String,
    /// Group and what it has consumed, one entry per topic.
    pub groups: Vec<(String, Vec<ConsumeStats>)>,
    pub total_diff: i64,
    pub total_inflight_diff: i64,
}

impl ConsumeStatsList {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"brokerAddr\":".to_vec();
        out.extend_from_slice(&super::encode(&self.broker_addr));
        out.extend_from_slice(b",\"consumeStatsList\":[");
        for (index, (group, topics)) in self.groups.iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
            out.extend_from_slice(&super::encode(group));
            out.extend_from_slice(b":[");
            out.extend_from_slice(&topics.iter().map(ConsumeStats::encode).collect::<Vec<_>>().join(&b','));
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(b"],\"totalDiff\":");
        out.extend_from_slice(&super::encode(&self.total_diff));
        out.extend_from_slice(b",\"totalInflightDiff\":");
        out.extend_from_slice(&super::encode(&self.total_inflight_diff));
        out.push(b'}');
        out
    }
}

/// Reply to QUERY_CONSUME_TIME_SPAN (303).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeTimeSpans {
    pub consume_time_span_set: Vec<QueueTimeSpan>,
}

/// Store times in one queue, ms since the epoch; -1 where there is no message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueTimeSpan {
    /// Of the message consumed last, or else of the first.
    pub consume_time_stamp: i64,
    /// Since the message to consume next was stored; 0 where all are consumed.
    pub delay_time: i64,
    pub max_time_stamp: i64,
    pub message_queue: MessageQueue,
    pub min_time_stamp: i64,
}

/// Reply to QUERY_CONSUME_QUEUE (321).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeQueueRows {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_data: Option<String>,
    pub max_queue_index: i64,
    pub min_queue_index: i64,
    pub queue_data: Vec<ConsumeQueueData>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subscription_data: Option<SubscriptionData>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumeQueueData {
    /// Of a row's extension, which this broker's rows never have.
    pub eval: bool,
    pub physic_offset: i64,
    pub physic_size: i32,
    pub tags_code: i64,
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
