//! Who was heard from, and when: one entry per broker address of a cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use rmq_net::body::DataVersion;

use rmq_net::connection::ConnectionId;

/// One broker address that registered and has not been silent for longer than its timeout.
#[derive(Debug, Clone)]
pub struct LiveBroker {
    pub broker_name: Arc<str>,
    pub last_update_ms: i64,
    /// Silence of more than this many milliseconds removes the broker.
    pub timeout_ms: i64,
    /// Version of the topic table that this name server has applied.
    pub data_version: DataVersion,
    /// The connection that carried the last registration. When it closes, the broker is gone.
    pub peer: ConnectionId,
    pub ha_server_addr: String,
    /// Addresses of filter servers: a retired feature, still part of the route answer.
    pub filter_servers: Vec<String>,
}

/// Cluster and address: what names a broker process.
pub type LiveKey = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
pub struct LiveBrokers {
    /// cluster -> address -> broker. Tens to hundreds of entries.
    clusters: BTreeMap<Arc<str>, BTreeMap<Arc<str>, LiveBroker>>,
}

impl LiveBrokers {
    pub fn get(&self, cluster: &str, addr: &str) -> Option<&LiveBroker> {
        self.clusters.get(cluster)?.get(addr)
    }

    pub fn insert(&mut self, cluster: &Arc<str>, addr: &Arc<str>, broker: LiveBroker) {
        let brokers = self.clusters.entry(cluster.clone()).or_default();
        brokers.insert(addr.clone(), broker);
    }

    pub fn remove(&mut self, cluster: &str, addr: &str) -> Option<LiveBroker> {
        let brokers = self.clusters.get_mut(cluster)?;
        let removed = brokers.remove(addr);
        if brokers.is_empty() {
            self.clusters.remove(cluster);
        }
        removed
    }

    /// Notes a sign of life; an unknown broker stays unknown.
    pub fn refresh(&mut self, cluster: &str, addr: &str, now_ms: i64) {
        let brokers = self.clusters.get_mut(cluster);
        if let Some(broker) = brokers.and_then(|brokers| brokers.get_mut(addr)) {
            broker.last_update_ms = now_ms;
        }
    }

    /// Number of live broker addresses.
    pub fn count(&self) -> usize {
        self.clusters.values().map(BTreeMap::len).sum()
    }

    /// Everything whose timeout has run out.
    pub fn expired(&self, now_ms: i64) -> Vec<LiveKey> {
        self.keys_where(|broker| broker.last_update_ms.saturating_add(broker.timeout_ms) < now_ms)
    }

    /// Everything that registered over this connection: several brokers when one process hosts them.
    pub fn of_peer(&self, peer: ConnectionId) -> Vec<LiveKey> {
        self.keys_where(|broker| broker.peer == peer)
    }

    fn keys_where(&self, chosen: impl Fn(&LiveBroker) -> bool) -> Vec<LiveKey> {
        let all = self
            .clusters
            .iter()
            .flat_map(|(cluster, brokers)| brokers.iter().map(move |(addr, broker)| (cluster, addr, broker)));
        all.filter(|(_, _, broker)| chosen(broker)).map(|(cluster, addr, _)| (cluster.clone(), addr.clone())).collect()
    }
}
