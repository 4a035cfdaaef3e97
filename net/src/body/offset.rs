//! Offsets: reset commands, consumer status, and a broker's table of them.
#![forbid(unsafe_code)]

use super::queue::{MessageQueue, write_queue_map};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Reply to INVOKE_BROKER_TO_RESET_OFFSET (222), body of RESET_CONSUMER_CLIENT_OFFSET (220).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetOffsetBody {
    pub offset_table: BTreeMap<MessageQueue, i64>,
}

impl ResetOffsetBody {
    /// The compact object-key form, the only one that Java and Go clients both read.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"offsetTable\":".to_vec();
        write_queue_map(&mut out, &self.offset_table);
        out.push(b'}');
        out
    }
}

/// Body of 220 for C++ clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResetOffsetBodyForC {
    pub offset_table: Vec<QueueOffset>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueOffset {
    pub broker_name: String,
    pub offset: i64,
    pub queue_id: i32,
    pub topic: String,
}

/// Reply to 221 (by a client: its queues) and 223 (by a broker: queues by client id).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerStatus {
    pub consumer_table: BTreeMap<String, BTreeMap<MessageQueue, i64>>,
    pub message_queue_table: BTreeMap<MessageQueue, i64>,
}

impl ConsumerStatus {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = b"{\"consumerTable\":{".to_vec();
        for (index, (client_id, offsets)) in self.consumer_table.iter().enumerate() {
            if 0 < index {
                out.push(b',');
            }
            out.extend_from_slice(&super::encode(client_id));
            out.push(b':');
            write_queue_map(&mut out, offsets);
        }
        out.extend_from_slice(b"},\"messageQueueTable\":");
        write_queue_map(&mut out, &self.message_queue_table);
        out.push(b'}');
        out
    }
}

/// Reply to GET_ALL_CONSUMER_OFFSET (43): offset by queue id, by `topic@group`. Legacy form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerOffsets {
    pub offset_table: BTreeMap<String, BTreeMap<i32, i64>>,
}

/// Reply to QUERY_CORRECTION_OFFSET (308): offset by queue id. Legacy form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CorrectionOffsets {
    pub correction_offsets: BTreeMap<i32, i64>,
}
