//! Input that no honest peer sends: an answer, never a panic, and the tables stay as they were.

use proptest::prelude::*;
use rmq_net::codes::request::{QUERY_DATA_VERSION, REGISTER_BROKER, REGISTER_TOPIC_IN_NAMESRV, UPDATE_NAMESRV_CONFIG};

use crate::world::{Ask, Broker, World};

const ALL_CODES: [i32; 24] = [
    100, 101, 102, 103, 104, 105, 106, 205, 206, 216, 217, 219, 224, 304, 311, 312, 313, 318, 319, 322, 327, 901, 904,
    905,
];

#[test]
fn an_unknown_code_is_named() {
    for code in [0, -1, 10, 905, 200_050] {
        let answer = World::new().ask(code, &[]);
        let remark = format!(" request type {code} not supported");
        assert_eq!(answer.refused(), (3, remark.as_str()));
    }
}

#[test]
fn fields_that_are_missing_or_no_number_are_named() {
    let mut world = World::new();
    let broker = Broker::master("broker-a", "10.0.0.1:1");
    for field in ["brokerAddr", "brokerId", "brokerName", "clusterName"] {
        let mut ask = broker.ask(REGISTER_BROKER);
        ask.ext.retain(|(key, _)| *key != field);
        let remark = format!("the request has no field {field}");
        assert_eq!(world.send(&ask).refused(), (1, remark.as_str()));
    }
    let mut ask = broker.ask(REGISTER_BROKER);
    ask.ext.retain(|(key, _)| *key != "brokerId");
    ask.ext.push(("brokerId", "zero".to_owned()));
    let expected = (1, "field brokerId is not an integer: zero");
    assert_eq!(world.send(&ask).refused(), expected);
}

#[test]
fn names_beyond_the_bound_are_refused() {
    let mut world = World::new();
    let long = "x".repeat(1025);
    let answer = world.register(&Broker::master(&long, "10.0.0.1:1"));
    let remark = "register broker failed: brokerName has 1025 bytes, more than 1024";
    assert_eq!(answer.refused(), (1, remark));
    let topics = vec![("T", 1, 1, 6), (long.as_str(), 1, 1, 6)];
    let answer = world.register(&Broker { topics, ..Broker::master("b", "10.0.0.1:1") });
    assert_eq!(answer.code, 1);
    assert_eq!(world.topics(), r#"{"topicList":[]}"#);
}

#[test]
fn a_response_is_not_answered() {
    let mut world = World::new();
    let mut frame = Vec::new();
    let json = rmq_net::frame::Serialization::Json;
    rmq_net::reply::FrameWriter::response(&mut frame, json, 0, 1, None, 0, |_| {});
    assert!(world.feed(&frame, 1).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn junk_fields_and_bodies_never_panic(
        junk in proptest::collection::vec(any::<u8>(), 0..120),
        json in "[{}\\[\\]\":,a-z0-9=\\\\-]{0,80}",
        value in "\\PC{0,20}|-?[0-9]{1,20}|true",
        is_compressed in any::<bool>(),
    ) {
        let mut world = World::new();
        world.register(&Broker::master("broker-a", "10.0.0.1:1")).ok();
        let keys = [
            "brokerAddr", "brokerId", "brokerName", "clusterName", "haServerAddr", "topic", "namespace",
            "key", "value", "cluster", "heartbeatTimeoutMillis", "bodyCrc32", "__ZONE_NAME",
        ];
        for code in ALL_CODES {
            for body in [junk.as_slice(), json.as_bytes()] {
                let mut ask = Ask::new(code, &[]).body(body).on(99);
                ask.ext.extend(keys.map(|key| (key, value.clone())));
                ask.ext.push(("compressed", is_compressed.to_string()));
                world.send(&ask); // asserts exactly one well-formed reply
            }
        }
        world.pass(1_000);
    }

    #[test]
    fn a_cut_body_is_refused_and_changes_nothing(cut in 1_usize..400) {
        let mut world = World::new();
        let broker = Broker::master("broker-a", "10.0.0.1:1");
        world.register(&broker).ok();
        let before = world.topics();
        let body = Broker { version: 2, topics: vec![("Z", 1, 1, 6); 3], ..broker.clone() }.body();
        let cut = body.len().saturating_sub(cut).max(1);
        for code in [REGISTER_BROKER, REGISTER_TOPIC_IN_NAMESRV, QUERY_DATA_VERSION] {
            let mut ask = broker.ask(code).body(&body.as_bytes()[..cut]);
            ask.ext.push(("topic", "Z".to_owned()));
            prop_assert_eq!(world.send(&ask).code, 1);
        }
        let not_text = Ask::new(UPDATE_NAMESRV_CONFIG, &[]).body(b"a=\xff");
        prop_assert_eq!(world.send(&not_text).code, 1);
        prop_assert_eq!(world.topics(), before);
    }
}
