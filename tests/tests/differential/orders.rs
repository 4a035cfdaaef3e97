//! Topics the name server knows to be ordered (`mqadmin updateOrderConf`), at a broker without write permission, which
//! refuses those only.

use rmq_tests::remoting::{Request, code};
use serde_json::Value;

use crate::script::{Script, property, request};

const TOPIC: &str = "Orders";

pub fn run(script: &mut Script) {
    script.create_topic(TOPIC, 2, 6);
    script.create_topic("OrdersLater", 2, 6);
    let route = Request::new(request::GET_ROUTEINFO_BY_TOPIC).ext("topic", TOPIC).ext("acceptStandardJsonOnly", "true");
    let send = Request::send(TOPIC, 0, &property("UNIQ_KEY", "key"), b"body");
    script.namesrv_step("no entry", &entry(request::GET_KV_CONFIG, TOPIC));
    script.step("send before that", &send);
    script.namesrv_step("put", &entry(request::PUT_KV_CONFIG, TOPIC).ext("value", "broker-a:2"));
    script.namesrv_step("entry", &entry(request::GET_KV_CONFIG, TOPIC));
    script.namesrv_step("entries", &entry(request::GET_KVLIST_BY_NAMESPACE, TOPIC));
    script.namesrv_step("route", &route);
    await_order(script, TOPIC);
    script.step("topic", &Request::new(code::GET_TOPIC_CONFIG).ext("topic", TOPIC));
    script.step("send", &send);
    script.step("batch", &send.clone().with_code(code::SEND_BATCH_MESSAGE).ext("m", "true"));
    script.step("pull", &Request::pull(TOPIC, 0, 0).ext("consumerGroup", "CID_RMQ_SYS_orders"));
    script.namesrv_step("delete", &entry(request::DELETE_KV_CONFIG, TOPIC));
    script.namesrv_step("no entry any more", &entry(request::GET_KV_CONFIG, TOPIC));
    script.namesrv_step("route after that", &route);
    // When the broker knows the next one, it knows that this one is not among them any more. It stays as it is.
    script.namesrv_step("put another", &entry(request::PUT_KV_CONFIG, "OrdersLater").ext("value", "broker-a:2"));
    await_order(script, "OrdersLater");
    script.step("topic after that", &Request::new(code::GET_TOPIC_CONFIG).ext("topic", TOPIC));
}

fn entry(code: i32, topic: &str) -> Request {
    Request::new(code).ext("namespace", "ORDER_TOPIC_CONFIG").ext("key", topic)
}

/// The broker learns from its next registration, within ten seconds, which topics are ordered.
fn await_order(script: &mut Script, topic: &str) {
    let get = Request::new(code::GET_TOPIC_CONFIG).ext("topic", topic);
    script.await_condition(|script| {
        let config = serde_json::from_slice::<Value>(&script.ask(&get).body);
        config.is_ok_and(|config| config["order"] == true)
    });
}
