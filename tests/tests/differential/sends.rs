//! Sending: good and bad messages, batches, oneway.

use rmq_tests::remoting::Request;

use crate::script::{Script, property};

const TOPIC: &str = "Sends";

pub fn run(script: &mut Script) {
    script.create_topic(TOPIC, 1, 6);
    good(script);
    bad(script);
    topics(script);
    batches(script);
    // What one broker stores and the other does not moves the offsets after it: last.
    let send = || Request::send("SendsLast", 0, &property("UNIQ_KEY", "key-1"), b"body");
    script.create_topic("SendsLast", 1, 6);
    script.step("no group", &send().without("a"));
    script.step("no default topic", &send().without("c"));
}

fn good(script: &mut Script) {
    let send = |properties: &str| Request::send(TOPIC, 0, properties, b"body");
    let key = property("UNIQ_KEY", "key-1");
    script.step("plain", &send(&key));
    script.step("long names", &Request::send_v1(TOPIC, 0, &key, b"body"));
    script.step("any queue", &Request::send(TOPIC, -1, &key, b"body"));
    script.step("no unique key", &send(""));
    script.step("no end of the last property", &send("UNIQ_KEY\u{1}key-1\u{2}a\u{1}1"));
    script.step("a property twice", &send(&(key.clone() + &property("a", "1") + &property("a", "2"))));
    script.step("broken properties", &send(&format!("{key}nothing\u{2}\u{1}no name\u{2}no value\u{1}\u{2}")));
    script.step("reserved properties", &send(&(key.clone() + &property("POP_CK", "x") + &property("CLUSTER", "x"))));
    script.step("tags and keys", &send(&(key.clone() + &property("TAGS", "A") + &property("KEYS", "a b"))));
    script.step("flags", &send(&key).ext("h", "7").ext("f", "769").ext("j", "3"));
    script.step("no wait", &send(&(key.clone() + &property("WAIT", "false"))));
    script.oneway(send(&property("UNIQ_KEY", "oneway")));
    script.messages("stored", TOPIC, 0, 12);
}

fn bad(script: &mut Script) {
    let send = |body: &[u8]| Request::send(TOPIC, 0, "", body);
    script.step("empty body", &send(b""));
    script.step("body too large", &send(&vec![b'x'; 4 * 1024 * 1024 + 1]));
    script.step("largest body", &send(&vec![b'x'; 4 * 1024 * 1024]));
    let long = property("a", &"x".repeat(32_768));
    script.step("properties too long", &Request::send(TOPIC, 0, &long, b"body"));
    script.step("no topic", &send(b"body").without("b"));
    script.step("no queue", &send(b"body").without("e"));
    script.step("queue is no number", &send(b"body").ext("e", "x"));
    script.step("born is no number", &send(b"body").ext("g", "x"));
    script.step("no properties", &send(b"body").without("i"));
    for queue_id in [1, 99, i32::MAX] {
        script.step(&format!("queue {queue_id}"), &Request::send(TOPIC, queue_id, "", b"body"));
    }
}

fn topics(script: &mut Script) {
    let send = |topic: &str| Request::send(topic, 0, &property("UNIQ_KEY", "key-1"), b"body");
    script.step("topic of blanks", &send("  "));
    script.step("topic with a bad character", &send("bad topic!"));
    script.step("topic of 127 characters", &send(&"t".repeat(127)));
    script.step("topic of 128 characters", &send(&"t".repeat(128)));
    for topic in ["SCHEDULE_TOPIC_XXXX", "RMQ_SYS_TRANS_HALF_TOPIC", "TBW102", "SELF_TEST_TOPIC"] {
        script.step(&format!("to {topic}"), &send(topic));
    }
    script.step("created", &send("SendsCreated"));
    script.step("created with 8 queues", &Request::send("SendsCreated8", 7, "", b"body").ext("d", "8"));
    script.step("created with 100 queues", &Request::send("SendsCreated100", 8, "", b"body").ext("d", "100"));
    script.step("default topic is unknown", &send("SendsUnknown").ext("c", "SendsNoSuchTopic"));
    script.step("default topic does not pass on", &send("SendsUnknown").ext("c", TOPIC));
    script.step("to a retry topic of nobody", &send("%RETRY%sends_nobody"));
    script.create_topic("SendsReadOnly", 1, 4);
    script.step("read only", &send("SendsReadOnly"));
    script.create_topic("SendsWriteOnly", 1, 2);
    script.step("write only", &send("SendsWriteOnly"));
}

fn batches(script: &mut Script) {
    const TOPIC: &str = "SendsBatch";
    script.create_topic(TOPIC, 1, 6);
    let items = [item(b"a", &property("UNIQ_KEY", "key-a")), item(b"bc", "")].concat();
    script.step("batch", &Request::batch(TOPIC, 0, &items).ext("i", &property("UNIQ_KEY", "key-batch")));
    script.step("batch without unique key", &Request::batch(TOPIC, 0, &items));
    script.step("batch by flag of 310", &Request::send(TOPIC, 0, "", &items).ext("m", "true"));
    script.step("batch of nothing", &Request::batch(TOPIC, 0, b""));
    script.step("batch to a retry topic", &Request::batch("%RETRY%sends_batch", 0, &items));
    script.step("batch with a delay", &Request::batch(TOPIC, 0, &items).ext("i", &property("DELAY", "1")));
    script.step("batch of half messages", &Request::batch(TOPIC, 0, &items).ext("f", "4"));
    broken_batches(script, &items);
    script.messages("batch stored", TOPIC, 0, 6);
}

/// Bodies that are no batch: nothing of them may be stored.
fn broken_batches(script: &mut Script, items: &[u8]) {
    let batch = |body: &[u8]| Request::batch("SendsBatch", 0, body);
    let with = |at: usize, number: u32| {
        let mut body = items.to_vec();
        body[at..at + 4].copy_from_slice(&number.to_be_bytes());
        body
    };
    script.step("batch that ends in an item", &batch(&items[..items.len() - 1]));
    script.step("batch that ends in a length", &batch(&items[..2]));
    script.step("batch with a body beyond its end", &batch(&with(16, 1_000)));
    script.step("batch with a body of a negative length", &batch(&with(16, u32::MAX)));
    let mut properties_beyond = item(b"a", "");
    let length = properties_beyond.len();
    properties_beyond[length - 2..].copy_from_slice(&1_000u16.to_be_bytes());
    script.step("batch with properties beyond its end", &batch(&properties_beyond));
    script.step("batch of text", &batch(b"no batch, but long enough to be one"));
}

/// A message of a batch.
pub fn item(body: &[u8], properties: &str) -> Vec<u8> {
    let total = u32::try_from(22 + body.len() + properties.len()).expect("a short item");
    let mut item = total.to_be_bytes().to_vec();
    item.extend([0; 12]);
    item.extend(u32::try_from(body.len()).expect("a short body").to_be_bytes());
    item.extend(body);
    item.extend(u16::try_from(properties.len()).expect("short properties").to_be_bytes());
    item.extend(properties.as_bytes());
    item
}
