//! Names of topics and groups: what is valid, and which ones the system reserves.
#![forbid(unsafe_code)]

/// Longest ordinary topic name (RocketMQ: its record stores the length in a signed byte).
pub const TOPIC_CHARS_MAX: usize = 127;
/// Longest `%RETRY%` or `%DLQ%` topic name.
pub const RETRY_TOPIC_CHARS_MAX: usize = 255;
pub const GROUP_CHARS_MAX: usize = 120;

pub const RETRY_PREFIX: &str = "%RETRY%";
pub const DLQ_PREFIX: &str = "%DLQ%";
pub const LMQ_PREFIX: &str = "%LMQ%";
const SYSTEM_PREFIX: &str = "rmq_sys_";

/// Parent of automatically created topics.
pub const AUTO_CREATE_TOPIC: &str = "TBW102";
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
pub const TRANS_HALF_TOPIC: &str = "RMQ_SYS_TRANS_HALF_TOPIC";
pub const TRANS_OP_HALF_TOPIC: &str = "RMQ_SYS_TRANS_OP_HALF_TOPIC";
pub const ROCKSDB_TRANS_HALF_TOPIC: &str = "RMQ_SYS_ROCKSDB_TRANS_HALF_TOPIC";
pub const ROCKSDB_TRANS_OP_HALF_TOPIC: &str = "RMQ_SYS_ROCKSDB_TRANS_OP_HALF_TOPIC";
pub const TRANS_CHECK_MAX_TIME_TOPIC: &str = "TRANS_CHECK_MAX_TIME_TOPIC";
pub const SELF_TEST_TOPIC: &str = "SELF_TEST_TOPIC";
pub const OFFSET_MOVED_EVENT: &str = "OFFSET_MOVED_EVENT";
pub const BENCHMARK_TOPIC: &str = "BenchmarkTest";
pub const TRACE_TOPIC: &str = "RMQ_SYS_TRACE_TOPIC";
pub const CHECKPOINT_TOPIC: &str = "CHECKPOINT_TOPIC";
pub const REPLY_TOPIC_POSTFIX: &str = "_REPLY_TOPIC";

/// Topics clients may not send to.
const NOT_SENDABLE: [&str; 8] = [
    SCHEDULE_TOPIC,
    TRANS_HALF_TOPIC,
    TRANS_OP_HALF_TOPIC,
    ROCKSDB_TRANS_HALF_TOPIC,
    ROCKSDB_TRANS_OP_HALF_TOPIC,
    TRANS_CHECK_MAX_TIME_TOPIC,
    SELF_TEST_TOPIC,
    OFFSET_MOVED_EVENT,
];

/// Why a name is refused. Its display is the remark of the INVALID_PARAMETER reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("the specified {what} is blank.")]
    Blank { what: &'static str },
    #[error("the specified {what} contains illegal characters, allowing only ^[%|a-zA-Z0-9_-]+$")]
    Characters { what: &'static str },
    #[error("the specified {what} is longer than {chars_max} characters.")]
    Length {
        what: &'static str,
        chars_max: usize,
    },
}

/// Lengths count UTF-16 units; a name that passes the character check is ASCII, so bytes do.
pub fn check_topic(topic: &str) -> Result<(), NameError> {
    let is_derived = topic.starts_with(RETRY_PREFIX) || topic.starts_with(DLQ_PREFIX);
    check(
        "topic",
        topic,
        if is_derived {
            RETRY_TOPIC_CHARS_MAX
        } else {
            TOPIC_CHARS_MAX
        },
    )
}

pub fn check_group(group: &str) -> Result<(), NameError> {
    check("group", group, GROUP_CHARS_MAX)
}

fn check(what: &'static str, name: &str, chars_max: usize) -> Result<(), NameError> {
    if name.trim().is_empty() {
        return Err(NameError::Blank { what });
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'%' | b'|' | b'-' | b'_'))
    {
        return Err(NameError::Characters { what });
    }
    if chars_max < name.len() {
        return Err(NameError::Length { what, chars_max });
    }
    Ok(())
}

/// Whether clients may send to the topic.
pub fn is_sendable(topic: &str) -> bool {
    !NOT_SENDABLE.contains(&topic)
}

/// Topics that admin commands may neither create nor delete.
pub fn is_system_topic(topic: &str) -> bool {
    topic.starts_with(SYSTEM_PREFIX)
        || matches!(
            topic,
            AUTO_CREATE_TOPIC | BENCHMARK_TOPIC | TRACE_TOPIC | CHECKPOINT_TOPIC
        )
        || NOT_SENDABLE.contains(&topic)
}

/// The group whose retry topic this is.
pub fn group_of_retry_topic(topic: &str) -> Option<&str> {
    topic.strip_prefix(RETRY_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_in_the_reference() {
        for good in [
            "T",
            "%RETRY%cg",
            "a-b_c|d%",
            &"x".repeat(127),
            &format!("%RETRY%{}", "x".repeat(248)),
        ] {
            assert_eq!(check_topic(good), Ok(()), "{good}");
        }
        assert_eq!(check_topic(" "), Err(NameError::Blank { what: "topic" }));
        for bad in ["a b", "a.b", "中", "a/b", "a\u{1}"] {
            assert_eq!(
                check_topic(bad),
                Err(NameError::Characters { what: "topic" }),
                "{bad}"
            );
        }
        assert!(check_topic(&"x".repeat(128)).is_err());
        assert!(check_topic(&format!("%DLQ%{}", "x".repeat(251))).is_err());
        assert_eq!(check_group(&"x".repeat(120)), Ok(()));
        assert!(check_group(&"x".repeat(121)).is_err());
    }

    #[test]
    fn system_topics_are_known() {
        assert!(!is_sendable("SCHEDULE_TOPIC_XXXX") && is_sendable("TBW102") && is_sendable("T"));
        assert!(
            is_system_topic("rmq_sys_wheel_timer")
                && is_system_topic("TBW102")
                && !is_system_topic("T")
        );
        assert_eq!(group_of_retry_topic("%RETRY%cg"), Some("cg"));
    }
}
