//! Pop, acknowledgements, invisible times.

use rmq_tests::remoting::{Record, Reply, Request, records};

use crate::script::{Script, property, request};

const TOPIC: &str = "Pops";
const GROUP: &str = "pops_group";

fn pop(topic: &str, group: &str) -> Request {
    Request::new(request::POP_MESSAGE)
        .ext("consumerGroup", group)
        .ext("topic", topic)
        .ext("queueId", "0")
        .ext("maxMsgNums", "3")
        .ext("invisibleTime", "60000")
        .ext("pollTime", "0")
        .ext("bornTime", "0")
        .ext("initMode", "0")
        .ext("expType", "TAG")
        .ext("exp", "*")
        .ext("order", "false")
}

/// The handle of a popped message, as clients build it.
fn handle(reply: &Reply, record: &Record) -> String {
    let field = |key: &str| reply.ext[key].as_str().expect("a field of every pop").to_owned();
    let (queue_id, offset) = (record.queue_id, record.queue_offset);
    let start = field("startOffsetInfo");
    let start = start.split(';').find_map(|entry| entry.strip_prefix(&format!("0 {queue_id} "))).expect("its queue");
    format!(
        "{start} {} {} {} 0 broker-a {queue_id} {offset}",
        field("popTime"),
        field("invisibleTime"),
        field("reviveQid")
    )
}

fn about(code: i32, record: &Record, handle: &str) -> Request {
    Request::new(code)
        .ext("consumerGroup", GROUP)
        .ext("topic", TOPIC)
        .ext("queueId", &record.queue_id.to_string())
        .ext("extraInfo", handle)
        .ext("offset", &record.queue_offset.to_string())
}

pub fn run(script: &mut Script) {
    script.create_topic(TOPIC, 2, 6);
    let messages: Vec<_> = (0..12)
        .map(|index| property("UNIQ_KEY", &format!("key-{index}")) + &property("TAGS", ["A", "B"][index % 2]))
        .collect();
    script.fill(TOPIC, &messages.iter().map(String::as_str).collect::<Vec<_>>());
    let first = script.step("pop", &pop(TOPIC, GROUP));
    refusals(script);
    acknowledgements(script, &first);
    others(script);
    returns(script);
}

fn refusals(script: &mut Script) {
    script.step("unknown topic", &pop("PopsUnknown", GROUP));
    script.step("bad group", &pop(TOPIC, "bad group!"));
    script.step("too many", &pop(TOPIC, GROUP).ext("maxMsgNums", "33"));
    for queue_id in ["2", "99"] {
        script.step(&format!("queue {queue_id}"), &pop(TOPIC, GROUP).ext("queueId", queue_id));
    }
    script.step("too late", &pop(TOPIC, GROUP).ext("bornTime", "1000"));
    script.step("bad expression", &pop(TOPIC, GROUP).ext("expType", "SQL92").ext("exp", "a >"));
    script.step("no number", &pop(TOPIC, GROUP).ext("maxMsgNums", "x"));
    script.step("without topic", &pop(TOPIC, GROUP).without("topic"));
    script.step("without invisible time", &pop(TOPIC, GROUP).without("invisibleTime"));
    script.step("empty queue", &pop(TOPIC, GROUP).ext("queueId", "1"));
    script.create_topic("PopsWriteOnly", 1, 2);
    script.step("write only", &pop("PopsWriteOnly", GROUP));
}

fn acknowledgements(script: &mut Script, first: &Reply) {
    let popped = records(&first.body);
    let good = handle(first, &popped[0]);
    let ack = |handle: &str| about(request::ACK_MESSAGE, &popped[0], handle);
    script.step("ack junk", &ack("junk"));
    script.step("ack nothing", &ack(""));
    script.step("ack no numbers", &ack("a b c d 0 broker-a 0 0"));
    script.step("ack without handle", &ack("").without("extraInfo"));
    script.step("ack of an unknown topic", &ack(&good).ext("topic", "PopsUnknown"));
    script.step("ack of an unknown queue", &ack(&good).ext("queueId", "9"));
    script.step("ack after the end", &ack(&good).ext("offset", "99"));
    script.step("ack below 0", &ack(&good).ext("offset", "-1"));
    script.step("ack", &ack(&good));
    script.step("ack again", &ack(&good));
    let second = handle(first, &popped[1]);
    let change = |handle: &str, time: &str| {
        about(request::CHANGE_MESSAGE_INVISIBLETIME, &popped[1], handle).ext("invisibleTime", time)
    };
    script.step("change junk", &change("junk", "60000"));
    script.step("change after the end", &change(&second, "60000").ext("offset", "99"));
    script.step("change of an unknown topic", &change(&second, "60000").ext("topic", "PopsUnknown"));
    script.step("change of an unknown queue", &change(&second, "60000").ext("queueId", "9"));
    script.step("change", &change(&second, "60000"));
    script.step("batch ack of nothing", &Request::new(request::BATCH_ACK_MESSAGE));
    script.step(
        "batch ack of an empty list",
        &Request::new(request::BATCH_ACK_MESSAGE).body(b"{\"acks\":[],\"brokerName\":\"broker-a\"}"),
    );
    script.step("batch ack of junk", &Request::new(request::BATCH_ACK_MESSAGE).body(b"{junk"));
    let parts: Vec<_> = handle(first, &popped[2]).split(' ').map(str::to_owned).collect();
    let body = format!(
        r#"{{"acks":[{{"b":"BA==","c":"{GROUP}","it":{},"pt":{},"q":0,"r":"0","rq":{},"so":{},"t":"{TOPIC}"}}],"brokerName":"broker-a"}}"#,
        parts[2], parts[1], parts[3], parts[0]
    );
    script.step("batch ack", &Request::new(request::BATCH_ACK_MESSAGE).body(body.as_bytes()));
}

fn others(script: &mut Script) {
    let about = |code: i32| {
        let about = Request::new(code).ext("consumerGroup", "pops_others").ext("topic", TOPIC).ext("queueId", "0");
        about.ext("maxMsgNums", "2").ext("pollTime", "0").ext("bornTime", "0")
    };
    script.step("notification", &about(request::NOTIFICATION));
    script.step("notification, empty queue", &about(request::NOTIFICATION).ext("queueId", "1"));
    script.step("notification of an unknown topic", &about(request::NOTIFICATION).ext("topic", "PopsUnknown"));
    script.step("polling info", &about(request::POLLING_INFO));
    script.step("polling info of an unknown topic", &about(request::POLLING_INFO).ext("topic", "PopsUnknown"));
    script.step("peek", &about(request::PEEK_MESSAGE));
    script.step("peek, empty queue", &about(request::PEEK_MESSAGE).ext("queueId", "1"));
    script.step("peek of an unknown topic", &about(request::PEEK_MESSAGE).ext("topic", "PopsUnknown"));
    script.step("peek of an unknown queue", &about(request::PEEK_MESSAGE).ext("queueId", "9"));
    script.step("pop by tag", &pop(TOPIC, "pops_by_tag").ext("exp", "B"));
    script.step("pop in order", &pop(TOPIC, "pops_in_order").ext("order", "true").ext("attemptId", "one"));
    script.step(
        "pop in order while that is out",
        &pop(TOPIC, "pops_in_order").ext("order", "true").ext("attemptId", "two"),
    );
    script.step(
        "pop in order, the same again",
        &pop(TOPIC, "pops_in_order").ext("order", "true").ext("attemptId", "one"),
    );
}

/// A message nobody acknowledged comes back.
fn returns(script: &mut Script) {
    script.create_topic("PopsReturns", 1, 6);
    script.fill("PopsReturns", &[&(property("UNIQ_KEY", "key-0") + &property("TAGS", "A"))]);
    let pop = pop("PopsReturns", "pops_returns").ext("invisibleTime", "1000").ext("queueId", "-1");
    let mut reply = script.step("pop for a second", &pop);
    script.await_condition(|script| {
        reply = script.ask(&pop.clone().ext("invisibleTime", "60000"));
        reply.code == 0
    });
    script.observe_reply("comes back", &reply);
}
