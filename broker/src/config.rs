//! The broker's configuration: RocketMQ's property names, types, defaults and ranges, declared once.
//!
//! A property becomes a value of [`BrokerConfig`] at start; requests are handled with these plain values and never
//! ask for a property by name. `cli` reads files and flags into [`Settings`], and turns them into a [`BrokerConfig`].

pub mod machine;
pub mod properties;
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
from_setting!(bool, u8, u16, u32, u64, i32, i64, String, IpAddr);

impl FromSetting for FlushDiskType {
    fn from_setting(text: &str) -> Option<Self> {
        match text {
            "ASYNC_FLUSH" => Some(Self::Async),
            "SYNC_FLUSH" => Some(Self::Sync),
            _ => None,
        }
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
    /// What the broker works with. The meaning and range of each field stand with its setting's row.
    pub struct BrokerConfig {
        cluster_name: String = "brokerClusterName",
        broker_name: String = "brokerName",
        /// Always 0, the master's: replication is not built yet.
        broker_id: i64 = "brokerId",
        broker_ip1: String = "brokerIP1",
        bind_address: IpAddr = "bindAddress",
        listen_port: u16 = "listenPort",
        /// `host:port` each; empty when the broker registers nowhere.
        namesrv_addresses: Vec<String> = "namesrvAddr",
        /// Bits: 4 read, 2 write, 1 inherit.
        broker_permission: u8 = "brokerPermission",
        region_id: String = "regionId",
        is_trace_on: bool = "traceOn",
        config_path: String = "brokerConfigPath",
        config_black_list: Vec<String> = "configBlackList",

        auto_create_topic: bool = "autoCreateTopicEnable",
        auto_create_subscription_group: bool = "autoCreateSubscriptionGroup",
        auto_create_system_group: bool = "enableCreateSysGroup",
        default_topic_queue_count: u32 = "defaultTopicQueueNums",
        cluster_topic_enable: bool = "clusterTopicEnable",
        broker_topic_enable: bool = "brokerTopicEnable",
        trace_topic_enable: bool = "traceTopicEnable",
        trace_topic_name: String = "msgTraceTopicName",
        validate_system_topic: bool = "validateSystemTopicWhenUpdateTopic",
        allow_mixed_message_type: bool = "enableMixedMessageType",
        split_metadata: bool = "enableSplitMetadata",
        split_metadata_count: u32 = "splitMetadataSize",
        clear_retry_topic_with_topic: bool = "clearRetryTopicWhenDeleteTopic",

        message_bytes_max: u32 = "maxMessageSize",
        reject_transaction_message: bool = "rejectTransactionMessage",
        accept_sends_from_ms: i64 = "startAcceptSendRequestTimeStamp",
        sync_flush_timeout_ms: i64 = "syncFlushTimeout",

        long_polling: bool = "longPollingEnable",
        short_polling_ms: i64 = "shortPollingTimeMills",
        lite_pull: bool = "litePullMessageEnable",
        reject_pull_consumer: bool = "rejectPullConsumerEnable",
        property_filter: bool = "enablePropertyFilter",
        filter_bytes_max: u32 = "maxFilterMessageSize",
        transfer_memory_bytes_max: u32 = "maxTransferBytesOnMessageInMemory",
        transfer_memory_count_max: u32 = "maxTransferCountOnMessageInMemory",
        transfer_disk_bytes_max: u32 = "maxTransferBytesOnMessageInDisk",
        transfer_disk_count_max: u32 = "maxTransferCountOnMessageInDisk",
        memory_ratio_percent: u32 = "accessMessageInMemoryMaxRatio",
        pull_count_max: u32 = "pullBatchMaxMessageCount",
        disable_slow_consumers: bool = "disableConsumeIfConsumerReadSlowly",
        consumer_behind_bytes_max: u64 = "consumerFallbehindThreshold",

        notify_consumer_ids_changed: bool = "notifyConsumerIdsChangedEnable",
        notify_consumer_change_at_once: bool = "realTimeNotifyConsumerChange",
        register_producer: bool = "enableRegisterProducer",
        channel_expired_ms: i64 = "channelExpiredTimeout",
        subscription_expired_ms: i64 = "subscriptionExpiredTimeout",
        server_side_reset_offset: bool = "useServerSideResetOffset",

        /// 10,000 to 60,000.
        register_period_ms: i64 = "registerNameServerPeriod",
        register_timeout_ms: i64 = "registerBrokerTimeoutMills",
        force_register: bool = "forceRegister",

        connection_idle_s: u32 = "serverChannelMaxIdleTimeSeconds",
        accept_backlog: u32 = "serverSocketBacklog",
        shutdown_wait_s: u32 = "shutdownWaitTimeSeconds",

        store_folder: String = "storePathRootDir",
        flush_disk_type: FlushDiskType = "flushDiskType",
        /// A whole number of MiB.
        segment_bytes: u64 = "mappedFileSizeCommitLog",
        reserved_hours: u32 = "fileReservedTime",
        delete_hours: Vec<String> = "deleteWhen",
        /// 10 to 95.
        disk_used_percent_max: u32 = "diskMaxUsedSpaceRatio",
    }
}

impl BrokerConfig {
    /// Types the settings and applies the rules that RocketMQ applies to several of them.
    pub fn from_settings(settings: Settings) -> Result<Self, ConfigError> {
        const MIB: u64 = 1024 * 1024;
        let mut config = Self::read(settings)?;
        // RocketMQ: a master is broker 0 whatever the file says; brokerRole allows only masters.
        config.broker_id = 0;
        config.register_period_ms = config.register_period_ms.clamp(10_000, 60_000);
        config.disk_used_percent_max = config.disk_used_percent_max.clamp(10, 95);
        config.segment_bytes = config.segment_bytes.next_multiple_of(MIB);
        if config.listen_port < 3 {
            return Err(wrong_value(
                &config.settings,
                "listenPort",
                "at least 3, because listenPort - 2 is opened too",
            ));
        }
        for (name, value) in [
            ("brokerName", &config.broker_name),
            ("brokerClusterName", &config.cluster_name),
            ("brokerIP1", &config.broker_ip1),
            ("storePathRootDir", &config.store_folder),
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
