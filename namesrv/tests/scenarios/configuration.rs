//! KV table and configuration: 100, 101, 102, 219, 318, 319.

use rmq_namesrv::{Answered, NameServer};
use rmq_net::codes::request::{
    DELETE_KV_CONFIG, GET_KV_CONFIG, GET_KVLIST_BY_NAMESPACE, GET_NAMESRV_CONFIG, PUT_KV_CONFIG, UPDATE_NAMESRV_CONFIG,
};

use crate::world::{Ask, START_MS, World};

const KEY: [(&str, &str); 2] = [("namespace", "ns"), ("key", "k")];

#[test]
fn kv_entries_live_and_survive_a_restart() {
    let mut world = World::new();
    let missing = world.ask(GET_KV_CONFIG, &KEY);
    assert_eq!(missing.refused(), (22, "No config item, Namespace: ns Key: k"));
    assert_eq!(world.ask(GET_KVLIST_BY_NAMESPACE, &KEY).code, 22);
    world.ask(PUT_KV_CONFIG, &[("namespace", "ns"), ("key", "k"), ("value", "a=\"b\"")]).ok();
    assert_eq!(world.ask(GET_KV_CONFIG, &KEY).ext["value"], "a=\"b\"");

    let config = world.server.config().clone();
    world.server = NameServer::open(config, START_MS).expect("again");
    let table = r#"{"table":{"k":"a=\"b\""}}"#;
    assert_eq!(world.ask(GET_KVLIST_BY_NAMESPACE, &KEY).ok(), table);
    world.ask(DELETE_KV_CONFIG, &KEY).ok();
    world.ask(DELETE_KV_CONFIG, &KEY).ok();
    assert_eq!(world.ask(GET_KV_CONFIG, &KEY).code, 22);
    assert_eq!(world.ask(GET_KVLIST_BY_NAMESPACE, &KEY).ok(), r#"{"table":{}}"#);
}

#[test]
fn kv_requests_without_a_name_are_refused() {
    let mut world = World::new();
    for code in [PUT_KV_CONFIG, GET_KV_CONFIG, DELETE_KV_CONFIG] {
        let answer = world.ask(code, &KEY[..1]);
        assert_eq!(answer.refused(), (1, "namespace or key is null"));
    }
    let no_value = world.ask(PUT_KV_CONFIG, &KEY);
    assert_eq!(no_value.refused(), (1, "the request has no field value"));
}

#[test]
fn configuration_is_shown_changed_and_kept() {
    let mut world = World::new();
    let shown = world.ask(GET_NAMESRV_CONFIG, &[]).ok();
    assert!(shown.contains("listenPort=9876\n") && shown.contains("enableTopicList=true\n"));

    let update =
        |world: &mut World, text: &str| world.send(&Ask::new(UPDATE_NAMESRV_CONFIG, &[]).body(text.as_bytes()));
    update(&mut world, "enableTopicList=false\nunheardOf=1\n").ok();
    assert!(!world.server.config().enable_topic_list);
    let kept = std::fs::read_to_string(world.folder.path().join("namesrv.properties"));
    assert!(kept.expect("file").contains("enableTopicList=false\n"));

    let table = [
        ("kvConfigPath=/x", 16, "Can not update config in black list."),
        ("enableTopicList=true\nconfigStorePath=/x", 16, "Can not update config in black list."),
        ("rocketmqHome=/x", 16, "Can not update config in black list."),
        ("enableTopicList=true\nlistenPort=x", 1, "listenPort=x is refused: expected an integer from 0 to 65535"),
        ("bindAddress=here", 1, "bindAddress=here is refused: expected an IPv4 or IPv6 address"),
        (
            "a=\\uZ",
            1,
            "string2Properties error: line 1: \\u must be followed by four hexadecimal digits that name a character",
        ),
    ];
    for (text, code, remark) in table {
        assert_eq!(update(&mut world, text).refused(), (code, remark), "{text}");
        assert!(!world.server.config().enable_topic_list, "all or nothing: {text}");
    }
    update(&mut world, "").ok();
}

#[test]
fn a_change_is_in_force_and_answered_once_its_file_is_written() {
    let mut world = World::new();
    let put = |world: &mut World, value: &str| {
        let ask = Ask::new(PUT_KV_CONFIG, &[("namespace", "ns"), ("key", "k"), ("value", value)]);
        assert_eq!(world.hand(&ask), Answered::Later);
    };
    put(&mut world, "first");
    put(&mut world, "second");
    assert!(world.server.take_replies().is_empty());
    let first = world.server.take_write().expect("a write");
    assert!(world.server.take_write().is_none(), "one at a time");
    assert_eq!(world.ask(GET_KV_CONFIG, &KEY).code, 22, "not yet");
    world.server.on_written(first.run());
    assert_eq!(world.server.take_replies().len(), 1);
    assert_eq!(world.ask(GET_KV_CONFIG, &KEY).ext["value"], "first");

    let _unwritten = world.server.take_write().expect("the second write");
    world.server.on_written(Err(std::io::ErrorKind::StorageFull.into()));
    let replies = world.server.take_replies();
    let refused = String::from_utf8_lossy(&replies[0].frame);
    assert!(refused.contains("cannot write kvConfigPath"), "{refused}");
    assert_eq!(world.ask(GET_KV_CONFIG, &KEY).ext["value"], "first", "what failed did not happen");
    assert!(!world.server.is_changing());
}

#[test]
fn changes_that_wait_for_the_disk_are_bounded_also_for_those_who_want_no_answer() {
    let mut world = World::new();
    let value = "x".repeat(1000 * 1000);
    let ask = Ask::new(PUT_KV_CONFIG, &[("namespace", "ns"), ("key", "k"), ("value", &value)]);
    let answers: Vec<_> = (0..8).map(|_| world.hand(&ask)).collect();
    let taken = answers.iter().filter(|answer| **answer == Answered::Later).count();
    assert_eq!(taken, 4, "4 MiB may wait: {answers:?}");
    while let Some(write) = world.server.take_write() {
        world.server.on_written(write.run());
    }
    assert_eq!(world.server.take_replies().len(), taken);
    assert_eq!(world.hand(&ask), Answered::Later, "there is room again");
}
