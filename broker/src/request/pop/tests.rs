use rmq_net::codes::{request as code, response};
use rmq_net::message::receipt::{Mark, Receipt};
use rmq_net::message::{properties, record};

use crate::testing::{Cores, Sent};

/// How a pop differs from one of any queue of T by g, of up to 32 messages for a minute, not held.
type Changed<'a> = &'a [(&'static str, &'a str)];

fn pop_fields<'a>(changed: Changed<'a>) -> Vec<(&'static str, &'a str)> {
    let usual = [
        ("consumerGroup", "g"),
        ("initMode", "0"),
        ("invisibleTime", "60000"),
        ("maxMsgNums", "32"),
        ("pollTime", "0"),
        ("queueId", "-1"),
        ("topic", "T"),
    ];
    let kept = usual.into_iter().filter(|(key, _)| changed.iter().all(|(other, _)| other != key));
    kept.chain(changed.iter().copied()).collect()
}

fn pop(cores: &mut Cores, core: usize, changed: Changed<'_>) -> Sent {
    cores.call(core, code::POP_MESSAGE, &pop_fields(changed), b"")
}

/// A popped message: its body, its reconsume times and its receipt, made as the Java client makes it.
#[derive(Clone, Debug)]
struct Popped {
    body: String,
    topic: String,
    times: i32,
    receipt: String,
    offset: i64,
}

fn info(text: &str, mark: Mark, queue_id: i32) -> &str {
    let wanted = format!("{mark} {queue_id} ");
    let found: Vec<_> = text.split(';').filter_map(|entry| entry.strip_prefix(&*wanted)).collect();
    assert_eq!(found.len(), 1, "one entry for {wanted}in {text}");
    found[0]
}

fn popped(answer: &Sent) -> Vec<Popped> {
    assert_eq!((answer.code, answer.remark.as_str()), (0, "FOUND"));
    let records: Vec<_> = record::iter(&answer.body).map(|record| record.expect("a record")).collect();
    let popped = records.iter().map(|message| {
        let receipt = properties::get_str(message.properties, "POP_CK").map_or_else(
            || {
                let queue_id = message.queue_id;
                let start = info(answer.ext("startOffsetInfo"), Mark::Topic, queue_id);
                let offsets = info(answer.ext("msgOffsetInfo"), Mark::Topic, queue_id);
                assert!(offsets.split(',').any(|offset| offset == message.queue_offset.to_string()));
                let ext = |key| answer.ext(key);
                format!(
                    "{start} {} {} {} 0 broker-a {queue_id} {}",
                    ext("popTime"),
                    ext("invisibleTime"),
                    ext("reviveQid"),
                    message.queue_offset
                )
            },
            str::to_owned,
        );
        Popped {
            body: String::from_utf8_lossy(message.body).into_owned(),
            topic: message.topic.to_owned(),
            times: message.reconsume_times,
            receipt,
            offset: message.queue_offset,
        }
    });
    popped.collect()
}

fn receipt_fields<'a>(
    popped: &'a Popped,
    topic: &'a str,
    queue_id: &'a str,
    offset: &'a str,
) -> Vec<(&'static str, &'a str)> {
    vec![
        ("consumerGroup", "g"),
        ("extraInfo", &popped.receipt),
        ("offset", offset),
        ("queueId", queue_id),
        ("topic", topic),
    ]
}

/// A request about a popped message, by its receipt.
fn about(cores: &mut Cores, core: usize, code: i32, popped: &Popped, more: Changed<'_>) -> Sent {
    let receipt = Receipt::parse(&popped.receipt).expect("a receipt");
    let topic = receipt.mark.topic("g", "T");
    let (queue_id, offset) = (receipt.queue_id.to_string(), popped.offset.to_string());
    let mut fields = receipt_fields(popped, &topic, &queue_id, &offset);
    fields.extend_from_slice(more);
    cores.call(core, code, &fields, b"")
}

fn ack(cores: &mut Cores, core: usize, popped: &Popped) -> Sent {
    about(cores, core, code::ACK_MESSAGE, popped, &[])
}

fn prepared(count: usize, config: &[(&str, &str)]) -> Cores {
    let mut cores = Cores::with_config(count, config);
    cores.create_topic("T", "8", "6", "");
    cores.create_group(r#"{"groupName":"g"}"#);
    cores
}

fn send(cores: &mut Cores, queue_id: u32, tag: &str, body: &str) {
    let sent = cores.send_with(0, "T", queue_id, &[("TAGS", tag)], &[], body.as_bytes());
    assert_eq!(sent.code, 0, "{}", sent.remark);
}

fn bodies(popped: &[Popped]) -> Vec<&str> {
    let mut bodies: Vec<_> = popped.iter().map(|message| message.body.as_str()).collect();
    bodies.sort_unstable();
    bodies
}

/// Pops with any core's client until nothing is left.
fn pop_all(cores: &mut Cores, changed: Changed<'_>) -> Vec<Popped> {
    let mut all = Vec::new();
    loop {
        let answer = pop(cores, all.len() % 2, changed);
        if answer.code == response::POLLING_TIMEOUT {
            return all;
        }
        all.extend(popped(&answer));
    }
}

#[test]
fn every_message_of_every_core_is_popped_once_and_what_is_acknowledged_does_not_return() {
    let mut cores = prepared(2, &[]);
    for queue_id in 0..8 {
        send(&mut cores, queue_id, "A", &queue_id.to_string());
    }
    let all = pop_all(&mut cores, &[]);
    assert_eq!(bodies(&all), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    for message in &all[..6] {
        let acked = ack(&mut cores, 1, message);
        assert_eq!((acked.code, acked.remark.as_str()), (0, ""));
    }
    assert!(pop_all(&mut cores, &[]).is_empty(), "the others are hidden");
    cores.now_ms += 60_001;
    cores.run();
    cores.now_ms += 1000;
    cores.run();
    let again = pop_all(&mut cores, &[]);
    assert_eq!(bodies(&again), bodies(&all[6..]));
    for message in &again {
        assert_eq!((message.times, message.topic.as_str()), (1, "T"));
        assert!(Receipt::parse(&message.receipt).is_ok_and(|receipt| receipt.mark == Mark::RetryV1));
        assert_eq!(ack(&mut cores, 0, message).code, 0);
    }
    cores.now_ms += 120_000;
    cores.run();
    assert!(pop_all(&mut cores, &[]).is_empty());
    assert_eq!((0..2).map(|core| cores.broker(core).shard.in_flight_count()).sum::<usize>(), 0);
}

#[test]
fn a_held_pop_gets_a_message_of_whichever_core_as_soon_as_it_is_there() {
    for core in [0, 1] {
        let mut cores = prepared(2, &[]);
        let held = [0, 1].map(|core| cores.post(core, code::POP_MESSAGE, &pop_fields(&[("pollTime", "10000")]), b""));
        assert!(held.iter().all(|opaque| cores.answers_to(*opaque).is_empty()));
        let info = [("consumerGroup", "g"), ("queueId", "-1"), ("topic", "T")];
        assert_eq!(cores.call(1, code::POLLING_INFO, &info, b"").ext("pollingNum"), "2");
        for (n, opaque) in held.into_iter().enumerate() {
            let queue_id = cores.queue_on(core, "T");
            send(&mut cores, queue_id, "A", &n.to_string());
            let answers = cores.answers_to(opaque);
            assert_eq!(answers.len(), 1, "the first to come is the first to get");
            assert_eq!(bodies(&popped(&answers[0])), [n.to_string()]);
        }
        let late = cores.post(0, code::POP_MESSAGE, &pop_fields(&[("pollTime", "1000")]), b"");
        cores.now_ms += 960;
        cores.run();
        let answers = cores.answers_to(late);
        assert_eq!(answers.first().map(|answer| answer.code), Some(response::POLLING_TIMEOUT));
    }
}

#[test]
fn a_held_pop_gets_what_comes_back_when_its_time_is_over() {
    let mut cores = prepared(2, &[]);
    send(&mut cores, 3, "A", "again");
    assert_eq!(popped(&pop(&mut cores, 0, &[("invisibleTime", "1000")])).len(), 1);
    let held = cores.post(1, code::POP_MESSAGE, &pop_fields(&[("pollTime", "30000")]), b"");
    for _ in 0..3 {
        cores.now_ms += 1000;
        cores.run();
    }
    let answers = cores.answers_to(held);
    assert_eq!(answers.len(), 1);
    let again = popped(&answers[0]);
    assert_eq!((again[0].body.as_str(), again[0].times), ("again", 1));
}

#[test]
fn more_held_pops_than_allowed_are_refused_as_full() {
    let mut cores = prepared(2, &[("popPollingSize", "1")]);
    let held = cores.post(0, code::POP_MESSAGE, &pop_fields(&[("pollTime", "10000")]), b"");
    assert_eq!(pop(&mut cores, 1, &[("pollTime", "10000")]).code, response::POLLING_FULL);
    assert!(cores.answers_to(held).is_empty());
}

#[test]
fn tags_and_sql_choose_what_is_popped_and_the_rest_is_passed_over() {
    for (exp, exp_type) in [("A || C", "TAG"), ("TAGS in ('A', 'C')", "SQL92")] {
        let mut cores = prepared(2, &[]);
        for queue_id in 0..2 {
            for tag in ["A", "B", "C", "B"] {
                send(&mut cores, queue_id, tag, &format!("{tag}{queue_id}"));
            }
        }
        let all = pop_all(&mut cores, &[("exp", exp), ("expType", exp_type)]);
        assert_eq!(bodies(&all), ["A0", "A1", "C0", "C1"]);
        all.iter().for_each(|message| assert_eq!(ack(&mut cores, 0, message).code, 0));
        for queue_id in 0..2 {
            let owner = cores.broker(0).owner("T", queue_id);
            assert_eq!(cores.broker(owner).shard.offset("g", "T", queue_id), Some(4), "nothing is left behind");
        }
    }
    let mut cores = prepared(1, &[]);
    for (exp, exp_type) in [("||", "TAG"), ("a >", "SQL92"), ("x", "XPATH")] {
        let answer = pop(&mut cores, 0, &[("exp", exp), ("expType", exp_type)]);
        assert_eq!(answer.code, response::SUBSCRIPTION_PARSE_FAILED, "{exp}");
    }
}

#[test]
fn a_message_put_off_returns_when_its_new_time_is_over_and_only_its_new_receipt_counts() {
    let mut cores = prepared(2, &[]);
    send(&mut cores, 5, "A", "later");
    let first = popped(&pop(&mut cores, 0, &[])).remove(0);
    cores.now_ms += 1000;
    let changed = about(&mut cores, 1, code::CHANGE_MESSAGE_INVISIBLETIME, &first, &[("invisibleTime", "5000")]);
    assert_eq!((changed.code, changed.ext("invisibleTime")), (0, "5000"));
    assert_eq!(changed.ext("popTime"), cores.now_ms.to_string());
    let acked = ack(&mut cores, 0, &first);
    assert_eq!(acked.code, 0);
    assert!(acked.remark.contains("nothing changed"), "{}", acked.remark);
    cores.now_ms += 5000;
    cores.run();
    cores.now_ms += 1000;
    cores.run();
    let again = pop_all(&mut cores, &[]);
    assert_eq!((again.len(), again[0].times), (1, 1));
    let suspended = about(
        &mut cores,
        0,
        code::CHANGE_MESSAGE_INVISIBLETIME,
        &again[0],
        &[("invisibleTime", "0"), ("suspend", "true")],
    );
    assert_eq!(suspended.code, 0);
    cores.now_ms += 1000;
    cores.run();
    let suspended = pop_all(&mut cores, &[]);
    assert_eq!((suspended.len(), suspended[0].times), (1, 1), "a suspended delivery does not count");
    let receipt = Receipt::parse(&suspended[0].receipt).expect("a receipt");
    let fields = [("pt", receipt.pop_time_ms), ("so", receipt.start_offset), ("q", receipt.queue_id.into())]
        .map(|(key, value)| format!("\"{key}\":{value}"))
        .join(",");
    let body = format!(r#"{{"acks":[{{"b":"AQ==","c":"g","r":"1","t":"T",{fields}}}],"brokerName":"broker-a"}}"#);
    assert_eq!(cores.call(0, code::BATCH_ACK_MESSAGE, &[], body.as_bytes()).code, 0);
    assert_eq!((0..2).map(|core| cores.broker(core).shard.in_flight_count()).sum::<usize>(), 0);
}

#[test]
fn a_batch_acknowledges_messages_of_several_cores_at_once() {
    let mut cores = prepared(2, &[]);
    for queue_id in 0..8 {
        send(&mut cores, queue_id, "A", "x");
        send(&mut cores, queue_id, "A", "y");
    }
    let all = pop_all(&mut cores, &[]);
    assert_eq!(all.len(), 16);
    let acks: Vec<String> = all
        .iter()
        .filter(|message| message.body == "x")
        .map(|message| {
            let receipt = Receipt::parse(&message.receipt).expect("a receipt");
            let Receipt { start_offset, pop_time_ms, queue_id, .. } = receipt;
            format!(r#"{{"b":"AQ==","c":"g","r":"0","t":"T","pt":{pop_time_ms},"so":{start_offset},"q":{queue_id}}}"#)
        })
        .collect();
    let body = format!(r#"{{"acks":[{}],"brokerName":"broker-a"}}"#, acks.join(","));
    assert_eq!(cores.call(1, code::BATCH_ACK_MESSAGE, &[], body.as_bytes()).code, 0);
    assert_eq!((0..2).map(|core| cores.broker(core).shard.in_flight_count()).sum::<usize>(), 8);
    for body in ["", "{}", r#"{"acks":[]}"#] {
        assert_eq!(cores.call(1, code::BATCH_ACK_MESSAGE, &[], body.as_bytes()).code, response::NO_MESSAGE);
    }
    let bad = br#"{"acks":[{"b":"!","c":"g","r":"0","t":"T"}]}"#;
    assert_eq!(cores.call(1, code::BATCH_ACK_MESSAGE, &[], bad).code, response::SYSTEM_ERROR);
}

#[test]
fn in_order_a_queue_waits_for_what_it_gave_and_counts_how_often() {
    const ORDER: Changed<'_> = &[("order", "true"), ("maxMsgNums", "3"), ("queueId", "2"), ("invisibleTime", "5000")];
    let with = |more: Changed<'static>| [ORDER, more].concat();
    let mut cores = prepared(2, &[]);
    for n in 0..4 {
        send(&mut cores, 2, "A", &n.to_string());
    }
    let answer = pop(&mut cores, 0, &with(&[("attemptId", "a")]));
    assert_eq!((answer.ext("reviveQid"), answer.ext("orderCountInfo")), ("999", "0 2 0"));
    let first = popped(&answer);
    assert_eq!(bodies(&first), ["0", "1", "2"]);
    assert_eq!(pop(&mut cores, 1, &with(&[])).code, response::POLLING_TIMEOUT);
    let same = popped(&pop(&mut cores, 1, &with(&[("attemptId", "a")])));
    assert_eq!(bodies(&same), ["0", "1", "2"], "an attempt may be repeated");
    let never_given = Popped { offset: 3, ..same[0].clone() };
    assert_eq!(ack(&mut cores, 0, &never_given).code, response::MESSAGE_ILLEGAL);
    assert_eq!(ack(&mut cores, 0, &same[1]).code, 0);
    cores.now_ms += 5001;
    cores.run();
    let answer = pop(&mut cores, 0, &with(&[]));
    let again = popped(&answer);
    assert_eq!(bodies(&again), ["0", "2"], "what is acknowledged does not come again");
    assert_eq!(answer.ext("orderCountInfo"), "0 qo2%0 1;0 qo2%2 1;0 2 1");
    let held = cores.post(1, code::POP_MESSAGE, &pop_fields(&with(&[("pollTime", "60000")])), b"");
    for message in &again {
        assert!(cores.answers_to(held).is_empty());
        assert_eq!(ack(&mut cores, 0, message).code, 0);
    }
    let answers = cores.answers_to(held);
    assert_eq!(answers.first().map(|answer| bodies(&popped(answer)).concat()), Some("3".to_owned()));
}

#[test]
fn peeks_and_notifications_take_nothing() {
    let mut cores = prepared(2, &[]);
    let names = [("consumerGroup", "g"), ("queueId", "-1"), ("topic", "T")];
    let peek = [&names[..], &[("maxMsgNums", "8")]].concat();
    let notify = [&names[..], &[("pollTime", "5000"), ("bornTime", "0")]].concat();
    assert_eq!(cores.call(0, code::PEEK_MESSAGE, &peek, b"").code, response::PULL_NOT_FOUND);
    let held = cores.post(1, code::NOTIFICATION, &notify, b"");
    assert!(cores.answers_to(held).is_empty());
    send(&mut cores, 6, "A", "seen");
    let told = cores.answers_to(held);
    assert_eq!(told.first().map(|answer| answer.ext("hasMsg").to_owned()), Some("true".to_owned()));
    for _ in 0..2 {
        assert_eq!(cores.call(1, code::NOTIFICATION, &notify, b"").ext("hasMsg"), "true");
        let peeked = cores.call(0, code::PEEK_MESSAGE, &peek, b"");
        assert_eq!((peeked.code, peeked.ext("popTime")), (0, "0"));
        assert_eq!(record::iter(&peeked.body).count(), 1);
    }
    assert_eq!(pop_all(&mut cores, &[]).len(), 1);
    let timed_out = cores.post(0, code::NOTIFICATION, &notify, b"");
    cores.now_ms += 5000;
    cores.run();
    assert_eq!(cores.answers_to(timed_out).first().map(|answer| answer.ext("hasMsg").to_owned()), Some("false".into()));
}

#[test]
fn a_notification_heeds_the_tags_it_asks_for_while_few_messages_wait() {
    let notify = |exp, exp_type| {
        let names =
            [("consumerGroup", "g"), ("queueId", "-1"), ("topic", "T"), ("pollTime", "5000"), ("bornTime", "0")];
        [&names[..], &[("exp", exp), ("expType", exp_type)]].concat()
    };
    let told = |answers: &[Sent]| answers.first().map(|answer| answer.ext("hasMsg").to_owned());
    let mut cores = prepared(2, &[]);
    send(&mut cores, 5, "B", "other");
    assert_eq!(cores.call(0, code::NOTIFICATION, &notify("B", "TAG"), b"").ext("hasMsg"), "true");
    let held = cores.post(0, code::NOTIFICATION, &notify("A || C", "TAG"), b"");
    let info = [("consumerGroup", "g"), ("queueId", "-1"), ("topic", "T")];
    assert_eq!(cores.call(1, code::POLLING_INFO, &info, b"").ext("pollingNum"), "1");
    send(&mut cores, 2, "B", "other");
    assert!(cores.answers_to(held).is_empty(), "not what is waited for");
    send(&mut cores, 2, "C", "wanted");
    assert_eq!(told(&cores.answers_to(held)).as_deref(), Some("true"));

    for _ in 0..63 {
        send(&mut cores, 1, "B", "many");
    }
    let now = |cores: &mut Cores, queue_id, exp| {
        let names =
            [("consumerGroup", "g"), ("queueId", queue_id), ("topic", "T"), ("pollTime", "0"), ("bornTime", "0")];
        let fields = [&names[..], &[("exp", exp), ("expType", "TAG")]].concat();
        cores.call(0, code::NOTIFICATION, &fields, b"").ext("hasMsg").to_owned()
    };
    assert_eq!(now(&mut cores, "1", "D"), "false");
    send(&mut cores, 1, "B", "many");
    assert_eq!(now(&mut cores, "1", "D"), "true", "these are too many to be looked at");

    // Rows of two pages of the index.
    for _ in 0..120 {
        send(&mut cores, 3, "B", "passed over");
    }
    while pop(&mut cores, 0, &[("queueId", "3")]).code == 0 {}
    for tag in ["B"; 10].iter().chain(&["E"]) {
        send(&mut cores, 3, tag, "behind");
    }
    assert_eq!([now(&mut cores, "3", "E"), now(&mut cores, "3", "F")], ["true", "false"]);
    let bad = cores.call(0, code::NOTIFICATION, &notify("a >", "SQL92"), b"");
    assert_eq!(bad.code, response::SUBSCRIPTION_PARSE_FAILED);

    let mut cores = prepared(2, &[("useMessageFilterForNotification", "false")]);
    send(&mut cores, 5, "B", "other");
    assert_eq!(cores.call(0, code::NOTIFICATION, &notify("A", "TAG"), b"").ext("hasMsg"), "true");
}

#[test]
fn after_a_reset_pops_go_on_from_its_offset_and_a_later_pull_is_not_moved_by_it() {
    let mut cores = prepared(2, &[]);
    for body in ["0", "1", "2"] {
        send(&mut cores, 3, "A", body);
    }
    assert_eq!(bodies(&pop_all(&mut cores, &[])), ["0", "1", "2"]);
    let reset =
        [("group", "g"), ("isForce", "true"), ("offset", "1"), ("queueId", "3"), ("timestamp", "-1"), ("topic", "T")];
    assert_eq!(cores.call(0, code::INVOKE_BROKER_TO_RESET_OFFSET, &reset, b"").code, 0);
    assert_eq!(bodies(&pop_all(&mut cores, &[])), ["1", "2"]);
    let pulled = cores.call(0, code::PULL_MESSAGE, &crate::testing::pull_fields("3", "2"), b"");
    assert_eq!((pulled.code, record::iter(&pulled.body).count()), (0, 1), "{}", pulled.remark);
}

#[test]
fn the_topics_popped_messages_came_back_in_are_deleted_with_their_topic() {
    for (clears, is_left) in [("true", false), ("false", true)] {
        let mut cores = prepared(2, &[("clearRetryTopicWhenDeleteTopic", clears)]);
        send(&mut cores, 3, "A", "x");
        assert_eq!(pop_all(&mut cores, &[("invisibleTime", "1000")]).len(), 1);
        for _ in 0..3 {
            cores.now_ms += 1000;
            cores.run();
        }
        let retry = Mark::RetryV1.topic("g", "T");
        assert!(cores.broker(0).topics.get(&retry).is_some());
        assert_eq!(cores.call(1, code::DELETE_TOPIC_IN_BROKER, &[("topic", "T")], b"").code, 0);
        for core in [0, 1] {
            assert_eq!(cores.broker(core).topics.get(&retry).is_some(), is_left);
            assert!(cores.broker(core).topics.get("T").is_none());
            assert!(is_left || cores.broker(core).shard.queues(&retry).next().is_none());
        }
    }
}

#[test]
fn bad_requests_are_refused_with_the_reference_s_codes() {
    let mut cores = prepared(2, &[]);
    cores.create_topic("closed", "1", "2", "");
    cores.create_group(r#"{"groupName":"off","consumeEnable":false}"#);
    for (changed, code) in [
        ([("bornTime", "1000")], response::POLLING_TIMEOUT),
        ([("maxMsgNums", "33")], response::INVALID_PARAMETER),
        ([("topic", "absent")], response::TOPIC_NOT_EXIST),
        ([("topic", "closed")], response::NO_PERMISSION),
        ([("queueId", "8")], response::INVALID_PARAMETER),
        ([("consumerGroup", "off")], response::NO_PERMISSION),
        ([("invisibleTime", "259200001")], response::INVALID_PARAMETER),
        ([("invisibleTime", "9223372036854775807")], response::INVALID_PARAMETER),
        ([("invisibleTime", "x")], response::SYSTEM_ERROR),
    ] {
        assert_eq!(pop(&mut cores, 1, &changed).code, code, "{changed:?}");
    }
    send(&mut cores, 1, "A", "x");
    let message = popped(&pop(&mut cores, 0, &[])).remove(0);
    let refused = |cores: &mut Cores, topic: &str, queue_id: &str, offset: &str, receipt: &str| {
        let message = Popped { receipt: receipt.to_owned(), ..message.clone() };
        let fields = receipt_fields(&message, topic, queue_id, offset);
        let change = [&fields[..], &[("invisibleTime", "1000")]].concat();
        let acked = cores.call(1, code::ACK_MESSAGE, &fields, b"");
        let changed = cores.call(1, code::CHANGE_MESSAGE_INVISIBLETIME, &change, b"");
        assert_eq!(acked.code, changed.code);
        (acked.code, acked.remark)
    };
    let receipt = message.receipt.clone();
    assert_eq!(refused(&mut cores, "absent", "1", "0", &receipt).0, response::TOPIC_NOT_EXIST);
    assert_eq!(refused(&mut cores, "T", "8", "0", &receipt).0, response::MESSAGE_ILLEGAL);
    assert_eq!(refused(&mut cores, "T", "-1", "0", &receipt).0, response::MESSAGE_ILLEGAL);
    assert_eq!(refused(&mut cores, "T", "1", "7", &receipt).0, response::NO_MESSAGE);
    assert_eq!(refused(&mut cores, "T", "1", "-1", &receipt).0, response::NO_MESSAGE);
    let (code, remark) = refused(&mut cores, "T", "1", "0", "1 2 3");
    assert_eq!((code, remark.contains("3 parts")), (response::SYSTEM_ERROR, true), "{remark}");
    let huge =
        about(&mut cores, 0, code::CHANGE_MESSAGE_INVISIBLETIME, &message, &[("invisibleTime", "9223372036854775807")]);
    assert_eq!(huge.code, response::SYSTEM_ERROR);
    assert_eq!(ack(&mut cores, 0, &message).code, 0, "and it is still the consumer's");
    let past = about(&mut cores, 0, code::CHANGE_MESSAGE_INVISIBLETIME, &message, &[("invisibleTime", "-5")]);
    assert_eq!((past.code, past.remark.contains("nothing changed")), (0, true));
}

#[test]
fn invisible_times_of_zero_and_less_return_the_message_at_once() {
    for invisible in ["0", "-1000"] {
        let mut cores = prepared(1, &[]);
        send(&mut cores, 0, "A", "x");
        assert_eq!(popped(&pop(&mut cores, 0, &[("invisibleTime", invisible)])).len(), 1);
        cores.now_ms += 200;
        cores.run();
        let again = popped(&pop(&mut cores, 0, &[]));
        assert_eq!((again.len(), again[0].times), (1, 1));
    }
}

#[test]
fn with_v2_messages_come_back_in_the_other_retry_topic() {
    let mut cores = prepared(2, &[("enableRetryTopicV2", "true")]);
    send(&mut cores, 4, "A", "x");
    assert_eq!(popped(&pop(&mut cores, 0, &[("invisibleTime", "1")])).len(), 1);
    for _ in 0..3 {
        cores.now_ms += 1000;
        cores.run();
    }
    let again = pop_all(&mut cores, &[]);
    let receipt = Receipt::parse(&again[0].receipt).expect("a receipt");
    assert_eq!((receipt.mark, again[0].topic.as_str()), (Mark::RetryV2, "T"));
    assert_eq!(ack(&mut cores, 1, &again[0]).remark, "");
    assert!(cores.broker(0).topics.get("%RETRY%g+T").is_some() && cores.broker(0).topics.get("%RETRY%g_T").is_none());
}

#[test]
fn what_was_taken_is_answered_only_when_that_is_durable() {
    let mut cores = prepared(1, &[]);
    send(&mut cores, 0, "A", "x");
    cores.set_disk(0, crate::testing::Disk::Stuck);
    let held = cores.post(0, code::POP_MESSAGE, &pop_fields(&[]), b"");
    assert!(cores.answers_to(held).is_empty());
    cores.set_disk(0, crate::testing::Disk::Works);
    cores.run();
    assert_eq!(cores.answers_to(held).first().map(|answer| answer.code), Some(0));
}

#[test]
fn a_deleted_group_s_messages_do_not_come_back() {
    let mut cores = prepared(2, &[("autoCreateSubscriptionGroup", "false")]);
    send(&mut cores, 0, "A", "x");
    assert_eq!(popped(&pop(&mut cores, 0, &[("invisibleTime", "1000")])).len(), 1);
    let delete = [("cleanOffset", "false"), ("groupName", "g")];
    assert_eq!(cores.call(0, code::DELETE_SUBSCRIPTIONGROUP, &delete, b"").code, 0);
    for _ in 0..3 {
        cores.now_ms += 1000;
        cores.run();
    }
    assert_eq!((0..2).map(|core| cores.broker(core).shard.in_flight_count()).sum::<usize>(), 0);
    assert!(cores.broker(0).topics.get("%RETRY%g_T").is_none());
}

#[test]
fn a_client_that_is_gone_takes_nothing() {
    let mut cores = prepared(2, &[]);
    let held = [0, 1].map(|core| cores.post(core, code::POP_MESSAGE, &pop_fields(&[("pollTime", "10000")]), b""));
    cores.close_client(0);
    send(&mut cores, 0, "A", "x");
    assert!(cores.answers_to(held[0]).is_empty());
    assert_eq!(cores.answers_to(held[1]).first().map(|answer| answer.code), Some(0));
}

#[test]
fn the_broker_deals_queues_out_as_the_mode_says() {
    let mut cores = prepared(2, &[]);
    let heartbeat = |id: &str| {
        format!(
            r#"{{"clientID":"{id}","consumerDataSet":[{{"groupName":"g","consumeType":"CONSUME_PASSIVELY",
            "messageModel":"CLUSTERING","consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","subscriptionDataSet":[]}}],
            "producerDataSet":[]}}"#
        )
    };
    for core in [0, 1] {
        assert_eq!(cores.call(core, code::HEART_BEAT, &[], heartbeat(&core.to_string()).as_bytes()).code, 0);
    }
    let assigned = |cores: &mut Cores, strategy: &str, model: &str| {
        let body = format!(
            r#"{{"clientId":"1","consumerGroup":"g","messageModel":"{model}","strategyName":"{strategy}","topic":"T"}}"#
        );
        let answer = cores.call(1, code::QUERY_ASSIGNMENT, &[], body.as_bytes());
        assert_eq!(answer.code, 0);
        let reply: rmq_net::body::AssignmentReply = rmq_net::body::decode(&answer.body).expect("a reply");
        let queues = reply.message_queue_assignments?;
        Some(queues.into_iter().map(|queue| (queue.mode.name(), queue.message_queue.queue_id)).collect::<Vec<_>>())
    };
    let pull = |ids: &[i32]| Some(ids.iter().map(|id| ("PULL", *id)).collect::<Vec<_>>());
    assert_eq!(assigned(&mut cores, "AVG", "CLUSTERING"), pull(&[4, 5, 6, 7]));
    assert_eq!(assigned(&mut cores, "AVG_BY_CIRCLE", "CLUSTERING"), pull(&[1, 3, 5, 7]));
    assert_eq!(assigned(&mut cores, "AVG", "BROADCASTING"), pull(&[0, 1, 2, 3, 4, 5, 6, 7]));
    assert_eq!(assigned(&mut cores, "CONSISTENT_HASH", "CLUSTERING"), None);
    let set = |topic: &str, group: &str| {
        format!(r#"{{"consumerGroup":"{group}","mode":"POP","popShareQueueNum":-1,"topic":"{topic}"}}"#)
    };
    for (topic, group, code) in [
        ("%RETRY%g", "g", response::NO_PERMISSION),
        ("absent", "g", response::TOPIC_NOT_EXIST),
        ("T", "absent", response::SUBSCRIPTION_GROUP_NOT_EXIST),
        ("T", "g", 0),
    ] {
        let answer = cores.call(1, code::SET_MESSAGE_REQUEST_MODE, &[], set(topic, group).as_bytes());
        assert_eq!(answer.code, code, "{}", answer.remark);
    }
    assert_eq!(assigned(&mut cores, "AVG", "CLUSTERING"), Some(vec![("POP", -1)]));
    let all = cores.call(1, code::GET_ALL_MESSAGE_REQUEST_MODE, &[], b"");
    let expected = format!(r#"{{"messageRequestModeMap":{{"T":{{"g":{}}}}}}}"#, set("T", "g"));
    assert_eq!(String::from_utf8_lossy(&all.body), expected);
}

#[test]
fn pops_of_a_priority_topic_get_the_highest_first() {
    let priority = |cores: &mut Cores, core: usize, priority: &str| {
        cores.send_with(core, "P", 0, &[("_SYS_MSG_PRIORITY_", priority)], &[], priority.as_bytes())
    };
    for (ascending, expected) in [("true", ["9", "5", "2", "1", "0"]), ("false", ["0", "1", "2", "5", "9"])] {
        let mut cores = Cores::with_config(3, &[("priorityOrderAsc", ascending)]);
        cores.create_topic("P", "7", "6", "+message.type=PRIORITY");
        for (number, (given, queue_id)) in
            [("1", "1"), ("9", "6"), ("0", "0"), ("5", "5"), ("2", "2")].iter().enumerate()
        {
            let sent = priority(&mut cores, number % 3, given);
            assert_eq!((sent.code, sent.ext("queueId")), (0, *queue_id), "{}", sent.remark);
        }
        for (number, body) in expected.iter().enumerate() {
            let answer = pop(&mut cores, number % 3, &[("topic", "P"), ("maxMsgNums", "1")]);
            let bodies: Vec<_> = popped(&answer).into_iter().map(|message| message.body).collect();
            assert_eq!(bodies, [*body]);
        }
        let empty = pop(&mut cores, 0, &[("topic", "P")]);
        assert_eq!(empty.code, response::POLLING_TIMEOUT);
    }
}

#[test]
fn what_came_back_of_a_priority_topic_is_last_unless_its_own_probability_says_first() {
    for (first, expected) in [("0", ["6", "back"]), ("100", ["back", "6"])] {
        // On one core: elsewhere the pop may begin on a core that nothing came back on.
        let mut cores = Cores::with_config(1, &[("popFromRetryProbabilityForPriority", first)]);
        cores.create_topic("P", "7", "6", "+message.type=PRIORITY");
        let send = |cores: &mut Cores, priority: &str, body: &str| {
            assert_eq!(cores.send_with(0, "P", 0, &[("_SYS_MSG_PRIORITY_", priority)], &[], body.as_bytes()).code, 0);
        };
        send(&mut cores, "0", "back");
        let fields = [("topic", "P"), ("maxMsgNums", "1")];
        assert_eq!(popped(&pop(&mut cores, 0, &[&fields[..], &[("invisibleTime", "1000")]].concat())).len(), 1);
        for _ in 0..3 {
            cores.now_ms += 1000;
            cores.run();
        }
        send(&mut cores, "6", "6");
        let bodies = [(); 2].map(|()| popped(&pop(&mut cores, 0, &fields)).remove(0).body);
        assert_eq!(bodies, expected);
    }
}

#[test]
fn a_priority_counts_only_if_nothing_else_decides_about_the_message() {
    let mut cores = Cores::new(2);
    for (other, queue_id, is_kept) in
        [(("a", "b"), "7", true), (("__SHARDINGKEY", "s"), "1", false), (("DELAY", "0"), "1", false)]
    {
        let sent = cores.send_with(0, "T", 1, &[("_SYS_MSG_PRIORITY_", "200"), other], &[], b"x");
        assert_eq!((sent.code, sent.ext("queueId")), (0, queue_id), "{}", sent.remark);
        let answer = pop(&mut cores, 0, &[("queueId", queue_id)]);
        let stored = record::iter(&answer.body).next().expect("a message").expect("a record");
        assert_eq!(properties::get(stored.properties, "_SYS_MSG_PRIORITY_").is_some(), is_kept);
    }
    for no_priority in ["-1", "x", ""] {
        let sent = cores.send_with(0, "T", 1, &[("_SYS_MSG_PRIORITY_", no_priority)], &[], b"x");
        assert_eq!((sent.code, sent.ext("queueId")), (0, "1"), "{no_priority}");
    }
}
