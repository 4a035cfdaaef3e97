//! Broker names, the addresses behind them, and the clusters they form.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::registration::MASTER_ID;

/// A master and its slaves: all addresses of one broker name.
#[derive(Debug, Clone)]
pub struct BrokerSet {
    pub cluster: Arc<str>,
    pub broker_name: Arc<str>,
    /// id -> address; 0 is the master.
    pub addrs: BTreeMap<i64, Arc<str>>,
    /// The last registration asked that a slave stands in for a lost master.
    pub enable_acting_master: bool,
    pub zone_name: Option<String>,
}

impl BrokerSet {
    pub fn has_master(&self) -> bool {
        self.addrs.contains_key(&MASTER_ID)
    }

    /// The smallest id and its address.
    pub fn first(&self) -> Option<(i64, &Arc<str>)> {
        self.addrs.first_key_value().map(|(id, addr)| (*id, addr))
    }
}

/// Broker sets by name, and the names of each cluster.
#[derive(Debug, Default)]
pub struct BrokerSets {
    sets: BTreeMap<Arc<str>, BrokerSet>,
    clusters: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
}

impl BrokerSets {
    pub fn get(&self, broker_name: &str) -> Option<&BrokerSet> {
        self.sets.get(broker_name)
    }

    pub fn get_mut(&mut self, broker_name: &str) -> Option<&mut BrokerSet> {
        self.sets.get_mut(broker_name)
    }

    pub fn contains(&self, broker_name: &str) -> bool {
        self.sets.contains_key(broker_name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &BrokerSet> {
        self.sets.values()
    }

    /// Cluster names with their broker names.
    pub fn clusters(&self) -> &BTreeMap<Arc<str>, BTreeSet<Arc<str>>> {
        &self.clusters
    }

    pub fn is_in_cluster(&self, broker_name: &str, cluster: &str) -> bool {
        let names = self.clusters.get(cluster);
        names.is_some_and(|names| names.contains(broker_name))
    }

    /// The set of this name, made empty if it is new. A set keeps the cluster of its first registration,
    /// but its name is listed in every cluster it registered with, as in RocketMQ.
    pub fn enlist(&mut self, cluster: &Arc<str>, broker_name: &Arc<str>) -> &mut BrokerSet {
        let names = self.clusters.entry(cluster.clone()).or_default();
        names.insert(broker_name.clone());
        self.sets.entry(broker_name.clone()).or_insert_with(|| BrokerSet {
            cluster: cluster.clone(),
            broker_name: broker_name.clone(),
            addrs: BTreeMap::new(),
            enable_acting_master: false,
            zone_name: None,
        })
    }

    /// Forgets a broker name everywhere.
    pub fn remove(&mut self, broker_name: &str) {
        self.sets.remove(broker_name);
        self.clusters.retain(|_, names| {
            names.remove(broker_name);
            !names.is_empty()
        });
    }
}
