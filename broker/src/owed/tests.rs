use rmq_net::codes::{request as code, response};
use rmq_net::message::{properties, record};

use crate::testing::{Cores, Disk, Sent};

const SECOND_MS: i64 = 1000;

/// Bodies and properties of all that can be read from a queue.
fn readable(cores: &mut Cores, topic: &str, queue_id: u32) -> Vec<(String, String)> {
    let owner = cores.broker(0).owner(topic, queue_id);
    let max = cores.broker(owner).shard.bounds(topic, queue_id).max;
    let queue_id = queue_id.to_string();
    let mut found = Vec::new();
    while (found.len() as i64) < max {
        let offset = found.len().to_string();
        let ext = [
            ("commitOffset", "0"),
            ("consumerGroup", "g"),
            ("expressionType", "TAG"),
            ("maxMsgNums", "32"),
            ("queueId", queue_id.as_str()),
            ("queueOffset", offset.as_str()),
            ("subVersion", "0"),
            ("subscription", "*"),
            ("suspendTimeoutMillis", "0"),
            ("sysFlag", "4"),
            ("topic", topic),
        ];
        let pulled = cores.call(0, code::PULL_MESSAGE, &ext, b"");
        assert_eq!(pulled.code, 0, "{}", pulled.remark);
        for record in record::iter(&pulled.body) {
            let record = record.expect("whole records");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
            found.push((text(record.body), text(record.properties)));
        }
    }
    found
}

fn bodies(cores: &mut Cores, topic: &str, queue_id: u32) -> Vec<String> {
    readable(cores, topic, queue_id).into_iter().map(|(body, _)| body).collect()
}

fn send(cores: &mut Cores, queue_id: u32, delay: &[(&str, &str)], body: &str) -> Sent {
    cores.send_with(0, "T", queue_id, delay, &[], body.as_bytes())
}

fn at(cores: &mut Cores, now_ms: i64) {
    cores.now_ms = now_ms;
    cores.run();
}

#[test]
fn a_delayed_message_is_delivered_when_its_level_says_and_not_before() {
    let mut cores = Cores::new(2);
    let start_ms = cores.now_ms;
    for queue_id in [0, 1] {
        for (level, body) in [("2", "5 s"), ("1", "1 s"), ("0", "now"), ("-1", "now")] {
            let sent =
                send(&mut cores, queue_id, &[("DELAY", level), ("TAGS", "A"), ("TIMER_DELAY_MS", "7")][..2], body);
            assert_eq!(sent.code, 0, "{}", sent.remark);
        }
        assert_eq!(bodies(&mut cores, "T", queue_id), ["now"; 2]);
    }
    at(&mut cores, start_ms + SECOND_MS - 1);
    assert_eq!(bodies(&mut cores, "T", 0), ["now"; 2]);
    at(&mut cores, start_ms + SECOND_MS);
    at(&mut cores, start_ms + 5 * SECOND_MS);
    for queue_id in [0, 1] {
        assert_eq!(bodies(&mut cores, "T", queue_id), ["now", "now", "1 s", "5 s"]);
    }
    let (_, text) = readable(&mut cores, "T", 1).remove(2);
    let of = |key| properties::get_str(text.as_bytes(), key);
    assert_eq!(
        ["DELAY", "REAL_TOPIC", "REAL_QID", "TAGS", "__DUE_MS"].map(of),
        [Some("1"), Some("T"), Some("1"), Some("A"), None]
    );
    assert_eq!(cores.broker(0).owed.count() + cores.broker(1).owed.count(), 0);
}

#[test]
fn a_level_that_is_no_number_is_refused() {
    let mut cores = Cores::new(1);
    for level in ["x", "1.5", "9223372036854775808"] {
        let refused = send(&mut cores, 0, &[("DELAY", level)], "x");
        assert_eq!(refused.code, response::SYSTEM_ERROR, "{level}");
        assert!(refused.remark.contains("messageDelayLevel"), "{}", refused.remark);
    }
}

#[test]
fn a_level_beyond_the_last_is_the_last_and_levels_can_be_set() {
    let mut cores = Cores::with_config(1, &[("messageDelayLevel", "2s 1m")]);
    let start_ms = cores.now_ms;
    send(&mut cores, 0, &[("DELAY", "1")], "2 s");
    send(&mut cores, 0, &[("DELAY", "99"), ("TIMER_DELAY_MS", "1")], "1 m");
    at(&mut cores, start_ms + 2 * SECOND_MS);
    assert_eq!(bodies(&mut cores, "T", 0), ["2 s"]);
    at(&mut cores, start_ms + 59 * SECOND_MS);
    assert_eq!(bodies(&mut cores, "T", 0), ["2 s"]);
    at(&mut cores, start_ms + 60 * SECOND_MS);
    assert_eq!(bodies(&mut cores, "T", 0), ["2 s", "1 m"]);
    let (_, text) = readable(&mut cores, "T", 0).remove(1);
    assert_eq!(properties::get_str(text.as_bytes(), "TIMER_DELAY_MS"), None, "a level takes its place");
}

#[test]
fn a_timer_is_delivered_at_its_millisecond() {
    let mut cores = Cores::new(2);
    let start_ms = cores.now_ms;
    let deliver_at = (start_ms + 1500).to_string();
    for (asked, body) in [
        (("TIMER_DELAY_SEC", "3"), "3 s"),
        (("TIMER_DELAY_MS", "1"), "1 ms"),
        (("TIMER_DELIVER_MS", deliver_at.as_str()), "1.5 s"),
        (("TIMER_DELAY_MS", "-5"), "past"),
    ] {
        let sent = send(&mut cores, 0, &[asked], body);
        assert_eq!(sent.code, 0, "{}", sent.remark);
        assert_eq!(sent.ext("recallHandle").is_empty(), body == "past");
    }
    assert_eq!(bodies(&mut cores, "T", 0), ["past"]);
    for (after_ms, count) in [(1, 2), (1499, 2), (1500, 3), (2999, 3), (3000, 4)] {
        at(&mut cores, start_ms + after_ms);
        assert_eq!(bodies(&mut cores, "T", 0).len(), count, "{after_ms}");
    }
    let (_, text) = readable(&mut cores, "T", 0).remove(2);
    let of = |key| properties::get_str(text.as_bytes(), key).and_then(|text| text.parse::<i64>().ok());
    assert_eq!(of("TIMER_OUT_MS"), Some((start_ms + 1500) / 1000 * 1000));
    assert_eq!((of("TIMER_ENQUEUE_MS"), of("TIMER_DEQUEUE_MS")), (Some(start_ms), Some(start_ms + 1500)));
}

#[test]
fn ten_thousand_timers_of_a_second_come_each_at_its_millisecond() {
    let mut cores = Cores::new(1);
    let start_ms = cores.now_ms;
    for number in 0..10_000 {
        send(&mut cores, 0, &[("TIMER_DELAY_MS", &(2000 + number % 1000).to_string())], "x");
    }
    // Half a second before, sorting them begins.
    for (after_ms, count) in [(1400, 0), (1600, 0), (1999, 0), (2000, 10), (2499, 5000), (2998, 9990), (2999, 10_000)] {
        at(&mut cores, start_ms + after_ms);
        assert_eq!(cores.broker(0).shard.bounds("T", 0).max, count, "{after_ms}");
    }
    assert_eq!(cores.broker(0).owed.count(), 0);
}

#[test]
fn timers_too_far_away_or_without_a_number_are_refused_with_the_limit() {
    let mut cores = Cores::with_config(1, &[("timerMaxDelaySec", "60")]);
    for asked in [
        ("TIMER_DELAY_SEC", "61"),
        ("TIMER_DELAY_MS", "60001"),
        ("TIMER_DELAY_SEC", "9223372036854775807"),
        ("TIMER_DELIVER_MS", "9223372036854775807"),
        ("TIMER_DELIVER_MS", "soon"),
    ] {
        let refused = send(&mut cores, 0, &[asked], "x");
        assert_eq!(refused.code, response::MESSAGE_ILLEGAL, "{asked:?}");
        assert!(refused.remark.contains("60000ms (timerMaxDelaySec)"), "{}", refused.remark);
    }
    assert_eq!(send(&mut cores, 0, &[("TIMER_DELAY_SEC", "60")], "x").code, 0);
    let recall_now = send(&mut cores, 0, &[("TIMER_DELAY_SEC", "0"), ("TIMER_DEL_UNIQKEY", "k")], "x");
    assert_eq!(recall_now.code, response::MESSAGE_ILLEGAL);
    let mut cores = Cores::with_config(1, &[("timerWheelEnable", "false")]);
    let refused = send(&mut cores, 0, &[("TIMER_DELAY_SEC", "1")], "x");
    assert_eq!(refused.code, response::SYSTEM_ERROR);
    assert!(refused.remark.contains("timerWheelEnable"), "{}", refused.remark);
}

fn recall(cores: &mut Cores, topic: &str, handle: &str) -> Sent {
    cores.call(1, code::RECALL_MESSAGE, &[("producerGroup", "p"), ("recallHandle", handle), ("topic", topic)], b"")
}

#[test]
fn a_recalled_timer_is_not_delivered_and_its_neighbours_are() {
    let mut cores = Cores::with_config(2, &[("recallMessageEnable", "true")]);
    let start_ms = cores.now_ms;
    for queue_id in 0..4 {
        send(&mut cores, queue_id, &[("TIMER_DELAY_MS", "2500"), ("UNIQ_KEY", "other")], "stays");
        let key = format!("K{queue_id}");
        let sent = send(&mut cores, queue_id, &[("TIMER_DELAY_MS", "2500"), ("UNIQ_KEY", &key)], "goes");
        let handle = sent.ext("recallHandle").to_owned();
        for _ in 0..2 {
            let recalled = recall(&mut cores, "T", &handle);
            assert_eq!((recalled.code, recalled.ext("msgId")), (0, key.as_str()), "{}", recalled.remark);
        }
    }
    cores.restart();
    at(&mut cores, start_ms + 10_000);
    for queue_id in 0..4 {
        assert_eq!(bodies(&mut cores, "T", queue_id), ["stays"]);
    }
    at(&mut cores, start_ms + 20_000);
    assert_eq!(cores.broker(0).owed.count() + cores.broker(1).owed.count(), 0, "recalls go, too");
    assert!(cores.broker(0).owed.recalled.is_empty() && cores.broker(1).owed.recalled.is_empty());
}

#[test]
fn recalls_that_cannot_be_are_refused_as_rocketmq_does() {
    let mut cores = Cores::new(2);
    let handle = send(&mut cores, 0, &[("TIMER_DELAY_MS", "2500")], "x").ext("recallHandle").to_owned();
    assert_eq!(recall(&mut cores, "T", &handle).code, response::NO_PERMISSION);
    let mut cores = Cores::with_config(2, &[("recallMessageEnable", "true")]);
    cores.create_topic("U", "1", "6", "");
    let handle = send(&mut cores, 0, &[("TIMER_DELAY_MS", "2500")], "x").ext("recallHandle").to_owned();
    assert_eq!(recall(&mut cores, "V", &handle).code, response::TOPIC_NOT_EXIST);
    for (topic, handle) in [("U", handle.as_str()), ("T", "no handle"), ("T", "djEgVA=="), ("T", "")] {
        assert_eq!(recall(&mut cores, topic, handle).code, response::ILLEGAL_OPERATION, "{topic} {handle}");
    }
    cores.now_ms += 2500;
    let late = recall(&mut cores, "T", &handle);
    assert_eq!(late.code, response::ILLEGAL_OPERATION);
    assert!(late.remark.contains("timestamp invalid"), "{}", late.remark);
}

#[test]
fn what_was_due_while_the_broker_was_down_is_delivered_once_when_it_is_back() {
    let mut cores = Cores::new(2);
    let start_ms = cores.now_ms;
    for number in 0..300 {
        send(&mut cores, number % 2, &[("TIMER_DELAY_MS", &(1 + number * 10).to_string())], &number.to_string());
        send(&mut cores, number % 2, &[("DELAY", "3")], "level");
    }
    at(&mut cores, start_ms + 1000);
    cores.restart();
    at(&mut cores, start_ms + 2000);
    cores.restart();
    at(&mut cores, start_ms + 4000);
    for queue_id in [0, 1] {
        let expected: Vec<_> =
            (0..300).filter(|number| number % 2 == queue_id).map(|number| number.to_string()).collect();
        assert_eq!(bodies(&mut cores, "T", queue_id), expected, "each once, in the order of their times");
    }
    at(&mut cores, start_ms + 10_000);
    cores.restart();
    at(&mut cores, start_ms + 20_000);
    for queue_id in [0, 1] {
        assert_eq!(bodies(&mut cores, "T", queue_id).len(), 300);
    }
}

#[test]
fn while_the_disk_is_stuck_or_broken_nothing_is_delivered_that_could_be_lost() {
    let mut cores = Cores::new(1);
    let start_ms = cores.now_ms;
    send(&mut cores, 0, &[("DELAY", "1")], "x");
    cores.set_disk(0, Disk::Stuck);
    at(&mut cores, start_ms + 1000);
    assert_eq!(bodies(&mut cores, "T", 0).len(), 0);
    cores.set_disk(0, Disk::Works);
    cores.run();
    assert_eq!(bodies(&mut cores, "T", 0), ["x"]);
    send(&mut cores, 0, &[("DELAY", "1")], "y");
    cores.set_disk(0, Disk::Broken);
    at(&mut cores, start_ms + 2000);
    cores.restart();
    at(&mut cores, start_ms + 4000);
    assert_eq!(bodies(&mut cores, "T", 0), ["x", "y"]);
}

#[test]
fn a_message_sent_back_returns_after_the_delay_of_its_try() {
    let mut cores = Cores::new(2);
    cores.create_group(r#"{"groupName":"g"}"#);
    let start_ms = cores.now_ms;
    let id = send(&mut cores, 0, &[], "x").ext("msgId").to_owned();
    let offset = i64::from_str_radix(&id[16..], 16).expect("hexadecimal").to_string();
    let ext = [("delayLevel", "0"), ("group", "g"), ("offset", offset.as_str())];
    assert_eq!(cores.call(1, code::CONSUMER_SEND_MSG_BACK, &ext, b"").code, 0);
    let retried = |cores: &mut Cores| bodies(cores, "%RETRY%g", 0).len();
    at(&mut cores, start_ms + 10 * SECOND_MS - 1);
    assert_eq!(retried(&mut cores), 0);
    at(&mut cores, start_ms + 10 * SECOND_MS);
    assert_eq!(retried(&mut cores), 1, "level 3 is 10 s");
}

#[test]
fn what_a_client_makes_up_in_an_internal_queue_holds_up_nobody() {
    let mut cores = Cores::new(1);
    let start_ms = cores.now_ms;
    let made_up = [("REAL_TOPIC", "T"), ("REAL_QID", "4000000000")];
    let taken = cores.send(0, "rmq_sys_wheel_timer", 0, &made_up);
    assert_eq!(taken.code, 0, "as in RocketMQ: {}", taken.remark);
    cores.send(0, "SCHEDULE_TOPIC_XXXX", 0, &made_up);
    send(&mut cores, 0, &[("DELAY", "1")], "level");
    send(&mut cores, 0, &[("TIMER_DELAY_MS", "500")], "timer");
    cores.restart();
    at(&mut cores, start_ms + 2000);
    assert_eq!(bodies(&mut cores, "T", 0), ["timer", "level"]);
    assert_eq!(cores.broker(0).owed.count(), 0);
}
