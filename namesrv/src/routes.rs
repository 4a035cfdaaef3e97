//! The route table: broker sets, live brokers and topics, and the rules that keep the three in step.
//!
//! Invariants, true after every method:
//! - a broker set has at least one address, and a broker name is listed in a cluster only while its set
//!   exists;
//! - a topic has at least one row, and every row's broker name has a set (RocketMQ's request 217 excepted
//!   only while that set exists);
//! - `generation` grows whenever a set changes in a way that routes show, so finished answers of an older
//!   generation are never sent.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use rmq_net::body::{DataVersion, topic::TopicQueueMappingInfo};

use crate::broker_sets::BrokerSets;
use crate::limits::{BROKERS_MAX, NAME_BYTES_MAX, TOPIC_ROWS_MAX};
use crate::live::{LiveBroker, LiveBrokers};
use rmq_net::connection::ConnectionId;

use crate::registration::{BrokerIdentity, MASTER_ID, PERM_READ, PERM_WRITE, QueueData};
use crate::topics::Topics;

/// A registration as the table needs it.
#[derive(Debug)]
pub struct Registration<'a> {
    pub broker: BrokerIdentity<'a>,
    pub ha_server_addr: &'a str,
    pub timeout_ms: i64,
    /// `None` marks a broker older than 5.0.
    pub enable_acting_master: Option<bool>,
    pub zone_name: Option<&'a str>,
    pub data_version: DataVersion,
    /// Topic name and queues; one entry means an incremental registration.
    pub topics: &'a [(String, QueueData)],
    /// Static topics: topic name and mapping.
    pub mappings: &'a BTreeMap<String, TopicQueueMappingInfo>,
    pub filter_servers: &'a [String],
    pub peer: ConnectionId,
    pub now_ms: i64,
    /// Topics that a full registration does not contain are removed.
    pub removes_missing_topics: bool,
}

/// What a slave is told about its master.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MasterOfSlave {
    pub master_addr: String,
    pub ha_server_addr: String,
}

/// The smallest id of a broker set is another one now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MinBrokerIdChange {
    pub broker_name: Arc<str>,
    pub min_broker_id: i64,
    pub min_broker_addr: Arc<str>,
    /// The address that went; `None` when a smaller id came.
    pub offline_broker_addr: Option<Arc<str>>,
    /// The HA address of the broker that came.
    pub ha_broker_addr: Option<String>,
    /// Members to tell: address, and connection of its last registration.
    pub told: Vec<(Arc<str>, ConnectionId)>,
}

/// An accepted registration.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// Only for slaves whose master is alive.
    pub master: Option<MasterOfSlave>,
    pub min_id_change: Option<MinBrokerIdChange>,
}

/// A registration that was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    #[error(
        "register broker failed: a first registration with exactly one topic is taken for an \
         incremental one; register all topics first"
    )]
    IncrementBeforeFirst,
    #[error("register broker failed: this name server keeps at most {BROKERS_MAX} brokers")]
    TooManyBrokers,
    #[error("register broker failed: this name server keeps at most {TOPIC_ROWS_MAX} pairs of topic and broker")]
    TooManyTopics,
    #[error("register broker failed: {field} has {size_bytes} bytes, more than {NAME_BYTES_MAX}")]
    NameTooLong { field: &'static str, size_bytes: usize },
}

#[derive(Debug, Default)]
pub struct RouteTable {
    pub(crate) sets: BrokerSets,
    pub(crate) live: LiveBrokers,
    pub(crate) topics: Topics,
    generation: u64,
}

impl RouteTable {
    /// Finished answers belong to one generation.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Makes every finished answer stale.
    pub fn forget_answers(&mut self) {
        self.generation += 1;
    }

    /// Applies a registration; the steps and their order are RocketMQ's, except that a refused first
    /// registration leaves nothing behind.
    pub fn register(&mut self, registration: &Registration<'_>) -> Result<Registered, RegisterError> {
        self.check_bounds(registration)?;
        let broker = registration.broker;
        let addr: Arc<str> = self.addr_of(&broker);
        let previous_min_id = self.sets.get(broker.broker_name).and_then(|set| Some(set.first()?.0));

        self.leave_other_name(&broker);
        self.drop_other_ids(&broker);
        if self.is_outdated(registration) {
            self.live.remove(broker.cluster, broker.addr);
            self.drop_if_empty(broker.broker_name);
            tracing::warn!(?broker, "registration ignored: the id is held with a newer state version");
            return Ok(Registered::default());
        }
        let is_known = self.sets.get(broker.broker_name).is_some_and(|set| set.addrs.contains_key(&broker.id));
        if !is_known && registration.topics.len() == 1 {
            self.drop_if_empty(broker.broker_name);
            return Err(RegisterError::IncrementBeforeFirst);
        }
        let cluster: Arc<str> = broker.cluster.into();
        let broker_name = self.enlist(registration, &cluster, &addr);
        self.apply_topics(registration, &broker_name, !is_known);
        self.live.insert(
            &cluster,
            &addr,
            LiveBroker {
                broker_name: broker_name.clone(),
                last_update_ms: registration.now_ms,
                timeout_ms: registration.timeout_ms,
                data_version: registration.data_version,
                peer: registration.peer,
                ha_server_addr: registration.ha_server_addr.to_owned(),
                filter_servers: registration.filter_servers.to_vec(),
            },
        );
        if !is_known {
            tracing::info!(?broker, topics = registration.topics.len(), "broker registered");
        }
        // RocketMQ counts an empty set's smallest id as 0, so a set's first member is no change.
        let is_new_min = broker.id < previous_min_id.unwrap_or(MASTER_ID);
        Ok(Registered {
            master: self.master_of(&broker),
            min_id_change: if is_new_min {
                let ha_broker_addr = Some(registration.ha_server_addr.to_owned());
                self.min_id_change(&broker_name, None, ha_broker_addr)
            } else {
                None
            },
        })
    }

    fn check_bounds(&self, registration: &Registration<'_>) -> Result<(), RegisterError> {
        let broker = registration.broker;
        let names = [
            ("clusterName", broker.cluster),
            ("brokerName", broker.broker_name),
            ("brokerAddr", broker.addr),
            ("haServerAddr", registration.ha_server_addr),
            ("__ZONE_NAME", registration.zone_name.unwrap_or_default()),
        ];
        let topics = registration.topics.iter().map(|(topic, _)| ("topicName", topic.as_str()));
        for (field, name) in names.into_iter().chain(topics) {
            if name.len() > NAME_BYTES_MAX {
                let size_bytes = name.len();
                return Err(RegisterError::NameTooLong { field, size_bytes });
            }
        }
        let is_live = self.live.get(broker.cluster, broker.addr).is_some();
        if !is_live && self.live.count() >= BROKERS_MAX {
            return Err(RegisterError::TooManyBrokers);
        }
        // Counting the new rows costs a look-up per topic; it is only done near the bound.
        if self.topics.row_count() + registration.topics.len() > TOPIC_ROWS_MAX {
            let is_new = |topic: &str| !self.topics.has_row(topic, broker.broker_name);
            let added = registration.topics.iter().filter(|(topic, _)| is_new(topic)).count();
            if self.topics.row_count() + added > TOPIC_ROWS_MAX {
                return Err(RegisterError::TooManyTopics);
            }
        }
        Ok(())
    }

    /// The address as already stored, so that equal addresses share memory.
    fn addr_of(&self, broker: &BrokerIdentity<'_>) -> Arc<str> {
        let known = self.sets.get(broker.broker_name).and_then(|set| set.addrs.get(&broker.id));
        match known {
            Some(addr) if addr.as_ref() == broker.addr => addr.clone(),
            _ => broker.addr.into(),
        }
    }

    /// An address belongs to one broker name: a broker that was renamed leaves its old name. RocketMQ
    /// forgets to, and shows the old name for ever.
    fn leave_other_name(&mut self, broker: &BrokerIdentity<'_>) {
        let live = self.live.get(broker.cluster, broker.addr);
        let is_renamed = live.is_some_and(|live| live.broker_name.as_ref() != broker.broker_name);
        if is_renamed {
            let key = (broker.cluster.into(), broker.addr.into());
            self.unregister_live(&[key]); // nobody is told: its members learn it from their next request
        }
    }

    /// A broker that changed its role leaves the id it had.
    fn drop_other_ids(&mut self, broker: &BrokerIdentity<'_>) {
        let Some(set) = self.sets.get_mut(broker.broker_name) else {
            return;
        };
        let before = set.addrs.len();
        set.addrs.retain(|id, addr| addr.as_ref() != broker.addr || *id == broker.id);
        if set.addrs.len() != before {
            self.forget_answers();
        }
    }

    /// Another process holds this id, is alive, and was elected later.
    fn is_outdated(&self, registration: &Registration<'_>) -> bool {
        let broker = registration.broker;
        let holder = self.sets.get(broker.broker_name).and_then(|set| set.addrs.get(&broker.id));
        holder
            .filter(|holder| holder.as_ref() != broker.addr)
            .and_then(|holder| self.live.get(broker.cluster, holder))
            .is_some_and(|live| live.data_version.state_version > registration.data_version.state_version)
    }

    fn drop_if_empty(&mut self, broker_name: &str) {
        if self.sets.get(broker_name).is_some_and(|set| set.addrs.is_empty()) {
            self.sets.remove(broker_name);
            self.topics.remove_rows(|_, holder| holder == broker_name);
            self.forget_answers();
        }
    }

    /// Writes the broker into its set and cluster.
    fn enlist(&mut self, registration: &Registration<'_>, cluster: &Arc<str>, addr: &Arc<str>) -> Arc<str> {
        let broker = registration.broker;
        let known = self.sets.get(broker.broker_name).map(|set| set.broker_name.clone());
        let broker_name = known.unwrap_or_else(|| broker.broker_name.into());
        let enable_acting_master = registration.enable_acting_master.unwrap_or(false);
        let set = self.sets.enlist(cluster, &broker_name);
        let is_same = set.addrs.get(&broker.id) == Some(addr)
            && set.enable_acting_master == enable_acting_master
            && set.zone_name.as_deref() == registration.zone_name;
        if !is_same {
            set.addrs.insert(broker.id, addr.clone());
            set.enable_acting_master = enable_acting_master;
            set.zone_name = registration.zone_name.map(str::to_owned);
            self.forget_answers();
        }
        let live = self.live.get(cluster, addr);
        let filter_servers = live.map_or(&[][..], |live| live.filter_servers.as_slice());
        if filter_servers != registration.filter_servers {
            self.forget_answers();
        }
        broker_name
    }

    /// Takes over the topics of a master, or of the slave that would stand in for it.
    fn apply_topics(&mut self, registration: &Registration<'_>, broker_name: &Arc<str>, is_first: bool) {
        let broker = registration.broker;
        let min_id = self.sets.get(broker_name).and_then(|set| Some(set.first()?.0));
        let is_prime_slave =
            registration.enable_acting_master.is_some() && broker.id != MASTER_ID && min_id == Some(broker.id);
        if broker.id != MASTER_ID && !is_prime_slave {
            return;
        }
        if registration.removes_missing_topics && registration.mappings.is_empty() {
            let kept: HashSet<&str> = registration.topics.iter().map(|(topic, _)| topic.as_str()).collect();
            self.topics.remove_rows(|topic, holder| holder == broker_name.as_ref() && !kept.contains(topic));
        }
        let is_changed = is_first || self.is_changed(&broker, &registration.data_version);
        let is_read_only = is_prime_slave && registration.enable_acting_master == Some(true);
        for (topic, queues) in registration.topics {
            if is_changed || !self.topics.has_row(topic, broker_name) {
                let queues = if is_read_only { queues.without_write() } else { *queues };
                self.topics.put(topic, broker_name, queues);
            }
        }
        if is_changed {
            for (topic, mapping) in registration.mappings {
                let holder = mapping.bname.as_deref().unwrap_or(broker_name);
                self.topics.put_mapping(topic, holder, mapping);
            }
        }
    }

    fn master_of(&self, broker: &BrokerIdentity<'_>) -> Option<MasterOfSlave> {
        if broker.id == MASTER_ID {
            return None;
        }
        let master_addr = self.sets.get(broker.broker_name)?.addrs.get(&MASTER_ID)?;
        let live = self.live.get(broker.cluster, master_addr)?;
        Some(MasterOfSlave {
            master_addr: master_addr.as_ref().to_owned(),
            ha_server_addr: live.ha_server_addr.clone(),
        })
    }

    /// True when this version of the topic table was not yet applied, or the broker is unknown.
    pub fn is_changed(&self, broker: &BrokerIdentity<'_>, version: &DataVersion) -> bool {
        let live = self.live.get(broker.cluster, broker.addr);
        live.is_none_or(|live| live.data_version != *version)
    }

    /// Removes a broker address, and with the last address of its name also its topics.
    pub fn unregister(&mut self, broker: &BrokerIdentity<'_>) -> Option<MinBrokerIdChange> {
        let live = self.live.get(broker.cluster, broker.addr);
        if live.is_some_and(|live| live.broker_name.as_ref() == broker.broker_name) {
            self.live.remove(broker.cluster, broker.addr);
        }
        let set = self.sets.get_mut(broker.broker_name)?;
        let was_min = set.first().is_some_and(|(id, _)| id == broker.id);
        let gone = set.addrs.iter().find(|(_, addr)| addr.as_ref() == broker.addr);
        let gone_addr = gone.map(|(_, addr)| addr.clone())?;
        set.addrs.retain(|_, addr| *addr != gone_addr);
        let is_without_master = !set.has_master();
        let wipes_write = is_without_master && set.enable_acting_master;
        let broker_name = set.broker_name.clone();
        self.forget_answers();
        tracing::info!(?broker, "broker removed");
        if self.sets.get(&broker_name).is_some_and(|set| set.addrs.is_empty()) {
            self.drop_if_empty(&broker_name);
            return None;
        }
        if wipes_write {
            self.topics.rewrite_rows(&broker_name, QueueData::without_write);
        }
        if !was_min {
            return None;
        }
        self.min_id_change(&broker_name, Some(gone_addr), None)
    }

    /// Removes the live brokers of `keys` (closed connection or silence).
    pub fn unregister_live(&mut self, keys: &[crate::live::LiveKey]) -> Vec<MinBrokerIdChange> {
        let mut changes = Vec::new();
        for (cluster, addr) in keys {
            let Some(live) = self.live.remove(cluster, addr) else {
                continue;
            };
            let set = self.sets.get(&live.broker_name);
            let held = set.and_then(|set| set.addrs.iter().find(|(_, held)| *held == addr));
            let Some(id) = held.map(|(id, _)| *id) else {
                continue;
            };
            let broker = BrokerIdentity { cluster, broker_name: &live.broker_name, addr, id };
            changes.extend(self.unregister(&broker));
        }
        // Only the last change of a name is news: its members may have gone in the same sweep.
        let mut last: Vec<MinBrokerIdChange> = Vec::new();
        for change in changes {
            last.retain(|earlier| earlier.broker_name != change.broker_name);
            if self.sets.contains(&change.broker_name) {
                last.push(change);
            }
        }
        last
    }

    fn min_id_change(
        &self,
        broker_name: &Arc<str>,
        offline_broker_addr: Option<Arc<str>>,
        ha_broker_addr: Option<String>,
    ) -> Option<MinBrokerIdChange> {
        let set = self.sets.get(broker_name)?;
        let (min_broker_id, min_broker_addr) = set.first()?;
        // Whoever stays is told of a loss; of an arrival, everyone but the newcomer.
        let tells_all = offline_broker_addr.is_some() || set.addrs.len() == 1;
        let told = set
            .addrs
            .iter()
            .filter(|(id, _)| tells_all || **id != min_broker_id)
            .filter_map(|(_, addr)| {
                let live = self.live.get(&set.cluster, addr)?;
                Some((addr.clone(), live.peer))
            })
            .collect();
        Some(MinBrokerIdChange {
            broker_name: broker_name.clone(),
            min_broker_id,
            min_broker_addr: min_broker_addr.clone(),
            offline_broker_addr,
            ha_broker_addr,
            told,
        })
    }

    /// Clears the write bit on every row of the broker; returns the number of topics touched.
    pub fn wipe_write_permission(&mut self, broker_name: &str) -> usize {
        self.topics.rewrite_rows(broker_name, QueueData::without_write)
    }

    /// Sets read and write, and nothing else, on every row of the broker.
    pub fn add_write_permission(&mut self, broker_name: &str) -> usize {
        let perm = PERM_READ | PERM_WRITE;
        self.topics.rewrite_rows(broker_name, |queues| QueueData { perm, ..queues })
    }

    /// Stores rows of a topic for brokers that are here; when one of them is not, stores nothing.
    pub fn register_rows(&mut self, topic: &str, rows: &[(String, QueueData)]) -> Result<(), RegisterError> {
        if self.topics.row_count() + rows.len() > TOPIC_ROWS_MAX {
            return Err(RegisterError::TooManyTopics);
        }
        let unknown = rows.iter().find(|(broker_name, _)| !self.sets.contains(broker_name));
        if let Some((broker_name, _)) = unknown {
            tracing::warn!(topic, broker_name, "topic not registered: no such broker");
            return Ok(());
        }
        for (broker_name, queues) in rows {
            if let Some(set) = self.sets.get(broker_name) {
                self.topics.put(topic, &set.broker_name, *queues);
            }
        }
        Ok(())
    }

    /// Removes a topic, or only the rows of one cluster's brokers.
    pub fn remove_topic(&mut self, topic: &str, cluster: Option<&str>) {
        match cluster {
            None => self.topics.remove(topic),
            Some(cluster) => {
                let sets = &self.sets;
                let is_of_cluster = |broker_name: &str| sets.is_in_cluster(broker_name, cluster);
                self.topics.remove_rows_of(topic, is_of_cluster);
            }
        }
    }
}
