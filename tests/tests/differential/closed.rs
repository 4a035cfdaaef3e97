//! A broker that makes neither topics nor groups by itself, and one without permissions.

use rmq_tests::remoting::{Request, code};
use serde_json::json;

use crate::admin::{consumer, heartbeat};
use crate::script::{Script, property, request};
use crate::sends::item;

const TOPIC: &str = "Closed";
const UNKNOWN: &str = "closed_unknown";

pub fn run(script: &mut Script) {
    script.create_topic(TOPIC, 1, 6);
    unknown_topics(script);
    unknown_groups(script);
    known_groups(script);
}

fn unknown_topics(script: &mut Script) {
    let send = |properties: &str| Request::send("ClosedUnknown", 0, properties, b"body");
    script.step("send", &send(&property("UNIQ_KEY", "key")));
    script.step("batch", &Request::batch("ClosedUnknown", 0, &item(b"a", "")));
    script.step("delay", &send(&property("DELAY", "1")));
    script.step("timer", &send(&property("TIMER_DELAY_MS", "1000")));
    script.step("half", &send(&property("TRAN_MSG", "true")).ext("f", "4"));
    script.step("to an unknown retry topic", &Request::send(&format!("%RETRY%{UNKNOWN}"), 0, "", b"body"));
    script.step("to unknown dead letters", &Request::send(&format!("%DLQ%{UNKNOWN}"), 0, "", b"body"));
    script.step("pull", &Request::pull("ClosedUnknown", 0, 0).ext("consumerGroup", "CID_RMQ_SYS_closed"));
}

fn unknown_groups(script: &mut Script) {
    let sent = script.prepare(&Request::send(TOPIC, 0, &property("UNIQ_KEY", "key"), b"body"));
    let id = sent.ext["msgId"].as_str().expect("an id");
    let offset = i64::from_str_radix(&id[id.len() - 16..], 16).expect("an offset in the id").to_string();
    let about = |code: i32| about(code, UNKNOWN, TOPIC);
    script.step("pull of a group", &Request::pull(TOPIC, 0, 0).ext("consumerGroup", UNKNOWN));
    script.step("pop", &pop(UNKNOWN, TOPIC));
    script.step("peek", &about(request::PEEK_MESSAGE));
    script.step("notification", &about(request::NOTIFICATION));
    script.step("polling info", &about(request::POLLING_INFO));
    script.step("offset", &about(code::QUERY_CONSUMER_OFFSET));
    script.step("commit", &about(code::UPDATE_CONSUMER_OFFSET).ext("commitOffset", "1"));
    script.step("send back", &back(UNKNOWN, TOPIC, &offset));
    let queue = json!({"brokerName": "broker-a", "topic": TOPIC, "queueId": 0});
    let lock = json!({"clientId": "one", "consumerGroup": UNKNOWN, "mqSet": [queue], "onlyThisBroker": false});
    script.step("lock", &Request::new(request::LOCK_BATCH_MQ).body(lock.to_string().as_bytes()));
    script.step("heartbeat", &heartbeat("closed-client", &[consumer(UNKNOWN, TOPIC, "*")]));
    script.step("members", &Request::new(request::GET_CONSUMER_LIST_BY_GROUP).ext("consumerGroup", UNKNOWN));
    script.step("group", &Request::new(code::GET_SUBSCRIPTIONGROUP_CONFIG).ext("group", UNKNOWN));
    script.step("retry topic", &Request::new(code::GET_TOPIC_CONFIG).ext("topic", &format!("%RETRY%{UNKNOWN}")));
}

/// Groups that exist, and those of the system, which are made all the same.
fn known_groups(script: &mut Script) {
    create_group(script, "closed_group");
    script.await_condition(|script| {
        let pull = Request::pull(TOPIC, 0, 0).ext("consumerGroup", "closed_group");
        !script.ask(&pull).body.is_empty()
    });
    script.step("pull of a known group", &Request::pull(TOPIC, 0, 0).ext("consumerGroup", "closed_group"));
    script.step("pull of a system group", &Request::pull(TOPIC, 0, 0).ext("consumerGroup", "CID_RMQ_SYS_closed"));
    script.step("heartbeat of a known group", &heartbeat("closed-member", &[consumer("closed_group", TOPIC, "*")]));
    script.step(
        "members of a known group",
        &Request::new(request::GET_CONSUMER_LIST_BY_GROUP).ext("consumerGroup", "closed_group"),
    );
    script.step("its retry topic", &Request::new(code::GET_TOPIC_CONFIG).ext("topic", "%RETRY%closed_group"));
}

/// A broker without read and write permission, and without transactions.
pub fn forbidden(script: &mut Script) {
    const TOPIC: &str = "Forbidden";
    script.create_topic(TOPIC, 1, 6);
    create_group(script, "forbidden_group");
    let key = property("UNIQ_KEY", "key");
    script.step("send", &Request::send(TOPIC, 0, &key, b"body"));
    script.step("half", &Request::send(TOPIC, 0, &(key + &property("TRAN_MSG", "true")), b"body").ext("f", "4"));
    let pull = Request::pull(TOPIC, 0, 0);
    script.step("pull", &pull);
    script.step("lite pull", &pull.ext("sysFlag", "20").with_code(request::LITE_PULL_MESSAGE));
    script.step("pop", &pop("forbidden_group", TOPIC));
    for (name, code) in [
        ("peek", request::PEEK_MESSAGE),
        ("notification", request::NOTIFICATION),
        ("polling info", request::POLLING_INFO),
        ("offset", code::QUERY_CONSUMER_OFFSET),
    ] {
        script.step(name, &about(code, "forbidden_group", TOPIC));
    }
    script.step("send back", &back("forbidden_group", TOPIC, "0"));
    let recall = Request::new(request::RECALL_MESSAGE).ext("producerGroup", "tests").ext("topic", TOPIC);
    script.step("recall", &recall.ext("recallHandle", "junk"));
}

fn create_group(script: &mut Script, name: &str) {
    let group = json!({"groupName": name, "consumeEnable": true});
    script.prepare(&Request::new(code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).body(group.to_string().as_bytes()));
}

fn about(code: i32, group: &str, topic: &str) -> Request {
    let about = Request::new(code).ext("consumerGroup", group).ext("topic", topic).ext("queueId", "0");
    about.ext("maxMsgNums", "1").ext("invisibleTime", "60000").ext("pollTime", "0").ext("bornTime", "0")
}

fn pop(group: &str, topic: &str) -> Request {
    let pop = about(request::POP_MESSAGE, group, topic).ext("initMode", "0").ext("order", "false");
    pop.ext("expType", "TAG").ext("exp", "*")
}

fn back(group: &str, topic: &str, offset: &str) -> Request {
    let back = Request::new(request::CONSUMER_SEND_MSG_BACK).ext("group", group).ext("offset", offset);
    back.ext("delayLevel", "1").ext("originMsgId", "origin").ext("originTopic", topic)
}
