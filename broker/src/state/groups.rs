//! The subscription groups of this broker: who may consume, how often a message is retried.
//!
//! Owned by core 0 and replicated like the topics (see [`super::topics`]). Besides the groups the
//! table holds which topics a group is forbidden to read (353).

use std::collections::BTreeMap;
use std::sync::Arc;

use rmq_net::body::{self, BodyError, DataVersion, SubscriptionGroupConfig, SubscriptionGroupWrapper};
use rmq_net::codes::response;
use rmq_net::message::names::{self, NameError};
use rustc_hash::FxHashMap;
use thiserror::Error;

use super::attributes::{self, AttributeError};
use super::paging::{PageRequest, page_range};
use super::reserved::{SYSTEM_GROUP_PREFIX, SYSTEM_GROUPS};
use super::settings::GroupSettings;
use super::topics::QUEUES_MAX;

/// Bit of the forbidden mask that stands for reading.
const FORBIDDEN_READ: i32 = 1 << 2;

/// Masks of one group by topic. RocketMQ keeps bits for other uses in the same number.
pub type ForbiddenTopics = BTreeMap<String, i32>;

/// A change that the replicas on the other cores apply.
#[derive(Clone, Debug)]
pub enum GroupChange {
    Put(Arc<SubscriptionGroupConfig>),
    Removed(Arc<str>),
    /// The group's masks as a whole; empty when none is left.
    Forbidden(Arc<str>, Arc<ForbiddenTopics>),
}

/// What looking up a group says.
#[derive(Debug)]
pub enum GroupLookup<'t> {
    Known(&'t Arc<SubscriptionGroupConfig>),
    /// It does not exist, but using it creates it: this is what to store.
    Creatable(SubscriptionGroupConfig),
    Missing,
}

/// A group request that is refused. Display is the remark.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum GroupRefused {
    #[error("{0}")]
    Name(#[from] NameError),
    #[error("group[{group}]: retryQueueNums is {value}, allowed are 0 to {QUEUES_MAX}")]
    RetryQueues { group: String, value: i32 },
    #[error("{0}")]
    Attribute(#[from] AttributeError),
}

impl GroupRefused {
    /// INVALID_PARAMETER (29), or SYSTEM_ERROR (1) for attributes.
    pub fn code(&self) -> i32 {
        match self {
            Self::Name(_) | Self::RetryQueues { .. } => response::INVALID_PARAMETER,
            Self::Attribute(_) => response::SYSTEM_ERROR,
        }
    }
}

/// One answer to 201.
#[derive(Clone, Debug)]
pub struct GroupPage {
    pub body: SubscriptionGroupWrapper,
    /// Groups of the whole table: the ext field `totalGroupNum`.
    pub total: usize,
}

/// See the module.
#[derive(Debug)]
pub struct GroupTable {
    settings: GroupSettings,
    groups: FxHashMap<Arc<str>, Arc<SubscriptionGroupConfig>>,
    forbidden: FxHashMap<Arc<str>, Arc<ForbiddenTopics>>,
    version: DataVersion,
}

impl GroupTable {
    /// The table of a broker that starts: its system groups.
    pub fn new(settings: GroupSettings, now_ms: i64) -> Self {
        let mut table = Self {
            settings,
            groups: FxHashMap::default(),
            forbidden: FxHashMap::default(),
            version: DataVersion::default(),
        };
        for name in SYSTEM_GROUPS {
            table.insert(Arc::new(with_defaults(name)));
        }
        table.next_version(now_ms);
        table
    }

    /// Takes over one group from the log's settings at start.
    pub fn restore(&mut self, value: &[u8]) -> Result<(), BodyError> {
        self.insert(Arc::new(decode(value)?));
        Ok(())
    }

    /// Takes over the forbidden topics of one group from the log's settings at start.
    pub fn restore_forbidden(&mut self, group: &str, value: &[u8]) -> Result<(), BodyError> {
        let topics: ForbiddenTopics = body::decode(value)?;
        self.apply(GroupChange::Forbidden(Arc::from(group), Arc::new(topics)));
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&Arc<SubscriptionGroupConfig>> {
        self.groups.get(name)
    }

    /// All groups in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<SubscriptionGroupConfig>> {
        self.groups.values()
    }

    pub fn len(&self) -> usize {
        self.groups.len()
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub fn version(&self) -> &DataVersion {
        &self.version
    }

    /// Looks a group up the way consuming requests do: with `autoCreateSubscriptionGroup` (or for
    /// a system group) a missing one with a valid name comes into being with the defaults.
    pub fn look_up(&self, name: &str) -> GroupLookup<'_> {
        if let Some(config) = self.get(name) {
            return GroupLookup::Known(config);
        }
        let is_wanted = self.settings.auto_create_subscription_group
            || (self.settings.enable_create_sys_group && name.starts_with(SYSTEM_GROUP_PREFIX));
        if is_wanted && names::check_group(name).is_ok() {
            return GroupLookup::Creatable(with_defaults(name));
        }
        GroupLookup::Missing
    }

    /// Stores a group. `None`: it already stood so, nothing changed.
    pub fn put(&mut self, config: SubscriptionGroupConfig, now_ms: i64) -> Option<GroupChange> {
        if self.get(&config.group_name).is_some_and(|stored| **stored == config) {
            return None;
        }
        let config = Arc::new(config);
        self.insert(Arc::clone(&config));
        self.next_version(now_ms);
        Some(GroupChange::Put(config))
    }

    /// Removes a group and its forbidden topics, each a settings record of its own. `None`: there
    /// was neither.
    pub fn delete(&mut self, name: &str, now_ms: i64) -> Option<GroupChange> {
        let group = self.groups.remove_entry(name).map(|(name, _config)| name);
        let forbidden = self.forbidden.remove_entry(name).map(|(name, _topics)| name);
        let name = group.or(forbidden)?;
        self.next_version(now_ms);
        Some(GroupChange::Removed(name))
    }

    /// A replica takes over a change of the owner's table.
    pub fn apply(&mut self, change: GroupChange) {
        match change {
            GroupChange::Put(config) => self.insert(config),
            GroupChange::Removed(name) => {
                self.groups.remove(&name);
                self.forbidden.remove(&name);
            }
            GroupChange::Forbidden(name, topics) if topics.is_empty() => {
                self.forbidden.remove(&name);
            }
            GroupChange::Forbidden(name, topics) => {
                self.forbidden.insert(name, topics);
            }
        }
    }

    fn insert(&mut self, config: Arc<SubscriptionGroupConfig>) {
        self.groups.insert(Arc::from(config.group_name.as_str()), config);
    }

    fn next_version(&mut self, now_ms: i64) {
        self.version.bump(now_ms);
    }

    /// The group to store for an update request (200, 225), whose attributes carry signed keys.
    pub fn decide_update(&self, requested: &SubscriptionGroupConfig) -> Result<SubscriptionGroupConfig, GroupRefused> {
        names::check_group(&requested.group_name)?;
        if !(0..=QUEUES_MAX).contains(&requested.retry_queue_nums) {
            let (group, value) = (requested.group_name.clone(), requested.retry_queue_nums);
            return Err(GroupRefused::RetryQueues { group, value });
        }
        let current = self.get(&requested.group_name).map(|stored| &stored.attributes);
        let attributes = attributes::alter(attributes::GROUP_ATTRIBUTES, current, &requested.attributes)?;
        Ok(SubscriptionGroupConfig { attributes, ..requested.clone() })
    }

    /// May the group not read the topic?
    pub fn is_read_forbidden(&self, group: &str, topic: &str) -> bool {
        self.forbidden.get(group).and_then(|topics| topics.get(topic)).is_some_and(|mask| mask & FORBIDDEN_READ != 0)
    }

    /// Allows or forbids reading (353). `None`: nothing changed.
    pub fn set_readable(&mut self, group: &str, topic: &str, is_readable: bool, now_ms: i64) -> Option<GroupChange> {
        if self.is_read_forbidden(group, topic) != is_readable {
            return None;
        }
        let mut topics = self.forbidden.get(group).map(|topics| (**topics).clone()).unwrap_or_default();
        let mask = topics.get(topic).copied().unwrap_or(0) ^ FORBIDDEN_READ;
        if mask == 0 {
            topics.remove(topic);
        } else {
            topics.insert(topic.to_owned(), mask);
        }
        let change = GroupChange::Forbidden(Arc::from(group), Arc::new(topics));
        self.apply(change.clone());
        self.next_version(now_ms);
        Some(change)
    }

    /// The part of the table one answer to 201 carries; the forbidden topics are on every page.
    pub fn page(&self, request: &PageRequest<'_>) -> GroupPage {
        let mut groups: Vec<_> = self.groups.values().collect();
        groups.sort_unstable_by(|left, right| left.group_name.cmp(&right.group_name));
        let total = groups.len();
        let range = page_range(request, &self.version, total, self.settings.metadata_page_size);
        let groups = groups.get(range).unwrap_or_default();
        let body = SubscriptionGroupWrapper {
            data_version: self.version,
            forbidden_table: self
                .forbidden
                .iter()
                .map(|(group, topics)| (group.to_string(), (**topics).clone()))
                .collect(),
            subscription_group_table: groups
                .iter()
                .map(|config| (config.group_name.clone(), (***config).clone()))
                .collect(),
        };
        GroupPage { body, total }
    }
}

/// A group with RocketMQ's defaults.
pub fn with_defaults(name: &str) -> SubscriptionGroupConfig {
    SubscriptionGroupConfig { group_name: name.to_owned(), ..SubscriptionGroupConfig::default() }
}

/// The value of a group's settings record.
pub fn encode(config: &SubscriptionGroupConfig) -> Vec<u8> {
    body::encode(config)
}

/// Reads what [`encode`] wrote.
pub fn decode(value: &[u8]) -> Result<SubscriptionGroupConfig, BodyError> {
    body::decode(value)
}

/// The value of the settings record that holds a group's forbidden topics.
pub fn encode_forbidden(topics: &ForbiddenTopics) -> Vec<u8> {
    body::encode(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> GroupTable {
        GroupTable::new(GroupSettings::default(), 1000)
    }

    fn closed() -> GroupTable {
        let settings = GroupSettings { auto_create_subscription_group: false, ..GroupSettings::default() };
        GroupTable::new(settings, 1000)
    }

    #[test]
    fn the_system_groups_stand_at_start() {
        let table = table();
        for name in SYSTEM_GROUPS {
            assert!(table.get(name).is_some_and(|group| group.consume_broadcast_enable), "{name}");
        }
    }

    #[test]
    fn looking_up_creates_groups_only_where_the_configuration_allows() {
        let creates = |table: &GroupTable, name: &str| match table.look_up(name) {
            GroupLookup::Known(_) => None,
            GroupLookup::Creatable(config) => Some(config.group_name == name),
            GroupLookup::Missing => Some(false),
        };
        assert_eq!(creates(&table(), "TOOLS_CONSUMER"), None);
        assert_eq!(creates(&table(), "g"), Some(true));
        assert_eq!(creates(&table(), "bad name"), Some(false));
        assert_eq!(creates(&table(), &"g".repeat(121)), Some(false));
        assert_eq!(creates(&closed(), "g"), Some(false));
        assert_eq!(creates(&closed(), "CID_RMQ_SYS_x"), Some(true));
        let mut never = closed();
        never.settings.enable_create_sys_group = false;
        assert_eq!(creates(&never, "CID_RMQ_SYS_x"), Some(false));
    }

    #[test]
    fn updates_check_name_and_attributes() {
        let table = table();
        let bad_name = table.decide_update(&with_defaults("bad name")).expect_err("bad name");
        assert_eq!(bad_name.code(), 29);
        let factor = |key: &str| SubscriptionGroupConfig {
            attributes: [(key.to_owned(), "50".to_owned())].into(),
            ..with_defaults("g")
        };
        assert_eq!(table.decide_update(&factor("+wrong")).expect_err("unknown key").code(), 1);
        let stored = table.decide_update(&factor("+priority.factor")).expect("allowed");
        assert_eq!(stored, factor("priority.factor"));
    }

    #[test]
    fn versions_and_replicas_follow_changes() {
        let (mut owner, mut replica) = (table(), table());
        let put = owner.put(with_defaults("g"), 2000).expect("a change");
        assert!(owner.put(with_defaults("g"), 3000).is_none());
        assert_eq!((owner.version().timestamp, owner.version().counter), (2000, 2));
        replica.apply(put);
        let forbid = owner.set_readable("g", "t", false, 2500).expect("a change");
        replica.apply(forbid);
        assert!(replica.get("g").is_some() && replica.is_read_forbidden("g", "t"));
        let removed = owner.delete("g", 4000).expect("a change");
        replica.apply(removed);
        assert!(replica.get("g").is_none() && !replica.is_read_forbidden("g", "t"));
        assert!(owner.delete("g", 5000).is_none());
        owner.set_readable("never stored", "t", false, 6000);
        assert!(owner.delete("never stored", 7000).is_some());
        assert!(!owner.is_read_forbidden("never stored", "t"));
    }

    #[test]
    fn forbidden_topics_keep_their_other_bits_and_survive_a_restart() {
        let mut table = table();
        table.restore_forbidden("g", br#"{"t":1}"#).expect("valid");
        assert!(!table.is_read_forbidden("g", "t"));
        let Some(GroupChange::Forbidden(group, topics)) = table.set_readable("g", "t", false, 1) else {
            panic!("a change of the masks");
        };
        assert_eq!(topics.get("t"), Some(&5));
        let mut restarted = GroupTable::new(GroupSettings::default(), 1000);
        restarted.restore_forbidden(&group, &encode_forbidden(&topics)).expect("own encoding");
        assert!(restarted.is_read_forbidden("g", "t"));
        assert!(restarted.set_readable("g", "t", false, 1).is_none());
        assert!(restarted.set_readable("g", "t", true, 1).is_some());
        assert!(!restarted.is_read_forbidden("g", "t"));
        assert_eq!(restarted.page(&PageRequest::default()).body.forbidden_table.len(), 1);
        assert!(restarted.set_readable("h", "t", true, 1).is_none());
    }

    #[test]
    fn a_stored_group_comes_back_as_it_was() {
        let mut table = table();
        let config = SubscriptionGroupConfig { retry_max_times: 3, ..with_defaults("g") };
        table.restore(&encode(&config)).expect("own encoding");
        assert_eq!(table.get("g").map(|stored| (**stored).clone()), Some(config));
        assert!(table.restore(b"").is_err());
    }

    #[test]
    fn pages_are_sorted_and_know_the_total() {
        let table = table();
        let request = PageRequest { first_index: Some(0), count_max: Some(3), data_version: Some("") };
        let page = table.page(&request);
        assert_eq!(page.body.subscription_group_table.len(), 3);
        assert_eq!(page.total, SYSTEM_GROUPS.len());
    }
}
