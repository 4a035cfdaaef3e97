//! Pulls from where nothing is.

use rmq_tests::remoting::{Request, records};

use crate::{assert_refused, connect, pull_acknowledged};

const TOPIC_NOT_EXIST: i32 = 17;
const PULL_NOT_FOUND: i32 = 19;
const PULL_OFFSET_MOVED: i32 = 21;
const SUBSCRIPTION_NOT_EXIST: i32 = 24;
const INVALID_PARAMETER: i32 = 29;
const MESSAGES: i64 = 3;

#[test]
fn offsets_outside_a_queue_are_corrected() {
    let mut connection = connect();
    for number in 0..MESSAGES {
        let reply = connection.call(&Request::send("pull_offsets", 0, "", b"body"));
        assert_eq!((reply.code, reply.number("queueOffset")), (0, Some(number)), "{reply:?}");
    }
    pull_acknowledged(&mut connection, "pull_offsets", 0, MESSAGES - 1);
    let cases = [
        (i64::MIN, PULL_OFFSET_MOVED, 0),
        (-1, PULL_OFFSET_MOVED, 0),
        (MESSAGES, PULL_NOT_FOUND, MESSAGES),
        (MESSAGES + 1, PULL_OFFSET_MOVED, MESSAGES),
        (i64::MAX, PULL_OFFSET_MOVED, MESSAGES),
    ];
    for (offset, code, next) in cases {
        let reply = connection.call(&Request::pull("pull_offsets", 0, offset));
        assert_eq!((reply.code, reply.number("nextBeginOffset")), (code, Some(next)), "{offset}: {reply:?}");
        let bounds = (reply.number("minOffset"), reply.number("maxOffset"));
        assert_eq!(bounds, (Some(0), Some(MESSAGES)), "{offset}: {reply:?}");
    }
    // A queue that exists and has nothing yet.
    for (offset, code) in [(0, PULL_NOT_FOUND), (5, PULL_OFFSET_MOVED), (-5, PULL_OFFSET_MOVED)] {
        let reply = connection.call(&Request::pull("pull_offsets", 1, offset));
        assert_eq!((reply.code, reply.number("nextBeginOffset")), (code, Some(0)), "{offset}: {reply:?}");
    }
    let reply = connection.call(&Request::pull("pull_offsets", 0, 0));
    let offsets: Vec<i64> = records(&reply.body).iter().map(|record| record.queue_offset).collect();
    assert_eq!(offsets, [0, 1, 2]);
}

#[test]
fn queues_a_topic_does_not_have_are_refused() {
    let mut connection = connect();
    assert_eq!(connection.call(&Request::send("pull_queues", 0, "", b"body")).code, 0);
    for queue_id in [4, 1000, i32::MAX, -1, i32::MIN] {
        let reply = connection.call(&Request::pull("pull_queues", queue_id, 0));
        assert_refused(&reply, INVALID_PARAMETER, &[&queue_id.to_string(), "pull_queues", "4"]);
    }
}

#[test]
fn topics_and_groups_nobody_knows_are_named() {
    let mut connection = connect();
    let reply = connection.call(&Request::pull("no_such_topic", 0, 0));
    assert_refused(&reply, TOPIC_NOT_EXIST, &["no_such_topic"]);
    assert_eq!(connection.call(&Request::send("pull_groups", 0, "", b"body")).code, 0);
    // Without a subscription of its own the pull relies on the group's heartbeats, and there are none.
    let reply = connection.call(&Request::pull("pull_groups", 0, 0).ext("sysFlag", "0"));
    assert_refused(&reply, SUBSCRIPTION_NOT_EXIST, &["tests"]);
}

#[test]
fn counts_that_make_no_sense_are_bounded() {
    let mut connection = connect();
    for _ in 0..40 {
        assert_eq!(connection.call(&Request::send("pull_counts", 0, "", b"body")).code, 0);
    }
    for count in [i32::MAX, 33, 0, -1, i32::MIN] {
        let reply = connection.call(&Request::pull("pull_counts", 0, 0).ext("maxMsgNums", &count.to_string()));
        let got = records(&reply.body).len();
        assert!(got <= 32, "{count}: {got} messages");
        // RocketMQ's client fails on an empty body with code 0.
        assert_eq!(reply.code == 0, 0 < got, "{count}: {reply:?}");
        assert!(0 < got || count <= 0, "{count}: {reply:?}");
    }
}
