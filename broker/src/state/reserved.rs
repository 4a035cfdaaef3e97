//! What a broker has of its own: the topics and groups it creates at start, and the names of the
//! topics that belong to a consumer group.

use rmq_net::body::TopicConfig;
use rmq_net::body::topic::perm;
use rmq_net::message::names::{
    AUTO_CREATE_TOPIC, BENCHMARK_TOPIC, CHECKPOINT_TOPIC, DLQ_PREFIX, OFFSET_MOVED_EVENT, REPLY_TOPIC_POSTFIX,
    RETRY_PREFIX, ROCKSDB_TRANS_HALF_TOPIC, ROCKSDB_TRANS_OP_HALF_TOPIC, SCHEDULE_TOPIC, SELF_TEST_TOPIC, TRACE_TOPIC,
    TRANS_CHECK_MAX_TIME_TOPIC, TRANS_HALF_TOPIC, TRANS_OP_HALF_TOPIC,
};

use super::settings::TopicSettings;

pub const TIMER_TOPIC: &str = "rmq_sys_wheel_timer";
const REVIVE_PREFIX: &str = "rmq_sys_REVIVE_LOG_";
const SYNC_MEMBER_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";
pub const SYSTEM_GROUP_PREFIX: &str = "CID_RMQ_SYS_";

/// Permission of an ordinary topic.
pub const READ_WRITE: i32 = perm::READ | perm::WRITE;

/// System topics under any configuration, besides all names that start with `rmq_sys_`.
pub static SYSTEM_TOPICS: &[&str] = &[
    AUTO_CREATE_TOPIC,
    SCHEDULE_TOPIC,
    BENCHMARK_TOPIC,
    TRANS_HALF_TOPIC,
    TRACE_TOPIC,
    TRANS_OP_HALF_TOPIC,
    ROCKSDB_TRANS_HALF_TOPIC,
    ROCKSDB_TRANS_OP_HALF_TOPIC,
    TRANS_CHECK_MAX_TIME_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_EVENT,
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
    let access = |is_open: bool| perm::INHERIT | if is_open { READ_WRITE } else { 0 };
    let mut topics = vec![
        topic(SELF_TEST_TOPIC, 1, READ_WRITE),
        topic(BENCHMARK_TOPIC, 1024, READ_WRITE),
        topic(cluster, 16, access(settings.cluster_topic_enable)),
        topic(broker, 1, access(settings.broker_topic_enable)),
        topic(OFFSET_MOVED_EVENT, 1, READ_WRITE),
        topic(SCHEDULE_TOPIC, 18, READ_WRITE),
        topic(&format!("{cluster}{REPLY_TOPIC_POSTFIX}"), 1, READ_WRITE),
        topic(&format!("{REVIVE_PREFIX}{cluster}"), settings.revive_queue_nums, READ_WRITE),
        topic(&format!("{SYNC_MEMBER_PREFIX}{broker}"), 1, perm::INHERIT),
        topic(TRANS_HALF_TOPIC, 1, READ_WRITE),
        topic(TRANS_OP_HALF_TOPIC, 1, READ_WRITE),
        topic(ROCKSDB_TRANS_HALF_TOPIC, 1, READ_WRITE),
        topic(ROCKSDB_TRANS_OP_HALF_TOPIC, 1, READ_WRITE),
    ];
    if settings.auto_create_topic_enable {
        let queues = settings.default_topic_queue_nums;
        topics.push(topic(AUTO_CREATE_TOPIC, queues, READ_WRITE | perm::INHERIT));
    }
    if let Some(name) = &settings.trace_topic {
        topics.push(topic(name, 1, READ_WRITE));
    }
    if settings.timer_wheel_enable {
        topics.push(topic(TIMER_TOPIC, 1, READ_WRITE));
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

/// The topic that holds the messages a group sent back.
pub fn retry_topic(group: &str) -> String {
    format!("{RETRY_PREFIX}{group}")
}

/// The topic that holds the messages a group gave up on.
pub fn dlq_topic(group: &str) -> String {
    format!("{DLQ_PREFIX}{group}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_system_topics_holds_nothing_else() {
        for name in SYSTEM_TOPICS {
            assert!(rmq_net::message::names::is_system_topic(name), "{name}");
        }
    }

    #[test]
    fn groups_name_their_topics() {
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
        let all = TopicSettings { trace_topic: Some("trace".to_owned()), ..TopicSettings::default() };
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
