use rmq_net::codes::{request, response};

use crate::testing::{Cores, Disk, Sent};

/// One item of a batch body.
fn item(body: &str, properties: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&((22 + body.len() + properties.len()) as u32).to_be_bytes());
    bytes.extend_from_slice(&[0; 12]); // magic, CRC, flag
    bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
    bytes.extend_from_slice(body.as_bytes());
    bytes.extend_from_slice(&(properties.len() as u16).to_be_bytes());
    bytes.extend_from_slice(properties.as_bytes());
    bytes
}

fn batch(cores: &mut Cores, header: &[(&str, &str)], sys_flag: &str, properties: &str) -> Sent {
    let body = [item("one", ""), item("two", properties)].concat();
    cores.send_with(1, "T", 0, header, &[("f", sys_flag), ("m", "true")], &body)
}

fn stored(cores: &mut Cores, topic: &str) -> i64 {
    let owner = cores.broker(0).owner(topic, 0);
    cores.broker(owner).shard.bounds(topic, 0).max
}

#[test]
fn a_batch_whose_header_asks_for_delay_time_or_transaction_is_illegal() {
    let mut cores = Cores::new(2);
    assert_eq!(batch(&mut cores, &[], "0", "").code, 0);
    for (header, sys_flag) in [
        (&[("DELAY", "2")][..], "0"),
        (&[("DELAY", "2"), ("TIMER_DELAY_MS", "7")], "0"),
        (&[("TRAN_MSG", "true")], "0"),
        (&[("TIMER_DELIVER_MS", "7")], "0"),
        (&[], "4"),
        (&[], "8"),
    ] {
        assert_eq!(batch(&mut cores, header, sys_flag, "").code, response::MESSAGE_ILLEGAL, "{header:?} {sys_flag}");
    }
    let item_with_delay = batch(&mut cores, &[], "0", "DELAY\u{1}2\u{2}");
    assert_eq!(item_with_delay.code, response::MESSAGE_ILLEGAL);
    let item_as_if_owed = batch(&mut cores, &[], "0", "__DUE_MS\u{1}5\u{2}");
    assert_eq!(item_as_if_owed.code, response::MESSAGE_ILLEGAL);
    assert_eq!(stored(&mut cores, "T"), 2);
}

#[test]
fn inner_batches_need_their_flag_and_a_topic_for_them() {
    let mut cores = Cores::new(2);
    cores.create_topic("B", "4", "6", "+queue.type=BatchCQ");
    for (topic, properties, sys_flag, code) in [
        ("T", &[("INNER_NUM", "2")][..], "0", response::MESSAGE_ILLEGAL),
        ("T", &[("INNER_NUM", "2")], "128", response::MESSAGE_ILLEGAL),
        ("T", &[], "64", response::MESSAGE_ILLEGAL),
        ("T", &[], "128", response::MESSAGE_ILLEGAL),
        ("B", &[("INNER_NUM", "2")], "0", response::MESSAGE_ILLEGAL),
        ("B", &[("INNER_NUM", "2")], "64", response::MESSAGE_ILLEGAL),
        ("B", &[("INNER_NUM", "2")], "128", response::REQUEST_CODE_NOT_SUPPORTED),
        ("B", &[("INNER_NUM", "2")], "192", response::REQUEST_CODE_NOT_SUPPORTED),
        ("B", &[], "0", response::SUCCESS),
    ] {
        let sent = cores.send_with(0, topic, 0, properties, &[("f", sys_flag)], b"body");
        assert_eq!(sent.code, code, "{topic} {properties:?} {sys_flag}: {}", sent.remark);
    }
    assert_eq!(batch(&mut cores, &[("INNER_NUM", "2")], "0", "").code, response::MESSAGE_ILLEGAL);
    assert_eq!((stored(&mut cores, "T"), stored(&mut cores, "B")), (0, 1));
}

#[test]
fn properties_too_long_for_a_record_are_refused_before_they_are_escaped_again() {
    let mut cores = Cores::new(2);
    cores.create_group(r#"{"groupName":"g"}"#);
    cores.create_topic("%RETRY%g", "4", "6", "");
    let long = "\u{7f}".repeat(1 << 15);
    let to_dead_letters = cores.send_with(0, "%RETRY%g", 0, &[("a", &long)], &[("j", "17")], b"x");
    let plain = cores.send(0, "T", 0, &[("UNIQ_KEY", &long)]);
    let in_batch = batch(&mut cores, &[("UNIQ_KEY", &long)], "0", "");
    for refused in [to_dead_letters, plain, in_batch] {
        assert_eq!(refused.code, response::MESSAGE_ILLEGAL);
        assert!(refused.remark.contains("32767"), "{}", refused.remark);
    }
    assert_eq!((stored(&mut cores, "T"), stored(&mut cores, "%DLQ%g")), (0, 0));
}

#[test]
fn a_batch_with_more_ids_than_an_answer_holds_is_refused_whole() {
    let mut cores = Cores::with_config(2, &[("maxMessageSize", "16777216")]);
    let few = item("", "").repeat(1000);
    assert_eq!(cores.send_with(0, "T", 0, &[], &[("m", "true")], &few).code, 0);
    let many = item("", "").repeat(400_000);
    let refused = cores.send_with(0, "T", 0, &[], &[("m", "true")], &many);
    assert_eq!(refused.code, response::MESSAGE_ILLEGAL);
    assert!(refused.remark.contains("400000") && refused.remark.contains("381300"), "{}", refused.remark);
    assert_eq!(stored(&mut cores, "T"), 1000);
}

#[test]
fn messages_of_a_multi_tag_topic_say_so() {
    let mut cores = Cores::new(1);
    let ext = [
        ("defaultTopic", "TBW102"),
        ("order", "false"),
        ("perm", "6"),
        ("readQueueNums", "1"),
        ("topic", "M"),
        ("topicFilterType", "MULTI_TAG"),
        ("writeQueueNums", "1"),
    ];
    assert_eq!(cores.call(0, request::UPDATE_AND_CREATE_TOPIC, &ext, b"").code, 0);
    let sent = cores.send_with(0, "M", 0, &[], &[("f", "1")], b"body");
    assert_eq!(sent.code, 0, "{}", sent.remark);
    let id = sent.ext("msgId").to_owned();
    let offset = i64::from_str_radix(&id[16..], 16).unwrap().to_string();
    let viewed = cores.call(0, request::VIEW_MESSAGE_BY_ID, &[("offset", &offset)], b"");
    let sys_flag = i32::from_be_bytes(viewed.body[36..40].try_into().unwrap());
    assert_eq!(sys_flag, 3, "compressed, as the client said, and of a topic with many tags");
}

#[test]
fn with_sync_flush_a_send_the_disk_keeps_waiting_is_answered_once_as_not_flushed() {
    for (flush, is_given_up) in [("SYNC_FLUSH", true), ("ASYNC_FLUSH", false)] {
        let mut cores = Cores::with_config(2, &[("flushDiskType", flush)]);
        cores.create_topic("T", "4", "6", "");
        let owner = cores.broker(0).owner("T", 0);
        cores.set_disk(owner, Disk::Stuck);
        let first = cores.post_send(0, "T", 0, &[], &[], b"body");
        cores.now_ms += 3000;
        let second = cores.post_send(1, "T", 0, &[], &[], b"body");
        cores.now_ms += 1999;
        cores.run();
        assert!(cores.answers_to(first).is_empty());
        cores.now_ms += 1;
        cores.run();
        let answers = cores.answers_to(first);
        if is_given_up {
            let answer = answers.first().expect("an answer");
            assert_eq!((answer.code, answer.ext("queueOffset")), (response::FLUSH_DISK_TIMEOUT, "0"));
            assert!(!answer.ext("msgId").is_empty() && answer.ext("TRACE_ON") == "true");
        } else {
            assert!(answers.is_empty());
        }
        assert!(cores.answers_to(second).is_empty());
        cores.set_disk(owner, Disk::Works);
        cores.run();
        assert_eq!(cores.answers_to(first).len(), usize::from(!is_given_up));
        assert_eq!(cores.answers_to(second).first().map(|answer| answer.code), Some(0));
        assert_eq!(stored(&mut cores, "T"), 2);
    }
}
