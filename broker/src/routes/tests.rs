use rmq_net::codes::response;

use super::*;
use crate::name_server_client::stub::{Manner, name_server};

const PATIENCE: Duration = Duration::from_secs(20);
const ROUTE: &str = r#"{"brokerDatas":[],"filterServerTable":{},"queueDatas":[
    {"brokerName":"a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4},
    {"brokerName":"b","perm":6,"readQueueNums":2,"topicSysFlag":0,"writeQueueNums":8},
    {"brokerName":"c","perm":2,"readQueueNums":8,"topicSysFlag":0,"writeQueueNums":8}]}"#;

fn routes_of_a(name_servers: &[&str]) -> Routes {
    let name_servers: Vec<_> = name_servers.iter().map(|address| (*address).to_owned()).collect();
    Routes::start("a", &name_servers, Duration::from_secs(30)).expect("a thread")
}

/// The next answers.
fn found(routes: &mut Routes) -> Vec<(Arc<str>, Route)> {
    let began = Instant::now();
    loop {
        let found = routes.take_found();
        if !found.is_empty() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "nothing is found");
        std::thread::yield_now();
    }
}

fn queues_of_b() -> Route {
    let queue = |queue_id| MessageQueue { broker_name: "b".to_owned(), queue_id, topic: "T".to_owned() };
    Route::Elsewhere([0, 1].map(queue).into())
}

#[test]
fn a_topic_s_readable_queues_on_other_brokers_are_found_and_then_known() {
    let (address, asked) = name_server(Manner::Answers(ROUTE));
    let mut routes = routes_of_a(&[&address]);
    assert_eq!(routes.find("T", 0), Lookup::Pending);
    assert_eq!(routes.find("T", 1), Lookup::Pending, "asked only once");
    assert_eq!(found(&mut routes), [(Arc::from("T"), queues_of_b())]);
    assert_eq!(routes.find("T", 2), Lookup::Known(queues_of_b()));
    assert_eq!(routes.find(&"x".repeat(256), 2), Lookup::Known(Route::Unknown), "no topic is called so");
    assert_eq!(asked.try_iter().count(), 1);
}

#[test]
fn it_is_looked_up_again_after_the_interval_while_clients_ask_for_it() {
    let (address, asked) = name_server(Manner::Answers(ROUTE));
    let mut routes = routes_of_a(&[&address]);
    routes.find("T", 0);
    found(&mut routes);
    asked.recv_timeout(PATIENCE).expect("the first lookup");
    routes.tick(29_999);
    assert!(asked.try_recv().is_err());
    for now_ms in [30_000, 60_000, 59_000] {
        routes.tick(now_ms);
        asked.recv_timeout(PATIENCE).expect("a lookup");
        let began = Instant::now();
        while routes.topics["T"].is_under_way {
            assert!(routes.take_found().is_empty(), "nobody waits for it");
            assert!(began.elapsed() < PATIENCE);
        }
    }
    routes.tick(FORGET_MS);
    assert_eq!(routes.find("T", FORGET_MS), Lookup::Pending, "nobody had asked for it for long");
}

#[test]
fn an_unknown_topic_is_asked_for_again_each_time() {
    let (address, asked) = name_server(Manner::Refuses(response::TOPIC_NOT_EXIST));
    let mut routes = routes_of_a(&[&address]);
    for _ in 0..2 {
        assert_eq!(routes.find("T", 0), Lookup::Pending);
        assert_eq!(found(&mut routes), [(Arc::from("T"), Route::Unknown)]);
        asked.try_recv().expect("a lookup");
    }
}

#[test]
fn the_next_name_server_is_asked_when_one_is_gone_and_what_was_known_stays_when_all_are() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("an address").to_string()
    };
    let (works, _asked) = name_server(Manner::Answers(ROUTE));
    let mut routes = routes_of_a(&[&gone, &works]);
    routes.find("T", 0);
    assert_eq!(found(&mut routes), [(Arc::from("T"), queues_of_b())]);

    let mut routes = routes_of_a(&[&gone]);
    routes.find("T", 0);
    assert_eq!(found(&mut routes), [(Arc::from("T"), Route::NotAnswered)]);
    routes.topics.insert(
        "T".into(),
        Topic { route: Some(queues_of_b()), is_under_way: false, looked_up_ms: 0, asked_ms: 30_000 },
    );
    routes.tick(30_000);
    let began = Instant::now();
    while routes.topics["T"].is_under_way {
        assert!(routes.take_found().is_empty());
        assert!(began.elapsed() < PATIENCE);
    }
    assert_eq!(routes.find("T", 30_001), Lookup::Known(queues_of_b()));
}
