//! Delay levels, timers and their recall.

use std::time::{SystemTime, UNIX_EPOCH};

use rmq_tests::remoting::{Reply, Request};

use crate::script::{Script, property, request};

fn send(topic: &str, properties: &[(&str, &str)]) -> Request {
    let properties = properties.iter().map(|(key, value)| property(key, value));
    Request::send(topic, 0, &properties.collect::<String>(), b"body")
}

pub fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis()
}

pub fn levels(script: &mut Script) {
    const TOPIC: &str = "Delays";
    script.create_topic(TOPIC, 1, 6);
    script.step("level 0", &send(TOPIC, &[("UNIQ_KEY", "level-0"), ("DELAY", "0")]));
    script.step("level -1", &send(TOPIC, &[("UNIQ_KEY", "level--1"), ("DELAY", "-1")]));
    // One after the other, so that they come in this order.
    for (index, extra) in [("TAGS", "A"), ("TIMER_DELAY_MS", "86400000"), ("KEYS", "k")].into_iter().enumerate() {
        let name = format!("level 1, {}", extra.0);
        script.step(&name, &send(TOPIC, &[("UNIQ_KEY", &format!("level-1-{index}")), ("DELAY", "1"), extra]));
    }
    script.step("level 99", &send(TOPIC, &[("UNIQ_KEY", "level-99"), ("DELAY", "99")]));
    script.step("level of an unknown topic", &send("DelaysUnknown", &[("DELAY", "1")]).ext("c", "DelaysNoSuchTopic"));
    script.messages("delivered", TOPIC, 0, 5);
    script.step("level x", &send(TOPIC, &[("UNIQ_KEY", "level-x"), ("DELAY", "x")]));
}

pub fn timers(script: &mut Script) {
    const TOPIC: &str = "Timers";
    script.create_topic(TOPIC, 1, 6);
    let send = |properties: &[(&str, &str)]| send(TOPIC, properties);
    let four_days_ms = 4 * 86_400_000u128;
    script.step("beyond the maximum, ms", &send(&[("TIMER_DELAY_MS", &four_days_ms.to_string())]));
    script.step("beyond the maximum, s", &send(&[("TIMER_DELAY_SEC", &(four_days_ms / 1_000).to_string())]));
    script.step("beyond the maximum, at", &send(&[("TIMER_DELIVER_MS", &(now_ms() + four_days_ms).to_string())]));
    for key in ["TIMER_DELAY_MS", "TIMER_DELAY_SEC", "TIMER_DELIVER_MS"] {
        script.step(&format!("{key} is no number"), &send(&[(key, "x")]));
    }
    script.step("past", &send(&[("UNIQ_KEY", "past"), ("TIMER_DELIVER_MS", "1700000000000")]));
    script.step("negative", &send(&[("UNIQ_KEY", "negative"), ("TIMER_DELAY_MS", "-1")]));
    script.messages("delivered at once", TOPIC, 0, 2);
    // Whole seconds between them: they come in this order.
    let recalled = send(&[("UNIQ_KEY", "recalled"), ("TIMER_DELAY_SEC", "20")]);
    let recalled = handle(script, "recalled", &recalled);
    recalls(script, TOPIC, &recalled);
    script
        .step("in 2 s", &send(&[("UNIQ_KEY", "timer-sec"), ("TIMER_DELAY_SEC", "2"), ("TIMER_DELAY_MS", "86400000")]));
    script.step("in 4 s", &send(&[("UNIQ_KEY", "timer-ms"), ("TIMER_DELAY_MS", "4000"), ("TAGS", "A")]));
    let at = (now_ms() + 6_000).to_string();
    script.step("at", &send(&[("UNIQ_KEY", "timer-at"), ("TIMER_DELIVER_MS", &at)]));
    // Due after the recalled one: when it is there, that one will not come any more.
    let after = send(&[("UNIQ_KEY", "after"), ("TIMER_DELAY_SEC", "23")]);
    script.step("after the recalled one", &after);
    script.messages("delivered", TOPIC, 0, 6);
}

/// Sends a timer message whose handle is compared by its parts.
fn handle(script: &mut Script, name: &str, request: &Request) -> String {
    let reply: Reply = script.ask(request);
    assert_eq!(reply.code, 0, "{}", reply.remark);
    let handle = reply.ext.get("recallHandle").and_then(|handle| handle.as_str()).unwrap_or_default().to_owned();
    let decoded = String::from_utf8_lossy(&base64(&handle)).into_owned();
    let parts = decoded.split(' ').enumerate().map(|(index, part)| if index == 3 { "TIME" } else { part });
    script.observe(name, "handle", parts.collect::<Vec<_>>().join(" "));
    handle
}

fn recalls(script: &mut Script, topic: &str, handle: &str) {
    let recall = |topic: &str, handle: &str| {
        Request::new(request::RECALL_MESSAGE)
            .ext("producerGroup", "tests")
            .ext("topic", topic)
            .ext("recallHandle", handle)
    };
    let encoded = |text: &str| encode(text.as_bytes());
    let future = now_ms() + 60_000;
    script.step("recall junk", &recall(topic, "junk!"));
    script.step("recall nothing", &recall(topic, ""));
    script.step("recall without handle", &recall(topic, "").without("recallHandle"));
    script.step("recall a short handle", &recall(topic, &encoded("v1 Timers broker-a")));
    script.step("recall another version", &recall(topic, &encoded(&format!("v2 Timers broker-a {future} key"))));
    script.step("recall another topic", &recall(topic, &encoded(&format!("v1 Other broker-a {future} key"))));
    script.step("recall another broker", &recall(topic, &encoded(&format!("v1 Timers broker-b {future} key"))));
    script.step("recall what is past", &recall(topic, &encoded("v1 Timers broker-a 1700000000000 key")));
    let far = now_ms() + 4 * 86_400_000;
    script.step("recall what is too far", &recall(topic, &encoded(&format!("v1 Timers broker-a {far} key"))));
    script.step("recall no number", &recall(topic, &encoded("v1 Timers broker-a x key")));
    script.step(
        "recall of an unknown topic",
        &recall("TimersUnknown", &encoded(&format!("v1 TimersUnknown broker-a {future} key"))),
    );
    script.step("recall", &recall(topic, handle));
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// URL-safe Base64, as RocketMQ writes handles.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * index)) as usize & 63];
            text.push(if index <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

fn base64(text: &str) -> Vec<u8> {
    let digits = text.bytes().filter_map(|byte| DIGITS.iter().position(|digit| *digit == byte));
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for digit in digits {
        bits = bits << 6 | u32::try_from(digit).expect("below 64");
        count += 6;
        if 8 <= count {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    bytes
}

#[test]
fn base64_is_read_as_it_is_written() {
    assert_eq!(encode(b"v1 T"), "djEgVA==");
    for text in ["", "a", "ab", "abc", "v1 Timers broker-a 1700000000000 key"] {
        assert_eq!(base64(&encode(text.as_bytes())), text.as_bytes());
    }
}
