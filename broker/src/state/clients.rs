//! Who is connected: the producers and consumers of each group, and what each group subscribes to.
//!
//! Owned by core 0. A member of a group is a connection, not a client id: a client that comes back
//! on a new connection is a new member until the old one closes. A consumer group exists as long
//! as it has members.
//!
//! ```text
//! consumers   group -> members (connection -> client) + GroupView (shared with the other cores)
//! producers   group -> members
//! connections connection -> the groups it is in        (what a close must undo)
//! ```
//! Every connection in a group's members lists that group in `connections`, and the reverse.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::sync::Arc;

use rmq_net::body::{
    Connection, ConsumeFromWhere, ConsumeType, ConsumerConnection, ConsumerData, HeartbeatData, MessageModel,
    ProducerConnection, ProducerInfo, ProducerTable,
};
use rmq_net::language::Language;
use rustc_hash::{FxHashMap, FxHashSet};

use rmq_net::connection::ConnectionId;

use super::groups::GroupTable;
use super::heartbeat::is_rejected;
use super::subscription::Subscription;

/// A producer without a heartbeat for this long is gone. For consumers it is the default.
pub const CLIENT_EXPIRY_MS: i64 = 120_000;

/// Where a heartbeat came from.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub connection: ConnectionId,
    pub address: SocketAddr,
    pub language: Language,
    /// Protocol version number of the request's frame.
    pub version: i32,
}

/// A member of a group as its last heartbeat described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    pub client_id: Arc<str>,
    pub address: SocketAddr,
    pub language: Language,
    pub version: i32,
    pub last_seen_ms: i64,
}

/// What the other cores need to know of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupView {
    pub group: Arc<str>,
    pub consume_type: ConsumeType,
    pub message_model: MessageModel,
    pub consume_from_where: ConsumeFromWhere,
    pub subscriptions: FxHashMap<Arc<str>, Arc<Subscription>>,
}

/// A change of a group's view; `None` when its last member left.
#[derive(Clone, Debug)]
pub struct ViewChange {
    pub group: Arc<str>,
    pub view: Option<Arc<GroupView>>,
}

/// Connections to send NOTIFY_CONSUMER_IDS_CHANGED (40) to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    pub group: Arc<str>,
    pub connections: Vec<ConnectionId>,
}

/// What a call changed, to be passed on by the caller.
#[derive(Debug, Default)]
pub struct ClientChanges {
    pub notices: Vec<Notice>,
    pub views: Vec<ViewChange>,
}

/// Replicas of the group views on every core.
#[derive(Debug, Default)]
pub struct GroupViews {
    views: FxHashMap<Arc<str>, Arc<GroupView>>,
}

impl GroupViews {
    pub fn get(&self, group: &str) -> Option<&Arc<GroupView>> {
        self.views.get(group)
    }

    pub fn apply(&mut self, change: ViewChange) {
        match change.view {
            Some(view) => self.views.insert(change.group, view),
            None => self.views.remove(&change.group),
        };
    }
}

type Members = BTreeMap<ConnectionId, Client>;

#[derive(Debug)]
struct ConsumerGroup {
    members: Members,
    view: Arc<GroupView>,
    /// Of the last V2 heartbeat.
    fingerprint: Option<i32>,
}

#[derive(Debug, Default)]
struct Memberships {
    consumer_groups: Vec<Arc<str>>,
    producer_groups: Vec<Arc<str>>,
}

/// See the module.
#[derive(Debug)]
pub struct ClientRegistry {
    consumers: FxHashMap<Arc<str>, ConsumerGroup>,
    producers: FxHashMap<Arc<str>, Members>,
    connections: FxHashMap<ConnectionId, Memberships>,
    /// Where a producer client was last heard of, by its client id.
    producer_connections: FxHashMap<Arc<str>, ConnectionId>,
    reject_pull_consumers: bool,
    consumer_expiry_ms: i64,
}

impl ClientRegistry {
    /// `reject_pull_consumers`: `rejectPullConsumerEnable`. `consumer_expiry_ms`: `channelExpiredTimeout`.
    pub fn new(reject_pull_consumers: bool, consumer_expiry_ms: i64) -> Self {
        Self {
            consumers: FxHashMap::default(),
            producers: FxHashMap::default(),
            connections: FxHashMap::default(),
            producer_connections: FxHashMap::default(),
            reject_pull_consumers,
            consumer_expiry_ms,
        }
    }

    /// Registers everything a heartbeat names. Consumer groups that are not in `groups` are passed
    /// over silently. The second value is the answer's `IS_SUB_CHANGE`: should a client that
    /// leaves its subscriptions out send them again?
    pub fn heartbeat(
        &mut self,
        peer: &Peer,
        data: &HeartbeatData,
        groups: &GroupTable,
        now_ms: i64,
    ) -> (ClientChanges, bool) {
        let client = Client {
            client_id: Arc::from(data.client_id.as_str()),
            address: peer.address,
            language: peer.language,
            version: peer.version,
            last_seen_ms: now_ms,
        };
        let mut changes = ClientChanges::default();
        let mut is_subscription_changed = data.heartbeat_fingerprint == 0;
        for consumer in &data.consumer_data_set {
            let Some(config) = groups.get(&consumer.group_name) else {
                continue;
            };
            if is_rejected(consumer, self.reject_pull_consumers) {
                continue;
            }
            is_subscription_changed |= self.differs_in_fingerprint(data, &consumer.group_name);
            let subscriptions = (!data.without_sub).then_some(consumer);
            let is_changed = self.join_consumer_group(peer, client.clone(), consumer, subscriptions, &mut changes);
            if let Some(group) = self.consumers.get_mut(consumer.group_name.as_str()) {
                if data.heartbeat_fingerprint != 0 {
                    group.fingerprint = Some(data.heartbeat_fingerprint);
                }
                if is_changed && config.notify_consumer_ids_changed_enable {
                    changes.notices.extend(group.notice());
                }
            }
        }
        for producer in &data.producer_data_set {
            self.join_producer_group(peer.connection, client.clone(), &producer.group_name);
        }
        (changes, is_subscription_changed)
    }

    /// For V2 heartbeats: another fingerprint than stored, or a refresh of what we do not know.
    fn differs_in_fingerprint(&self, data: &HeartbeatData, group: &str) -> bool {
        match self.consumers.get(group).and_then(|group| group.fingerprint) {
            Some(stored) => stored != data.heartbeat_fingerprint,
            None => data.without_sub,
        }
    }

    /// Returns whether the members or the topics of the group changed.
    fn join_consumer_group(
        &mut self,
        peer: &Peer,
        client: Client,
        data: &ConsumerData,
        subscriptions: Option<&ConsumerData>,
        changes: &mut ClientChanges,
    ) -> bool {
        let name = intern(&self.consumers, &data.group_name);
        let is_new_group = !self.consumers.contains_key(&name);
        let group =
            self.consumers.entry(Arc::clone(&name)).or_insert_with(|| ConsumerGroup::new(Arc::clone(&name), data));
        let is_member_changed = match group.members.entry(peer.connection) {
            Entry::Vacant(vacant) => {
                vacant.insert(client);
                let memberships = self.connections.entry(peer.connection).or_default();
                memberships.consumer_groups.push(Arc::clone(&name));
                true
            }
            Entry::Occupied(mut occupied) => {
                let previous = occupied.insert(client);
                previous.client_id != occupied.get().client_id
            }
        };
        let (is_topic_changed, is_view_changed) = group.update_view(data, subscriptions);
        if is_new_group || is_view_changed {
            changes.views.push(ViewChange { group: name, view: Some(Arc::clone(&group.view)) });
        }
        is_member_changed || is_topic_changed
    }

    fn join_producer_group(&mut self, connection: ConnectionId, client: Client, group: &str) {
        let name = intern(&self.producers, group);
        let members = self.producers.entry(Arc::clone(&name)).or_default();
        let client_id = Arc::clone(&client.client_id);
        match members.insert(connection, client) {
            None => self.connections.entry(connection).or_default().producer_groups.push(name),
            Some(previous) if previous.client_id != client_id => self.forget_producer(&previous.client_id, connection),
            Some(_) => {}
        }
        self.producer_connections.insert(client_id, connection);
    }

    fn forget_producer(&mut self, client_id: &str, connection: ConnectionId) {
        if self.producer_connections.get(client_id) == Some(&connection) {
            self.producer_connections.remove(client_id);
        }
    }

    /// UNREGISTER_CLIENT (35): the connection leaves the named groups.
    pub fn unregister(
        &mut self,
        connection: ConnectionId,
        producer_group: Option<&str>,
        consumer_group: Option<&str>,
        groups: &GroupTable,
    ) -> ClientChanges {
        let mut changes = ClientChanges::default();
        if let Some(group) = producer_group {
            self.leave_producer_group(connection, group);
        }
        if let Some(group) = consumer_group {
            self.leave_consumer_group(connection, group, groups, &mut changes);
        }
        if let Some(memberships) = self.connections.get_mut(&connection) {
            memberships.producer_groups.retain(|group| Some(&**group) != producer_group);
            memberships.consumer_groups.retain(|group| Some(&**group) != consumer_group);
            if memberships.producer_groups.is_empty() && memberships.consumer_groups.is_empty() {
                self.connections.remove(&connection);
            }
        }
        changes
    }

    /// The connection is gone: it leaves every group.
    pub fn on_closed(&mut self, connection: ConnectionId, groups: &GroupTable) -> ClientChanges {
        let mut changes = ClientChanges::default();
        let memberships = self.connections.remove(&connection).unwrap_or_default();
        for group in memberships.producer_groups {
            self.leave_producer_group(connection, &group);
        }
        for group in memberships.consumer_groups {
            self.leave_consumer_group(connection, &group, groups, &mut changes);
        }
        changes
    }

    /// Removes the members that stopped sending heartbeats; their connections are to be closed.
    /// RocketMQ looks every 10 s.
    pub fn expire(&mut self, now_ms: i64, groups: &GroupTable) -> (ClientChanges, Vec<ConnectionId>) {
        let consumers = self.consumers.values().map(|group| (&group.members, self.consumer_expiry_ms));
        let producers = self.producers.values().map(|members| (members, CLIENT_EXPIRY_MS));
        let mut expired: Vec<ConnectionId> = consumers
            .chain(producers)
            .flat_map(|(members, expiry_ms)| members.iter().map(move |member| (member, expiry_ms)))
            .filter(|((_connection, client), expiry_ms)| now_ms - client.last_seen_ms > *expiry_ms)
            .map(|((connection, _client), _expiry_ms)| *connection)
            .collect();
        expired.sort_unstable();
        expired.dedup();
        let mut changes = ClientChanges::default();
        let mut shrunk: Vec<Arc<str>> = Vec::new();
        for connection in &expired {
            let closed = self.on_closed(*connection, groups);
            shrunk.extend(closed.notices.into_iter().map(|notice| notice.group));
            changes.views.extend(closed.views);
        }
        // Told once all have left: a group shrunk step by step names members that are gone too.
        shrunk.sort_unstable();
        shrunk.dedup();
        let rest = shrunk.iter().filter_map(|group| self.consumers.get(group));
        changes.notices.extend(rest.filter_map(ConsumerGroup::notice));
        (changes, expired)
    }

    fn leave_producer_group(&mut self, connection: ConnectionId, group: &str) {
        let Some(members) = self.producers.get_mut(group) else {
            return;
        };
        let left = members.remove(&connection);
        if members.is_empty() {
            self.producers.remove(group);
        }
        if let Some(client) = left {
            // As in RocketMQ even if the client is in other groups: its next heartbeat brings it back.
            self.forget_producer(&client.client_id, connection);
        }
    }

    fn leave_consumer_group(
        &mut self,
        connection: ConnectionId,
        name: &str,
        groups: &GroupTable,
        changes: &mut ClientChanges,
    ) {
        let Some(group) = self.consumers.get_mut(name) else {
            return;
        };
        if group.members.remove(&connection).is_none() {
            return;
        }
        if group.members.is_empty() {
            if let Some((group, _removed)) = self.consumers.remove_entry(name) {
                changes.views.push(ViewChange { group, view: None });
            }
            return;
        }
        if groups.get(name).is_none_or(|config| config.notify_consumer_ids_changed_enable) {
            changes.notices.extend(group.notice());
        }
    }

    /// The client ids of a consumer group (38), sorted, each once. `None`: no member.
    pub fn member_ids(&self, group: &str) -> Option<Vec<Arc<str>>> {
        let group = self.consumers.get(group)?;
        let mut ids: Vec<_> = group.members.values().map(|client| Arc::clone(&client.client_id)).collect();
        ids.sort_unstable();
        ids.dedup();
        Some(ids)
    }

    /// The members of a consumer group by connection; empty when it is not online.
    pub fn consumers(&self, group: &str) -> impl Iterator<Item = (ConnectionId, &Client)> {
        let members = self.consumers.get(group).map(|group| &group.members);
        members.into_iter().flatten().map(|(connection, client)| (*connection, client))
    }

    /// The connection of one member of a consumer group, for requests relayed to it (307, 309).
    pub fn find_consumer(&self, group: &str, client_id: &str) -> Option<(ConnectionId, &Client)> {
        self.consumers(group).find(|(_connection, client)| &*client.client_id == client_id)
    }

    /// The connection of a client that is in any producer group.
    pub fn find_producer(&self, client_id: &str) -> Option<ConnectionId> {
        self.producer_connections.get(client_id).copied()
    }

    /// The members of a producer group by connection; empty when it is not online.
    pub fn producers(&self, group: &str) -> impl Iterator<Item = (ConnectionId, &Client)> {
        let members = self.producers.get(group);
        members.into_iter().flatten().map(|(connection, client)| (*connection, client))
    }

    /// The answer to GET_CONSUMER_CONNECTION_LIST (203). `None`: the group is not online.
    pub fn consumer_connection(&self, group: &str) -> Option<ConsumerConnection> {
        let group = self.consumers.get(group)?;
        let view = &group.view;
        Some(ConsumerConnection {
            connection_set: group.members.values().map(Client::to_connection).collect(),
            consume_from_where: view.consume_from_where,
            consume_type: view.consume_type,
            message_model: view.message_model,
            subscription_table: view
                .subscriptions
                .iter()
                .map(|(topic, subscription)| (topic.to_string(), subscription.to_data(topic)))
                .collect(),
        })
    }

    /// The answer to GET_PRODUCER_CONNECTION_LIST (204). `None`: the group is not online.
    pub fn producer_connection(&self, group: &str) -> Option<ProducerConnection> {
        let members = self.producers.get(group)?;
        Some(ProducerConnection { connection_set: members.values().map(Client::to_connection).collect() })
    }

    /// The answer to GET_ALL_PRODUCER_INFO (328).
    pub fn producer_table(&self) -> ProducerTable {
        let of_group = |members: &Members| members.values().map(Client::to_producer_info).collect();
        ProducerTable {
            data: self.producers.iter().map(|(group, members)| (group.to_string(), of_group(members))).collect(),
        }
    }

    /// The view of a consumer group that is online.
    pub fn view(&self, group: &str) -> Option<&Arc<GroupView>> {
        self.consumers.get(group).map(|group| &group.view)
    }

    pub fn subscription(&self, group: &str, topic: &str) -> Option<&Arc<Subscription>> {
        self.view(group)?.subscriptions.get(topic)
    }

    /// The groups that are online and subscribe to the topic (300), sorted.
    pub fn groups_on_topic(&self, topic: &str) -> Vec<Arc<str>> {
        let mut groups: Vec<_> = self
            .consumers
            .values()
            .filter(|group| group.view.subscriptions.contains_key(topic))
            .map(|group| Arc::clone(&group.view.group))
            .collect();
        groups.sort_unstable();
        groups
    }
}

impl Client {
    fn to_connection(&self) -> Connection {
        Connection {
            client_addr: self.address.to_string(),
            client_id: self.client_id.to_string(),
            language: self.language.name().to_owned(),
            version: self.version,
        }
    }

    fn to_producer_info(&self) -> ProducerInfo {
        ProducerInfo {
            client_id: self.client_id.to_string(),
            language: self.language.name().to_owned(),
            last_update_timestamp: self.last_seen_ms,
            // With the slash of Java's socket addresses, as tools show it.
            remote_ip: format!("/{}", self.address),
            version: self.version,
        }
    }
}

impl ConsumerGroup {
    fn new(name: Arc<str>, data: &ConsumerData) -> Self {
        let view = GroupView {
            group: name,
            consume_type: data.consume_type,
            message_model: data.message_model,
            consume_from_where: data.consume_from_where,
            subscriptions: FxHashMap::default(),
        };
        Self { members: Members::new(), view: Arc::new(view), fingerprint: None }
    }

    /// The newest heartbeat decides for the whole group. A known topic changes only with a larger
    /// subscription version; topics the heartbeat leaves out go.
    /// Returns whether the set of topics changed, and whether anything in the view did.
    fn update_view(&mut self, data: &ConsumerData, subscriptions: Option<&ConsumerData>) -> (bool, bool) {
        let mut next: Option<GroupView> = None;
        let current = &self.view;
        let modes = (data.consume_type, data.message_model, data.consume_from_where);
        if modes != (current.consume_type, current.message_model, current.consume_from_where) {
            let view = next.get_or_insert_with(|| (**current).clone());
            (view.consume_type, view.message_model, view.consume_from_where) = modes;
        }
        let mut is_topic_changed = false;
        if let Some(data) = subscriptions {
            for subscription in &data.subscription_data_set {
                let view = next.as_ref().unwrap_or(current);
                let known = view.subscriptions.get(subscription.topic.as_str());
                is_topic_changed |= known.is_none();
                if known.is_none_or(|known| known.version < subscription.sub_version) {
                    let topic = Arc::from(subscription.topic.as_str());
                    let wanted = Arc::new(Subscription::from_heartbeat(subscription));
                    let view = next.get_or_insert_with(|| (**current).clone());
                    view.subscriptions.insert(topic, wanted);
                }
            }
            let named: FxHashSet<&str> =
                data.subscription_data_set.iter().map(|subscription| subscription.topic.as_str()).collect();
            let view = next.as_ref().unwrap_or(current);
            // Every named topic is in the view by now, so a larger view holds others.
            if named.len() < view.subscriptions.len() {
                is_topic_changed = true;
                let view = next.get_or_insert_with(|| (**current).clone());
                view.subscriptions.retain(|topic, _subscription| named.contains(&**topic));
            }
        }
        let is_view_changed = next.is_some();
        if let Some(view) = next {
            self.view = Arc::new(view);
        }
        (is_topic_changed, is_view_changed)
    }

    /// Everyone in the group, unless it broadcasts and so has nothing to share out.
    fn notice(&self) -> Option<Notice> {
        if self.view.message_model == MessageModel::Broadcasting {
            return None;
        }
        Some(Notice { group: Arc::clone(&self.view.group), connections: self.members.keys().copied().collect() })
    }
}

/// The name as the map already holds it, so that one group's name is one allocation.
fn intern<V>(map: &FxHashMap<Arc<str>, V>, name: &str) -> Arc<str> {
    map.get_key_value(name).map_or_else(|| Arc::from(name), |(known, _value)| Arc::clone(known))
}

#[cfg(test)]
mod tests;
