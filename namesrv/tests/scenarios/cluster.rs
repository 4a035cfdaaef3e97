//! Who forms a cluster: 106 and 901.

use rmq_net::codes::request::{GET_BROKER_CLUSTER_INFO, GET_BROKER_MEMBER_GROUP};

use crate::world::{Broker, World};

#[test]
fn cluster_info_lists_brokers_and_clusters_with_unquoted_ids() {
    let mut world = World::new();
    let empty = r#"{"brokerAddrTable":{},"clusterAddrTable":{}}"#;
    assert_eq!(world.ask(GET_BROKER_CLUSTER_INFO, &[]).ok(), empty);
    world.register(&Broker::master("broker-a", "127.0.0.1:10911")).ok();
    world.register(&Broker::slave("broker-a", "127.0.0.1:10921", 1)).ok();
    world.register(&Broker { cluster: "Other", ..Broker::master("broker-b", "127.0.0.1:1") }).ok();
    assert_eq!(
        world.ask(GET_BROKER_CLUSTER_INFO, &[]).ok(),
        r#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"127.0.0.1:10911",1:"127.0.0.1:10921"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false},"broker-b":{"brokerAddrs":{0:"127.0.0.1:1"},"brokerName":"broker-b","cluster":"Other","enableActingMaster":false}},"clusterAddrTable":{"DefaultCluster":["broker-a"],"Other":["broker-b"]}}"#
    );
}

#[test]
fn member_group_of_a_known_and_of_an_unknown_name() {
    let mut world = World::new();
    world.register(&Broker::master("b", "x:1")).ok();
    let table = [
        ("b", r#"{"brokerMemberGroup":{"brokerAddrs":{0:"x:1"},"brokerName":"b","cluster":"c"}}"#),
        ("n", r#"{"brokerMemberGroup":{"brokerAddrs":{},"brokerName":"n","cluster":"c"}}"#),
    ];
    for (name, expected) in table {
        let ext = [("clusterName", "c"), ("brokerName", name)];
        assert_eq!(world.ask(GET_BROKER_MEMBER_GROUP, &ext).ok(), expected);
    }
}
