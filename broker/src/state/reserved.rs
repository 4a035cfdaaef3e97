//! Names with a meaning of their own: RocketMQ's system topics and groups, and the topics and
//! groups that belong to a consumer group.

use super::model::TopicConfig;
use super::settings::TopicSettings;

/// The template topic of automatic creation.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
pub const BENCHMARK_TOPIC: &str = "BenchmarkTest";
pub const HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
pub const HALF_OP_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
pub const ROCKSDB_HALF_TOPIC: &str = "RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC";
pub const ROCKSDB_HALF_OP_TOPIC: &str = "RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC";
pub const TRANSACTION_CHECK_MAX_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
pub const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";
pub const OFFSET_MOVED_TOPIC: &str = "OFFSET_MOVED_EVENT";
pub const CHECKPOINT_TOPIC: &str = "CHECKPOINT_TOPIC";
pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
pub const SYSTEM_TOPIC_PREFIX: &str = "rmq_sys_";
pub const RETRY_PREFIX: &str = "%RETRY%";
pub const DLQ_PREFIX: &str = "%DLQ%";
pub const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";
pub const REPLY_TOPIC_SUFFIX: &str = "_REPLY_TOPIC";

/// Permission bits of a topic or a broker.
pub const PERM_INHERIT: i32 = 1;
pub const PERM_WRITE: i32 = 2;
pub const PERM_READ: i32 = 4;
pub const PERM_READ_WRITE: i32 = PERM_READ | PERM_WRITE;

/// System topics under any configuration, besides all names that start with `rmq_sys_`.
static SYSTEM_TOPICS: &[&str] = &[
    AUTO_CREATE_TOPIC,
    SCHEDULE_TOPIC,
    BENCHMARK_TOPIC,
    HALF_TOPIC,
    TRACE_TOPIC,
    HALF_OP_TOPIC,
    ROCKSDB_HALF_TOPIC,
    ROCKSDB_HALF_OP_TOPIC,
    TRANSACTION_CHECK_MAX_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_TOPIC,
    CHECKPOINT_TOPIC,
];

/// Groups a broker creates at start; the second half may always consume by broadcast.
pub static SYSTEM_GROUPS: &[&str] = &[
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PULL",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_RMQ_SYS_TRANS",
];

/// The topics a broker creates at every start.
pub fn topics_at_start(settings: &TopicSettings) -> Vec<TopicConfig> {
    let cluster = &settings.cluster_name;
    let broker = &settings.broker_name;
    let access = |is_open: bool| PERM_INHERIT | if is_open { PERM_READ_WRITE } else { 0 };
    let mut topics = vec![
        topic(SELF_TEST_TOPIC, 1, PERM_READ_WRITE),
        topic(BENCHMARK_TOPIC, 1024, PERM_READ_WRITE),
        topic(cluster, 16, access(settings.cluster_topic_enable)),
        topic(broker, 1, access(settings.broker_topic_enable)),
        topic(OFFSET_MOVED_TOPIC, 1, PERM_READ_WRITE),
        topic(SCHEDULE_TOPIC, 18, PERM_READ_WRITE),
        topic(
            &format!("{cluster}{REPLY_TOPIC_SUFFIX}"),
            1,
            PERM_READ_WRITE,
        ),
        topic(
            &format!("{SYSTEM_TOPIC_PREFIX}REVIVE_LOG_{cluster}"),
            settings.revive_queue_nums,
            PERM_READ_WRITE,
        ),
        topic(
            &format!("{SYSTEM_TOPIC_PREFIX}SYNC_BROKER_MEMBER_{broker}"),
            1,
            PERM_INHERIT,
        ),
        topic(HALF_TOPIC, 1, PERM_READ_WRITE),
        topic(HALF_OP_TOPIC, 1, PERM_READ_WRITE),
        topic(ROCKSDB_HALF_TOPIC, 1, PERM_READ_WRITE),
        topic(ROCKSDB_HALF_OP_TOPIC, 1, PERM_READ_WRITE),
    ];
    if settings.auto_create_topic_enable {
        let queues = settings.default_topic_queue_nums;
        topics.push(topic(
            AUTO_CREATE_TOPIC,
            queues,
            PERM_READ_WRITE | PERM_INHERIT,
        ));
    }
    if let Some(name) = &settings.trace_topic {
        topics.push(topic(name, 1, PERM_READ_WRITE));
    }
    if settings.timer_wheel_enable {
        topics.push(topic(TIMER_TOPIC, 1, PERM_READ_WRITE));
    }
    topics
}

/// A topic with as many read as write queues and everything else as RocketMQ defaults it.
pub fn topic(name: &str, queues: i32, perm: i32) -> TopicConfig {
    TopicConfig {
        topic_name: name.to_owned(),
        read_queue_nums: queues,
        write_queue_nums: queues,
        perm,
        ..TopicConfig::default()
    }
}

/// Is this a system topic of every broker? [`super::TopicTable::is_system`] knows the ones named
/// after this broker as well.
pub fn is_system_topic(name: &str) -> bool {
    name.starts_with(SYSTEM_TOPIC_PREFIX) || SYSTEM_TOPICS.contains(&name)
}

/// The system topics that have a fixed name.
pub fn fixed_system_topics() -> &'static [&'static str] {
    SYSTEM_TOPICS
}

/// May clients never send to this topic? (RocketMQ answers 16.)
pub fn is_forbidden_to_send(name: &str) -> bool {
    matches!(
        name,
        SCHEDULE_TOPIC
            | HALF_TOPIC
            | HALF_OP_TOPIC
            | ROCKSDB_HALF_TOPIC
            | ROCKSDB_HALF_OP_TOPIC
            | TRANSACTION_CHECK_MAX_TOPIC
            | SELF_TEST_TOPIC
            | OFFSET_MOVED_TOPIC
    )
}

/// The topic that holds the messages a group sent back.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// The topic that holds the messages a group gave up on.
pub fn dlq_topic(group: &str) -> String {
    format!("{DLQ_PREFIX}{group}")
}

/// The group whose retry topic this is; none for other topics. A pop retry topic of the second
/// kind names the group before a `+`.
pub fn group_of_retry_topic(topic: &str) -> Option<&str> {
    let rest = topic.strip_prefix(RETRY_PREFIX)?;
    Some(rest.split_once('+').map_or(rest, |(group, _topic)| group))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fall_into_their_sets() {
        for (name, is_system, is_forbidden) in [
            ("TBW102", true, false),
            ("BenchmarkTest", true, false),
            ("rmq_sys_anything", true, false),
            ("RMQ_SYS_TRACE_TOPIC", true, false),
            ("SCHEDULE_TOPIC_XXXX", true, true),
            ("SELF_TEST_TOPIC", true, true),
            ("RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC", true, true),
            ("orders", false, false),
            ("%RETRY%g", false, false),
        ] {
            assert_eq!(is_system_topic(name), is_system, "{name}");
            assert_eq!(is_forbidden_to_send(name), is_forbidden, "{name}");
        }
    }

    #[test]
    fn retry_topics_name_their_group() {
        assert_eq!(group_of_retry_topic("%RETRY%g"), Some("g"));
        assert_eq!(group_of_retry_topic("%RETRY%g+topic"), Some("g"));
        assert_eq!(group_of_retry_topic("%DLQ%g"), None);
        assert_eq!(retry_topic("g"), "%RETRY%g");
        assert_eq!(dlq_topic("g"), "%DLQ%g");
    }

    #[test]
    fn the_topics_at_start_have_the_shape_of_the_reference() {
        let shape = |settings: &TopicSettings, name: &str| {
            topics_at_start(settings)
                .into_iter()
                .find(|topic| topic.topic_name == name)
                .map(|topic| (topic.perm, topic.read_queue_nums, topic.write_queue_nums))
        };
        let all = TopicSettings {
            trace_topic: Some("trace".to_owned()),
            ..TopicSettings::default()
        };
        for (name, expected) in [
            ("SELF_TEST_TOPIC", (6, 1, 1)),
            ("TBW102", (7, 8, 8)),
            ("BenchmarkTest", (6, 1024, 1024)),
            ("DefaultCluster", (7, 16, 16)),
            ("broker-a", (7, 1, 1)),
            ("OFFSET_MOVED_EVENT", (6, 1, 1)),
            ("SCHEDULE_TOPIC_XXXX", (6, 18, 18)),
            ("trace", (6, 1, 1)),
            ("DefaultCluster_REPLY_TOPIC", (6, 1, 1)),
            ("rmq_sys_REVIVE_LOG_DefaultCluster", (6, 8, 8)),
            ("rmq_sys_SYNC_BROKER_MEMBER_broker-a", (1, 1, 1)),
            ("RMQ_SYS_TRANS_HALF_TOPIC", (6, 1, 1)),
            ("RMQ_SYS_TRANS_OP_HALF_TOPIC", (6, 1, 1)),
            ("RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC", (6, 1, 1)),
            ("rmq_sys_wheel_timer", (6, 1, 1)),
        ] {
            assert_eq!(shape(&all, name), Some(expected), "{name}");
        }
        let few = TopicSettings {
            auto_create_topic_enable: false,
            timer_wheel_enable: false,
            cluster_topic_enable: false,
            ..TopicSettings::default()
        };
        assert_eq!(shape(&few, "TBW102"), None);
        assert_eq!(shape(&few, "rmq_sys_wheel_timer"), None);
        assert_eq!(shape(&few, "DefaultCluster"), Some((1, 16, 16)));
    }
}
