use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use rmq_net::codes::request;

use crate::name_server_client::stub::{Asked, Manner, name_server};

use super::{Registrar, RegistrarEnd, Registration};

const PATIENCE: Duration = Duration::from_secs(20);
/// A stop takes 3 s; the rest is for a busy machine.
const STOP_MAX: Duration = Duration::from_secs(5);

fn registrar(name_servers: &[&str], answer_timeout: Duration, period: Duration) -> (Registrar, RegistrarEnd) {
    Registrar::start(Registration {
        cluster_name: "c".into(),
        broker_name: "b".into(),
        broker_id: 0,
        broker_address: "127.0.0.1:10911".into(),
        ha_address: "127.0.0.1:10912".into(),
        name_servers: name_servers.iter().map(|address| (*address).to_owned()).collect(),
        period,
        answer_timeout,
    })
    .expect("threads start")
}

const HOUR: Duration = Duration::from_secs(3600);

fn next(requests: &Receiver<Asked>) -> Asked {
    requests.recv_timeout(PATIENCE).expect("a request in time")
}

fn registration(body: &[u8]) -> Asked {
    Asked { code: request::REGISTER_BROKER, body: body.to_vec() }
}

#[test]
fn a_name_server_that_never_answers_delays_neither_the_others_nor_a_stop() {
    let (hung, of_hung) = name_server(Manner::Silent);
    let (works, of_works) = name_server(Manner::Answers(""));
    let (registrar, end) = registrar(&[&hung, &works], HOUR, HOUR);
    registrar.topics_changed(b"one".to_vec());
    // Before the second change, which would take the place of an order that was not taken yet.
    assert_eq!(next(&of_hung), registration(b"one"));
    assert_eq!(next(&of_works), registration(b"one"));
    registrar.topics_changed(b"two".to_vec());
    assert_eq!(next(&of_works), registration(b"two"));
    let started = Instant::now();
    registrar.stop_soon();
    assert_eq!(next(&of_works).code, request::UNREGISTER_BROKER);
    assert_eq!(next(&of_hung).code, request::UNREGISTER_BROKER, "it may be slow and not dead");
    end.wait();
    assert!(started.elapsed() < STOP_MAX, "a stop took {:?}", started.elapsed());
}

#[test]
fn a_name_server_that_drips_bytes_is_given_up_at_the_deadline() {
    let (drips, requests) = name_server(Manner::Drips);
    let (registrar, end) = registrar(&[&drips], Duration::from_millis(300), HOUR);
    registrar.topics_changed(b"one".to_vec());
    assert_eq!(next(&requests), registration(b"one"));
    registrar.topics_changed(b"two".to_vec());
    // Over a new connection, since the old one is given up.
    assert_eq!(next(&requests), registration(b"two"));
    registrar.stop_soon();
    end.wait();
}

#[test]
fn only_the_latest_topics_reach_a_slow_name_server() {
    let (hung, requests) = name_server(Manner::Silent);
    let (works, of_works) = name_server(Manner::Answers(""));
    let (registrar, end) = registrar(&[&hung, &works], Duration::from_millis(1500), HOUR);
    registrar.topics_changed(b"0".to_vec());
    assert_eq!(next(&requests), registration(b"0"));
    for number in 1..=3 {
        registrar.topics_changed(number.to_string().into_bytes());
    }
    while next(&of_works) != registration(b"3") {}
    assert_eq!(next(&requests), registration(b"3"));
    registrar.stop_soon();
    end.wait();
}

#[test]
fn registrations_repeat_every_period() {
    let (works, requests) = name_server(Manner::Answers(""));
    let (registrar, end) = registrar(&[&works], HOUR, Duration::from_millis(20));
    registrar.topics_changed(b"one".to_vec());
    for _ in 0..3 {
        assert_eq!(next(&requests), registration(b"one"));
    }
    registrar.stop_soon();
    end.wait();
}

#[test]
fn the_ordered_topics_of_an_answer_are_handed_on() {
    let (works, _requests) = name_server(Manner::Answers(r#"{"table":{"A":"b:4","B":"b:1"}}"#));
    let (registrar, end) = registrar(&[&works], HOUR, HOUR);
    registrar.topics_changed(b"one".to_vec());
    let started = Instant::now();
    let ordered = loop {
        if let Some(ordered) = registrar.ordered_topics() {
            break ordered;
        }
        assert!(started.elapsed() < PATIENCE, "no ordered topics");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(ordered, ["A", "B"]);
    registrar.stop_soon();
    end.wait();
}
