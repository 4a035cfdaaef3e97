//! Lists of topics, write permission, and topics removed and added by tools.

use rmq_net::codes::request::{
    ADD_WRITE_PERM_OF_BROKER, DELETE_TOPIC_IN_NAMESRV, GET_ALL_TOPIC_LIST_FROM_NAMESERVER, GET_HAS_UNIT_SUB_TOPIC_LIST,
    GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST, GET_SYSTEM_TOPIC_LIST_FROM_NS, GET_TOPICS_BY_CLUSTER, GET_UNIT_TOPIC_LIST,
    REGISTER_BROKER, REGISTER_TOPIC_IN_NAMESRV, WIPE_WRITE_PERM_OF_BROKER,
};

use crate::world::{Ask, Broker, World};

fn two_clusters() -> World {
    let mut world = World::new();
    world.register(&Broker::master("broker-a", "10.0.0.1:1")).ok();
    let other = Broker {
        cluster: "Other",
        topics: vec![("T", 2, 2, 6), ("V", 2, 2, 6)],
        ..Broker::master("broker-b", "10.0.0.2:1")
    };
    world.register(&other).ok();
    world
}

#[test]
fn lists_of_topics() {
    let mut world = two_clusters();
    assert_eq!(world.topics(), r#"{"topicList":["T","TBW102","V"]}"#);
    for (cluster, expected) in [("Other", r#"{"topicList":["T","V"]}"#), ("none", r#"{"topicList":[]}"#)] {
        assert_eq!(world.ask(GET_TOPICS_BY_CLUSTER, &[("cluster", cluster)]).ok(), expected);
    }
    assert_eq!(
        world.ask(GET_SYSTEM_TOPIC_LIST_FROM_NS, &[]).ok(),
        r#"{"brokerAddr":"10.0.0.1:1","topicList":["DefaultCluster","Other","broker-a","broker-b"]}"#
    );
    let nobody = World::new().ask(GET_SYSTEM_TOPIC_LIST_FROM_NS, &[]).ok();
    assert_eq!(nobody, r#"{"topicList":[]}"#);
}

#[test]
fn unit_topics_are_found_by_their_flags() {
    let mut world = World::new();
    let names = ["none", "unit", "sub", "both"];
    let broker =
        Broker { topics: names.map(|name| (name, 1, 1, 6)).to_vec(), ..Broker::master("broker-a", "10.0.0.1:1") };
    let mut body = broker.body();
    for (flag, name) in names.iter().enumerate() {
        let plain = format!(r#""topicName":"{name}","topicSysFlag":0"#);
        body = body.replace(&plain, &plain.replace(":0", &format!(":{flag}")));
    }
    world.send(&broker.ask(REGISTER_BROKER).body(body.as_bytes())).ok();
    let table = [
        (GET_UNIT_TOPIC_LIST, r#"{"topicList":["both","unit"]}"#),
        (GET_HAS_UNIT_SUB_TOPIC_LIST, r#"{"topicList":["both","sub"]}"#),
        (GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST, r#"{"topicList":["sub"]}"#),
    ];
    for (code, expected) in table {
        assert_eq!(world.ask(code, &[]).ok(), expected);
    }
}

#[test]
fn lists_can_be_disabled() {
    let mut world = World::with(|config| {
        config.enable_all_topic_list = false;
        config.enable_topic_list = false;
    });
    for code in [
        GET_ALL_TOPIC_LIST_FROM_NAMESERVER,
        GET_TOPICS_BY_CLUSTER,
        GET_UNIT_TOPIC_LIST,
        GET_HAS_UNIT_SUB_TOPIC_LIST,
        GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST,
    ] {
        let answer = world.ask(code, &[("cluster", "c")]);
        assert_eq!(answer.refused(), (1, "disable"), "code {code}");
    }
    world.ask(GET_SYSTEM_TOPIC_LIST_FROM_NS, &[]).ok();
}

#[test]
fn write_permission_is_wiped_and_added_until_the_next_changed_registration() {
    let mut world = two_clusters();
    let name = [("brokerName", "broker-a")];
    let wiped = world.ask(WIPE_WRITE_PERM_OF_BROKER, &name);
    assert_eq!(wiped.ext["wipeTopicCount"], "2");
    let route = world.route("T").ok();
    assert!(route.contains(r#"{"brokerName":"broker-a","perm":4"#), "{route}");
    assert!(route.contains(r#"{"brokerName":"broker-b","perm":6"#), "{route}");
    assert!(world.route("TBW102").ok().contains(r#""perm":5"#));

    let mut broker = Broker::master("broker-a", "10.0.0.1:1");
    world.register(&broker).ok();
    assert!(world.route("TBW102").ok().contains(r#""perm":5"#), "unchanged registration");

    let added = world.ask(ADD_WRITE_PERM_OF_BROKER, &name);
    assert_eq!(added.ext["addTopicCount"], "2");
    assert!(world.route("TBW102").ok().contains(r#""perm":6"#), "other bits are lost");

    broker.version = 2;
    world.register(&broker).ok();
    assert!(world.route("TBW102").ok().contains(r#""perm":7"#));
    let nobody = world.ask(WIPE_WRITE_PERM_OF_BROKER, &[("brokerName", "none")]);
    assert_eq!((nobody.code, nobody.ext["wipeTopicCount"].as_str()), (0, "0"));
}

#[test]
fn topics_are_deleted_in_one_cluster_or_everywhere() {
    let mut world = two_clusters();
    let ask = |world: &mut World, cluster: &str| {
        let ext = [("clusterName", cluster), ("topic", "T")];
        world.ask(DELETE_TOPIC_IN_NAMESRV, &ext).ok();
    };
    ask(&mut world, "none");
    assert!(world.route("T").ok().contains("broker-b"));
    ask(&mut world, "Other");
    let route = world.route("T").ok();
    assert!(route.contains("broker-a") && !route.contains("broker-b"), "{route}");
    ask(&mut world, "DefaultCluster");
    assert_eq!(world.route("T").code, 17);
    world.ask(DELETE_TOPIC_IN_NAMESRV, &[("topic", "V")]).ok();
    assert_eq!(world.topics(), r#"{"topicList":["TBW102"]}"#);
    // An unchanged registration brings a deleted topic back: the pair is new again.
    world.register(&Broker::master("broker-a", "10.0.0.1:1")).ok();
    assert_eq!(world.topics(), r#"{"topicList":["T","TBW102"]}"#);
}

#[test]
fn a_topic_is_registered_only_for_brokers_that_are_here() {
    let mut world = two_clusters();
    let body = |broker: &str| {
        format!(
            r#"{{"brokerDatas":[{{"brokerAddrs":{{0:"x:1"}}}}],"queueDatas":[{{"brokerName":"broker-a","perm":6,"readQueueNums":3,"topicSysFlag":0,"writeQueueNums":3}},{{"brokerName":"{broker}","perm":6,"readQueueNums":3,"writeQueueNums":3}}]}}"#
        )
    };
    for (broker, code) in [("broker-z", 17), ("broker-b", 0)] {
        let body = body(broker);
        let ask = Ask::new(REGISTER_TOPIC_IN_NAMESRV, &[("topic", "N")]);
        world.send(&ask.body(body.as_bytes())).ok();
        assert_eq!(world.route("N").code, code, "{broker}");
    }
}
