//! The queue locks of an orderly consumer (RocketMQ: request 41): asked for by a connection for all its queues, and again
//! long before the broker lets them go.

use serde::Deserialize;
use serde_json::json;

use crate::cluster::Queue;
use crate::error::BenchError;
use crate::frame::{FrameWriter, OPAQUE_FIRST, Reply, Serialization, request, response};

/// Opaque of lock requests: none that a pull has.
pub const OPAQUE_LOCK: i32 = OPAQUE_FIRST - 1;
/// How often stock clients ask again; a broker lets go after 60 s.
const REFRESH_NS: u64 = 20_000_000_000;
/// Pause before asking again for queues that somebody else holds.
const RETRY_NS: u64 = 1_000_000_000;

#[derive(Deserialize)]
struct Granted {
    #[serde(rename = "lockOKMQSet", default)]
    queues: Vec<serde_json::Value>,
}

pub struct QueueLocks {
    body: Vec<u8>,
    count: usize,
    is_held: bool,
    /// When to ask, by the clock of the run.
    pub due_ns: u64,
}

impl QueueLocks {
    /// `client` tells this consumer from all others of its group.
    pub fn new<'a>(client: &str, group: &str, queues: impl Iterator<Item = &'a Queue>) -> Self {
        let queue =
            |queue: &Queue| json!({"brokerName": queue.broker_name, "queueId": queue.queue_id, "topic": queue.topic});
        let queues: Vec<_> = queues.map(queue).collect();
        let count = queues.len();
        let body = json!({"clientId": client, "consumerGroup": group, "mqSet": queues, "onlyThisBroker": false});
        Self { body: body.to_string().into_bytes(), count, is_held: false, due_ns: 0 }
    }

    /// Whether the queues may be read.
    pub fn is_held(&self) -> bool {
        self.is_held
    }

    pub fn append_to(&mut self, out: &mut Vec<u8>, serialization: Serialization, now_ns: u64) {
        FrameWriter::begin(out, serialization, request::LOCK_BATCH_MQ, OPAQUE_LOCK).finish(self.body.len());
        out.extend_from_slice(&self.body);
        self.due_ns = now_ns + REFRESH_NS;
    }

    /// Takes in the answer. False: somebody else holds some of the queues.
    pub fn take(&mut self, reply: &Reply<'_>, now_ns: u64) -> Result<bool, BenchError> {
        if reply.code != response::SUCCESS {
            return Err(BenchError::Refused { what: "locking queues", code: reply.code, remark: reply.remark() });
        }
        let granted: Granted = serde_json::from_slice(reply.body)
            .map_err(|error| BenchError::Answer { what: "locking queues", reason: error.to_string() })?;
        self.is_held = granted.queues.len() == self.count;
        if !self.is_held {
            self.due_ns = now_ns + RETRY_NS;
        }
        Ok(self.is_held)
    }
}
