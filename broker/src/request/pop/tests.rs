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

fn info<'a>(text: &'a str, mark: Mark, queue_id: i32) -> &'a str {
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
