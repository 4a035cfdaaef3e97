//! Messages a consumer sends back: retry topics and dead letters.

use rmq_tests::remoting::{Record, Request, code};
use serde_json::json;

use crate::script::{Script, property, request};

const TOPIC: &str = "Retries";

fn back(record: &Record, group: &str, level: i32) -> Request {
    Request::new(request::CONSUMER_SEND_MSG_BACK)
        .ext("offset", &record.physical_offset.to_string())
        .ext("group", group)
        .ext("delayLevel", &level.to_string())
        .ext("originMsgId", "origin")
        .ext("originTopic", TOPIC)
        .ext("unitMode", "false")
}

pub fn run(script: &mut Script) {
    script.create_topic(TOPIC, 1, 6);
    let properties = property("UNIQ_KEY", "key-0") + &property("TAGS", "A");
    script.fill(TOPIC, &[&properties, &properties]);
    let stored = script.await_messages(TOPIC, 0, 2);
    let group = |name: &str, retries: i32| {
        let group = json!({"groupName": name, "retryMaxTimes": retries, "retryQueueNums": 1, "consumeEnable": true});
        Request::new(code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).body(group.to_string().as_bytes())
    };
    script.prepare(&group("retries_group", 16));
    script.prepare(&group("retries_once", 1));
    script.step("back in 1 s", &back(&stored[0], "retries_group", 1));
    let retried = script.messages("retried", "%RETRY%retries_group", 0, 1);
    script.step("back again", &back(&retried[0], "retries_group", 1));
    script.messages("retried again", "%RETRY%retries_group", 0, 2);
    script.step("back, level of the broker's choice", &back(&stored[0], "retries_group", 0));
    script.step("back to dead letters", &back(&stored[1], "retries_group", -1));
    script.messages("dead", "%DLQ%retries_group", 0, 1);
    script.step("back within the limit", &back(&stored[0], "retries_once", 1));
    let retried = script.messages("retried once", "%RETRY%retries_once", 0, 1);
    script.step("back beyond the limit", &back(&retried[0], "retries_once", 1));
    script.messages("dead after one retry", "%DLQ%retries_once", 0, 1);
    script.step("the consumer's limit", &back(&stored[0], "retries_group", 1).ext("maxReconsumeTimes", "0"));
    script.step("unknown group", &back(&stored[0], "bad group!", 1));
    let nowhere = |offset: &str| back(&stored[0], "retries_group", 1).ext("offset", offset);
    script.step("no message at the offset", &nowhere("9999999999"));
    script.step("offset below 0", &nowhere("-1"));
    script.step("offset is no number", &nowhere("x"));
    script.step("without offset", &nowhere("0").without("offset"));
    script.step("without group", &back(&stored[0], "retries_group", 1).without("group"));
    script.step("without level", &back(&stored[0], "retries_group", 1).without("delayLevel"));
    resent(script);
}

/// What orderly consumers do: they send to the retry topic themselves.
fn resent(script: &mut Script) {
    let send = |times: &str, properties: &[(&str, &str)]| {
        let properties: String = properties.iter().map(|(key, value)| property(key, value)).collect();
        let send = Request::send("%RETRY%retries_resent", 0, &properties, b"body").ext("a", "retries_resent");
        send.ext("j", times).ext("l", "2")
    };
    let group = json!({"groupName": "retries_resent", "retryMaxTimes": 16, "retryQueueNums": 1, "consumeEnable": true});
    script.prepare(&Request::new(code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).body(group.to_string().as_bytes()));
    let origin = [("UNIQ_KEY", "key-r"), ("RETRY_TOPIC", TOPIC), ("DELAY", "1")];
    script.step("resent", &send("1", &origin));
    script.messages("resent arrives", "%RETRY%retries_resent", 0, 1);
    script.step("resent too often", &send("3", &origin));
    script.messages("resent dies", "%DLQ%retries_resent", 0, 1);
}
