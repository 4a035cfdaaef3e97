//! The name server's properties: RocketMQ's names, types and defaults, declared once.
//!
//! The table at the end of this file is the only list. The struct, the defaults, [`NamesrvConfig::get`],
//! [`NamesrvConfig::set`], the answer to request 319 and the `-p` print-out all come from it.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use rmq_net::properties;

/// What a property does here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Followed; a change by request 318 takes effect at once.
    Used,
    /// Followed, but read at start only.
    AtStart,
    /// Accepted so that existing files and tools work. It tunes Java's thread pools and sockets, which
    /// do not exist here.
    Ignored,
    /// Belongs to a feature that is not built yet.
    NotYet,
}

/// One row of the property table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PropertyRow {
    /// RocketMQ's name, as in property files.
    pub name: &'static str,
    /// `boolean`, `integer`, `IP address` or `text`.
    pub kind: &'static str,
    /// Allowed values of integers, both ends included.
    pub range: Option<RangeInclusive<i64>>,
    pub effect: Effect,
}

/// Why a property keeps the value it had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    #[error("{name} is not a name server property")]
    Unknown { name: String },
    #[error("{name}={value} is refused: {expected}")]
    Refused { name: &'static str, value: String, expected: String },
}

/// A value as it stands in a property file.
trait SettingValue: Sized {
    const KIND: &'static str;
    /// The error says what was expected.
    fn read(text: &str, range: Option<RangeInclusive<i64>>) -> Result<Self, String>;
    fn show(&self) -> String;
}

impl SettingValue for bool {
    const KIND: &'static str = "boolean";
    fn read(text: &str, _range: Option<RangeInclusive<i64>>) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("true") {
            Ok(true)
        } else if text.eq_ignore_ascii_case("false") {
            Ok(false)
        } else {
            Err("expected true or false".to_owned())
        }
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl SettingValue for String {
    const KIND: &'static str = "text";
    fn read(text: &str, _range: Option<RangeInclusive<i64>>) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn show(&self) -> String {
        self.clone()
    }
}

impl SettingValue for IpAddr {
    const KIND: &'static str = "IP address";
    fn read(text: &str, _range: Option<RangeInclusive<i64>>) -> Result<Self, String> {
        text.parse().map_err(|_| "expected an IPv4 or IPv6 address".to_owned())
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! integer_setting {
    ($($type:ty),*) => {$(
        impl SettingValue for $type {
            const KIND: &'static str = "integer";
            fn read(text: &str, range: Option<RangeInclusive<i64>>) -> Result<Self, String> {
                let range = range.unwrap_or(i64::from(<$type>::MIN)..=i64::from(<$type>::MAX));
                text.parse::<i64>()
                    .ok()
                    .filter(|number| range.contains(number))
                    .and_then(|number| Self::try_from(number).ok())
                    .ok_or_else(|| {
                        format!("expected an integer from {} to {}", range.start(), range.end())
                    })
            }
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
integer_setting!(u16, i32, i64);

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $field:ident / $name:literal: $type:ty = $default:expr,
        $range:expr, $effect:ident;)*) => {
        /// Every property of RocketMQ's name server. Field documentation says what each does here.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct NamesrvConfig {
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        impl Default for NamesrvConfig {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        /// The whole table, in the order of declaration.
        pub fn property_table() -> Vec<PropertyRow> {
            vec![$(PropertyRow {
                name: $name,
                kind: <$type as SettingValue>::KIND,
                range: $range,
                effect: Effect::$effect,
            },)*]
        }

        impl NamesrvConfig {
            /// The value of the property with RocketMQ's name `name`, as text.
            pub fn get(&self, name: &str) -> Option<String> {
                match name {
                    $($name => Some(self.$field.show()),)*
                    _ => None,
                }
            }

            /// Sets one property. Blanks around the value are dropped, as RocketMQ does.
            pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
                let value = value.trim();
                match name {
                    $($name => match <$type as SettingValue>::read(value, $range) {
                        Ok(parsed) => {
                            self.$field = parsed;
                            Ok(())
                        }
                        Err(expected) => Err(SettingError::Refused {
                            name: $name,
                            value: value.to_owned(),
                            expected,
                        }),
                    },)*
                    _ => Err(SettingError::Unknown { name: name.to_owned() }),
                }
            }
        }
    };
}

impl NamesrvConfig {
    /// All properties as `name=value` lines: the body of request 319 and what `-p` prints.
    pub fn to_properties(&self) -> String {
        let mut text = String::new();
        for row in property_table() {
            if let Some(value) = self.get(row.name) {
                properties::write(&mut text, row.name, &value);
            }
        }
        text
    }

    /// True for a property that request 318 must not change: RocketMQ's own list and the configured one.
    pub fn is_black_listed(&self, name: &str) -> bool {
        const ALWAYS: [&str; 4] = ["configBlackList", "configStorePath", "kvConfigPath", "rocketmqHome"];
        ALWAYS.contains(&name) || self.config_black_list.split(';').any(|n| n.trim() == name)
    }
}

/// RocketMQ keeps the name server's files below the home folder of the user who runs it.
fn below_home(path: &str) -> String {
    let home = std::env::home_dir().unwrap_or_else(|| PathBuf::from("."));
    home.join(path).to_string_lossy().into_owned()
}

const ANY: Option<RangeInclusive<i64>> = None;
const POSITIVE: Option<RangeInclusive<i64>> = Some(1..=i32::MAX as i64);
const COUNT: Option<RangeInclusive<i64>> = Some(0..=i32::MAX as i64);

settings! {
    /// Root of an installation of the Java server. Only shown.
    rocketmq_home / "rocketmqHome": String = std::env::var("ROCKETMQ_HOME").unwrap_or_default(), ANY, Ignored;
    /// File of the KV table. Not changeable at run time.
    kv_config_path / "kvConfigPath": String = below_home("namesrv/kvConfig.json"), ANY, AtStart;
    /// File that receives all properties after a successful request 318. Not changeable at run time.
    config_store_path / "configStorePath": String = below_home("namesrv/namesrv.properties"), ANY, AtStart;
    /// Environment asked for unknown topics in `clusterTest` mode.
    product_env_name / "productEnvName": String = "center".to_owned(), ANY, Ignored;
    /// Ask the production name servers for unknown topics: a mode of the vendor's own test clusters.
    cluster_test / "clusterTest": bool = false, ANY, Ignored;
    /// Route answers carry the topic's `ORDER_TOPIC_CONFIG` entry.
    order_message_enable / "orderMessageEnable": bool = false, ANY, Used;
    /// Registration answers carry the whole `ORDER_TOPIC_CONFIG` table.
    return_order_topic_config_to_broker / "returnOrderTopicConfigToBroker": bool = true, ANY, Used;
    /// Java's threads for route requests.
    client_request_thread_pool_nums / "clientRequestThreadPoolNums": i32 = 8, COUNT, Ignored;
    /// Java's threads for all other requests.
    default_thread_pool_nums / "defaultThreadPoolNums": i32 = 16, COUNT, Ignored;
    /// Java's queue in front of the route threads.
    client_request_thread_pool_queue_capacity / "clientRequestThreadPoolQueueCapacity": i32 = 50_000, COUNT, Ignored;
    /// Java's queue in front of the other threads.
    default_thread_pool_queue_capacity / "defaultThreadPoolQueueCapacity": i32 = 10_000, COUNT, Ignored;
    /// Milliseconds between two searches for brokers that fell silent.
    scan_not_active_broker_interval / "scanNotActiveBrokerInterval": i64 = 5_000, POSITIVE, Used;
    /// Java's queue of brokers to remove; here removal is immediate.
    un_register_broker_queue_capacity / "unRegisterBrokerQueueCapacity": i32 = 3_000, COUNT, Ignored;
    /// A broker set without master shows its smallest live id as id 0.
    support_acting_master / "supportActingMaster": bool = false, ANY, Used;
    /// Answer request 206.
    enable_all_topic_list / "enableAllTopicList": bool = true, ANY, Used;
    /// Answer requests 224, 311, 312 and 313.
    enable_topic_list / "enableTopicList": bool = true, ANY, Used;
    /// Tell the members of a broker set (request 905) when their smallest id changed.
    notify_min_broker_id_changed / "notifyMinBrokerIdChanged": bool = false, ANY, Used;
    /// Run a controller in the name server.
    enable_controller_in_namesrv / "enableControllerInNamesrv": bool = false, ANY, NotYet;
    /// Refuse route requests for the first `waitSecondsForService` seconds.
    need_wait_for_service / "needWaitForService": bool = false, ANY, Used;
    /// Seconds; see `needWaitForService`.
    wait_seconds_for_service / "waitSecondsForService": i32 = 45, COUNT, Used;
    /// A full registration removes the broker's topics that it does not contain.
    delete_topic_with_broker_registration / "deleteTopicWithBrokerRegistration": bool = false, ANY, Used;
    /// Names, separated by `;`, that request 318 must not change.
    config_black_list / "configBlackList": String = "configBlackList;configStorePath;kvConfigPath".to_owned(), ANY, Used;
    /// Address to listen on.
    bind_address / "bindAddress": IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED), ANY, AtStart;
    /// TCP port to listen on; 0 takes any free one.
    listen_port / "listenPort": u16 = 9876, ANY, AtStart;
    /// Java's socket threads.
    server_worker_threads / "serverWorkerThreads": i32 = 8, COUNT, Ignored;
    /// Java's callback threads.
    server_callback_executor_threads / "serverCallbackExecutorThreads": i32 = 0, COUNT, Ignored;
    /// Java's selector threads.
    server_selector_threads / "serverSelectorThreads": i32 = 3, COUNT, Ignored;
    /// Java's bound on oneway requests in flight.
    server_oneway_semaphore_value / "serverOnewaySemaphoreValue": i32 = 256, COUNT, Ignored;
    /// Java's bound on asynchronous requests in flight.
    server_async_semaphore_value / "serverAsyncSemaphoreValue": i32 = 64, COUNT, Ignored;
    /// Seconds without reading or writing after which a connection is closed.
    server_channel_max_idle_time_seconds / "serverChannelMaxIdleTimeSeconds": i32 = 120, COUNT, AtStart;
    /// Bytes of the socket's send buffer; 0 leaves it to the kernel.
    server_socket_snd_buf_size / "serverSocketSndBufSize": i32 = 0, COUNT, Ignored;
    /// Bytes of the socket's receive buffer; 0 leaves it to the kernel.
    server_socket_rcv_buf_size / "serverSocketRcvBufSize": i32 = 0, COUNT, Ignored;
    /// Java's high mark of a connection's write buffer.
    write_buffer_high_water_mark / "writeBufferHighWaterMark": i32 = 0, COUNT, Ignored;
    /// Java's low mark of a connection's write buffer.
    write_buffer_low_water_mark / "writeBufferLowWaterMark": i32 = 0, COUNT, Ignored;
    /// Connections the kernel holds until they are accepted.
    server_socket_backlog / "serverSocketBacklog": i32 = 1024, COUNT, AtStart;
    /// A switch of Java's network library.
    server_netty_worker_group_enable / "serverNettyWorkerGroupEnable": bool = true, ANY, Ignored;
    /// A switch of Java's network library.
    server_pooled_byte_buf_allocator_enable / "serverPooledByteBufAllocatorEnable": bool = true, ANY, Ignored;
    /// Answer 1500 while shutting down instead of closing at once.
    enable_shutdown_gracefully / "enableShutdownGracefully": bool = false, ANY, NotYet;
    /// Seconds; see `enableShutdownGracefully`.
    shutdown_wait_time_seconds / "shutdownWaitTimeSeconds": i32 = 30, COUNT, NotYet;
    /// A switch of Java's network library.
    use_epoll_native_selector / "useEpollNativeSelector": bool = false, ANY, Ignored;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_equal_the_reference() {
        let config = NamesrvConfig::default();
        let expected = [
            ("listenPort", "9876"),
            ("productEnvName", "center"),
            ("clusterTest", "false"),
            ("orderMessageEnable", "false"),
            ("returnOrderTopicConfigToBroker", "true"),
            ("clientRequestThreadPoolNums", "8"),
            ("defaultThreadPoolNums", "16"),
            ("clientRequestThreadPoolQueueCapacity", "50000"),
            ("defaultThreadPoolQueueCapacity", "10000"),
            ("scanNotActiveBrokerInterval", "5000"),
            ("unRegisterBrokerQueueCapacity", "3000"),
            ("supportActingMaster", "false"),
            ("enableAllTopicList", "true"),
            ("enableTopicList", "true"),
            ("notifyMinBrokerIdChanged", "false"),
            ("enableControllerInNamesrv", "false"),
            ("needWaitForService", "false"),
            ("waitSecondsForService", "45"),
            ("deleteTopicWithBrokerRegistration", "false"),
            ("configBlackList", "configBlackList;configStorePath;kvConfigPath"),
            ("serverChannelMaxIdleTimeSeconds", "120"),
            ("serverSocketBacklog", "1024"),
        ];
        for (name, value) in expected {
            assert_eq!(config.get(name).as_deref(), Some(value), "{name}");
        }
        assert!(config.kv_config_path.ends_with("namesrv/kvConfig.json"));
    }

    #[test]
    fn every_property_survives_print_and_parse() {
        let config = NamesrvConfig {
            listen_port: 19876,
            kv_config_path: "/tmp/a b/kv\\.json".to_owned(),
            order_message_enable: true,
            ..NamesrvConfig::default()
        };
        let mut read_back = NamesrvConfig::default();
        for property in properties::parse(config.to_properties().as_bytes()).expect("own text") {
            let set = read_back.set(&property.key, &property.value);
            assert_eq!(set, Ok(()), "{property:?}");
        }
        assert_eq!(read_back, config);
    }

    #[test]
    fn refused_values_name_property_and_range() {
        let mut config = NamesrvConfig::default();
        let table = [
            ("listenPort", "70000", "listenPort=70000 is refused: expected an integer from 0 to 65535"),
            ("bindAddress", "localhost", "bindAddress=localhost is refused: expected an IPv4 or IPv6 address"),
            ("orderMessageEnable", "yes", "orderMessageEnable=yes is refused: expected true or false"),
            ("nonsense", "1", "nonsense is not a name server property"),
        ];
        for (name, value, message) in table {
            let refused = config.set(name, value).expect_err(name);
            assert_eq!(refused.to_string(), message);
        }
        assert_eq!(config, NamesrvConfig::default());
    }
}
