//! Offsets of groups and queues.

use rmq_tests::remoting::{Request, code};

use crate::script::{Script, request};

const TOPIC: &str = "Offsets";

pub fn run(script: &mut Script) {
    script.create_topic(TOPIC, 2, 6);
    script.fill(TOPIC, &["", "", ""]);
    groups(script);
    queues(script);
}

fn groups(script: &mut Script) {
    let query = |group: &str, topic: &str, queue_id: i32| {
        let query = Request::new(code::QUERY_CONSUMER_OFFSET).ext("consumerGroup", group);
        query.ext("topic", topic).ext("queueId", &queue_id.to_string())
    };
    let update = |offset: &str| {
        let update = Request::new(code::UPDATE_CONSUMER_OFFSET).ext("consumerGroup", "offsets_group");
        update.ext("topic", TOPIC).ext("queueId", "0").ext("commitOffset", offset)
    };
    script.step("new group", &query("offsets_new", TOPIC, 0));
    script.step("new group, empty queue", &query("offsets_new", TOPIC, 1));
    script.step("new group, not zero", &query("offsets_new", TOPIC, 0).ext("setZeroIfNotFound", "false"));
    script.step("new group, unknown queue", &query("offsets_new", TOPIC, 9));
    script.step("new group, unknown topic", &query("offsets_new", "OffsetsUnknown", 0));
    script.step("query without topic", &query("offsets_new", TOPIC, 0).without("topic"));
    script.step("update", &update("2"));
    script.step("updated", &query("offsets_group", TOPIC, 0));
    script.step("update to less", &update("1"));
    script.step("updated to less", &query("offsets_group", TOPIC, 0));
    script.step("update after the end", &update("100"));
    script.step("updated after the end", &query("offsets_group", TOPIC, 0));
    script.step("update below 0", &update("-5"));
    script.step("updated below 0", &query("offsets_group", TOPIC, 0));
    script.step("update of an unknown topic", &update("2").ext("topic", "OffsetsUnknown"));
    script.step("update of an unknown queue", &update("2").ext("queueId", "9"));
    script.step("update of a new group", &update("2").ext("consumerGroup", "offsets_new_by_update"));
    script.step("update without offset", &update("2").without("commitOffset"));
    script.step("update without queue", &update("2").without("queueId"));
    script.step("update to no number", &update("x"));
}

fn queues(script: &mut Script) {
    let ask = |code: i32, topic: &str, queue_id: &str| Request::new(code).ext("topic", topic).ext("queueId", queue_id);
    let codes = [
        ("max", code::GET_MAX_OFFSET),
        ("min", request::GET_MIN_OFFSET),
        ("earliest", request::GET_EARLIEST_MSG_STORETIME),
    ];
    for (name, code) in codes {
        script.step(name, &ask(code, TOPIC, "0"));
        script.step(&format!("{name} of an empty queue"), &ask(code, TOPIC, "1"));
        script.step(&format!("{name} of an unknown queue"), &ask(code, TOPIC, "9"));
        script.step(&format!("{name} of an unknown topic"), &ask(code, "OffsetsUnknown", "0"));
        script.step(&format!("{name} without queue"), &ask(code, TOPIC, "0").without("queueId"));
    }
    let search = |time: &str| ask(request::SEARCH_OFFSET_BY_TIMESTAMP, TOPIC, "0").ext("timestamp", time);
    for (name, time) in [("zero", "0"), ("below zero", "-1"), ("future", "9999999999999"), ("no number", "x")] {
        script.step(&format!("time {name}"), &search(time));
        script.step(&format!("time {name}, upper"), &search(time).ext("boundaryType", "UPPER"));
    }
    script.step("time, unknown topic", &search("0").ext("topic", "OffsetsUnknown"));
    script.step("time, empty queue", &search("9999999999999").ext("queueId", "1"));
    script.step("no time", &search("0").without("timestamp"));
}
