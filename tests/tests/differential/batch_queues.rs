//! Topics of `queue.type` BatchCQ. Apache's broker keeps a batch there as one record, which the client takes apart; what is
//! compared is the messages the client makes of it.

use rmq_tests::remoting::{Request, code};

use crate::script::{Script, create_topic, property, request};
use crate::sends::item;

const TOPIC: &str = "BatchQueues";

pub fn run(script: &mut Script) {
    script.step("create", &create_topic(TOPIC, 2, 6).ext("attributes", "+queue.type=BatchCQ"));
    script.step("topic", &Request::new(code::GET_TOPIC_CONFIG).ext("topic", TOPIC));
    bounds(script, "nothing", 0);
    let first = [
        item(b"one", &(property("UNIQ_KEY", "key-1") + &property("TAGS", "A"))),
        item(b"two", &(property("UNIQ_KEY", "key-2") + &property("TAGS", "B") + &property("KEYS", "common"))),
        item(b"three", ""),
    ]
    .concat();
    let second = [item(b"four", &property("UNIQ_KEY", "key-4")), item(b"five", &property("KEYS", "common"))].concat();
    script.step("batch", &batch(0, &first, "batch-1"));
    script.step("another batch", &batch(0, &second, "batch-2"));
    script.messages("stored", TOPIC, 0, 5);
    bounds(script, "five messages", 0);
    pulls(script);
    queries(script);
    let broken = batch(0, &first[..first.len() - 1], "batch-3");
    script.step("batch that ends in an item", &broken);
    refused(script);
    one_by_one(script, &second);
    let counted = batch(1, &second, "batch-4").with_code(code::SEND_MESSAGE_V2).ext("m", "false");
    let properties = property("UNIQ_KEY", "batch-4") + &property("INNER_NUM", "2");
    script.step("a batch sent as one message", &counted.ext("f", "192").ext("i", &properties));
}

fn batch(queue_id: i32, items: &[u8], unique_key: &str) -> Request {
    Request::batch(TOPIC, queue_id, items).ext("i", &property("UNIQ_KEY", unique_key))
}

fn bounds(script: &mut Script, of: &str, queue_id: i32) {
    let ask = |code: i32| Request::new(code).ext("topic", TOPIC).ext("queueId", &queue_id.to_string());
    script.step(&format!("min of {of}"), &ask(request::GET_MIN_OFFSET));
    script.step(&format!("max of {of}"), &ask(code::GET_MAX_OFFSET));
    let search = ask(request::SEARCH_OFFSET_BY_TIMESTAMP);
    script.step(&format!("begin of {of}"), &search.clone().ext("timestamp", "0"));
    script.step(&format!("end of {of}"), &search.ext("timestamp", "9999999999999"));
}

fn pulls(script: &mut Script) {
    let pull = |offset: i64| Request::pull(TOPIC, 0, offset);
    script.step("the second batch", &pull(3));
    script.step("in the first batch", &pull(1));
    script.step("the last message", &pull(4));
    script.step("two at most", &pull(0).ext("maxMsgNums", "2"));
    script.step("at the end", &pull(5));
    script.step("after the end", &pull(6));
    script.step("by tag", &pull(0).ext("subscription", "A"));
}

fn queries(script: &mut Script) {
    let query = |key: &str| {
        let query = Request::new(request::QUERY_MESSAGE).ext("topic", TOPIC).ext("key", key).ext("maxNum", "32");
        query.ext("beginTimestamp", "0").ext("endTimestamp", "9999999999999")
    };
    let unique = |key: &str| query(key).ext("_UNIQUE_KEY_QUERY", "true");
    // The index is built a little later than the queues are: of whole batches, or of the messages in them.
    script.await_condition(|script| ["batch-2", "key-4"].iter().any(|key| script.ask(&unique(key)).code == 0));
    script.step("by unique key of a batch", &unique("batch-1"));
    script.step("by unique key of a message", &unique("key-1"));
    script.step("by key of messages", &query("common"));
}

/// What says of itself that it is a batch must be one, and be sent to where batches are kept.
fn refused(script: &mut Script) {
    script.create_topic("BatchQueuesNot", 1, 6);
    let counted = property("INNER_NUM", "2");
    let send = |topic: &str, flag: &str| Request::send(topic, 0, &counted, b"body").ext("f", flag);
    script.step("a count without the flag", &send(TOPIC, "0"));
    script.step("a count in another topic", &send("BatchQueuesNot", "0"));
    script.step("count and flag in another topic", &send("BatchQueuesNot", "192"));
}

/// Messages of a batch without a unique key, and messages sent alone.
fn one_by_one(script: &mut Script, items: &[u8]) {
    script.step("batch without unique key", &Request::batch(TOPIC, 1, items));
    script.step("alone", &Request::send(TOPIC, 1, &property("UNIQ_KEY", "alone"), b"alone"));
    // What was sent before is in its queue when this is.
    script.create_topic("BatchQueuesEnd", 1, 6);
    script.fill("BatchQueuesEnd", &[""]);
    script.step("one by one", &Request::pull(TOPIC, 1, 0));
    bounds(script, "one by one", 1);
}
