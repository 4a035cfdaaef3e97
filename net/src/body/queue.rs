//! Message queues, as values and as the keys of fastjson's object-keyed maps; queue locks.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// One queue of a topic at one broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MessageQueue {
    pub broker_name: String,
    pub queue_id: i32,
    pub topic: String,
}

/// Appends `{{"brokerName":..,"queueId":..,"topic":..}:value,...}` in the order of `entries`, the
/// compact form that Java and Go readers both take.
pub fn write_queue_map<'a, T: Serialize + 'a>(
    out: &mut Vec<u8>,
    entries: impl IntoIterator<Item = (&'a MessageQueue, &'a T)>,
) {
    out.push(b'{');
    for (index, (queue, value)) in entries.into_iter().enumerate() {
        if 0 < index {
            out.push(b',');
        }
        out.extend_from_slice(&super::encode(queue));
        out.push(b':');
        out.extend_from_slice(&super::encode(value));
    }
    out.push(b'}');
}

/// Body of LOCK_BATCH_MQ (41) and UNLOCK_BATCH_MQ (42).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LockBatchBody {
    pub client_id: String,
    pub consumer_group: String,
    pub mq_set: Vec<MessageQueue>,
    pub only_this_broker: bool,
}

/// Reply to 41: the queues the client now holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LockBatchReply {
    #[serde(rename = "lockOKMQSet")]
    pub lock_ok_mq_set: Vec<MessageQueue>,
}
