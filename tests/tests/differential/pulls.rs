//! Pulling: every status, every refusal, tag filters, commits on the way.

use rmq_tests::remoting::{Request, code};
use serde_json::json;

use crate::admin::{consumer, heartbeat};
use crate::script::{Script, property, request};

const TOPIC: &str = "Pulls";

pub fn run(script: &mut Script) {
    script.create_topic(TOPIC, 2, 6);
    let tags: Vec<_> =
        (0..40).map(|index| property("UNIQ_KEY", &format!("key-{index}")) + &property("TAGS", tag(index))).collect();
    script.fill(TOPIC, &tags.iter().map(String::as_str).collect::<Vec<_>>());
    statuses(script);
    refusals(script);
    filters(script);
    subscribed(script);
}

fn tag(index: usize) -> &'static str {
    ["A", "B", "BB"][index % 3]
}

fn statuses(script: &mut Script) {
    let pull = |offset: i64| Request::pull(TOPIC, 0, offset);
    script.step("found", &pull(3).ext("maxMsgNums", "2"));
    script.step("found 32 at most", &pull(0).ext("maxMsgNums", "100"));
    script.step("the last", &pull(39));
    script.step("at the end", &pull(40));
    script.step("after the end", &pull(41));
    script.step("before the beginning", &pull(-1));
    script.step("empty queue", &Request::pull(TOPIC, 1, 0));
    script.step("empty queue, after its end", &Request::pull(TOPIC, 1, 5));
    script.step("no messages", &pull(0).ext("maxMsgNums", "0"));
    script.step("a negative number of messages", &pull(0).ext("maxMsgNums", "-1"));
    let lite = pull(0).ext("sysFlag", "20").ext("maxMsgNums", "1");
    script.step("lite", &lite.with_code(request::LITE_PULL_MESSAGE));
    let commit = pull(5).ext("sysFlag", "5").ext("commitOffset", "5").ext("maxMsgNums", "1");
    script.step("commit", &commit.ext("consumerGroup", "pulls_commit"));
    let query = Request::new(code::QUERY_CONSUMER_OFFSET).ext("consumerGroup", "pulls_commit").ext("topic", TOPIC);
    script.step("what was committed", &query.ext("queueId", "0"));
}

fn refusals(script: &mut Script) {
    let pull = || Request::pull(TOPIC, 0, 0).ext("maxMsgNums", "1");
    script.step("unknown topic", &Request::pull("PullsUnknown", 0, 0));
    for queue_id in [-1, 2, i32::MAX] {
        script.step(&format!("queue {queue_id}"), &Request::pull(TOPIC, queue_id, 0));
    }
    script.step("new group", &pull().ext("consumerGroup", "pulls_new"));
    script.step("bad group", &pull().ext("consumerGroup", "bad group!"));
    script.step("no group", &pull().without("consumerGroup"));
    script.step("no queue", &pull().without("queueId"));
    script.step("offset is no number", &pull().ext("queueOffset", "x"));
    script.step("no subscription", &pull().without("subscription"));
    script.create_topic("PullsWriteOnly", 1, 2);
    script.step("write only", &Request::pull("PullsWriteOnly", 0, 0));
}

fn filters(script: &mut Script) {
    let pull = |expression: &str| Request::pull(TOPIC, 0, 0).ext("maxMsgNums", "3").ext("subscription", expression);
    script.step("tag", &pull("B"));
    script.step("tags", &pull("A || BB"));
    script.step("tags and blanks", &pull(" ||  || B ||"));
    script.step("no such tag", &pull("C"));
    script.step("empty expression", &pull(""));
    script.step("unknown expression type", &pull("A").ext("expressionType", "XPATH"));
}

/// Pulls that rely on the subscription of a heartbeat.
fn subscribed(script: &mut Script) {
    let pull = || Request::pull(TOPIC, 0, 0).ext("sysFlag", "0").ext("maxMsgNums", "1").without("subscription");
    script.step("group not connected", &pull().ext("consumerGroup", "pulls_offline"));
    script.prepare(&heartbeat("pulls-client", &[consumer("pulls_online", TOPIC, "B")]));
    let online = || pull().ext("consumerGroup", "pulls_online");
    script.step("by subscription", &online().ext("subVersion", "1"));
    script.step("subscription not latest", &online().ext("subVersion", "9999999999999"));
    script.create_topic("PullsOther", 1, 6);
    script.step("other topic", &online().ext("topic", "PullsOther"));
    let forbid = Request::new(request::UPDATE_AND_GET_GROUP_FORBIDDEN).ext("group", "pulls_online").ext("topic", TOPIC);
    script.step("forbid", &forbid.clone().ext("readable", "false"));
    script.step("forbidden", &online().ext("subVersion", "1"));
    script.step("allow", &forbid.ext("readable", "true"));
    script.step("allowed", &online().ext("subVersion", "1"));
    broadcasting(script);
}

/// A group that may cluster, but not broadcast.
fn broadcasting(script: &mut Script) {
    const GROUP: &str = "pulls_no_broadcast";
    let group = json!({"groupName": GROUP, "consumeEnable": true, "consumeBroadcastEnable": false});
    script.prepare(&Request::new(code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).body(group.to_string().as_bytes()));
    let mut broadcaster = consumer(GROUP, TOPIC, "*");
    broadcaster["messageModel"] = "BROADCASTING".into();
    script.step("heartbeat of a broadcaster", &heartbeat("pulls-broadcaster", &[broadcaster]));
    let pull = Request::pull(TOPIC, 0, 0).ext("sysFlag", "0").ext("maxMsgNums", "1").without("subscription");
    script.step("broadcast forbidden", &pull.ext("consumerGroup", GROUP).ext("subVersion", "1"));
}
