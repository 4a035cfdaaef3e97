//! Messages by where they are, by key and by unique key.

use rmq_tests::remoting::{Request, records};

use crate::script::{Script, property, request};

pub fn by_id(script: &mut Script) {
    const TOPIC: &str = "QueriesById";
    script.create_topic(TOPIC, 1, 6);
    script.fill(TOPIC, &[&property("UNIQ_KEY", "key-0"), &property("UNIQ_KEY", "key-1")]);
    let stored = script.await_messages(TOPIC, 0, 2);
    let view = |offset: i64| Request::new(request::VIEW_MESSAGE_BY_ID).ext("offset", &offset.to_string());
    script.step("view", &view(stored[1].physical_offset));
    script.step("view after the end", &view(i64::MAX / 2));
    script.step("view below 0", &view(-1));
    script.step("view without offset", &view(0).without("offset"));
}

pub fn by_key(script: &mut Script) {
    const TOPIC: &str = "QueriesByKey";
    script.create_topic(TOPIC, 1, 6);
    let message = |index: usize| property("UNIQ_KEY", &format!("key-{index}")) + &property("KEYS", "common last");
    let messages: Vec<_> = (0..3).map(message).collect();
    script.fill(TOPIC, &messages.iter().map(String::as_str).collect::<Vec<_>>());
    let query = |key: &str| {
        let query = Request::new(request::QUERY_MESSAGE).ext("topic", TOPIC).ext("key", key).ext("maxNum", "32");
        query.ext("beginTimestamp", "0").ext("endTimestamp", "9999999999999")
    };
    let unique = |key: &str| query(key).ext("_UNIQUE_KEY_QUERY", "true");
    // Apache's index is built a little later than the queues are.
    script.await_condition(|script| records(&script.ask(&query("last")).body).len() == 3);
    script.step("by key", &query("common"));
    script.step("by key, two at most", &query("common").ext("maxNum", "2"));
    script.step("by key, none", &query("common").ext("maxNum", "0"));
    script.step("by unique key", &unique("key-1"));
    script.step("unknown key", &query("unknown"));
    script.step("unknown unique key", &unique("unknown"));
    script.step("unknown topic", &query("common").ext("topic", "QueriesUnknown"));
    script.step("before there were any", &query("common").ext("endTimestamp", "1"));
    script.step("without key", &query("common").without("key"));
    script.step("without time", &query("common").without("endTimestamp"));
}
