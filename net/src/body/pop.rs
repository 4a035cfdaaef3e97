//! Acknowledgements in a body, and who consumes what by pop.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};

use super::enums::{MessageModel, RequestMode};
use super::queue::MessageQueue;

/// Body of BATCH_ACK_MESSAGE (200151).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchAckBody {
    pub acks: Vec<BatchAck>,
    pub broker_name: String,
}

/// Messages of one pop from one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BatchAck {
    /// Base64 of a bit set; bit n stands for offset `start_offset + n`, counted from the lowest bit of the first byte.
    #[serde(rename = "b", alias = "bitSet")]
    pub bits: String,
    #[serde(rename = "c", alias = "consumerGroup")]
    pub consumer_group: String,
    #[serde(rename = "it", alias = "invisibleTime")]
    pub invisible_time: i64,
    #[serde(rename = "pt", alias = "popTime")]
    pub pop_time: i64,
    #[serde(rename = "q", alias = "queueId")]
    pub queue_id: i32,
    /// The receipt's mark.
    #[serde(rename = "r", alias = "retry")]
    pub retry: String,
    #[serde(rename = "rq", alias = "reviveQueueId")]
    pub revive_queue_id: i32,
    #[serde(rename = "so", alias = "startOffset")]
    pub start_offset: i64,
    /// The topic the consumer names, also for messages from its retry topic.
    #[serde(rename = "t", alias = "topic")]
    pub topic: String,
}

impl BatchAck {
    /// The decoded bits, padded or not; `None` if they are no Base64.
    pub fn bit_set(&self) -> Option<Vec<u8>> {
        STANDARD_NO_PAD.decode(self.bits.trim_end_matches('=')).ok()
    }
}

/// Body of SET_MESSAGE_REQUEST_MODE (401), and one entry of the answer to 402.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestModeBody {
    pub consumer_group: String,
    pub mode: RequestMode,
    /// With POP: how many other clients' queues a client shares; 0 and less for all.
    pub pop_share_queue_num: i32,
    pub topic: String,
}

/// Reply to GET_ALL_MESSAGE_REQUEST_MODE (402): by topic, then group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestModeTable {
    pub message_request_mode_map: BTreeMap<String, BTreeMap<String, RequestModeBody>>,
}

/// Body of QUERY_ASSIGNMENT (400).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueryAssignmentBody {
    pub client_id: String,
    pub consumer_group: String,
    pub message_model: MessageModel,
    pub strategy_name: String,
    pub topic: String,
}

/// Reply to 400. Without the member the client keeps what it has; with an empty list it gives up all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AssignmentReply {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_queue_assignments: Option<Vec<QueueAssignment>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueAssignment {
    pub message_queue: MessageQueue,
    pub mode: RequestMode,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;

    #[test]
    fn a_batch_of_acknowledgements_is_read_by_its_short_and_its_long_names() {
        let short = br#"{"acks":[{"b":"AQI=","c":"cg","it":60000,"pt":1700000000000,"q":0,"r":"0","rq":2,"so":5,"t":"T"}],"brokerName":"broker-a"}"#;
        let long = br#"{"acks":[{"bitSet":"AQI=","consumerGroup":"cg","invisibleTime":60000,"popTime":1700000000000,
            "queueId":0,"retry":"0","reviveQueueId":2,"startOffset":5,"topic":"T"}],"brokerName":"broker-a"}"#;
        let read: BatchAckBody = body::decode(short).expect("short names");
        assert_eq!(body::decode::<BatchAckBody>(long).expect("long names"), read);
        assert_eq!(body::encode(&read), short);
        assert_eq!(read.acks[0].bit_set(), Some(vec![1, 2]));
    }

    #[test]
    fn bits_that_are_no_base64_are_none() {
        let bits = |text: &str| BatchAck { bits: text.to_owned(), ..BatchAck::default() }.bit_set();
        assert_eq!((bits("AQI="), bits("AQI")), (Some(vec![1, 2]), Some(vec![1, 2])));
        assert_eq!((bits("A"), bits("A!=="), bits("")), (None, None, Some(vec![])));
    }

    #[test]
    fn an_answer_without_assignments_has_no_member_for_them() {
        assert_eq!(body::encode(&AssignmentReply::default()), b"{}");
        let message_queue = MessageQueue { broker_name: "b".into(), queue_id: -1, topic: "T".into() };
        let reply = AssignmentReply {
            message_queue_assignments: Some(vec![QueueAssignment { message_queue, mode: RequestMode::Pop }]),
        };
        let text = r#"{"messageQueueAssignments":[{"messageQueue":{"brokerName":"b","queueId":-1,"topic":"T"},"mode":"POP"}]}"#;
        assert_eq!(body::encode(&reply), text.as_bytes());
    }
}
