use super::*;

fn table() -> TopicTable {
    TopicTable::new(TopicSettings::default(), 1000)
}

fn without_auto_create() -> TopicTable {
    let settings = TopicSettings { auto_create_topic_enable: false, ..TopicSettings::default() };
    TopicTable::new(settings, 1000)
}

#[test]
fn every_change_has_a_new_version_and_no_change_has_none() {
    let mut table = table();
    let first = *table.version();
    assert_eq!((first.timestamp, first.counter, first.state_version), (1000, 1, 0));
    assert!(table.put(topic("orders", 4, 6), 2000).is_some());
    assert_eq!((table.version().timestamp, table.version().counter), (2000, 2));
    assert!(table.put(topic("orders", 4, 6), 3000).is_none());
    assert_eq!(table.version().counter, 2);
    assert!(table.delete("orders", 4000).is_some());
    assert!(table.delete("orders", 5000).is_none());
    assert_eq!((table.version().timestamp, table.version().counter), (4000, 3));
}

#[test]
fn replicas_follow_the_owner() {
    let (mut owner, mut replica) = (table(), table());
    let put = owner.put(topic("orders", 4, 6), 1).expect("a change");
    replica.apply(put);
    assert_eq!(replica.get("orders"), owner.get("orders"));
    let removed = owner.delete("orders", 2).expect("a change");
    replica.apply(removed);
    assert!(replica.get("orders").is_none());
}

#[test]
fn a_send_creates_what_the_template_allows() {
    let mut owner = table();
    owner.put(topic("closed", 5, 6), 1);
    owner.put(TopicConfig { perm: 7, ..topic("template", 3, 7) }, 1);
    let created = |name: &str, template: &str, queues: i32, unit: bool| {
        owner
            .decide_auto_create(name, template, queues, unit)
            .map(|config| (config.read_queue_nums, config.perm, config.topic_sys_flag))
            .map_err(|missing| missing.why)
    };
    assert_eq!(created("t", "TBW102", 4, false), Ok((4, 6, 0)));
    assert_eq!(created("t", "TBW102", 100, true), Ok((8, 6, 1)));
    assert_eq!(created("t", "TBW102", -3, false), Ok((0, 6, 0)));
    assert_eq!(created("t", "template", 4, false), Ok((3, 6, 0)));
    assert_eq!(created("t", "closed", 4, false), Err(MissingWhy::NotInheritable));
    assert_eq!(created("t", "absent", 4, false), Err(MissingWhy::NoDefaultTopic));
    assert_eq!(created("%RETRY%g", "absent", 4, true), Ok((1, 6, 2)));
    assert_eq!(created("%RETRY%g", "TBW102", 4, false), Ok((4, 6, 0)));

    let mut off = without_auto_create();
    assert!(off.decide_auto_create("t", "TBW102", 4, false).is_err());
    off.put(topic("TBW102", 8, 7), 1);
    let missing = off.decide_auto_create("t", "TBW102", 4, false).expect_err("creation is off");
    assert!(missing.to_string().starts_with("topic[t] not exist, apply first please!"));
}

#[test]
fn group_topics_are_made_once_and_follow_the_order_flag() {
    let mut table = table();
    let made = table.decide_group_topic("%RETRY%g", 2, Some(true), true).expect("missing");
    assert_eq!((made.order, made.read_queue_nums, made.topic_sys_flag), (true, 2, 2));
    table.put(made, 1);
    assert!(table.decide_group_topic("%RETRY%g", 2, Some(true), false).is_none());
    assert!(table.decide_group_topic("%RETRY%g", 2, None, false).is_none());
    let changed = table.decide_group_topic("%RETRY%g", 5, Some(false), false).expect("changed");
    assert_eq!((changed.order, changed.read_queue_nums), (false, 2));
}

#[test]
fn updates_are_refused_by_rule() {
    let mut table = table();
    table.put(topic("orders", 4, 6), 1);
    let typed = |value: &str| TopicConfig {
        attributes: [("+message.type".to_owned(), value.to_owned())].into(),
        ..topic("new", 8, 6)
    };
    for (requested, code) in [
        (topic("bad name", 8, 6), Some(29)),
        (topic("", 8, 6), Some(29)),
        (topic("TBW102", 8, 6), Some(29)),
        (topic("broker-a", 8, 6), Some(29)),
        (topic("DefaultCluster_REPLY_TOPIC", 8, 6), Some(29)),
        (topic("new", -1, 6), Some(29)),
        (topic("new", QUEUES_MAX + 1, 6), Some(29)),
        (topic("new", 8, 16), Some(29)),
        (typed("MIXED"), Some(29)),
        (typed("WRONG"), Some(1)),
        (typed("FIFO"), None),
        (topic("orders", 8, 4), None),
    ] {
        let decided = table.decide_update(&requested);
        assert_eq!(decided.as_ref().err().map(TopicRefused::code), code, "{requested:?}");
    }
    let stored = table.decide_update(&typed("FIFO")).expect("allowed");
    assert_eq!(stored.attributes.get("message.type").map(String::as_str), Some("FIFO"));
}

#[test]
fn an_update_keeps_the_attributes_it_does_not_name() {
    let mut table = table();
    let typed =
        TopicConfig { attributes: [("message.type".to_owned(), "FIFO".to_owned())].into(), ..topic("orders", 4, 6) };
    table.put(typed.clone(), 1);
    let updated = table.decide_update(&topic("orders", 4, 4)).expect("allowed");
    assert_eq!(updated, TopicConfig { perm: 4, ..typed });
}

#[test]
fn deletion_spares_system_topics() {
    let table = table();
    assert_eq!(table.check_delete(" "), Err(TopicRefused::Blank));
    assert!(matches!(table.check_delete("rmq_sys_x"), Err(TopicRefused::System(_))));
    assert_eq!(table.check_delete("never seen"), Ok(()));
    let names = table.system_topics();
    assert!(names.contains(&"DefaultCluster".to_owned()) && names.contains(&"TBW102".to_owned()));
    assert!(names.is_sorted());
}

#[test]
fn pages_and_registrations_are_sorted_by_name() {
    let mut table = table();
    table.put(topic("orders", 4, 6), 1);
    let all = table.page(&PageRequest::default());
    assert_eq!(all.body.topic_config_table.len(), all.total);
    assert_eq!(all.body.data_version, *table.version());
    let two = PageRequest { first_index: Some(0), count_max: Some(2), data_version: Some("") };
    let page = table.page(&two);
    let first: Vec<&String> = page.body.topic_config_table.keys().collect();
    let names: Vec<&String> = all.body.topic_config_table.keys().take(2).collect();
    assert_eq!((first, page.total), (names, all.total));

    let full = table.registration(6).topic_config_table;
    assert_eq!((full.len(), full.get("TBW102").map(|config| config.perm)), (all.total, Some(7)));
    let one = table.registration_of("orders", 4).expect("exists").topic_config_table;
    assert_eq!((one.len(), one.get("orders").map(|config| config.perm)), (1, Some(4)));
    assert!(table.registration_of("absent", 6).is_none());
}

#[test]
fn a_stored_topic_comes_back_as_it_was() {
    let mut table = table();
    let config = TopicConfig {
        order: true,
        attributes: [("message.type".to_owned(), "FIFO".to_owned())].into(),
        ..topic("orders", 4, 6)
    };
    table.restore(&encode(&config)).expect("own encoding");
    assert_eq!(table.get("orders").map(|stored| (**stored).clone()), Some(config));
    assert!(table.restore(b"").is_err());
    assert!(table.restore(b"7").is_err());
}
