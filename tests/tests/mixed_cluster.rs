//! Our broker under Apache's name server, Apache's broker under ours, and both beside each other.

use rmq_tests::{Broker, JavaClient, Kind, Namesrv, Suite, attached, skip};

const SUITE: Suite = Suite::Java(JavaClient::V5_5_0);

fn run_scenarios(namesrv_kind: Kind, broker_kind: Kind) {
    if attached().is_some() {
        return skip("a mixed cluster needs servers of its own");
    }
    if !SUITE.is_available() {
        return;
    }
    let namesrv = Namesrv::start(namesrv_kind);
    let broker = Broker::start(broker_kind, namesrv.address());
    for scenario in ["send_sync", "send_auto_create", "push_rebalance"] {
        SUITE.run(scenario, || namesrv.address().to_owned());
    }
    // A broker that left is gone from the routes at once, and one that comes back is found again.
    broker.stop();
    let _successor = Broker::start(broker_kind, namesrv.address());
    SUITE.run("push_resume", || namesrv.address().to_owned());
}

#[test]
fn our_broker_under_apaches_name_server() {
    run_scenarios(Kind::Apache, Kind::under_test());
}

#[test]
fn apaches_broker_under_our_name_server() {
    run_scenarios(Kind::under_test(), Kind::Apache);
}

/// Consumers that pop ask any one of the brokers which queues are theirs.
#[test]
fn popping_consumers_get_the_messages_of_our_broker_and_of_apaches_beside_it() {
    if attached().is_some() {
        return skip("a mixed cluster needs servers of its own");
    }
    if !SUITE.is_available() {
        return;
    }
    let namesrv = Namesrv::start(Kind::under_test());
    let _ours = Broker::start(Kind::under_test(), namesrv.address());
    let _apaches = Broker::with(Kind::Apache, namesrv.address(), "brokerName=broker-b");
    SUITE.run("pop_of_all_brokers", || namesrv.address().to_owned());
}
