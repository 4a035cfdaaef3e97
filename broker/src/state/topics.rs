//! The topics of this broker.
//!
//! Core 0 owns the one table that decides: it creates, changes and deletes topics, writes each as
//! a settings record into the system shard's log, and sends the [`TopicChange`] to the replicas on
//! the other cores, which only [`TopicTable::apply`] it. Entries are `Arc`s, so a change is one
//! pointer in a letter. The [`DataVersion`] changes with every change of the owner's table: name
//! servers take a registration with the same version for the same topics.

use std::sync::Arc;

use rmq_net::body::topic::perm;
use rmq_net::body::{self, BodyError, DataVersion, TopicConfig, TopicConfigSerializeWrapper};
use rmq_net::codes::response;
use rmq_net::message::names::{self, AUTO_CREATE_TOPIC, NameError, REPLY_TOPIC_POSTFIX, RETRY_PREFIX};
use rustc_hash::FxHashMap;
use thiserror::Error;

use super::attributes::{self, AttributeError, Attributes, MESSAGE_TYPE, MESSAGE_TYPE_MIXED};
use super::paging::{PageRequest, page_range};
use super::reserved::{READ_WRITE, SYSTEM_TOPICS, topic, topics_at_start};
use super::settings::TopicSettings;

/// Most queues one topic may have. RocketMQ has no bound; this one keeps the answers that list
/// every queue (202, 208) within a frame.
pub const QUEUES_MAX: i32 = 65_536;

const FLAG_UNIT: i32 = 1;
const FLAG_UNIT_SUBSCRIPTION: i32 = 2;

/// A change that the replicas on the other cores apply.
#[derive(Clone, Debug)]
pub enum TopicChange {
    Put(Arc<TopicConfig>),
    Removed(Arc<str>),
}

/// The topic does not exist and must not be created. Answered with 17.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("topic[{topic}] not exist, apply first please! ({why})")]
pub struct TopicMissing {
    pub topic: String,
    pub why: MissingWhy,
}

/// Why a topic is not created by a send.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MissingWhy {
    #[error("automatic creation is off and the default topic is absent")]
    NoDefaultTopic,
    #[error("the default topic does not let others inherit from it")]
    NotInheritable,
}

/// A topic request that is refused. Display is the remark.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TopicRefused {
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("The specified topic is blank.")]
    Blank,
    #[error("The topic[{0}] is conflict with system topic.")]
    System(String),
    #[error("MIXED message type is not supported.")]
    Mixed,
    #[error("topic[{topic}]: {field} is {value}, allowed are {low} to {high}")]
    Range { topic: String, field: &'static str, value: i32, low: i32, high: i32 },
    #[error("{0}")]
    Attribute(#[from] AttributeError),
}

impl TopicRefused {
    /// INVALID_PARAMETER (29), or SYSTEM_ERROR (1) for attributes.
    pub fn code(&self) -> i32 {
        match self {
            Self::Name(_) | Self::Blank | Self::System(_) | Self::Mixed | Self::Range { .. } => {
                response::INVALID_PARAMETER
            }
            Self::Attribute(_) => response::SYSTEM_ERROR,
        }
    }
}

/// One answer to 21.
#[derive(Clone, Debug)]
pub struct TopicPage {
    pub body: TopicConfigSerializeWrapper,
    /// Topics of the whole table: the ext field `totalTopicNum`.
    pub total: usize,
}

/// See the module.
#[derive(Debug)]
pub struct TopicTable {
    settings: TopicSettings,
    topics: FxHashMap<Arc<str>, Arc<TopicConfig>>,
    version: DataVersion,
}

impl TopicTable {
    /// The table of a broker that starts: its system topics.
    pub fn new(settings: TopicSettings, now_ms: i64) -> Self {
        let mut table = Self { settings, topics: FxHashMap::default(), version: DataVersion::default() };
        for config in topics_at_start(&table.settings) {
            table.insert(Arc::new(config));
        }
        table.next_version(now_ms);
        table
    }

    /// Takes over one topic from the log's settings at start.
    pub fn restore(&mut self, value: &[u8]) -> Result<(), BodyError> {
        let config = decode(value)?;
        self.insert(Arc::new(config));
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&Arc<TopicConfig>> {
        self.topics.get(name)
    }

    /// All topics in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TopicConfig>> {
        self.topics.values()
    }

    pub fn len(&self) -> usize {
        self.topics.len()
    }

    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    pub fn version(&self) -> &DataVersion {
        &self.version
    }

    pub fn settings(&self) -> &TopicSettings {
        &self.settings
    }

    /// Stores a topic. `None`: it already stood so, nothing changed.
    pub fn put(&mut self, config: TopicConfig, now_ms: i64) -> Option<TopicChange> {
        if self.get(&config.topic_name).is_some_and(|stored| **stored == config) {
            return None;
        }
        let config = Arc::new(config);
        self.insert(Arc::clone(&config));
        self.next_version(now_ms);
        Some(TopicChange::Put(config))
    }

    /// Removes a topic. `None`: there was none.
    pub fn delete(&mut self, name: &str, now_ms: i64) -> Option<TopicChange> {
        let (name, _config) = self.topics.remove_entry(name)?;
        self.next_version(now_ms);
        Some(TopicChange::Removed(name))
    }

    /// A replica takes over a change of the owner's table.
    pub fn apply(&mut self, change: TopicChange) {
        match change {
            TopicChange::Put(config) => self.insert(config),
            TopicChange::Removed(name) => {
                self.topics.remove(&name);
            }
        }
    }

    fn insert(&mut self, config: Arc<TopicConfig>) {
        self.topics.insert(Arc::from(config.topic_name.as_str()), config);
    }

    fn next_version(&mut self, now_ms: i64) {
        self.version.bump(now_ms);
    }

    /// Is this a topic that clients must not create, change or delete?
    pub fn is_system(&self, name: &str) -> bool {
        names::is_system_topic(name)
            || name == self.settings.cluster_name
            || name == self.settings.broker_name
            || name.strip_suffix(REPLY_TOPIC_POSTFIX) == Some(self.settings.cluster_name.as_str())
            || self.settings.trace_topic.as_deref() == Some(name)
    }

    /// The names behind [`Self::is_system`], sorted: the answer to 305.
    pub fn system_topics(&self) -> Vec<String> {
        let mut names: Vec<String> = SYSTEM_TOPICS.iter().map(|name| (*name).to_owned()).collect();
        names.extend(self.topics.keys().filter(|name| self.is_system(name)).map(|name| name.to_string()));
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The topic a send to the missing `name` creates.
    ///
    /// The template must let others inherit; a template `TBW102` does so only with
    /// `autoCreateTopicEnable`. A retry topic is created without a template.
    pub fn decide_auto_create(
        &self,
        name: &str,
        default_topic: &str,
        client_queue_nums: i32,
        unit_mode: bool,
    ) -> Result<TopicConfig, TopicMissing> {
        let template = self.get(default_topic);
        let is_inheritable = template.is_some_and(|template| {
            template.perm & perm::INHERIT != 0
                && (default_topic != AUTO_CREATE_TOPIC || self.settings.auto_create_topic_enable)
        });
        let is_retry = name.starts_with(RETRY_PREFIX);
        let topic_sys_flag = unit_flag(unit_mode, is_retry);
        match template {
            Some(template) if is_inheritable => Ok(TopicConfig {
                topic_filter_type: template.topic_filter_type,
                topic_sys_flag,
                ..topic(name, client_queue_nums.min(template.write_queue_nums).max(0), template.perm & !perm::INHERIT)
            }),
            _ if is_retry => Ok(TopicConfig { topic_sys_flag, ..topic(name, 1, READ_WRITE) }),
            _ => Err(TopicMissing {
                topic: name.to_owned(),
                why: match template {
                    Some(_) => MissingWhy::NotInheritable,
                    None => MissingWhy::NoDefaultTopic,
                },
            }),
        }
    }

    /// The topic to store so that messages can come back to, or end in, `name` (a retry or DLQ
    /// topic); `None` if it stands. A changed `is_order` is carried over, as RocketMQ does for the
    /// retry topic of a group that subscribes to an order topic; `None` leaves it.
    pub fn decide_group_topic(
        &self,
        name: &str,
        queues: i32,
        is_order: Option<bool>,
        unit_mode: bool,
    ) -> Option<TopicConfig> {
        let queues = queues.clamp(0, QUEUES_MAX);
        match self.get(name) {
            None => Some(TopicConfig {
                order: is_order.unwrap_or(false),
                topic_sys_flag: unit_flag(unit_mode, true),
                ..topic(name, queues, READ_WRITE)
            }),
            Some(stored) if is_order.is_some_and(|order| order != stored.order) => {
                Some(TopicConfig { order: !stored.order, ..(**stored).clone() })
            }
            Some(_) => None,
        }
    }

    /// The retry topic to store so that messages can come back over `queues` queues; `None` if it has as many.
    /// RocketMQ writes to queues the topic does not have, where no consumer looks.
    pub fn decide_retry_topic(&self, name: &str, queues: i32, unit_mode: bool) -> Option<TopicConfig> {
        let queues = queues.clamp(0, QUEUES_MAX);
        let Some(stored) = self.get(name) else {
            return self.decide_group_topic(name, queues, None, unit_mode);
        };
        let (read_queue_nums, write_queue_nums) =
            (stored.read_queue_nums.max(queues), stored.write_queue_nums.max(queues));
        let is_grown = (read_queue_nums, write_queue_nums) != (stored.read_queue_nums, stored.write_queue_nums);
        is_grown.then(|| TopicConfig { read_queue_nums, write_queue_nums, ..(**stored).clone() })
    }

    /// The topic to store for an update request (17, 18), whose attributes carry signed keys.
    pub fn decide_update(&self, requested: &TopicConfig) -> Result<TopicConfig, TopicRefused> {
        let name = requested.topic_name.as_str();
        names::check_topic(name)?;
        self.check_system(name)?;
        let queues = (0, QUEUES_MAX);
        for (field, value, (low, high)) in [
            ("readQueueNums", requested.read_queue_nums, queues),
            ("writeQueueNums", requested.write_queue_nums, queues),
            ("perm", requested.perm, (0, 15)),
        ] {
            if !(low..=high).contains(&value) {
                return Err(TopicRefused::Range { topic: name.to_owned(), field, value, low, high });
            }
        }
        let is_mixed = requested
            .attributes
            .iter()
            .any(|(key, value)| key.get(1..) == Some(MESSAGE_TYPE) && value == MESSAGE_TYPE_MIXED);
        if is_mixed && !self.settings.enable_mixed_message_type {
            return Err(TopicRefused::Mixed);
        }
        Ok(TopicConfig { attributes: self.altered_attributes(requested)?, ..requested.clone() })
    }

    fn altered_attributes(&self, requested: &TopicConfig) -> Result<Attributes, AttributeError> {
        let current = self.get(&requested.topic_name).map(|stored| &stored.attributes);
        attributes::alter(attributes::TOPIC_ATTRIBUTES, current, &requested.attributes)
    }

    /// May a client delete this topic (215)? An absent one may.
    pub fn check_delete(&self, name: &str) -> Result<(), TopicRefused> {
        if name.trim().is_empty() {
            return Err(TopicRefused::Blank);
        }
        self.check_system(name)
    }

    fn check_system(&self, name: &str) -> Result<(), TopicRefused> {
        if self.settings.validate_system_topic_when_update_topic && self.is_system(name) {
            return Err(TopicRefused::System(name.to_owned()));
        }
        Ok(())
    }

    /// The part of the table one answer to 21 carries.
    pub fn page(&self, request: &PageRequest<'_>) -> TopicPage {
        let topics = self.sorted();
        let total = topics.len();
        let range = page_range(request, &self.version, total, self.settings.metadata_page_size);
        let topics = topics.get(range).unwrap_or_default();
        TopicPage { body: self.wrapper(topics.iter().map(|config| (***config).clone())), total }
    }

    /// What to register at the name servers (103): all topics, with the permission bits taken away
    /// that the broker as a whole does not have.
    pub fn registration(&self, broker_permission: i32) -> TopicConfigSerializeWrapper {
        self.wrapper(self.iter().map(|config| limited_to(config, broker_permission)))
    }

    /// The incremental registration of one changed topic; `None` if it is gone.
    pub fn registration_of(&self, name: &str, broker_permission: i32) -> Option<TopicConfigSerializeWrapper> {
        let config = limited_to(self.get(name)?, broker_permission);
        Some(self.wrapper([config].into_iter()))
    }

    fn wrapper(&self, topics: impl Iterator<Item = TopicConfig>) -> TopicConfigSerializeWrapper {
        TopicConfigSerializeWrapper {
            data_version: self.version,
            topic_config_table: topics.map(|config| (config.topic_name.clone(), config)).collect(),
            ..TopicConfigSerializeWrapper::default()
        }
    }

    fn sorted(&self) -> Vec<&Arc<TopicConfig>> {
        let mut topics: Vec<_> = self.topics.values().collect();
        topics.sort_unstable_by(|left, right| left.topic_name.cmp(&right.topic_name));
        topics
    }
}

fn limited_to(config: &TopicConfig, broker_permission: i32) -> TopicConfig {
    let mut limited = config.clone();
    if broker_permission & READ_WRITE != READ_WRITE {
        limited.perm &= broker_permission;
    }
    limited
}

/// `topicSysFlag` of a topic made for a client in unit mode.
fn unit_flag(unit_mode: bool, is_retry: bool) -> i32 {
    match (unit_mode, is_retry) {
        (false, _) => 0,
        (true, false) => FLAG_UNIT,
        (true, true) => FLAG_UNIT_SUBSCRIPTION,
    }
}

/// The value of a topic's settings record.
pub fn encode(config: &TopicConfig) -> Vec<u8> {
    body::encode(config)
}

/// Reads what [`encode`] wrote.
pub fn decode(value: &[u8]) -> Result<TopicConfig, BodyError> {
    body::decode(value)
}

#[cfg(test)]
mod tests;
