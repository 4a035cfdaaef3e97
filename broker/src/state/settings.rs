//! What of the broker's configuration the tables look at, and the kinds of their log records.

use super::reserved::READ_WRITE;

/// Kind of a settings record in the system shard's log. The numbers are on disk: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SettingKind {
    /// Key: topic name. Value: the topic's JSON.
    Topic = 1,
    /// Key: group name. Value: the group's JSON.
    Group = 2,
    /// Key: group name. Value: JSON object of topic to bit mask.
    Forbidden = 3,
    /// Key: `topic@group`. Value: JSON: how the group gets the topic's messages.
    RequestMode = 5,
}

impl SettingKind {
    /// The byte that stands in the log record.
    pub fn byte(self) -> u8 {
        self as u8
    }
}

/// What of the broker's configuration decides about topics.
#[derive(Clone, Debug)]
pub struct TopicSettings {
    pub cluster_name: String,
    pub broker_name: String,
    /// `autoCreateTopicEnable`
    pub auto_create_topic_enable: bool,
    /// `defaultTopicQueueNums`: queues of the template topic.
    pub default_topic_queue_nums: i32,
    /// `clusterTopicEnable`, `brokerTopicEnable`: may the topics named after the cluster and the
    /// broker be read and written.
    pub cluster_topic_enable: bool,
    pub broker_topic_enable: bool,
    /// `msgTraceTopicName` when `traceTopicEnable`, else none.
    pub trace_topic: Option<String>,
    /// `timerWheelEnable`
    pub timer_wheel_enable: bool,
    /// `reviveQueueNum`
    pub revive_queue_nums: i32,
    /// `validateSystemTopicWhenUpdateTopic`
    pub validate_system_topic_when_update_topic: bool,
    /// `enableMixedMessageType`
    pub enable_mixed_message_type: bool,
    /// `enableSplitMetadata` and `splitMetadataSize`: entries of one page of 21 and 201 at most;
    /// none answers everything at once.
    pub metadata_page_size: Option<usize>,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            cluster_name: "DefaultCluster".to_owned(),
            broker_name: "broker-a".to_owned(),
            auto_create_topic_enable: true,
            default_topic_queue_nums: 8,
            cluster_topic_enable: true,
            broker_topic_enable: true,
            trace_topic: None,
            timer_wheel_enable: true,
            revive_queue_nums: 8,
            validate_system_topic_when_update_topic: true,
            enable_mixed_message_type: false,
            metadata_page_size: Some(2000),
        }
    }
}

/// What of the broker's configuration decides about subscription groups.
#[derive(Clone, Debug)]
pub struct GroupSettings {
    /// `autoCreateSubscriptionGroup`
    pub auto_create_subscription_group: bool,
    /// `enableCreateSysGroup`: groups that start with `CID_RMQ_SYS_` are created in any case.
    pub enable_create_sys_group: bool,
    /// Page size of 201, as [`TopicSettings::metadata_page_size`].
    pub metadata_page_size: Option<usize>,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self { auto_create_subscription_group: true, enable_create_sys_group: true, metadata_page_size: Some(2000) }
    }
}

/// What of the broker's configuration the checks of a send and of a pull look at.
#[derive(Clone, Debug)]
pub struct CheckSettings {
    /// Named in remarks: `brokerIP1`.
    pub broker_ip: String,
    /// `brokerPermission`, bits 2 (write) and 4 (read).
    pub broker_permission: i32,
    /// `startAcceptSendRequestTimeStamp`, ms since 1970: sends are refused before.
    pub start_accept_send_ms: i64,
    /// `litePullMessageEnable`
    pub lite_pull_message_enable: bool,
    /// `enablePropertyFilter`
    pub enable_property_filter: bool,
    /// `rejectPullConsumerEnable`
    pub reject_pull_consumer_enable: bool,
}

impl Default for CheckSettings {
    fn default() -> Self {
        Self {
            broker_ip: "127.0.0.1".to_owned(),
            broker_permission: READ_WRITE,
            start_accept_send_ms: 0,
            lite_pull_message_enable: true,
            enable_property_filter: false,
            reject_pull_consumer_enable: false,
        }
    }
}
