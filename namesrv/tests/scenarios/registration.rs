//! Brokers come, show signs of life, and go: 103, 104, 322, 904, expiry and closed connections.

use rmq_net::codes::request::{
    BROKER_HEARTBEAT, PUT_KV_CONFIG, QUERY_DATA_VERSION, REGISTER_BROKER, UNREGISTER_BROKER,
};
use rmq_net::connection::ConnectionId;
use rmq_net::frame::Frame;

use crate::world::{Ask, Broker, World};

const EMPTY: &str = r#"{"topicList":[]}"#;

#[test]
fn the_registration_of_an_apache_5_5_0_broker() {
    let mut world = World::new();
    let frame = include_bytes!("../golden/register_broker_5.5.0.bin");
    let out = world.feed(frame, 1);
    let reply = Frame::decode(&out).expect("reply");
    assert_eq!((reply.code, reply.body.len()), (0, 0));
    let route = world.route("TBW102").ok();
    assert_eq!(
        route,
        r#"{"brokerDatas":[{"brokerAddrs":{"0":"127.0.0.1:31911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":7,"readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8}]}"#
    );
    assert!(world.route("BenchmarkTest").ok().contains(r#""readQueueNums":1024"#));
}

#[test]
fn the_compressed_body_says_the_same_as_the_plain_one() {
    use std::io::Write;
    let mut plain = World::new();
    let broker = Broker::master("broker-a", "10.0.0.1:1");
    plain.register(&broker).ok();

    let mut inflated = Vec::new();
    let part = |inflated: &mut Vec<u8>, text: &str| {
        let size = u32::try_from(text.len()).expect("small").to_be_bytes();
        inflated.extend_from_slice(&size);
        inflated.extend_from_slice(text.as_bytes());
    };
    part(&mut inflated, &broker.data_version());
    inflated.extend_from_slice(&2_u32.to_be_bytes());
    part(&mut inflated, r#"T 4 4 6 SINGLE_TAG {"message.type":"FIFO"}"#);
    part(&mut inflated, "TBW102 8 8 7 SINGLE_TAG");
    part(&mut inflated, "[]");
    inflated.extend_from_slice(&0_u32.to_be_bytes());
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&inflated).expect("memory");
    let body = encoder.finish().expect("memory");
    let mut ask = broker.ask(REGISTER_BROKER).body(&body);
    ask.ext.push(("compressed", "true".to_owned())); // the last of two counts
    let mut world = World::new();
    world.send(&ask).ok();
    for topic in ["T", "TBW102"] {
        assert_eq!(world.route(topic).ok(), plain.route(topic).ok());
    }
}

#[test]
fn a_first_registration_with_one_topic_is_refused_and_leaves_nothing() {
    let mut world = World::new();
    let full = Broker::master("broker-a", "10.0.0.1:1");
    let one = Broker { topics: vec![("U", 1, 1, 6)], ..full.clone() };
    let refused = world.register(&one);
    assert_eq!(refused.code, 1);
    assert!(refused.remark.starts_with("register broker failed"), "{}", refused.remark);
    assert_eq!(world.topics(), EMPTY);

    let none = Broker { topics: Vec::new(), ..full.clone() };
    world.register(&none).ok();
    // Known now, so one topic is an increment.
    world.register(&Broker { version: 2, ..one }).ok();
    assert_eq!(world.topics(), r#"{"topicList":["U"]}"#);
    world.register(&Broker { version: 3, ..full }).ok();
    assert_eq!(world.topics(), r#"{"topicList":["T","TBW102","U"]}"#, "missing topics are kept");
}

#[test]
fn missing_topics_go_when_so_configured() {
    let mut world = World::with(|config| config.delete_topic_with_broker_registration = true);
    let mut broker = Broker::master("broker-a", "10.0.0.1:1");
    world.register(&broker).ok();
    broker.topics = vec![("T", 4, 4, 6), ("V", 4, 4, 6)];
    broker.version = 2;
    world.register(&broker).ok();
    assert_eq!(world.topics(), r#"{"topicList":["T","V"]}"#);
}

#[test]
fn only_masters_and_the_first_acting_slave_bring_topics() {
    let mut world = World::new();
    let old_slave = Broker { acting_master: None, ..Broker::slave("a", "10.0.0.2:1", 1) };
    world.register(&old_slave).ok();
    assert_eq!(world.topics(), EMPTY, "an old slave alone has no topics");
    let acting = Broker { acting_master: Some(true), ..Broker::slave("b", "10.0.0.3:1", 1) };
    world.register(&acting).ok();
    assert!(world.route("T").ok().contains(r#""perm":4"#), "without the write bit");
    let second = Broker { topics: vec![("X", 1, 1, 6), ("Y", 1, 1, 6)], ..Broker::slave("b", "10.0.0.4:1", 2) };
    world.register(&second).ok();
    assert_eq!(world.topics(), r#"{"topicList":["T","TBW102"]}"#);
}

#[test]
fn a_slave_learns_its_master_and_everyone_the_order_configuration() {
    let mut world = World::new();
    let slave = Broker::slave("broker-a", "10.0.0.2:1", 1);
    assert!(world.register(&slave).ext.is_empty(), "no master yet");
    let master = world.register(&Broker::master("broker-a", "10.0.0.1:1"));
    assert!(master.ext.is_empty() && master.body.is_empty());
    let put = [("namespace", "ORDER_TOPIC_CONFIG"), ("key", "T"), ("value", "broker-a:4")];
    world.ask(PUT_KV_CONFIG, &put).ok();
    let answer = world.register(&slave);
    assert_eq!(answer.ext["masterAddr"], "10.0.0.1:1");
    assert_eq!(answer.ext["haServerAddr"], "ha-10.0.0.1:1");
    assert_eq!(answer.ok(), r#"{"table":{"T":"broker-a:4"}}"#);
}

#[test]
fn a_role_switch_moves_the_address_to_its_new_id() {
    let mut world = World::new();
    world.register(&Broker::slave("broker-a", "10.0.0.2:1", 1)).ok();
    world.register(&Broker::master("broker-a", "10.0.0.2:1")).ok();
    let route = world.route("T").ok();
    assert!(route.contains(r#""brokerAddrs":{"0":"10.0.0.2:1"}"#), "{route}");
}

#[test]
fn a_renamed_broker_leaves_its_old_name() {
    let mut world = World::new();
    world.register(&Broker::master("old", "10.0.0.1:1")).ok();
    world.register(&Broker::master("new", "10.0.0.1:1")).ok();
    let route = world.route("T").ok();
    assert!(route.contains("new") && !route.contains("old"), "{route}");
    let late = Broker::master("old", "10.0.0.1:1");
    world.send(&late.ask(UNREGISTER_BROKER)).ok();
    assert_eq!(world.route("T").ok(), route);
}

#[test]
fn an_older_state_version_cannot_take_a_live_id() {
    let mut world = World::new();
    let elected = Broker { state_version: 5, ..Broker::master("broker-a", "10.0.0.1:1") };
    world.register(&elected).ok();
    let outdated = Broker { state_version: 4, connection: 2, ..Broker::master("broker-a", "10.0.0.2:1") };
    let answer = world.register(&outdated);
    assert!(answer.ext.is_empty());
    answer.ok();
    assert!(world.route("T").ok().contains("10.0.0.1:1"));
    let newer = Broker { state_version: 6, ..outdated };
    world.register(&newer).ok();
    assert!(world.route("T").ok().contains("10.0.0.2:1"));
    world.server.on_closed(ConnectionId::from_key(1)); // the old master's connection
    assert!(world.route("T").ok().contains("10.0.0.2:1"), "its id has a new holder");
}

#[test]
fn the_checksum_of_the_body_is_compared_when_given() {
    let mut world = World::new();
    let broker = Broker::master("broker-a", "10.0.0.1:1");
    let body = broker.body();
    let crc = crc32fast::hash(body.as_bytes()) & 0x7FFF_FFFF;
    for (given, expected) in [(crc ^ 1, 1), (crc, 0), (0, 0)] {
        let mut ask = broker.ask(REGISTER_BROKER).body(body.as_bytes());
        ask.ext.push(("bodyCrc32", given.to_string()));
        let answer = world.send(&ask);
        assert_eq!(answer.code, expected, "{answer:?}");
        if expected == 1 {
            assert_eq!(answer.remark, "crc32 not match");
        }
    }
}

#[test]
fn unregistering_the_last_address_removes_the_topics() {
    let mut world = World::new();
    let master = Broker::master("broker-a", "10.0.0.1:1");
    let slave = Broker::slave("broker-a", "10.0.0.2:1", 1);
    world.register(&master).ok();
    world.register(&slave).ok();
    world.send(&master.ask(UNREGISTER_BROKER)).ok();
    let route = world.route("T").ok();
    assert!(route.contains(r#"{"1":"10.0.0.2:1"}"#) && route.contains(r#""perm":6"#), "{route}");
    world.send(&slave.ask(UNREGISTER_BROKER)).ok();
    assert_eq!(world.topics(), EMPTY);
    world.send(&slave.ask(UNREGISTER_BROKER)).ok(); // again: nothing to do
}

#[test]
fn silence_removes_a_broker_and_closes_its_connection() {
    let mut world = World::new();
    world.register(&Broker::master("broker-a", "10.0.0.1:1")).ok();
    let quick = Broker {
        timeout_ms: Some(10_000),
        connection: 2,
        topics: vec![("Q", 1, 1, 6), ("R", 1, 1, 6)],
        ..Broker::master("broker-b", "10.0.0.2:1")
    };
    world.register(&quick).ok();
    world.pass(10_000);
    assert!(world.topics().contains("\"Q\""), "silent for exactly its timeout");
    world.pass(5_000);
    assert!(!world.topics().contains("\"Q\""));
    assert_eq!(world.server.take_closes(), [ConnectionId::from_key(2)]);
    world.server.on_closed(ConnectionId::from_key(2));
    world.pass(105_000);
    assert!(world.topics().contains("\"T\""), "120 s is the default");
    world.pass(5_000);
    assert_eq!(world.topics(), EMPTY);
    assert_eq!(world.server.take_closes(), [ConnectionId::from_key(1)]);
}

#[test]
fn every_kind_of_heartbeat_keeps_a_broker() {
    for code in [BROKER_HEARTBEAT, QUERY_DATA_VERSION, REGISTER_BROKER] {
        let mut world = World::new();
        let broker = Broker { timeout_ms: Some(10_000), ..Broker::master("broker-a", "10.0.0.1:1") };
        world.register(&broker).ok();
        let (data_version, full) = (broker.data_version(), broker.body());
        for _ in 0..10 {
            world.pass(8_000);
            let body = match code {
                QUERY_DATA_VERSION => data_version.as_bytes(),
                REGISTER_BROKER => full.as_bytes(),
                _ => b"",
            };
            assert_eq!(world.send(&broker.ask(code).body(body)).code, 0);
        }
        world.route("T").ok();
    }
}

#[test]
fn the_data_version_query_says_whether_to_register() {
    let mut world = World::new();
    let broker = Broker::master("broker-a", "10.0.0.1:1");
    let changed = Broker { version: 2, ..broker.clone() };
    let ask = |world: &mut World, broker: &Broker<'_>| {
        let version = broker.data_version();
        world.send(&broker.ask(QUERY_DATA_VERSION).body(version.as_bytes()))
    };
    let unknown = ask(&mut world, &broker);
    assert_eq!((unknown.ext["changed"].as_str(), unknown.body.as_str()), ("true", ""));
    world.register(&broker).ok();
    let same = ask(&mut world, &broker);
    assert_eq!(same.ext["changed"], "false");
    assert_eq!(same.body, broker.data_version());
    let none = world.send(&broker.ask(QUERY_DATA_VERSION));
    assert_eq!(none.ext["changed"], "true", "a query without a version");
    let newer = ask(&mut world, &changed);
    assert_eq!(newer.ext["changed"], "true");
    assert_eq!(newer.body, broker.data_version(), "what the name server has");
}

#[test]
fn a_oneway_request_acts_but_is_not_answered() {
    let mut world = World::new();
    let broker = Broker { timeout_ms: Some(10_000), ..Broker::master("broker-a", "10.0.0.1:1") };
    world.register(&broker).ok();
    let version = broker.data_version();
    for _ in 0..3 {
        world.pass(8_000);
        let mut ask = broker.ask(QUERY_DATA_VERSION).body(version.as_bytes());
        ask.is_oneway = true;
        assert!(world.feed(&ask.frame(), 1).is_empty());
    }
    world.route("T").ok();
    let mut unknown = Ask::new(4711, &[]);
    unknown.is_oneway = true;
    assert!(world.feed(&unknown.frame(), 1).is_empty());
}

#[test]
fn a_closed_connection_takes_all_its_brokers_and_only_those() {
    let mut world = World::new();
    for (name, addr, connection) in
        [("broker-a", "10.0.0.1:1", 7), ("broker-b", "10.0.0.2:1", 7), ("broker-c", "10.0.0.3:1", 8)]
    {
        world.register(&Broker { connection, ..Broker::master(name, addr) }).ok();
    }
    // broker-b has come again over another connection since.
    world.register(&Broker { connection: 9, ..Broker::master("broker-b", "10.0.0.2:1") }).ok();
    world.server.on_closed(ConnectionId::from_key(7));
    let route = world.route("T").ok();
    assert!(!route.contains("broker-a"), "{route}");
    assert!(route.contains("broker-b") && route.contains("broker-c"), "{route}");
    world.server.on_closed(ConnectionId::from_key(1234)); // a client's
    assert_eq!(world.route("T").ok(), route);
}

#[test]
fn members_are_told_when_their_smallest_id_changes() {
    for enabled in [false, true] {
        let mut world = World::with(|config| config.notify_min_broker_id_changed = enabled);
        for id in [1_i64, 2] {
            let addr = format!("10.0.0.{id}:1");
            let connection = 10 + id.unsigned_abs();
            let slave = Broker { connection, ..Broker::slave("broker-a", &addr, id) };
            world.register(&slave).ok();
        }
        assert!(world.server.take_pushes().is_empty(), "the first members are no change");
        world.register(&Broker { connection: 10, ..Broker::master("broker-a", "10.0.0.9:1") }).ok();
        let arrived = told(&mut world);
        world.server.on_closed(ConnectionId::from_key(10));
        let left = told(&mut world);
        if !enabled {
            assert!(arrived.is_empty() && left.is_empty());
            continue;
        }
        let ext = "brokerName=broker-a haBrokerAddr=ha-10.0.0.9:1 minBrokerAddr=10.0.0.9:1 minBrokerId=0";
        let expected = ["10.0.0.1:1", "10.0.0.2:1"].map(|addr| format!("{addr} {ext}"));
        assert_eq!(arrived, expected);
        let ext = "brokerName=broker-a minBrokerAddr=10.0.0.1:1 minBrokerId=1 offlineBrokerAddr=10.0.0.9:1";
        let expected = ["10.0.0.1:1", "10.0.0.2:1"].map(|addr| format!("{addr} {ext}"));
        assert_eq!(left, expected);
    }
}

/// The 905 frames that wait, as address and ext fields.
fn told(world: &mut World) -> Vec<String> {
    let pushes = world.server.take_pushes();
    let show = |push: rmq_namesrv::Push| {
        let frame = Frame::decode(&push.frame).expect("a frame");
        assert_eq!((frame.code, frame.is_oneway()), (905, true));
        let fields = frame.ext.iter().map(|(key, value)| format!("{}={}", key.to_cow(), value.to_cow()));
        format!("{} {}", push.broker_addr, fields.collect::<Vec<_>>().join(" "))
    };
    pushes.into_iter().map(show).collect()
}
