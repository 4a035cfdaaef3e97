//! What only the system core keeps: connected clients, queue locks, and the tie to the name servers.

use rmq_net::body::{RegisterBrokerBody, TopicConfig};
use rmq_net::connection::ConnectionId;

use crate::ask;
use crate::broker::{Broker, SYSTEM_CORE};
use crate::letter::Letter;
use crate::registrar::Registrar;
use crate::request::assignment::{self, WaitingQueries};
use crate::request::reply::{self, Pushes};
use crate::request::{client, pop, pull, topic_change};
use crate::routes::Routes;
use crate::state::clients::ClientRegistry;
use crate::state::locks::QueueLocks;
use crate::state::stats::{BrokerStats, CountersDelta};

/// How often clients without a heartbeat and expired locks are looked for, as in RocketMQ.
const SCAN_MS: i64 = 10_000;

pub struct System {
    pub clients: ClientRegistry,
    pub locks: QueueLocks,
    /// Without name servers neither of the two is there.
    pub registrar: Option<Registrar>,
    pub routes: Option<Routes>,
    pub waiting_queries: WaitingQueries,
    pub stats: BrokerStats,
    pub pushes: Pushes,
    /// Questions of tools that wait for a client.
    pub relays: usize,
    /// When the broker started, ms since the epoch.
    pub boot_ms: i64,
    next_scan_ms: i64,
}

impl System {
    pub fn new(
        clients: ClientRegistry,
        registrar: Option<Registrar>,
        routes: Option<Routes>,
        stats: BrokerStats,
        now_ms: i64,
    ) -> Self {
        Self {
            clients,
            locks: QueueLocks::default(),
            registrar,
            routes,
            waiting_queries: WaitingQueries::default(),
            stats,
            pushes: Pushes::default(),
            relays: 0,
            boot_ms: now_ms,
            next_scan_ms: now_ms + SCAN_MS,
        }
    }
}

pub fn on_counted(broker: &mut Broker, delta: CountersDelta) {
    let now_ms = broker.now_ms;
    if let Some(system) = &mut broker.system {
        system.stats.absorb(delta, now_ms);
    }
}

/// The system core's share of a turn's end.
pub fn tick(broker: &mut Broker) {
    reply::tick(broker);
    ask::tick(broker);
    assignment::take_routes(broker);
    let now_ms = broker.now_ms;
    let Some(system) = &mut broker.system else { return };
    system.stats.tick(now_ms);
    if now_ms < system.next_scan_ms {
        return;
    }
    system.next_scan_ms = now_ms + SCAN_MS;
    system.locks.tick(now_ms);
    let (changes, expired) = system.clients.expire(now_ms, &broker.groups);
    client::pass_on(broker, changes);
    for id in expired {
        tracing::info!(core = id.core, "closing a connection whose client sends no heartbeats");
        broker.close_connection(id);
    }
}

/// A connection of any core is gone: its client leaves its groups.
pub fn on_connection_closed(broker: &mut Broker, id: ConnectionId) {
    pop::wait::on_connection_closed(broker, id);
    let Some(system) = &mut broker.system else {
        return broker.send_letter(SYSTEM_CORE, Letter::ConnectionClosed(id));
    };
    let changes = system.clients.on_closed(id, &broker.groups);
    client::pass_on(broker, changes);
    ask::on_connection_closed(broker, id);
}

/// Registers the topics as they are now at every name server.
pub fn register(broker: &mut Broker) {
    let Some(registrar) = broker.system.as_ref().and_then(|system| system.registrar.as_ref()) else { return };
    let topics = broker.topics.registration(broker.config.broker_permission);
    let body = RegisterBrokerBody { filter_server_list: Vec::new(), topic_config_serialize_wrapper: topics };
    registrar.topics_changed(body.encode());
}

/// Once a second: what the name servers say about topics.
pub fn tick_name_servers(broker: &mut Broker) {
    take_ordered_topics(broker);
    let now_ms = broker.now_ms;
    if let Some(routes) = broker.system.as_mut().and_then(|system| system.routes.as_mut()) {
        routes.tick(now_ms);
    }
}

/// Takes over which topics are ordered, if a name server has said so since the last call.
fn take_ordered_topics(broker: &mut Broker) {
    let registrar = broker.system.as_ref().and_then(|system| system.registrar.as_ref());
    if let Some(ordered) = registrar.and_then(Registrar::ordered_topics) {
        mark_ordered(broker, &ordered);
    }
}

/// As in RocketMQ, a topic that a name server does not list keeps its mark: `mqadmin` may have set it here alone.
fn mark_ordered(broker: &mut Broker, ordered: &[String]) {
    for name in ordered {
        let Some(config) = broker.topics.get(name).filter(|config| !config.order) else { continue };
        let config = TopicConfig { order: true, ..(**config).clone() };
        tracing::info!(topic = name, "a name server lists the topic as ordered");
        if let Err(error) = topic_change::store_topic(broker, config) {
            // The next registration is answered with the same list.
            tracing::warn!(topic = name, %error, "could not record that the topic is ordered");
            return;
        }
    }
}

/// Answers what is held, and unregisters.
pub fn begin_stop(broker: &mut Broker) {
    pull::release_polls(broker);
    pop::wait::release(broker);
    if let Some(registrar) = broker.system.as_mut().and_then(|system| system.registrar.take()) {
        registrar.stop_soon();
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::Cores;

    #[test]
    fn topics_a_name_server_lists_become_ordered_on_every_core_and_others_stay_as_they_are() {
        let mut cores = Cores::new(2);
        for topic in ["A", "B", "C"] {
            cores.create_topic(topic, "1", "6", "");
        }
        super::mark_ordered(cores.broker(0), &["A".to_owned(), "absent".to_owned()]);
        cores.run();
        super::mark_ordered(cores.broker(0), &["B".to_owned()]);
        cores.run();
        for core in [0, 1] {
            let mut is_ordered = |topic: &str| cores.broker(core).topics.get(topic).map(|config| config.order);
            assert_eq!(["A", "B", "C", "absent"].map(&mut is_ordered), [Some(true), Some(true), Some(false), None]);
        }
    }
}
