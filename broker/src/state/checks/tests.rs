use std::net::SocketAddr;

use rmq_net::body::{ConsumeType, ConsumerData, HeartbeatData, SubscriptionData};
use rmq_net::language::Language;

use super::super::clients::{ClientRegistry, Peer};
use super::super::groups::with_defaults;
use super::super::reserved::topic;
use super::super::settings::{GroupSettings, TopicSettings};
use super::*;
use rmq_net::connection::ConnectionId;

struct Broker {
    settings: CheckSettings,
    topics: TopicTable,
    groups: GroupTable,
    views: GroupViews,
}

fn broker() -> Broker {
    let group_settings = GroupSettings { auto_create_subscription_group: false, ..GroupSettings::default() };
    let mut broker = Broker {
        settings: CheckSettings::default(),
        topics: TopicTable::new(TopicSettings::default(), 1),
        groups: GroupTable::new(group_settings, 1),
        views: GroupViews::default(),
    };
    for config in [
        topic("orders", 4, 6),
        TopicConfig { write_queue_nums: 2, ..topic("narrow", 4, 6) },
        TopicConfig { order: true, ..topic("ordered", 4, 6) },
        TopicConfig {
            attributes: [(CLEANUP_POLICY.to_owned(), CLEANUP_POLICY_COMPACTION.to_owned())].into(),
            ..topic("compacted", 4, 6)
        },
        topic("hidden", 4, 2),
        topic("%RETRY%g", 1, 6),
        topic("%RETRY%unknown", 1, 6),
        topic(&format!("%RETRY%{}", "g".repeat(121)), 1, 6),
    ] {
        broker.topics.put(config, 1);
    }
    broker.groups.put(with_defaults("g"), 1);
    broker
}

fn send(topic: &str) -> SendRequest<'_> {
    SendRequest {
        topic,
        queue_id: 0,
        default_topic: "TBW102",
        default_topic_queue_nums: 4,
        unit_mode: false,
        is_batch: false,
        properties: b"",
    }
}

impl Broker {
    fn send(&self, request: &SendRequest<'_>) -> Result<SendCheck<'_>, Refusal> {
        check_send(&self.settings, &self.topics, &self.groups, request, 100)
    }

    fn send_code(&self, request: &SendRequest<'_>) -> i32 {
        self.send(request).map_or_else(|refusal| refusal.code, |_check| 0)
    }

    fn pull(&self, request: &PullRequest<'_>) -> Result<PullCheck<'_>, Refusal> {
        let mut filters = CompiledFilters::default();
        check_pull(&self.settings, &self.topics, &self.groups, &self.views, &mut filters, request)
    }

    /// The code and forbidden type of the answer.
    fn pull_code(&self, request: &PullRequest<'_>) -> (i32, i32) {
        self.pull(request).map_or_else(
            |refusal| (refusal.code, refusal.forbidden_type.map_or(0, |kind| kind as i32)),
            |_check| (0, 0),
        )
    }

    /// One member of `g` subscribes to `topic` with `expression`.
    fn subscribe(&mut self, model: MessageModel, topic: &str, expression: &str, kind: &str) {
        let peer = Peer {
            connection: ConnectionId::from_key(1),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            language: Language::Java,
            version: 513,
        };
        let data = HeartbeatData {
            client_id: "one".to_owned(),
            consumer_data_set: vec![ConsumerData {
                group_name: "g".to_owned(),
                consume_type: ConsumeType::ConsumePassively,
                message_model: model,
                subscription_data_set: vec![SubscriptionData {
                    topic: topic.to_owned(),
                    sub_string: expression.to_owned(),
                    expression_type: kind.to_owned(),
                    sub_version: 10,
                    ..SubscriptionData::default()
                }],
                ..ConsumerData::default()
            }],
            ..HeartbeatData::default()
        };
        let mut registry = ClientRegistry::new(false, 120_000);
        let (changes, _) = registry.heartbeat(&peer, &data, &self.groups, 1);
        for change in changes.views {
            self.views.apply(change);
        }
    }
}

#[test]
fn sends_are_refused_with_the_codes_of_the_reference() {
    let broker = broker();
    let long = "t".repeat(128);
    let long_retry = format!("%RETRY%{}", "g".repeat(121));
    for (request, code) in [
        (send("orders"), 0),
        (SendRequest { queue_id: -1, ..send("orders") }, 0),
        (SendRequest { queue_id: 3, ..send("narrow") }, 0),
        (SendRequest { queue_id: 4, ..send("narrow") }, 29),
        (send("bad name"), 29),
        (send(""), 29),
        (send(&long), 29),
        (send("SCHEDULE_TOPIC_XXXX"), 16),
        (send("RMQ_SYS_TRANS_HALF_TOPIC"), 16),
        (SendRequest { default_topic: "absent", ..send("new") }, 17),
        (send("%RETRY%g"), 0),
        (send("%RETRY%unknown"), 26),
        (SendRequest { is_batch: true, ..send("%RETRY%g") }, 13),
        (SendRequest { is_batch: true, ..send(&long_retry) }, 13),
        (SendRequest { is_batch: true, ..send("orders") }, 0),
        (send("compacted"), 13),
        (SendRequest { properties: b"KEYS\x01 \x02", ..send("compacted") }, 13),
        (SendRequest { properties: b"KEYS\x01k\x02", ..send("compacted") }, 0),
        (SendRequest { properties: b"TRAN_MSG\x01true\x02", ..send("orders") }, 0),
    ] {
        assert_eq!(broker.send_code(&request), code, "{request:?}");
    }
}

#[test]
fn a_missing_topic_or_group_is_handed_back_to_be_created() {
    let mut broker = broker();
    let Ok(SendCheck::CreateTopic(created)) = broker.send(&send("new")) else {
        panic!("the topic is to be created");
    };
    assert_eq!((created.topic_name.as_str(), created.read_queue_nums), ("new", 4));
    broker.groups = GroupTable::new(GroupSettings::default(), 1);
    let Ok(SendCheck::CreateGroup(group)) = broker.send(&send("%RETRY%unknown")) else {
        panic!("the group is to be created");
    };
    assert_eq!(group.group_name, "unknown");
}

#[test]
fn settings_of_the_broker_refuse_sends() {
    let mut broker = broker();
    broker.settings.broker_permission = perm::READ;
    assert_eq!(broker.send_code(&send("orders")), 0);
    assert_eq!(broker.send_code(&send("ordered")), 16);
    broker.settings.start_accept_send_ms = 101;
    assert_eq!(broker.send_code(&send("bad name")), 1, "the first fault is answered");
    broker.settings.start_accept_send_ms = 100;
    assert_eq!(broker.send_code(&send("bad name")), 29);
}

#[test]
fn a_negative_queue_id_picks_any_write_queue() {
    let narrow = TopicConfig { write_queue_nums: 2, ..topic("narrow", 4, 6) };
    assert_eq!(queue_of_send(&narrow, 3, 7), Some(3));
    assert_eq!(queue_of_send(&narrow, -1, 7), Some(1));
    assert_eq!(queue_of_send(&topic("none", 0, 6), -1, 7), None);
}

fn pull(topic: &str) -> PullRequest<'_> {
    PullRequest {
        group: "g",
        topic,
        queue_id: 0,
        sys_flag: sys_flag::SUBSCRIPTION,
        is_lite: false,
        subscription: Some("*"),
        expression_type: None,
        sub_version: 10,
    }
}

#[test]
fn pulls_with_their_own_subscription_are_refused_with_the_codes_of_the_reference() {
    let broker = broker();
    for (request, answer) in [
        (pull("orders"), (0, 0)),
        (PullRequest { subscription: None, ..pull("orders") }, (0, 0)),
        (PullRequest { group: "unknown", ..pull("orders") }, (26, 0)),
        (pull("absent"), (17, 0)),
        (pull("hidden"), (16, 3)),
        (PullRequest { queue_id: 4, ..pull("orders") }, (29, 0)),
        (PullRequest { queue_id: -1, ..pull("orders") }, (29, 0)),
        (PullRequest { subscription: Some("||"), ..pull("orders") }, (23, 0)),
        (PullRequest { expression_type: Some("SQL92"), ..pull("orders") }, (1, 0)),
        (PullRequest { sys_flag: 0, ..pull("orders") }, (24, 0)),
    ] {
        assert_eq!(broker.pull_code(&request), answer, "{request:?}");
    }
}

#[test]
fn pulls_by_the_groups_subscription_need_a_fitting_heartbeat() {
    let mut broker = broker();
    let by_group = |topic| PullRequest { sys_flag: 0, ..pull(topic) };
    broker.subscribe(MessageModel::Clustering, "orders", "A", "TAG");
    assert_eq!(broker.pull_code(&by_group("orders")), (0, 0));
    assert_eq!(broker.pull_code(&by_group("ordered")), (24, 0));
    let newer = PullRequest { sub_version: 11, ..by_group("orders") };
    assert_eq!(broker.pull_code(&newer), (25, 0));
    let Ok(PullCheck::Ready { filter: Cow::Borrowed(filter), .. }) = broker.pull(&by_group("orders")) else {
        panic!("the filter is borrowed from the heartbeat's subscription");
    };
    assert_eq!(*filter, TagFilter::Codes([65].into()));

    broker.groups.set_readable("g", "orders", false, 2);
    assert_eq!(broker.pull_code(&by_group("orders")), (16, 5));
    assert_eq!(broker.pull_code(&pull("orders")), (0, 0), "only by the group's subscription");
    broker.groups.set_readable("g", "orders", true, 3);

    broker.subscribe(MessageModel::Broadcasting, "orders", "A", "TAG");
    assert_eq!(broker.pull_code(&by_group("orders")), (0, 0));
    let closed = SubscriptionGroupConfig { consume_broadcast_enable: false, ..with_defaults("g") };
    broker.groups.put(closed, 4);
    assert_eq!(broker.pull_code(&by_group("orders")), (16, 4));
    let disabled = SubscriptionGroupConfig { consume_enable: false, ..with_defaults("g") };
    broker.groups.put(disabled, 5);
    assert_eq!(broker.pull_code(&by_group("orders")), (16, 2));
}

#[test]
fn filters_other_than_tags_need_a_setting_and_an_expression_that_can_be_read() {
    let mut broker = broker();
    let own = |kind, expression| PullRequest {
        expression_type: Some(kind),
        subscription: Some(expression),
        ..pull("orders")
    };
    let by_group = PullRequest { sys_flag: 0, ..pull("orders") };
    for (is_enabled, kind, expression, own_answer, group_answer) in [
        (false, "SQL92", "a > 1", 1, 1),
        (false, "SQL92", "a >", 1, 27),
        (false, "SQL92", "", 23, 27),
        (true, "SQL92", "a > 1", 0, 0),
        (true, "SQL92", "a >", 23, 27),
        (true, "SQL92", "", 23, 27),
        (true, "XPATH", "a > 1", 23, 27),
    ] {
        broker.settings.enable_property_filter = is_enabled;
        broker.subscribe(MessageModel::Clustering, "orders", expression, kind);
        let answers = (broker.pull_code(&own(kind, expression)), broker.pull_code(&by_group));
        assert_eq!(answers, ((own_answer, 0), (group_answer, 0)), "{is_enabled} {kind} {expression:?}");
    }
    broker.subscribe(MessageModel::Clustering, "orders", "a > 1 AND (b", "SQL92");
    for request in [own("SQL92", "a > 1 AND (b"), by_group] {
        let refusal = broker.pull(&request).expect_err("the parenthesis is open");
        assert!(refusal.remark.contains("character 13: ) is expected"), "{}", refusal.remark);
    }
}

#[test]
fn settings_of_the_broker_refuse_pulls() {
    let mut broker = broker();
    broker.settings.reject_pull_consumer_enable = true;
    assert_eq!(broker.pull_code(&pull("orders")), (24, 0));
    broker.settings.lite_pull_message_enable = false;
    assert_eq!(broker.pull_code(&PullRequest { is_lite: true, ..pull("orders") }), (16, 1));
    broker.settings.broker_permission = perm::WRITE;
    assert_eq!(broker.pull_code(&pull("absent")), (16, 1), "the first fault is answered");
}

#[test]
fn an_unknown_group_is_handed_back_to_be_created() {
    let mut broker = broker();
    broker.groups = GroupTable::new(GroupSettings::default(), 1);
    let created = broker.pull(&pull("orders"));
    assert!(matches!(created, Ok(PullCheck::CreateGroup(group)) if group.group_name == "g"));
}
