//! Half messages, commits and rollbacks.

use rmq_tests::remoting::{Reply, Request, code};
use serde_json::json;

use crate::delays::now_ms;
use crate::script::{Script, property, request};

const TOPIC: &str = "Transactions";

fn half(key: &str, extra: &str) -> Request {
    let properties = property("UNIQ_KEY", key)
        + &property("TRAN_MSG", "true")
        + &property("PGROUP", "tests")
        + &property("TAGS", "A")
        + extra;
    Request::send(TOPIC, 1, &properties, b"body").ext("f", "4").ext("h", "7")
}

/// END_TRANSACTION for the half message of this reply: 8 commits, 12 rolls back.
fn end(half: &Reply, kind: &str) -> Request {
    let id = half.ext["msgId"].as_str().expect("an id");
    let physical_offset = i64::from_str_radix(&id[id.len() - 16..], 16).expect("an offset in the id");
    Request::new(request::END_TRANSACTION)
        .ext("topic", TOPIC)
        .ext("producerGroup", "tests")
        .ext("tranStateTableOffset", half.ext["queueOffset"].as_str().expect("an offset"))
        .ext("commitLogOffset", &physical_offset.to_string())
        .ext("commitOrRollback", kind)
        .ext("fromTransactionCheck", "false")
        .ext("msgId", "key")
        .ext("transactionId", "key")
}

/// A topic whose queue 1 has a message already: a half message at the very begin of a log would have the offset 0, which
/// reads as none.
fn create_topic(script: &mut Script) {
    script.create_topic(TOPIC, 2, 6);
    script.prepare(&Request::send(TOPIC, 1, &property("UNIQ_KEY", "first"), b"first"));
}

pub fn run(script: &mut Script) {
    create_topic(script);
    let first = script.step("half", &half("key-0", ""));
    script.step("other group", &end(&first, "8").ext("producerGroup", "others"));
    script.step("other queue offset", &end(&first, "8").ext("tranStateTableOffset", "99"));
    script.step("no message there", &end(&first, "8").ext("commitLogOffset", "9999999999"));
    script.step("offset below 0", &end(&first, "8").ext("commitLogOffset", "-1"));
    script.step("no such end", &end(&first, "7"));
    script.step("end is no number", &end(&first, "x"));
    script.step("without group", &end(&first, "8").without("producerGroup"));
    script.step("without offset", &end(&first, "8").without("commitLogOffset"));
    script.step("commit", &end(&first, "8"));
    script.messages("committed", TOPIC, 1, 2);
    let other = script.prepare(&half("key-1", ""));
    script.step("commit with another topic", &end(&other, "8").ext("topic", "TransactionsOther"));
    let rolled_back = script.prepare(&half("key-2", ""));
    script.step("rollback", &end(&rolled_back, "12"));
    // Born in 2023: the time is over.
    let immune = script.prepare(&half("key-3", &property("CHECK_IMMUNITY_TIME_IN_SECONDS", "1")));
    script.step("immune no more", &end(&immune, "8"));
    script.step("half to an unknown queue", &half("key-4", "").ext("e", "9"));
    script.step("half without unique key", &half("key-5", "").ext("i", &property("TRAN_MSG", "true")));
    // The property decides, not the flag.
    script.step("flag without property", &half("key-6", "").ext("i", &property("UNIQ_KEY", "key-6")).ext("f", "4"));
    script.step("property without flag", &half("key-7", "").ext("f", "0"));
    script.messages("visible", TOPIC, 1, 3);
}

/// What a producer that was killed has left open, the broker asks another one of its group.
pub fn checks(script: &mut Script) {
    create_topic(script);
    let heartbeat = |client: &str| {
        let body = json!({"clientID": client, "consumerDataSet": [], "producerDataSet": [{"groupName": "tests"}]});
        Request::new(code::HEART_BEAT).body(body.to_string().as_bytes())
    };
    let (mut killed, mut other) = (script.connect(), script.connect());
    assert_eq!(killed.call(&heartbeat("killed")).code, 0);
    let half = killed.call(&half("key-0", "").ext("g", &now_ms().to_string()));
    assert_eq!(half.code, 0, "{}", half.remark);
    assert_eq!(other.call(&heartbeat("other")).code, 0);
    // The kernel does no more when a process is killed.
    drop(killed);
    let check = other.request_of_server();
    let field = |key: &str| check.ext[key].as_str().expect("a field of every check").to_owned();
    let place = |request: Request, key: &str| request.ext(key, &field(key));
    let commit =
        ["commitLogOffset", "tranStateTableOffset", "msgId", "transactionId"].into_iter().fold(end(&half, "8"), place);
    script.observe_request("check", &check);
    script.step("commit", &commit.ext("fromTransactionCheck", "true"));
    script.messages("committed", TOPIC, 1, 2);
}
