//! GET_ROUTEINFO_BY_TOPIC (105).

use rmq_net::codes::request::{GET_ROUTEINFO_BY_TOPIC, PUT_KV_CONFIG, REGISTER_BROKER};
use rmq_net::frame::Serialization;

use crate::world::{Ask, Broker, World};

const STANDARD: &str = r#"{"brokerDatas":[{"brokerAddrs":{"0":"127.0.0.1:10911","1":"127.0.0.1:10921"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#;

fn master_and_slave() -> World {
    let mut world = World::new();
    world.register(&Broker::master("broker-a", "127.0.0.1:10911")).ok();
    world.register(&Broker::slave("broker-a", "127.0.0.1:10921", 1)).ok();
    world
}

#[test]
fn keys_are_quoted_from_version_401_on_or_when_asked_for() {
    let mut world = master_and_slave();
    let legacy = STANDARD.replace(r#""0":"#, "0:").replace(r#""1":"#, "1:");
    let table = [
        (513, None, STANDARD),
        (401, None, STANDARD),
        (400, None, legacy.as_str()),
        (317, None, legacy.as_str()),
        (317, Some("true"), STANDARD),
        (317, Some("false"), legacy.as_str()),
    ];
    for (version, standard_only, expected) in table {
        let mut ask = Ask::new(GET_ROUTEINFO_BY_TOPIC, &[("topic", "T")]).version(version);
        ask.ext.extend(standard_only.map(|flag| ("acceptStandardJsonOnly", flag.to_owned())));
        for _ in 0..2 {
            // The second answer comes from the finished bytes.
            assert_eq!(world.send(&ask).ok(), expected, "version {version} {standard_only:?}");
        }
    }
}

#[test]
fn a_binary_request_gets_a_binary_reply() {
    let mut world = master_and_slave();
    let mut ask = Ask::new(GET_ROUTEINFO_BY_TOPIC, &[("topic", "T")]);
    ask.serialization = Serialization::Binary;
    assert_eq!(world.send(&ask).ok(), STANDARD);
}

#[test]
fn an_unknown_topic_is_17() {
    let mut world = master_and_slave();
    for (ext, shown) in [(&[("topic", "none")][..], "none"), (&[], "null")] {
        let remark = format!(
            "No topic route info in name server for the topic: {shown}\n\
             See https://rocketmq.apache.org/docs/bestPractice/06FAQ for further details."
        );
        assert_eq!(world.ask(GET_ROUTEINFO_BY_TOPIC, ext).refused(), (17, remark.as_str()));
    }
}

#[test]
fn finished_answers_change_with_every_registration_that_matters() {
    let mut world = master_and_slave();
    let before = world.route("T").ok();
    let mut broker = Broker::master("broker-a", "127.0.0.1:10911");

    broker.topics[0] = ("T", 4, 4, 4);
    world.register(&broker).ok();
    assert_eq!(world.route("T").ok(), before, "same data version: topics are not read");

    broker.version = 2;
    world.register(&broker).ok();
    let read_only = world.route("T").ok();
    assert_eq!(read_only, before.replace(r#""perm":6"#, r#""perm":4"#));

    let moved = Broker { connection: 9, ..Broker::slave("broker-a", "127.0.0.1:20921", 1) };
    world.register(&moved).ok();
    assert_eq!(world.route("T").ok(), read_only.replace("127.0.0.1:10921", "127.0.0.1:20921"));

    world.register(&Broker::master("broker-b", "127.0.0.1:30911")).ok();
    let two = world.route("T").ok();
    assert!(two.contains("broker-a") && two.contains("127.0.0.1:30911"), "{two}");
}

#[test]
fn names_are_escaped_and_non_ascii_stays_raw() {
    let mut world = World::new();
    let broker = Broker { cluster: "c\"l", ..Broker::master("bröker", "[::1]:10911") };
    world.register(&broker).ok();
    let route = world.route("T").ok();
    assert!(route.contains(r#""brokerName":"bröker","cluster":"c\"l""#), "{route}");
    let decoded: serde_json::Value = serde_json::from_str(&route).expect("standard JSON");
    assert_eq!(decoded["brokerDatas"][0]["brokerAddrs"]["0"], "[::1]:10911");
}

#[test]
fn order_configuration_comes_only_when_enabled() {
    for enabled in [false, true] {
        let mut world = World::with(|config| config.order_message_enable = enabled);
        world.register(&Broker::master("broker-a", "127.0.0.1:10911")).ok();
        let plain = world.route("T").ok();
        assert!(!plain.contains("orderTopicConf"), "{plain}");
        let put = [("namespace", "ORDER_TOPIC_CONFIG"), ("key", "T"), ("value", "broker-a:4")];
        world.ask(PUT_KV_CONFIG, &put).ok();
        let conf = r#""filterServerTable":{},"orderTopicConf":"broker-a:4","queueDatas""#;
        assert_eq!(world.route("T").ok().contains(conf), enabled);
    }
}

#[test]
fn a_name_server_told_to_wait_answers_after_its_time() {
    let mut world = World::with(|config| config.need_wait_for_service = true);
    world.register(&Broker::master("broker-a", "127.0.0.1:10911")).ok();
    world.now_ms += 44_999;
    assert_eq!(world.route("T").refused(), (1, "name server not ready"));
    world.now_ms += 1;
    world.route("T").ok();
}

#[test]
fn a_zone_keeps_its_brokers_and_those_without_master() {
    let mut world = World::new();
    for (name, addr, zone) in [
        ("broker-a", "10.0.0.1:1", Some("East")),
        ("broker-b", "10.0.0.2:1", Some("west")),
        ("broker-d", "10.0.0.4:1", None),
    ] {
        world.register(&Broker { zone, ..Broker::master(name, addr) }).ok();
    }
    let orphan = Broker { acting_master: Some(true), ..Broker::slave("broker-c", "10.0.0.3:1", 1) };
    world.register(&orphan).ok();
    let zoned = |mode: &str, zone: &str| {
        Ask::new(GET_ROUTEINFO_BY_TOPIC, &[("__ZONE_MODE", mode), ("__ZONE_NAME", zone), ("topic", "T")])
    };
    let names = |body: &str| {
        let route: serde_json::Value = serde_json::from_str(body).expect("JSON");
        ["brokerDatas", "queueDatas"].map(|list| {
            let items = route[list].as_array().expect("array");
            let name = |item: &serde_json::Value| item["brokerName"].as_str().expect("name").to_owned();
            items.iter().map(name).collect::<Vec<_>>()
        })
    };
    let near = world.send(&zoned("true", "eaSt")).ok();
    assert!(near.contains(r#""zoneName":"East""#), "{near}");
    for list in names(&near) {
        assert_eq!(list, ["broker-a", "broker-c"]);
    }
    for ask in [zoned("false", "East"), zoned("true", " ")] {
        let all = world.send(&ask).ok();
        assert_eq!(names(&all)[0].len(), 4);
    }
}

#[test]
fn an_acting_master_is_shown_as_id_0() {
    let with_master = r#""brokerAddrs":{"0":"10.0.0.1:1","2":"10.0.0.3:1","3":"10.0.0.4:1"}"#;
    let acting = r#""brokerAddrs":{"0":"10.0.0.3:1","3":"10.0.0.4:1"}"#;
    let not_acting = r#""brokerAddrs":{"2":"10.0.0.3:1","3":"10.0.0.4:1"}"#;
    for supported in [false, true] {
        let mut world = World::with(|config| config.support_acting_master = supported);
        let member_topic = "rmq_sys_SYNC_BROKER_MEMBER_a";
        let topics = vec![("T", 4, 4, 6), (member_topic, 1, 1, 6)];
        let member = |id, addr, connection| Broker {
            acting_master: Some(true),
            topics: topics.clone(),
            connection,
            ..Broker::slave("a", addr, id)
        };
        for (id, addr) in [(0_i64, "10.0.0.1:1"), (2, "10.0.0.3:1"), (3, "10.0.0.4:1")] {
            world.register(&member(id, addr, 10 + id.unsigned_abs())).ok();
        }
        let before = world.route("T").ok();
        assert!(before.contains(with_master) && before.contains(r#""perm":6"#), "{before}");

        world.server.on_closed(rmq_net::connection::ConnectionId::from_key(10));
        let after = world.route("T").ok();
        let expected = if supported { acting } else { not_acting };
        assert!(after.contains(expected), "{after}");
        assert!(after.contains(r#""perm":4"#), "the write bit goes with the master: {after}");
        let members = world.route(member_topic).ok();
        assert!(members.contains(not_acting), "members must see who is who: {members}");
    }
}

#[test]
fn a_static_topic_carries_its_mapping() {
    let mut world = World::new();
    let broker = Broker::master("broker-a", "10.0.0.1:1");
    let mapping = r#"{"bname":"broker-a","currIdMap":{0:0,1:1},"dirty":false,"epoch":7,"scope":"__global__","topic":"T","totalQueues":4}"#;
    let body = broker
        .body()
        .replace(r#""topicQueueMappingInfoMap":{}"#, &format!(r#""topicQueueMappingInfoMap":{{"T":{mapping}}}"#));
    world.send(&broker.ask(REGISTER_BROKER).body(body.as_bytes())).ok();
    let ask = Ask::new(GET_ROUTEINFO_BY_TOPIC, &[("topic", "T")]);
    let legacy = world.send(&ask.version(400)).ok();
    let tail = format!(r#","topicQueueMappingByBroker":{{"broker-a":{mapping}}}}}"#);
    assert!(legacy.ends_with(&tail), "{legacy}");
    let standard = world.route("T").ok();
    assert!(standard.contains(r#""currIdMap":{"0":0,"1":1}"#), "{standard}");
    assert!(!world.route("TBW102").ok().contains("topicQueueMappingByBroker"));
}
