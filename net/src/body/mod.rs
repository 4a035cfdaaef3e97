//! JSON bodies: plain structs with RocketMQ's member names, in alphabetical order because Java
//! writes them so.
//!
//! Reading is as lenient as fastjson ([`decode`]). Writing knows two dialects: standard JSON
//! ([`encode`]) and what fastjson writes for maps with integer keys, `{0:"x"}` ([`encode_legacy`]).
//! Bodies with maps keyed by message queues, `{{"brokerName":..}:..}`, are not JSON in either; they
//! have an `encode` method of their own.
#![forbid(unsafe_code)]

pub use crate::json::coerce::BodyError;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub mod connection;
mod dialect;
pub mod enums;
pub mod group;
pub mod heartbeat;
pub mod offset;
pub mod pop;
pub mod queue;
pub mod registration;
pub mod route;
pub mod stats;
#[cfg(test)]
mod tests;
pub mod topic;

pub use connection::{Connection, ConsumerConnection, ProducerConnection, ProducerInfo, ProducerTable};
pub use enums::{ConsumeFromWhere, ConsumeType, MessageModel, RequestMode, TopicFilterType};
pub use group::{
    ConsumerIdList, GroupConfigList, GroupForbidden, GroupList, GroupRetryPolicy, GroupSubscription,
    SubscriptionGroupConfig, SubscriptionGroupWrapper,
};
pub use heartbeat::{CheckClientConfig, ConsumerData, HeartbeatData, ProducerData, SubscriptionData};
pub use offset::{
    ConsumerOffsets, ConsumerStatus, CorrectionOffsets, QueueOffset, ResetOffsetBody, ResetOffsetBodyForC,
};
pub use pop::{
    AssignmentReply, BatchAck, BatchAckBody, QueryAssignmentBody, QueueAssignment, RequestModeBody, RequestModeTable,
};
pub use queue::{LockBatchBody, LockBatchReply, MessageQueue};
pub use registration::RegisterBrokerBody;
pub use route::{BrokerData, BrokerMemberGroup, BrokerMemberGroupReply, ClusterInfo, QueueData, TopicRouteData};
pub use stats::{
    BrokerStatsData, ConsumeQueueData, ConsumeQueueRows, ConsumeStats, ConsumeStatsList, ConsumeTimeSpans,
    OffsetWrapper, QueueTimeSpan, TopicOffset, TopicStatsTable,
};
pub use topic::{DataVersion, KvTable, TopicConfig, TopicConfigList, TopicConfigSerializeWrapper, TopicList};

/// Reads a body as fastjson would: unknown members ignored, nulls as absent, numbers and booleans
/// as text and the reverse, integer and object map keys. An empty body is an error.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, BodyError> {
    crate::json::coerce::from_bytes(body)
}

/// Standard JSON, compact. Integer map keys are quoted.
pub fn encode<T: Serialize>(body: &T) -> Vec<u8> {
    serde_json::to_vec(body).expect("bodies have string or integer keys and no failing serialisers")
}

/// As fastjson writes it, compact. Integer map keys are not quoted.
pub fn encode_legacy<T: Serialize>(body: &T) -> Vec<u8> {
    dialect::to_vec(body)
}
