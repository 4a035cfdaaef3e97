//! Clients, locks, groups and topics.

use rmq_tests::remoting::{Request, code};
use serde_json::{Value, json};

use crate::script::{Script, create_topic, request};

const TOPIC: &str = "Admin";

pub fn run(script: &mut Script) {
    script.create_topic(TOPIC, 2, 6);
    clients(script);
    locks(script);
    groups(script);
    topics(script);
}

/// A consumer group of a heartbeat, in clustering mode, with one subscription of version 1.
pub fn consumer(group: &str, topic: &str, expression: &str) -> Value {
    let codes: Vec<i32> = expression.bytes().filter(u8::is_ascii_alphabetic).map(i32::from).collect();
    json!({
        "groupName": group, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
        "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "unitMode": false,
        "subscriptionDataSet": [{
            "classFilterMode": false, "topic": topic, "subString": expression, "expressionType": "TAG", "subVersion": 1,
            "tagsSet": expression.split("||").filter(|tag| *tag != "*").collect::<Vec<_>>(),
            "codeSet": if expression == "*" { Vec::new() } else { codes },
        }],
    })
}

pub fn heartbeat(client: &str, consumers: &[Value]) -> Request {
    let producers = json!([{ "groupName": "admin_producers" }]);
    let body = json!({ "clientID": client, "consumerDataSet": consumers, "producerDataSet": producers });
    Request::new(code::HEART_BEAT).body(body.to_string().as_bytes())
}

fn clients(script: &mut Script) {
    let list = |group: &str| Request::new(request::GET_CONSUMER_LIST_BY_GROUP).ext("consumerGroup", group);
    script.step("list of nobody", &list("admin_nobody"));
    script.step("heartbeat", &heartbeat("client-1", &[consumer("admin_group", TOPIC, "*")]));
    script.step("heartbeat of nothing", &Request::new(code::HEART_BEAT).body(b"{}"));
    script.step("heartbeat of junk", &Request::new(code::HEART_BEAT).body(b"{junk"));
    script.step("list", &list("admin_group"));
    let connections = Request::new(request::GET_CONSUMER_CONNECTION_LIST);
    script.step("connections", &connections.clone().ext("consumerGroup", "admin_group"));
    script.step("connections of nobody", &connections.ext("consumerGroup", "admin_nobody"));
    let producers = Request::new(request::GET_PRODUCER_CONNECTION_LIST);
    script.step("producers", &producers.clone().ext("producerGroup", "admin_producers"));
    script.step("producers of nobody", &producers.ext("producerGroup", "admin_nobody"));
    let leave = Request::new(request::UNREGISTER_CLIENT).ext("clientID", "client-1");
    script.step("leave", &leave.ext("consumerGroup", "admin_group"));
    script.step("list after that", &list("admin_group"));
}

fn locks(script: &mut Script) {
    let ask = |code: i32, client: &str, queues: &[i32]| {
        let queues =
            queues.iter().map(|queue_id| json!({"brokerName": "broker-a", "topic": TOPIC, "queueId": queue_id}));
        let queues: Vec<_> = queues.collect();
        let body =
            json!({"clientId": client, "consumerGroup": "admin_locks", "mqSet": queues, "onlyThisBroker": false});
        Request::new(code).body(body.to_string().as_bytes())
    };
    script.step("lock", &ask(request::LOCK_BATCH_MQ, "one", &[0]));
    script.step("lock again, and another", &ask(request::LOCK_BATCH_MQ, "one", &[0, 1]));
    script.step("lock what another has", &ask(request::LOCK_BATCH_MQ, "two", &[0, 1]));
    script.step("lock nothing", &ask(request::LOCK_BATCH_MQ, "two", &[]));
    script.step("lock an unknown queue", &ask(request::LOCK_BATCH_MQ, "two", &[99]));
    script.step("unlock what another has", &ask(request::UNLOCK_BATCH_MQ, "two", &[0]));
    script.step("still locked", &ask(request::LOCK_BATCH_MQ, "two", &[0]));
    script.step("unlock", &ask(request::UNLOCK_BATCH_MQ, "one", &[0]));
    script.step("lock what was unlocked", &ask(request::LOCK_BATCH_MQ, "two", &[0, 1]));
    script.step("lock without body", &Request::new(request::LOCK_BATCH_MQ));
    script.step("lock junk", &Request::new(request::LOCK_BATCH_MQ).body(b"{junk"));
}

fn groups(script: &mut Script) {
    let create =
        |group: Value| Request::new(code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).body(group.to_string().as_bytes());
    let get = |group: &str| Request::new(code::GET_SUBSCRIPTIONGROUP_CONFIG).ext("group", group);
    script.step(
        "create group",
        &create(json!({"groupName": "admin_created", "retryMaxTimes": 3, "consumeEnable": false})),
    );
    script.step("group", &get("admin_created"));
    script.step("unknown group", &get("bad group!"));
    script.step("create bad group", &create(json!({"groupName": "bad group!"})));
    let pull = Request::pull(TOPIC, 0, 0).ext("consumerGroup", "admin_created");
    script.step("pull of a group that may not", &pull);
    let delete = Request::new(request::DELETE_SUBSCRIPTIONGROUP);
    script.step("delete group", &delete.clone().ext("groupName", "admin_created").ext("cleanOffset", "true"));
    script.step("delete unknown group", &delete.ext("groupName", "admin_unknown").ext("cleanOffset", "true"));
}

fn topics(script: &mut Script) {
    let get = |topic: &str| Request::new(code::GET_TOPIC_CONFIG).ext("topic", topic);
    script.step("create topic", &create_topic("AdminCreated", 3, 6));
    script.step("topic", &get("AdminCreated"));
    script.step("change topic", &create_topic("AdminCreated", 5, 4));
    script.step("changed topic", &get("AdminCreated"));
    script.step("unknown topic", &get("AdminUnknown"));
    script.step("create bad topic", &create_topic("bad topic!", 3, 6));
    script.step("create system topic", &create_topic("SCHEDULE_TOPIC_XXXX", 3, 6));
    script.step("create topic without queues", &create_topic("AdminNoQueues", 0, 6));
    script.step("create topic with a bad permission", &create_topic("AdminBadPermission", 1, 100));
    let delete = |topic: &str| Request::new(request::DELETE_TOPIC_IN_BROKER).ext("topic", topic);
    script.step("delete topic", &delete("AdminCreated"));
    script.step("deleted topic", &get("AdminCreated"));
    script.step("delete unknown topic", &delete("AdminUnknown"));
    script.step("delete system topic", &delete("TBW102"));
    script.step("delete without topic", &delete("x").without("topic"));
}
