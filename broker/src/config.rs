//! The broker's configuration: RocketMQ's property names, types, defaults and ranges, declared once.
//!
//! A property becomes a value of [`BrokerConfig`] at start; requests are handled with these plain values and never
//! ask for a property by name. `cli` reads files and flags into [`Settings`], and turns them into a [`BrokerConfig`].

pub mod machine;
pub mod setting;
pub mod settings;
mod table;

use std::net::IpAddr;

pub use machine::Machine;
pub use settings::{ConfigError, Notes, Origin, Settings};

/// When a send is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushDiskType {
    /// `ASYNC_FLUSH`: the device has completed the write.
    Async,
    /// `SYNC_FLUSH`: the write is on stable media.
    Sync,
}

/// A value that a setting's text becomes. The text has passed the setting's own check.
trait FromSetting: Sized {
    fn from_setting(text: &str) -> Option<Self>;
}

macro_rules! from_setting {
    ($($type:ty),*) => {$(
        impl FromSetting for $type {
            fn from_setting(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )*};
}
from_setting!(bool, u16, u32, u64, i32, i64, String, IpAddr);

impl FromSetting for FlushDiskType {
    fn from_setting(text: &str) -> Option<Self> {
        match text {
            "ASYNC_FLUSH" => Some(Self::Async),
            "SYNC_FLUSH" => Some(Self::Sync),
            _ => None,
        }
    }
}

/// The delays of levels 1, 2, ..., milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayLevels(Box<[i64]>);

impl DelayLevels {
    /// As many as the schedule topic's queues can be told apart by what is owed.
    const COUNT_MAX: usize = 200;

    /// `1s 5s 10m 2h 1d`. `None` if it is not a list of such delays.
    pub fn parse(text: &str) -> Option<Self> {
        let delay_ms = |text: &str| {
            let unit_at = text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at))?;
            let (number, unit) = text.split_at(unit_at);
            let unit_ms = match unit {
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            number.parse::<u32>().ok().map(|number| i64::from(number) * unit_ms)
        };
        let levels: Box<[i64]> = text.split_whitespace().map(delay_ms).collect::<Option<_>>()?;
        (1..=Self::COUNT_MAX).contains(&levels.len()).then_some(Self(levels))
    }

    /// The level's queue in the schedule topic and its delay in milliseconds; one beyond the last is the last.
    pub fn of(&self, level: i64) -> Option<(u8, i64)> {
        let queue_id = usize::try_from(level.checked_sub(1)?).ok()?.min(self.0.len() - 1);
        Some((queue_id as u8, self.0[queue_id]))
    }
}

impl FromSetting for DelayLevels {
    fn from_setting(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

/// `a;b;c`; empty parts are dropped.
impl FromSetting for Vec<String> {
    fn from_setting(text: &str) -> Option<Self> {
        Some(text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }
}

macro_rules! typed_settings {
    ($(#[$doc:meta])* pub struct $Config:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $name:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $Config {
            $(#[doc = concat!("`", $name, "`.")] $(#[$field_doc])* pub $field: $type,)*
            /// All settings as text, for `-p` and GET_BROKER_CONFIG.
            pub settings: Settings,
        }

        impl $Config {
            /// RocketMQ's names of the fields.
            pub const NAMES: &[&str] = &[$($name),*];

            fn read(settings: Settings) -> Result<Self, ConfigError> {
                $(let $field = typed(&settings, $name)?;)*
                Ok(Self { $($field,)* settings })
            }
        }
    };
}

typed_settings! {
    /// What the broker works with. A field is called like its property; the setting's row has its meaning and range.
    pub struct BrokerConfig {
        broker_cluster_name: String = "brokerClusterName",
        broker_name: String = "brokerName",
        /// Always 0, the master's: replication is not built yet.
        broker_id: i64 = "brokerId",
        broker_ip1: String = "brokerIP1",
        bind_address: IpAddr = "bindAddress",
        listen_port: u16 = "listenPort",
        /// `host:port` each; empty when the broker registers nowhere.
        namesrv_addr: Vec<String> = "namesrvAddr",
        /// Bits: 4 read, 2 write, 1 inherit.
        broker_permission: i32 = "brokerPermission",
        region_id: String = "regionId",
        trace_on: bool = "traceOn",
        broker_config_path: String = "brokerConfigPath",

        auto_create_topic_enable: bool = "autoCreateTopicEnable",
        auto_create_subscription_group: bool = "autoCreateSubscriptionGroup",
        enable_create_sys_group: bool = "enableCreateSysGroup",
        default_topic_queue_nums: u32 = "defaultTopicQueueNums",
        cluster_topic_enable: bool = "clusterTopicEnable",
        broker_topic_enable: bool = "brokerTopicEnable",
        trace_topic_enable: bool = "traceTopicEnable",
        msg_trace_topic_name: String = "msgTraceTopicName",
        clear_retry_topic_when_delete_topic: bool = "clearRetryTopicWhenDeleteTopic",
        validate_system_topic_when_update_topic: bool = "validateSystemTopicWhenUpdateTopic",
        enable_mixed_message_type: bool = "enableMixedMessageType",
        enable_split_metadata: bool = "enableSplitMetadata",
        split_metadata_size: u32 = "splitMetadataSize",

        max_message_size: u32 = "maxMessageSize",
        reject_transaction_message: bool = "rejectTransactionMessage",
        /// Milliseconds, at least 0.
        transaction_time_out: i64 = "transactionTimeOut",
        transaction_check_max: i32 = "transactionCheckMax",
        /// Milliseconds, at least 1.
        transaction_check_interval: i64 = "transactionCheckInterval",
        message_delay_level: DelayLevels = "messageDelayLevel",
        enable_schedule_message_stats: bool = "enableScheduleMessageStats",
        timer_wheel_enable: bool = "timerWheelEnable",
        timer_max_delay_sec: i64 = "timerMaxDelaySec",
        timer_precision_ms: i64 = "timerPrecisionMs",
        recall_message_enable: bool = "recallMessageEnable",
        allow_recall_when_broker_not_writeable: bool = "allowRecallWhenBrokerNotWriteable",
        append_topic_for_timer_delete_key: bool = "appendTopicForTimerDeleteKey",
        start_accept_send_request_time_stamp: i64 = "startAcceptSendRequestTimeStamp",
        sync_flush_timeout: i64 = "syncFlushTimeout",

        long_polling_enable: bool = "longPollingEnable",
        short_polling_time_mills: i64 = "shortPollingTimeMills",
        lite_pull_message_enable: bool = "litePullMessageEnable",
        reject_pull_consumer_enable: bool = "rejectPullConsumerEnable",
        enable_property_filter: bool = "enablePropertyFilter",
        max_transfer_bytes_on_message_in_memory: u32 = "maxTransferBytesOnMessageInMemory",
        max_transfer_count_on_message_in_memory: u32 = "maxTransferCountOnMessageInMemory",

        use_server_side_reset_offset: bool = "useServerSideResetOffset",
        /// Held pops of one group and queue, and of one core.
        pop_polling_size: i32 = "popPollingSize",
        max_pop_polling_size: i64 = "maxPopPollingSize",
        revive_queue_num: i32 = "reviveQueueNum",
        init_pop_offset_by_check_msg_in_mem: bool = "initPopOffsetByCheckMsgInMem",
        enable_retry_topic_v2: bool = "enableRetryTopicV2",
        retrieve_message_from_pop_retry_topic_v1: bool = "retrieveMessageFromPopRetryTopicV1",
        /// Per cent.
        pop_from_retry_probability: i32 = "popFromRetryProbability",
        pop_from_retry_probability_for_priority: i32 = "popFromRetryProbabilityForPriority",
        use_message_filter_for_notification: bool = "useMessageFilterForNotification",
        max_message_filter_num_for_notification: i32 = "maxMessageFilterNumForNotification",
        priority_order_asc: bool = "priorityOrderAsc",
        pop_response_return_actual_retry_topic: bool = "popResponseReturnActualRetryTopic",
        enable_pop_message_threshold: bool = "enablePopMessageThreshold",
        pop_inflight_message_threshold: i64 = "popInflightMessageThreshold",
        pop_revive_concurrency: i32 = "popReviveConcurrency",
        server_load_balancer_enable: bool = "serverLoadBalancerEnable",
        /// `PULL` or `POP`.
        default_message_request_mode: String = "defaultMessageRequestMode",
        default_pop_share_queue_num: i32 = "defaultPopShareQueueNum",
        load_balance_poll_name_server_interval: i64 = "loadBalancePollNameServerInterval",

        message_index_enable: bool = "messageIndexEnable",
        max_msgs_num_batch: i64 = "maxMsgsNumBatch",
        default_query_max_num: i64 = "defaultQueryMaxNum",

        notify_consumer_ids_changed_enable: bool = "notifyConsumerIdsChangedEnable",
        enable_register_producer: bool = "enableRegisterProducer",
        store_reply_message_enable: bool = "storeReplyMessageEnable",
        channel_expired_timeout: i64 = "channelExpiredTimeout",

        /// 10,000 to 60,000.
        register_name_server_period: i64 = "registerNameServerPeriod",
        register_broker_timeout_mills: i64 = "registerBrokerTimeoutMills",

        server_channel_max_idle_time_seconds: u32 = "serverChannelMaxIdleTimeSeconds",
        /// 1 to 65,535.
        server_socket_backlog: i32 = "serverSocketBacklog",

        store_path_root_dir: String = "storePathRootDir",
        flush_disk_type: FlushDiskType = "flushDiskType",
        /// A whole number of MiB.
        mapped_file_size_commit_log: u64 = "mappedFileSizeCommitLog",
        file_reserved_time: u32 = "fileReservedTime",
        delete_when: Vec<String> = "deleteWhen",
        /// 10 to 95.
        disk_max_used_space_ratio: u32 = "diskMaxUsedSpaceRatio",
        /// 35 to 90.
        disk_space_warning_level_ratio: u32 = "diskSpaceWarningLevelRatio",
        /// 30 to 85.
        disk_space_clean_forcibly_ratio: u32 = "diskSpaceCleanForciblyRatio",
        clean_file_forcibly_enable: bool = "cleanFileForciblyEnable",
        delete_file_batch_max: u32 = "deleteFileBatchMax",
        /// Milliseconds.
        clean_resource_interval: i64 = "cleanResourceInterval",
    }
}

impl BrokerConfig {
    /// Types the settings and applies the rules that RocketMQ applies to several of them.
    pub fn from_settings(mut settings: Settings) -> Result<Self, ConfigError> {
        const MIB: u64 = 1024 * 1024;
        // RocketMQ: a master is broker 0 whatever the file says, and shows it; brokerRole allows only masters.
        let origin = settings.origin("brokerId").cloned().unwrap_or(Origin::Default);
        settings.set("brokerId", "0", origin)?;
        let mut config = Self::read(settings)?;
        config.register_name_server_period = config.register_name_server_period.clamp(10_000, 60_000);
        config.disk_max_used_space_ratio = config.disk_max_used_space_ratio.clamp(10, 95);
        config.disk_space_warning_level_ratio = config.disk_space_warning_level_ratio.clamp(35, 90);
        config.disk_space_clean_forcibly_ratio = config.disk_space_clean_forcibly_ratio.clamp(30, 85);
        config.mapped_file_size_commit_log = config.mapped_file_size_commit_log.next_multiple_of(MIB);
        if config.listen_port < 3 {
            return Err(wrong_value(
                &config.settings,
                "listenPort",
                "at least 3, because listenPort - 2 is opened too",
            ));
        }
        for (name, value) in [
            ("brokerName", &config.broker_name),
            ("brokerClusterName", &config.broker_cluster_name),
            ("storePathRootDir", &config.store_path_root_dir),
        ] {
            if value.is_empty() {
                return Err(wrong_value(&config.settings, name, "anything but empty"));
            }
        }
        Ok(config)
    }

    /// RocketMQ's defaults on this machine.
    pub fn with_defaults(machine: &Machine) -> Result<Self, ConfigError> {
        Self::from_settings(Settings::broker(machine))
    }

    /// `brokerIP1` and a port as clients write them: brackets around an IPv6 address.
    pub fn client_address(&self, port: u16) -> String {
        match &self.broker_ip1 {
            ipv6 if ipv6.contains(':') => format!("[{ipv6}]:{port}"),
            host => format!("{host}:{port}"),
        }
    }

    /// The port for clients that use the VIP channel.
    pub fn vip_port(&self) -> u16 {
        self.listen_port.saturating_sub(2)
    }
}

fn typed<T: FromSetting>(settings: &Settings, name: &'static str) -> Result<T, ConfigError> {
    let text = settings.value(name).unwrap_or_default();
    T::from_setting(text).ok_or_else(|| wrong_value(settings, name, "a value of the setting's type"))
}

fn wrong_value(settings: &Settings, name: &'static str, allowed: &str) -> ConfigError {
    ConfigError::WrongValue {
        name,
        value: settings.value(name).unwrap_or_default().to_owned(),
        origin: settings.origin(name).cloned().unwrap_or(Origin::Default),
        allowed: allowed.to_owned(),
    }
}

#[cfg(test)]
mod tests;
