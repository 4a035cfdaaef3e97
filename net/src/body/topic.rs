//! Topic configuration, its versions, and the small lists around it.
#![forbid(unsafe_code)]

use super::enums::TopicFilterType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Permission bits of a topic or broker.
pub mod perm {
    pub const PRIORITY: i32 = 8;
    pub const READ: i32 = 4;
    pub const WRITE: i32 = 2;
    /// Topics may be created from this one automatically.
    pub const INHERIT: i32 = 1;
}

/// Version of a configuration table. Two versions are the same when all three members are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataVersion {
    pub counter: i64,
    pub state_version: i64,
    /// ms since the epoch.
    pub timestamp: i64,
}

impl DataVersion {
    /// To be called on every change of the table.
    pub fn bump(&mut self, now_ms: i64) {
        self.timestamp = now_ms;
        self.counter = self.counter.wrapping_add(1);
    }
}

/// One topic at one broker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfig {
    pub attributes: BTreeMap<String, String>,
    pub order: bool,
    /// Bits of [`perm`].
    pub perm: i32,
    pub read_queue_nums: i32,
    pub topic_filter_type: TopicFilterType,
    pub topic_name: String,
    /// Bit 0: unit; bit 1: unit subscription.
    pub topic_sys_flag: i32,
    pub write_queue_nums: i32,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            attributes: BTreeMap::new(),
            order: false,
            perm: perm::READ | perm::WRITE,
            read_queue_nums: 16,
            topic_filter_type: TopicFilterType::SingleTag,
            topic_name: String::new(),
            topic_sys_flag: 0,
            write_queue_nums: 16,
        }
    }
}

impl TopicConfig {
    /// The one-line form of compressed registrations: `topicName readQueueNums writeQueueNums perm
    /// topicFilterType attributesJSON`; the attributes may be missing. `None`: not of that form.
    pub fn from_line(line: &str) -> Option<Self> {
        let mut parts = line.splitn(6, ' ');
        let topic_name = parts.next()?.to_owned();
        let read_queue_nums = parts.next()?.parse().ok()?;
        let write_queue_nums = parts.next()?.parse().ok()?;
        let perm = parts.next()?.parse().ok()?;
        let topic_filter_type = TopicFilterType::from_name(parts.next()?)?;
        let attributes = match parts.next() {
            Some(json) if !json.trim().is_empty() => super::decode(json.as_bytes()).ok()?,
            _ => BTreeMap::new(),
        };
        Some(Self {
            attributes,
            perm,
            read_queue_nums,
            topic_filter_type,
            topic_name,
            write_queue_nums,
            ..Self::default()
        })
    }
}

/// Static topic mapping as registrations and routes carry it. Only kept and passed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicQueueMappingInfo {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bname: Option<String>,
    pub curr_id_map: BTreeMap<i32, i32>,
    pub dirty: bool,
    pub epoch: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    pub total_queues: i32,
}

/// A broker's topic table: reply to 21, and inside registrations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigSerializeWrapper {
    pub data_version: DataVersion,
    pub mapping_data_version: DataVersion,
    pub topic_config_table: BTreeMap<String, TopicConfig>,
    /// Details of static topics, without their hosted queues.
    pub topic_queue_mapping_detail_map: BTreeMap<String, TopicQueueMappingInfo>,
    pub topic_queue_mapping_info_map: BTreeMap<String, TopicQueueMappingInfo>,
}

/// Body of UPDATE_AND_CREATE_TOPIC_LIST (18).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicConfigList {
    pub topic_config_list: Vec<TopicConfig>,
}

/// Reply to 206, 224, 304, 305, 311, 312, 313, 343.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicList {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker_addr: Option<String>,
    pub topic_list: Vec<String>,
}

/// Text by text: reply to 28, 103, 219.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KvTable {
    pub table: BTreeMap<String, String>,
}
