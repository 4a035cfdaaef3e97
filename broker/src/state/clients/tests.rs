use proptest::prelude::*;

use rmq_net::body::{ProducerData, SubscriptionData};

use super::super::groups::with_defaults;
use super::super::settings::GroupSettings;
use super::*;

fn groups() -> GroupTable {
    let mut groups = GroupTable::new(GroupSettings::default(), 1);
    for name in ["g", "h", "silent"] {
        let mut config = with_defaults(name);
        config.notify_consumer_ids_changed_enable = name != "silent";
        groups.put(config, 1);
    }
    groups
}

fn peer(connection: u64) -> Peer {
    Peer {
        connection: ConnectionId::from_key(connection),
        address: SocketAddr::from(([10, 0, 0, 1], 5000)),
        language: Language::Java,
        version: 513,
    }
}

fn subscription(topic: &str, version: i64) -> SubscriptionData {
    SubscriptionData {
        topic: topic.to_owned(),
        sub_string: "A".to_owned(),
        sub_version: version,
        ..SubscriptionData::default()
    }
}

fn consumer(group: &str, model: MessageModel, topics: &[(&str, i64)]) -> ConsumerData {
    ConsumerData {
        group_name: group.to_owned(),
        consume_type: ConsumeType::ConsumePassively,
        message_model: model,
        subscription_data_set: topics.iter().map(|(topic, version)| subscription(topic, *version)).collect(),
        ..ConsumerData::default()
    }
}

fn heartbeat(client_id: &str, consumers: Vec<ConsumerData>) -> HeartbeatData {
    HeartbeatData { client_id: client_id.to_owned(), consumer_data_set: consumers, ..HeartbeatData::default() }
}

fn clustering(client_id: &str, group: &str, topics: &[(&str, i64)]) -> HeartbeatData {
    heartbeat(client_id, vec![consumer(group, MessageModel::Clustering, topics)])
}

fn connections(numbers: &[u64]) -> Vec<ConnectionId> {
    numbers.iter().copied().map(ConnectionId::from_key).collect()
}

fn notified(changes: &ClientChanges) -> Vec<(&str, Vec<ConnectionId>)> {
    changes.notices.iter().map(|notice| (&*notice.group, notice.connections.clone())).collect()
}

fn ids(registry: &ClientRegistry, group: &str) -> Vec<String> {
    registry.member_ids(group).unwrap_or_default().iter().map(|id| id.to_string()).collect()
}

#[test]
fn members_are_told_when_the_group_changes_and_only_then() {
    let groups = groups();
    let mut registry = ClientRegistry::new(false, CLIENT_EXPIRY_MS);
    let (first, _) = registry.heartbeat(&peer(1), &clustering("one", "g", &[("t", 1)]), &groups, 0);
    assert_eq!(notified(&first), [("g", connections(&[1]))]);
    assert_eq!(first.views.len(), 1);
    let (again, is_changed) = registry.heartbeat(&peer(1), &clustering("one", "g", &[("t", 1)]), &groups, 1);
    assert!(again.notices.is_empty() && again.views.is_empty());
    assert!(is_changed, "a V1 heartbeat is always answered so");
    let (second, _) = registry.heartbeat(&peer(2), &clustering("two", "g", &[("t", 1)]), &groups, 2);
    assert_eq!(notified(&second), [("g", connections(&[1, 2]))]);
    assert!(second.views.is_empty(), "the view holds no members");
    assert_eq!(ids(&registry, "g"), ["one", "two"]);
    let (topics, _) = registry.heartbeat(&peer(1), &clustering("one", "g", &[("t", 1), ("u", 1)]), &groups, 3);
    assert_eq!(notified(&topics), [("g", connections(&[1, 2]))]);
    let left = registry.unregister(ConnectionId::from_key(1), None, Some("g"), &groups);
    assert_eq!(notified(&left), [("g", connections(&[2]))]);
    let closed = registry.on_closed(ConnectionId::from_key(2), &groups);
    assert!(closed.notices.is_empty());
    assert!(closed.views.first().is_some_and(|change| change.view.is_none()));
    assert_eq!(registry.member_ids("g"), None);
    assert!(registry.connections.is_empty());
}

#[test]
fn broadcasting_and_silent_groups_are_not_told() {
    let groups = groups();
    let mut registry = ClientRegistry::new(false, CLIENT_EXPIRY_MS);
    let broadcast = heartbeat("one", vec![consumer("g", MessageModel::Broadcasting, &[("t", 1)])]);
    assert!(registry.heartbeat(&peer(1), &broadcast, &groups, 0).0.notices.is_empty());
    let silent = clustering("one", "silent", &[("t", 1)]);
    assert!(registry.heartbeat(&peer(1), &silent, &groups, 0).0.notices.is_empty());
    let unknown = clustering("one", "unknown", &[("t", 1)]);
    assert!(registry.heartbeat(&peer(1), &unknown, &groups, 0).0.views.is_empty());
    assert_eq!(registry.member_ids("unknown"), None);
}

#[test]
fn the_newest_heartbeat_decides_the_subscription() {
    let groups = groups();
    let mut registry = ClientRegistry::new(false, CLIENT_EXPIRY_MS);
    let mut versions = |connection: u64, topics: &[(&str, i64)]| {
        registry.heartbeat(&peer(connection), &clustering("c", "g", topics), &groups, 0);
        let view = registry.view("g").expect("online");
        let mut seen: Vec<(String, i64)> =
            view.subscriptions.iter().map(|(topic, subscription)| (topic.to_string(), subscription.version)).collect();
        seen.sort();
        seen
    };
    let pairs = |pairs: &[(&str, i64)]| -> Vec<(String, i64)> {
        pairs.iter().map(|(topic, version)| ((*topic).to_owned(), *version)).collect()
    };
    assert_eq!(versions(1, &[("t", 5), ("u", 5)]), pairs(&[("t", 5), ("u", 5)]));
    assert_eq!(versions(2, &[("t", 4)]), pairs(&[("t", 5)]));
    assert_eq!(versions(1, &[("t", 5), ("u", 5)]), pairs(&[("t", 5), ("u", 5)]));
    assert_eq!(versions(2, &[("t", 6), ("t", 7), ("u", 1)]), pairs(&[("t", 7), ("u", 5)]));
    assert_eq!(versions(2, &[("t", 7), ("t", 7)]), pairs(&[("t", 7)]));
    assert_eq!(versions(2, &[]), pairs(&[]));
}

#[test]
fn a_refresh_without_subscriptions_keeps_them_and_asks_for_them_when_unknown() {
    let groups = groups();
    let mut registry = ClientRegistry::new(false, CLIENT_EXPIRY_MS);
    let full = HeartbeatData { heartbeat_fingerprint: 7, ..clustering("one", "g", &[("t", 1)]) };
    let refresh = HeartbeatData { heartbeat_fingerprint: 7, without_sub: true, ..clustering("one", "g", &[]) };
    let (_, is_changed) = registry.heartbeat(&peer(1), &refresh, &groups, 0);
    assert!(is_changed, "we restarted and know nothing of this group");
    let (_, is_changed) = registry.heartbeat(&peer(1), &full, &groups, 1);
    assert!(!is_changed);
    let (changes, is_changed) = registry.heartbeat(&peer(1), &refresh, &groups, 2);
    assert!(!is_changed && changes.views.is_empty() && changes.notices.is_empty());
    assert!(registry.subscription("g", "t").is_some());
    let other = HeartbeatData { heartbeat_fingerprint: 8, ..refresh };
    assert!(registry.heartbeat(&peer(2), &other, &groups, 3).1);
}

#[test]
fn silent_members_expire_and_the_rest_is_told() {
    let groups = groups();
    let mut registry = ClientRegistry::new(false, CLIENT_EXPIRY_MS);
    registry.heartbeat(&peer(1), &clustering("one", "g", &[("t", 1)]), &groups, 0);
    registry.heartbeat(&peer(2), &clustering("two", "g", &[("t", 1)]), &groups, 60_000);
    let (changes, closes) = registry.expire(CLIENT_EXPIRY_MS, &groups);
    assert!(closes.is_empty() && changes.notices.is_empty());
    let (changes, closes) = registry.expire(CLIENT_EXPIRY_MS + 1, &groups);
    assert_eq!(closes, [ConnectionId::from_key(1)]);
    assert_eq!(notified(&changes), [("g", connections(&[2]))]);

    let mut impatient = ClientRegistry::new(false, 10);
    impatient.heartbeat(&peer(1), &clustering("one", "g", &[("t", 1)]), &groups, 0);
    assert_eq!(impatient.expire(11, &groups).1, [ConnectionId::from_key(1)]);
}

#[test]
fn producers_are_known_by_group_and_connection() {
    let groups = groups();
    let mut registry = ClientRegistry::new(false, CLIENT_EXPIRY_MS);
    let data = HeartbeatData {
        client_id: "p".to_owned(),
        producer_data_set: vec![
            ProducerData { group_name: "pg".to_owned() },
            ProducerData { group_name: "CLIENT_INNER_PRODUCER".to_owned() },
        ],
        ..HeartbeatData::default()
    };
    registry.heartbeat(&peer(1), &data, &groups, 0);
    registry.heartbeat(&peer(2), &data, &groups, 0);
    assert_eq!(registry.producers("pg").count(), 2);
    let table = registry.producer_table().data;
    let info = table.get("pg").and_then(|infos| infos.first()).expect("listed");
    assert_eq!((table.len(), info.remote_ip.as_str()), (2, "/10.0.0.1:5000"));
    let listed = registry.producer_connection("pg").expect("online");
    assert_eq!(listed.connection_set.len(), 2);
    assert_eq!(registry.producer_connection("absent"), None);
    registry.unregister(ConnectionId::from_key(1), Some("pg"), None, &groups);
    assert_eq!(registry.producers("pg").count(), 1);
    registry.on_closed(ConnectionId::from_key(1), &groups);
    registry.on_closed(ConnectionId::from_key(2), &groups);
    assert!(registry.producers.is_empty() && registry.connections.is_empty());
}

#[test]
fn lookups_find_members_and_subscribers() {
    let groups = groups();
    let mut registry = ClientRegistry::new(true, CLIENT_EXPIRY_MS);
    registry.heartbeat(&peer(1), &clustering("one", "g", &[("t", 1)]), &groups, 0);
    registry.heartbeat(&peer(1), &clustering("one", "h", &[("t", 1), ("u", 1)]), &groups, 0);
    let found = registry.find_consumer("g", "one").map(|(connection, _client)| connection);
    assert_eq!(found, Some(ConnectionId::from_key(1)));
    assert!(registry.find_consumer("g", "two").is_none());
    let on_topic: Vec<String> = registry.groups_on_topic("t").iter().map(|group| group.to_string()).collect();
    assert_eq!(on_topic, ["g", "h"]);
    let listed = registry.consumer_connection("g").expect("online");
    let connection = listed.connection_set.first().expect("one member");
    assert_eq!((connection.client_addr.as_str(), connection.version), ("10.0.0.1:5000", 513));
    let data = listed.subscription_table.get("t").expect("subscribed");
    assert_eq!((data.code_set.as_slice(), data.topic.as_str()), (&[65][..], "t"));
    assert_eq!(registry.consumer_connection("absent"), None);
    let mut pull = clustering("one", "silent", &[("t", 1)]);
    for consumer in &mut pull.consumer_data_set {
        consumer.consume_type = ConsumeType::ConsumeActively;
    }
    registry.heartbeat(&peer(1), &pull, &groups, 0);
    assert_eq!(registry.member_ids("silent"), None, "pull consumers are rejected");
}

#[derive(Clone, Debug)]
enum Step {
    Heartbeat { connection: u64, groups: Vec<usize>, producer: bool },
    Unregister { connection: u64, group: usize },
    Close { connection: u64 },
    Wait { ms: i64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let connection = 0_u64..4;
    let step = prop_oneof![
        4 => (connection.clone(), proptest::collection::vec(0_usize..2, 0..3), any::<bool>())
            .prop_map(|(connection, groups, producer)| Step::Heartbeat {
                connection,
                groups,
                producer,
            }),
        1 => (connection.clone(), 0_usize..2)
            .prop_map(|(connection, group)| Step::Unregister { connection, group }),
        1 => connection.prop_map(|connection| Step::Close { connection }),
        1 => (0_i64..150_000).prop_map(|ms| Step::Wait { ms }),
    ];
    proptest::collection::vec(step, 1..40)
}

const MODEL_GROUPS: [&str; 2] = ["g", "h"];

proptest! {
    /// The registry against the plainest thing that could work: a map of (group, connection) to
    /// the time last seen.
    #[test]
    fn membership_agrees_with_a_plain_model(steps in steps()) {
        let groups = groups();
        let mut registry = ClientRegistry::new(false, CLIENT_EXPIRY_MS);
        let mut replica = GroupViews::default();
        let mut model: BTreeMap<(&str, u64), i64> = BTreeMap::new();
        let mut producers: BTreeMap<u64, i64> = BTreeMap::new();
        let mut now_ms = 0;
        for step in steps {
            let before = model.clone();
            let changes = match step {
                Step::Heartbeat { connection, groups: chosen, producer } => {
                    let mut data = heartbeat(&format!("client-{connection}"), Vec::new());
                    for index in chosen {
                        let name = MODEL_GROUPS[index];
                        let entry = consumer(name, MessageModel::Clustering, &[("t", 1)]);
                        data.consumer_data_set.push(entry);
                        model.insert((name, connection), now_ms);
                    }
                    if producer {
                        data.producer_data_set.push(ProducerData { group_name: "pg".into() });
                        producers.insert(connection, now_ms);
                    }
                    registry.heartbeat(&peer(connection), &data, &groups, now_ms).0
                }
                Step::Unregister { connection, group } => {
                    model.remove(&(MODEL_GROUPS[group], connection));
                    let name = Some(MODEL_GROUPS[group]);
                    registry.unregister(ConnectionId::from_key(connection), None, name, &groups)
                }
                Step::Close { connection } => {
                    model.retain(|(_group, member), _seen| *member != connection);
                    producers.remove(&connection);
                    registry.on_closed(ConnectionId::from_key(connection), &groups)
                }
                Step::Wait { ms } => {
                    now_ms += ms;
                    let (changes, closes) = registry.expire(now_ms, &groups);
                    let old = |seen: &i64| now_ms - *seen > CLIENT_EXPIRY_MS;
                    let mut gone: Vec<u64> = model
                        .iter()
                        .filter(|(_key, seen)| old(seen))
                        .map(|((_group, connection), _seen)| *connection)
                        .chain(producers.iter().filter(|(_key, seen)| old(seen)).map(|(key, _)| *key))
                        .collect();
                    gone.sort_unstable();
                    gone.dedup();
                    prop_assert_eq!(closes, connections(&gone));
                    model.retain(|(_group, connection), _seen| !gone.contains(connection));
                    producers.retain(|connection, _seen| !gone.contains(connection));
                    changes
                }
            };
            for change in changes.views {
                replica.apply(change);
            }
            for name in MODEL_GROUPS {
                let members = |table: &BTreeMap<(&str, u64), i64>| -> Vec<String> {
                    table
                        .keys()
                        .filter(|(group, _connection)| *group == name)
                        .map(|(_group, connection)| format!("client-{connection}"))
                        .collect()
                };
                let (was, is) = (members(&before), members(&model));
                prop_assert_eq!(ids(&registry, name), is.clone());
                prop_assert_eq!(replica.get(name).is_some(), !is.is_empty());
                prop_assert_eq!(replica.get(name), registry.view(name));
                let is_told = changes.notices.iter().any(|notice| &*notice.group == name);
                prop_assert_eq!(is_told, was != is && !is.is_empty());
            }
            prop_assert_eq!(registry.producers("pg").count(), producers.len());
            let known: std::collections::BTreeSet<u64> = model
                .keys()
                .map(|(_group, connection)| *connection)
                .chain(producers.keys().copied())
                .collect();
            prop_assert_eq!(registry.connections.len(), known.len());
        }
    }
}
