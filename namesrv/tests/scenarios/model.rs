//! Any sequence of events: no finished answer is stale, and the tables agree with one another.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rmq_net::codes::request::{
    ADD_WRITE_PERM_OF_BROKER, BROKER_HEARTBEAT, DELETE_KV_CONFIG, DELETE_TOPIC_IN_NAMESRV, GET_BROKER_CLUSTER_INFO,
    GET_ROUTEINFO_BY_TOPIC, UNREGISTER_BROKER, WIPE_WRITE_PERM_OF_BROKER,
};
use rmq_net::connection::ConnectionId;
use serde_json::Value;

use crate::world::{Ask, Broker, World};

const NAMES: [&str; 3] = ["broker-a", "broker-b", "broker-c"];
const TOPICS: [&str; 4] = ["T", "U", "V", "W"];

#[derive(Debug, Clone)]
enum Event {
    Register {
        broker: usize,
        id: i64,
        /// The last digit of the address.
        addr: usize,
        topics: usize,
        version: i64,
        state_version: i64,
        acting_master: Option<bool>,
        timeout_ms: i64,
    },
    Unregister {
        broker: usize,
        id: i64,
        addr: usize,
    },
    Close {
        addr: usize,
    },
    Pass {
        seconds: i64,
    },
    Heartbeat {
        addr: usize,
    },
    Delete {
        topic: usize,
    },
    Wipe {
        broker: usize,
    },
    Add {
        broker: usize,
    },
}

fn event() -> impl Strategy<Value = Event> {
    let register = (
        0..3_usize,
        0..3_i64,
        0..5_usize,
        0..=4_usize,
        0..4_i64,
        0..2_i64,
        prop_oneof![Just(None), Just(Some(false)), Just(Some(true))],
        prop_oneof![Just(5_000_i64), Just(60_000)],
    );
    let register =
        register.prop_map(|(broker, id, addr, topics, version, state_version, acting_master, timeout_ms)| {
            Event::Register { broker, id, addr, topics, version, state_version, acting_master, timeout_ms }
        });
    prop_oneof![
        6 => register,
        1 => (0..3_usize, 0..3_i64, 0..5_usize)
            .prop_map(|(broker, id, addr)| Event::Unregister { broker, id, addr }),
        1 => (0..5_usize).prop_map(|addr| Event::Close { addr }),
        1 => (1..20_i64).prop_map(|seconds| Event::Pass { seconds }),
        1 => (0..5_usize).prop_map(|addr| Event::Heartbeat { addr }),
        1 => (0..4_usize).prop_map(|topic| Event::Delete { topic }),
        1 => (0..3_usize).prop_map(|broker| Event::Wipe { broker }),
        1 => (0..3_usize).prop_map(|broker| Event::Add { broker }),
    ]
}

fn address(digit: usize) -> String {
    format!("10.0.0.{digit}:1")
}

fn apply(world: &mut World, event: &Event) {
    match *event {
        Event::Register { broker, id, addr, topics, version, state_version, acting_master, timeout_ms } => {
            let topics = TOPICS.iter().take(topics);
            let host = address(addr);
            let broker = Broker {
                connection: addr as u64,
                topics: topics.map(|name| (*name, 4, 4, 6)).collect(),
                version,
                state_version,
                acting_master,
                timeout_ms: Some(timeout_ms),
                ..Broker::slave(NAMES[broker], &host, id)
            };
            world.register(&broker);
        }
        Event::Unregister { broker, id, addr } => {
            let addr = address(addr);
            let broker = Broker::slave(NAMES[broker], &addr, id);
            world.send(&broker.ask(UNREGISTER_BROKER)).ok();
        }
        Event::Close { addr } => world.server.on_closed(ConnectionId::from_key(addr as u64)),
        Event::Pass { seconds } => {
            world.pass(seconds * 1000);
            for peer in world.server.take_closes() {
                world.server.on_closed(peer);
            }
        }
        Event::Heartbeat { addr } => {
            let addr = address(addr);
            let broker = Broker::master(NAMES[0], &addr);
            world.send(&broker.ask(BROKER_HEARTBEAT)).ok();
        }
        Event::Delete { topic } => {
            world.ask(DELETE_TOPIC_IN_NAMESRV, &[("topic", TOPICS[topic])]).ok();
        }
        Event::Wipe { broker } => {
            world.ask(WIPE_WRITE_PERM_OF_BROKER, &[("brokerName", NAMES[broker])]).ok();
        }
        Event::Add { broker } => {
            world.ask(ADD_WRITE_PERM_OF_BROKER, &[("brokerName", NAMES[broker])]).ok();
        }
    }
}

fn routes(world: &mut World) -> Vec<(i32, String)> {
    let mut answers = Vec::new();
    for topic in TOPICS {
        for version in [317, 513] {
            let ask = Ask::new(GET_ROUTEINFO_BY_TOPIC, &[("topic", topic)]).version(version);
            let answer = world.send(&ask);
            answers.push((answer.code, answer.body));
        }
    }
    answers
}

fn names(list: &Value) -> BTreeSet<&str> {
    let items = list.as_array().expect("array").iter();
    items.map(|item| item["brokerName"].as_str().expect("name")).collect()
}

fn check_agreement(world: &mut World, routes: &[(i32, String)]) {
    let info = world.ask(GET_BROKER_CLUSTER_INFO, &[]).ok();
    assert!(!info.contains(r#""brokerAddrs":{}"#), "a broker without address: {info}");
    for (code, route) in routes.iter().skip(1).step_by(2).filter(|(code, _)| *code == 0) {
        let route: Value = serde_json::from_str(route).expect("standard JSON");
        assert_eq!(names(&route["brokerDatas"]), names(&route["queueDatas"]), "{code}");
        for name in names(&route["brokerDatas"]) {
            assert!(info.contains(&format!(r#""{name}":{{"brokerAddrs""#)), "{name} {info}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn finished_answers_are_never_stale(
        events in proptest::collection::vec(event(), 1..40),
        acting in any::<bool>(),
    ) {
        let mut world = World::with(|config| config.support_acting_master = acting);
        for event in &events {
            apply(&mut world, event);
            let finished = routes(&mut world);
            // After any KV request the server builds every answer anew.
            world.ask(DELETE_KV_CONFIG, &[("key", "k"), ("namespace", "n")]).ok();
            prop_assert_eq!(&routes(&mut world), &finished, "after {:?}", event);
            check_agreement(&mut world, &finished);
        }
        world.pass(200_000);
        let info = world.ask(GET_BROKER_CLUSTER_INFO, &[]).ok();
        prop_assert_eq!(info, r#"{"brokerAddrTable":{},"clusterAddrTable":{}}"#, "everyone fell silent");
        prop_assert_eq!(world.topics(), r#"{"topicList":[]}"#);
    }
}
