//! Pulls with SQL92 filters, through the cores of a broker.

use rmq_engine::Record;
use rmq_net::codes::request as code;

use crate::testing::{Cores, Sent};

/// What may differ from a pull of 32 messages at once, with an expression of its own.
#[derive(Clone, Copy)]
struct Pull<'a> {
    code: i32,
    topic: &'a str,
    offset: i64,
    expression: Option<&'a str>,
    hold_ms: i64,
}

const PULL: Pull<'static> = Pull { code: code::PULL_MESSAGE, topic: "T", offset: 0, expression: None, hold_ms: 0 };

impl Pull<'_> {
    fn post(&self, cores: &mut Cores) -> i32 {
        let flags = i32::from(self.hold_ms > 0) << 1 | i32::from(self.expression.is_some()) << 2;
        let (offset, hold_ms, flags) = (self.offset.to_string(), self.hold_ms.to_string(), flags.to_string());
        let ext = [
            ("commitOffset", "0"),
            ("consumerGroup", "g"),
            ("expressionType", "SQL92"),
            ("maxMsgNums", "32"),
            ("queueId", "0"),
            ("queueOffset", &offset),
            ("subVersion", "0"),
            ("subscription", self.expression.unwrap_or_default()),
            ("suspendTimeoutMillis", &hold_ms),
            ("sysFlag", &flags),
            ("topic", self.topic),
        ];
        cores.post(1, self.code, &ext, b"")
    }

    fn call(&self, cores: &mut Cores) -> Sent {
        let opaque = self.post(cores);
        answer_to(cores, opaque).expect("the pull is answered at once")
    }
}

fn answer_to(cores: &mut Cores, opaque: i32) -> Option<Sent> {
    let mut answers = cores.answers_to(opaque);
    assert!(answers.len() <= 1, "{answers:?}");
    answers.pop()
}

/// A broker with the setting on, and messages with the prices in one queue.
fn broker_with(topic: &str, prices: impl IntoIterator<Item = u32>) -> Cores {
    let mut cores = Cores::with_config(2, &[("enablePropertyFilter", "true")]);
    send(&mut cores, topic, prices);
    cores
}

fn send(cores: &mut Cores, topic: &str, prices: impl IntoIterator<Item = u32>) {
    for price in prices {
        let sent = cores.send(0, topic, 0, &[("price", &price.to_string())]);
        assert_eq!(sent.code, 0, "{}", sent.remark);
    }
}

fn offsets(answer: &Sent) -> Vec<i64> {
    let mut rest = &answer.body[..];
    let mut offsets = Vec::new();
    while !rest.is_empty() {
        let record = Record::decode(rest).expect("a record");
        offsets.push(record.queue_offset);
        rest = &rest[record.size_bytes as usize..];
    }
    offsets
}

fn subscribe(cores: &mut Cores, expression: &str) {
    let json = format!(
        r#"{{"clientID":"c","consumerDataSet":[{{"groupName":"g","consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING",
        "subscriptionDataSet":[{{"topic":"T","subString":"{expression}","expressionType":"SQL92","subVersion":1}},
        {{"topic":"%RETRY%g","subString":"*","expressionType":"TAG","subVersion":1}}]}}]}}"#
    );
    assert_eq!(cores.call(0, code::HEART_BEAT, &[], json.as_bytes()).code, 0);
}

fn check_client(cores: &mut Cores, expression: &str) -> Sent {
    let json = format!(
        r#"{{"clientId":"c","group":"g","subscriptionData":{{"topic":"T","subString":"{expression}","expressionType":"SQL92"}}}}"#
    );
    cores.call(1, code::CHECK_CLIENT_CONFIG, &[], json.as_bytes())
}

#[test]
fn a_pull_gets_the_messages_its_expression_selects_and_moves_past_the_others() {
    let mut cores = broker_with("T", 0..100);
    for code in [code::PULL_MESSAGE, code::LITE_PULL_MESSAGE] {
        let pull = Pull { code, expression: Some("price BETWEEN 10 AND 12 OR price = 97"), ..PULL };
        let answer = pull.call(&mut cores);
        assert_eq!((answer.code, offsets(&answer)), (0, vec![10, 11, 12, 97]));
        assert_eq!(answer.ext("nextBeginOffset"), "100");
        let answer = Pull { expression: Some("price > 9"), ..pull }.call(&mut cores);
        assert_eq!((offsets(&answer), answer.ext("nextBeginOffset")), ((10..42).collect(), "42"));
        // The first compares texts, the second a property that no message has.
        for expression in ["price = 'x'", "cost > 1"] {
            let answer = Pull { expression: Some(expression), ..pull }.call(&mut cores);
            assert_eq!((answer.code, answer.remark.as_str()), (20, "NO_MATCHED_MESSAGE"));
            assert_eq!(answer.ext("nextBeginOffset"), "100");
        }
    }
}

#[test]
fn a_pull_without_a_match_examines_a_bounded_number_of_messages() {
    let mut cores = broker_with("T", 0..1000);
    let pull = Pull { expression: Some("price = 900"), ..PULL };
    let answer = pull.call(&mut cores);
    assert_eq!((answer.code, answer.ext("nextBeginOffset")), (20, "800"));
    let answer = Pull { offset: 800, ..pull }.call(&mut cores);
    assert_eq!((answer.code, offsets(&answer), answer.ext("nextBeginOffset")), (0, vec![900], "1000"));
}

#[test]
fn a_held_pull_is_answered_by_a_message_it_selects_and_by_no_other() {
    let mut cores = broker_with("T", [1]);
    let pull = Pull { expression: Some("price > 5"), hold_ms: 15_000, ..PULL };
    let held = pull.post(&mut cores);
    send(&mut cores, "T", [2, 3]);
    assert!(answer_to(&mut cores, held).is_none());
    send(&mut cores, "T", [6]);
    let answer = answer_to(&mut cores, held).expect("a message is selected");
    assert_eq!((answer.code, offsets(&answer), answer.ext("nextBeginOffset")), (0, vec![3], "4"));

    let held = Pull { offset: 4, ..pull }.post(&mut cores);
    send(&mut cores, "T", [1, 2]);
    assert!(answer_to(&mut cores, held).is_none());
    cores.now_ms += 15_000;
    cores.run();
    let answer = answer_to(&mut cores, held).expect("its time is up");
    assert_eq!((answer.code, answer.ext("nextBeginOffset")), (19, "6"), "behind what it does not select");
}

#[test]
fn a_groups_subscription_is_compiled_from_its_heartbeat() {
    let mut cores = broker_with("T", 0..100);
    assert_eq!(check_client(&mut cores, "price > 97").code, 0);
    subscribe(&mut cores, "price > 97");
    let answer = PULL.call(&mut cores);
    assert_eq!((answer.code, offsets(&answer)), (0, vec![98, 99]));
    // What comes back to the group was selected once already: its retry topic is subscribed by `*`.
    send(&mut cores, "%RETRY%g", [1]);
    let answer = Pull { topic: "%RETRY%g", ..PULL }.call(&mut cores);
    assert_eq!((answer.code, offsets(&answer)), (0, vec![0]));
}

#[test]
fn a_bad_expression_is_refused_with_the_place_of_its_fault() {
    let mut cores = broker_with("T", [1]);
    let (expression, place) = ("price > 1 OR (x", "character 16: ) is expected, not the end");
    let own = Pull { expression: Some(expression), ..PULL }.call(&mut cores);
    assert!(own.code == 23 && own.remark.contains(place), "{own:?}");
    let checked = check_client(&mut cores, expression);
    assert!(checked.code == 23 && checked.remark.contains(place), "{checked:?}");
    subscribe(&mut cores, expression);
    let by_group = PULL.call(&mut cores);
    assert!(by_group.code == 27 && by_group.remark.contains(place), "{by_group:?}");
}

#[test]
fn without_the_setting_expressions_are_refused_and_the_setting_is_named() {
    let mut cores = Cores::new(2);
    send(&mut cores, "T", [1]);
    subscribe(&mut cores, "price > 1");
    let own = Pull { expression: Some("price > 1"), ..PULL }.call(&mut cores);
    for answer in [own, PULL.call(&mut cores), check_client(&mut cores, "price > 1")] {
        assert_eq!(answer.code, 1);
        assert!(answer.remark.contains("by SQL92") && answer.remark.contains("enablePropertyFilter"), "{answer:?}");
    }
}
