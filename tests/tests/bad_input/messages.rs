//! Messages that are refused, each with RocketMQ's code; what is refused is not stored.

use rmq_tests::is_for_ringmq;
use rmq_tests::remoting::{Connection, Request, code, records};

use crate::bystander::Bystander;
use crate::{assert_refused, cluster, connect, pull_acknowledged};

const SYSTEM_ERROR: i32 = 1;
const MESSAGE_ILLEGAL: i32 = 13;
const NO_PERMISSION: i32 = 16;
const INVALID_PARAMETER: i32 = 29;
/// RocketMQ: default of `maxMessageSize`.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Messages a queue ever got.
fn max_offset(connection: &mut Connection, topic: &str, queue_id: i32) -> i64 {
    let request = Request::new(code::GET_MAX_OFFSET).ext("topic", topic).ext("queueId", &queue_id.to_string());
    let reply = connection.call(&request);
    assert_eq!(reply.code, 0, "{reply:?}");
    reply.number("offset").expect("an offset")
}

/// Makes a topic by a first message, so that offset 1 of queue 0 is the next.
fn make_topic(connection: &mut Connection, topic: &str) {
    let reply = connection.call(&Request::send(topic, 0, "", b"first"));
    assert_eq!((reply.code, reply.number("queueOffset")), (0, Some(0)), "{reply:?}");
}

/// An item of a batch; `body_length` and `properties_length` are what it says, whatever it has.
fn item(body: &[u8], body_length: i32, properties: &[u8], properties_length: i16) -> Vec<u8> {
    let size = i32::try_from(22 + body.len() + properties.len()).expect("a small item");
    let mut item = size.to_be_bytes().to_vec();
    item.extend_from_slice(&[0; 12]);
    item.extend_from_slice(&body_length.to_be_bytes());
    item.extend_from_slice(body);
    item.extend_from_slice(&properties_length.to_be_bytes());
    item.extend_from_slice(properties);
    item
}

#[test]
fn a_message_of_the_largest_size_comes_back_byte_for_byte() {
    let mut connection = connect();
    let body: Vec<u8> = (0..MESSAGE_BYTES_MAX).map(|at| ((at * 31) >> 3) as u8).collect();
    let reply = connection.call(&Request::send("largest", 0, "KEYS\u{1}k\u{2}", &body));
    assert_eq!((reply.code, reply.number("queueOffset")), (0, Some(0)), "{reply:?}");
    let pulled = pull_acknowledged(&mut connection, "largest", 0, 0);
    assert_eq!(pulled.code, 0, "{:?}", pulled.remark);
    let records = records(&pulled.body);
    assert_eq!(records.len(), 1);
    assert!(records[0].body == body, "the body differs");
    assert!(records[0].properties.contains("KEYS\u{1}k\u{2}"), "{:?}", records[0].properties);
}

#[test]
fn a_larger_message_is_refused_by_the_setting_that_says_so() {
    let mut bystander = Bystander::connect(&cluster().broker(), "larger");
    let mut connection = connect();
    make_topic(&mut connection, "larger");
    for size in [MESSAGE_BYTES_MAX + 1, 15 << 20] {
        let reply = connection.call(&Request::send("larger", 0, "", &vec![1; size]));
        assert_refused(&reply, MESSAGE_ILLEGAL, &["maxMessageSize", "4194304", &size.to_string()]);
    }
    assert_eq!(max_offset(&mut connection, "larger", 0), 1);
    bystander.check();
}

#[test]
fn an_empty_body_is_refused() {
    let mut connection = connect();
    make_topic(&mut connection, "empty_body");
    assert_refused(&connection.call(&Request::send("empty_body", 0, "", b"")), SYSTEM_ERROR, &["body"]);
    assert_eq!(max_offset(&mut connection, "empty_body", 0), 1);
}

#[test]
fn topics_with_bad_names_are_refused() {
    let mut connection = connect();
    for name in ["", " ", "\t"] {
        let reply = connection.call(&Request::send(name, 0, "", b"body"));
        assert_refused(&reply, INVALID_PARAMETER, &["topic", "blank"]);
    }
    for name in ["a b", "a#b", "a/b", "../../etc", "主题", "a\u{0}b", "a\nb", "a.b", "🚀"] {
        let reply = connection.call(&Request::send(name, 0, "", b"body"));
        assert_refused(&reply, INVALID_PARAMETER, &["topic"]);
    }
    let reply = connection.call(&Request::send(&"t".repeat(128), 0, "", b"body"));
    assert_refused(&reply, INVALID_PARAMETER, &["127"]);
    let reply = connection.call(&Request::send(&"t".repeat(127), 0, "", b"body"));
    assert_eq!(reply.code, 0, "127 characters are allowed: {reply:?}");
}

#[test]
fn the_systems_own_topics_cannot_be_sent_to() {
    let mut connection = connect();
    for topic in [
        "SCHEDULE_TOPIC_XXXX",
        "RMQ_SYS_TRANS_HALF_TOPIC",
        "RMQ_SYS_TRANS_OP_HALF_TOPIC",
        "TRANS_CHECK_MAX_TIME_TOPIC",
        "SELF_TEST_TOPIC",
        "OFFSET_MOVED_EVENT",
    ] {
        let reply = connection.call(&Request::send(topic, 0, "", b"body"));
        assert_refused(&reply, NO_PERMISSION, &[topic]);
        assert_eq!(max_offset(&mut connection, topic, 0), 0, "{topic}");
    }
}

#[test]
fn too_many_properties_are_refused() {
    let mut connection = connect();
    make_topic(&mut connection, "properties");
    for size in [32_768, 65_535, 65_536, 100_000] {
        let properties = format!("k\u{1}{}\u{2}", "v".repeat(size - 3));
        let reply = connection.call(&Request::send("properties", 0, &properties, b"body"));
        assert_refused(&reply, MESSAGE_ILLEGAL, &["properties", "32767"]);
    }
    assert_eq!(max_offset(&mut connection, "properties", 0), 1);
    // Some room is left for what the broker adds.
    let value = "v".repeat(32_000);
    let properties = format!("k\u{1}{value}\u{2}");
    let reply = connection.call(&Request::send("properties", 0, &properties, b"body"));
    assert_eq!(reply.code, 0, "{reply:?}");
    let pulled = pull_acknowledged(&mut connection, "properties", 0, 1);
    let records = records(&pulled.body);
    assert!(records.first().is_some_and(|record| record.properties.contains(&value)), "the properties differ");
}

#[test]
fn properties_of_a_wrong_layout_harm_nobody() {
    let mut bystander = Bystander::connect(&cluster().broker(), "property_layout");
    let mut connection = connect();
    for properties in ["\u{1}", "\u{2}\u{2}", "key", "key\u{1}", "\u{1}value\u{2}", "a\u{1}b\u{1}c\u{2}", "\u{0}", "{}"]
    {
        let reply = connection.call(&Request::send("property_layout", 0, properties, b"body"));
        assert!([0, SYSTEM_ERROR, MESSAGE_ILLEGAL].contains(&reply.code), "{properties:?}: {reply:?}");
    }
    bystander.check();
}

#[test]
fn batches_of_a_wrong_layout_are_refused_as_a_whole() {
    let mut bystander = Bystander::connect(&cluster().broker(), "batch_layout");
    let mut connection = connect();
    make_topic(&mut connection, "batch_layout");
    let good = item(b"good", 4, b"", 0);
    let after_good = |bad: &[u8]| [good.as_slice(), bad].concat();
    let cases = [
        ("nothing", Vec::new()),
        ("one byte", vec![0]),
        ("zeros", vec![0; 22]),
        ("a cut item", good[..good.len() - 3].to_vec()),
        ("an item cut in its head, after a good one", after_good(&good[..10])),
        ("an item cut in its body, after a good one", after_good(&good[..22])),
        ("a negative body length", after_good(&item(b"body", -1, b"", 0))),
        ("the smallest body length", after_good(&item(b"body", i32::MIN, b"", 0))),
        ("the largest body length", after_good(&item(b"body", i32::MAX, b"", 0))),
        ("a negative properties length", after_good(&item(b"body", 4, b"k\x01v\x02", -1))),
        ("too large a properties length", after_good(&item(b"body", 4, b"k\x01v\x02", i16::MAX))),
        ("text", b"this is no batch but a message".to_vec()),
    ];
    for (what, items) in cases {
        if what == "zeros" && !crate::is_ringmq() {
            continue; // An item of size 0, which Apache's broker does not look at.
        }
        let reply = connection.call(&Request::batch("batch_layout", 0, &items));
        assert!([SYSTEM_ERROR, MESSAGE_ILLEGAL].contains(&reply.code), "{what}: {reply:?}");
        assert!(!crate::is_ringmq() || !reply.remark.is_empty(), "{what}: no remark");
        assert_eq!(max_offset(&mut connection, "batch_layout", 0), 1, "{what}: something was stored");
    }
    let reply = connection.call(&Request::batch("batch_layout", 0, &after_good(&good)));
    assert_eq!((reply.code, reply.number("queueOffset")), (0, Some(1)), "{reply:?}");
    assert_eq!(max_offset(&mut connection, "batch_layout", 0), 3);
    bystander.check();
}

#[test]
fn a_batch_over_the_message_size_is_refused() {
    let mut connection = connect();
    make_topic(&mut connection, "batch_size");
    let body = vec![1; 1 << 20];
    let items = item(&body, 1 << 20, b"", 0).repeat(5);
    let reply = connection.call(&Request::batch("batch_size", 0, &items));
    assert!([SYSTEM_ERROR, MESSAGE_ILLEGAL].contains(&reply.code), "{reply:?}");
    assert_refused(&reply, reply.code, &["maxMessageSize", "4194304"]);
    assert_eq!(max_offset(&mut connection, "batch_size", 0), 1);
}

#[test]
fn queues_a_topic_does_not_have_are_refused() {
    let mut connection = connect();
    make_topic(&mut connection, "queue_ids");
    for queue_id in [4, 5, 1000, i32::MAX] {
        let reply = connection.call(&Request::send("queue_ids", queue_id, "", b"body"));
        assert_refused(&reply, INVALID_PARAMETER, &[&queue_id.to_string(), "queue_ids", "4 "]);
    }
    // RocketMQ: the broker picks a queue for a negative one.
    for queue_id in [-1, i32::MIN] {
        let reply = connection.call(&Request::send("queue_ids", queue_id, "", b"body"));
        let picked = reply.number("queueId");
        assert!(reply.code == 0 && picked.is_some_and(|picked| (0..4).contains(&picked)), "{reply:?}");
    }
}

#[test]
fn delays_that_cannot_be_and_batches_with_delays_or_transactions_are_refused() {
    if !is_for_ringmq() {
        return;
    }
    let mut connection = connect();
    make_topic(&mut connection, "wrong_delays");
    for (key, value, code, words) in [
        ("DELAY", "three", SYSTEM_ERROR, "messageDelayLevel"),
        ("TIMER_DELAY_SEC", "259201", MESSAGE_ILLEGAL, "timerMaxDelaySec"),
        ("TIMER_DELAY_MS", "soon", MESSAGE_ILLEGAL, "timerMaxDelaySec"),
        ("TIMER_DELIVER_MS", "4000000000000", MESSAGE_ILLEGAL, "timerMaxDelaySec"),
        ("TRAN_MSG\u{1}true\u{2}DELAY", "3", MESSAGE_ILLEGAL, "TRAN_MSG"),
    ] {
        let text = format!("KEYS\u{1}k\u{2}{key}\u{1}{value}\u{2}");
        let reply = connection.call(&Request::send("wrong_delays", 0, &text, b"body"));
        assert_refused(&reply, code, &[words]);
        let length = i16::try_from(text.len()).expect("short properties");
        let items = item(b"body", 4, text.as_bytes(), length);
        let reply = connection.call(&Request::batch("wrong_delays", 0, &items));
        assert_refused(&reply, MESSAGE_ILLEGAL, &["batch"]);
        assert_eq!(max_offset(&mut connection, "wrong_delays", 0), 1, "{key}: something was stored");
    }
}
