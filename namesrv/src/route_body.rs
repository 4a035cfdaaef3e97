//! The answer to "who serves this topic": its content, its two spellings, and the finished bytes.

use std::sync::Arc;

use rmq_net::body::{self, topic::TopicQueueMappingInfo};

use crate::broker_sets::{BrokerSet, BrokerSets};
use crate::json::{self, RouteForm};
use crate::live::LiveBrokers;
use crate::registration::{MASTER_ID, QueueData};
use crate::topics::Topic;

/// Topics of this prefix exist to find the members of a broker set: no member may pose as the master.
const MEMBER_TOPIC_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";

/// Finished route answers of one topic, valid as long as nothing was registered or removed since.
#[derive(Debug, Default)]
pub struct RouteBodies {
    /// Generation of the route table the bytes belong to; see `RouteTable::generation`.
    generation: u64,
    legacy: Option<Box<[u8]>>,
    standard: Option<Box<[u8]>>,
}

impl RouteBodies {
    pub fn clear(&mut self) {
        self.legacy = None;
        self.standard = None;
    }

    pub fn get(&self, form: RouteForm, generation: u64) -> Option<&[u8]> {
        if self.generation != generation {
            return None;
        }
        match form {
            RouteForm::Legacy => self.legacy.as_deref(),
            RouteForm::Standard => self.standard.as_deref(),
        }
    }

    pub fn put(&mut self, form: RouteForm, generation: u64, body: Vec<u8>) {
        if self.generation != generation {
            self.clear();
            self.generation = generation;
        }
        let slot = match form {
            RouteForm::Legacy => &mut self.legacy,
            RouteForm::Standard => &mut self.standard,
        };
        *slot = Some(body.into_boxed_slice());
    }
}

/// A broker set as the answer shows it.
#[derive(Debug, Clone, Copy)]
struct ShownSet<'a> {
    set: &'a BrokerSet,
    /// The smallest id is shown as id 0.
    is_acting: bool,
}

impl<'a> ShownSet<'a> {
    fn has_master(&self) -> bool {
        self.is_acting || self.set.has_master()
    }

    fn addrs(&self) -> impl Iterator<Item = (i64, &'a str)> {
        let is_acting = self.is_acting;
        let addrs = self.set.addrs.iter().enumerate();
        addrs.map(move |(index, (id, addr))| {
            let shown = if is_acting && index == 0 { MASTER_ID } else { *id };
            (shown, addr.as_ref())
        })
    }
}

/// The route of one topic, before it is text.
#[derive(Debug)]
pub struct Route<'a> {
    sets: Vec<ShownSet<'a>>,
    rows: Vec<&'a (Arc<str>, QueueData)>,
    mappings: &'a [(String, TopicQueueMappingInfo)],
    live: &'a LiveBrokers,
    order_topic_conf: Option<&'a str>,
}

impl<'a> Route<'a> {
    /// `None` when no broker of the topic is known.
    pub fn of(
        name: &str,
        topic: &'a Topic,
        sets: &'a BrokerSets,
        live: &'a LiveBrokers,
        support_acting_master: bool,
    ) -> Option<Self> {
        let may_act = support_acting_master && !name.starts_with(MEMBER_TOPIC_PREFIX);
        let shown: Vec<ShownSet<'_>> = topic
            .rows()
            .iter()
            .filter_map(|(broker_name, queues)| {
                let set = sets.get(broker_name)?;
                let is_acting = may_act && set.enable_acting_master && !set.has_master() && !queues.is_writable();
                Some(ShownSet { set, is_acting })
            })
            .collect();
        if shown.is_empty() {
            return None;
        }
        Some(Self {
            sets: shown,
            rows: topic.rows().iter().collect(),
            mappings: topic.mappings(),
            live,
            order_topic_conf: None,
        })
    }

    #[must_use]
    pub fn with_order_topic_conf(mut self, conf: Option<&'a str>) -> Self {
        self.order_topic_conf = conf;
        self
    }

    /// Keeps the brokers of one zone, and those without a master: their consumers must go to a slave
    /// wherever it is.
    #[must_use]
    pub fn in_zone(mut self, zone_name: &str) -> Self {
        let is_near = |shown: &ShownSet<'_>| {
            let zone = shown.set.zone_name.as_deref();
            !shown.has_master() || zone.is_some_and(|zone| equal_ignoring_case(zone, zone_name))
        };
        let (kept, removed): (Vec<_>, Vec<_>) = self.sets.into_iter().partition(is_near);
        let is_removed = |name: &str| removed.iter().any(|s| s.set.broker_name.as_ref() == name);
        self.rows.retain(|(broker_name, _)| !is_removed(broker_name));
        self.sets = kept;
        self
    }

    /// Appends the JSON text.
    pub fn write(&self, out: &mut Vec<u8>, form: RouteForm) {
        out.extend_from_slice(b"{\"brokerDatas\":");
        json::joined(out, *b"[]", &self.sets, |out, shown| {
            write_set(out, shown.set, shown.addrs(), form);
        });
        out.extend_from_slice(b",\"filterServerTable\":");
        json::joined(out, *b"{}", self.filter_servers(), |out, (addr, servers)| {
            json::string(out, addr);
            out.push(b':');
            json::strings(out, servers.iter().map(String::as_str));
        });
        if let Some(conf) = self.order_topic_conf {
            out.extend_from_slice(b",\"orderTopicConf\":");
            json::string(out, conf);
        }
        out.extend_from_slice(b",\"queueDatas\":");
        json::joined(out, *b"[]", &self.rows, |out, (broker_name, queues)| {
            write_queues(out, broker_name, queues);
        });
        if !self.mappings.is_empty() {
            out.extend_from_slice(b",\"topicQueueMappingByBroker\":");
            json::joined(out, *b"{}", self.mappings, |out, (broker_name, mapping)| {
                json::string(out, broker_name);
                out.push(b':');
                write_mapping(out, mapping, form);
            });
        }
        out.push(b'}');
    }

    fn filter_servers(&self) -> impl Iterator<Item = (&'a str, &'a [String])> {
        let live = self.live;
        self.sets.iter().flat_map(move |shown| {
            shown.set.addrs.values().filter_map(move |addr| {
                let servers = live.get(&shown.set.cluster, addr)?.filter_servers.as_slice();
                (!servers.is_empty()).then_some((addr.as_ref(), servers))
            })
        })
    }
}

fn equal_ignoring_case(left: &str, right: &str) -> bool {
    left.chars().flat_map(char::to_lowercase).eq(right.chars().flat_map(char::to_lowercase))
}

/// Appends one broker set (`BrokerData`), with the addresses as given.
pub fn write_set<'a>(out: &mut Vec<u8>, set: &BrokerSet, addrs: impl Iterator<Item = (i64, &'a str)>, form: RouteForm) {
    out.extend_from_slice(b"{\"brokerAddrs\":");
    json::id_map(out, addrs, form);
    out.extend_from_slice(b",\"brokerName\":");
    json::string(out, &set.broker_name);
    out.extend_from_slice(b",\"cluster\":");
    json::string(out, &set.cluster);
    out.extend_from_slice(b",\"enableActingMaster\":");
    json::boolean(out, set.enable_acting_master);
    if let Some(zone_name) = &set.zone_name {
        out.extend_from_slice(b",\"zoneName\":");
        json::string(out, zone_name);
    }
    out.push(b'}');
}

fn write_queues(out: &mut Vec<u8>, broker_name: &str, queues: &QueueData) {
    out.extend_from_slice(b"{\"brokerName\":");
    json::string(out, broker_name);
    let numbers: [(&[u8], i32); 4] = [
        (b",\"perm\":", queues.perm),
        (b",\"readQueueNums\":", queues.read_queue_nums),
        (b",\"topicSysFlag\":", queues.topic_sys_flag),
        (b",\"writeQueueNums\":", queues.write_queue_nums),
    ];
    for (member, number) in numbers {
        out.extend_from_slice(member);
        json::integer(out, i64::from(number));
    }
    out.push(b'}');
}

fn write_mapping(out: &mut Vec<u8>, mapping: &TopicQueueMappingInfo, form: RouteForm) {
    out.extend_from_slice(&match form {
        RouteForm::Legacy => body::encode_legacy(mapping),
        RouteForm::Standard => body::encode(mapping),
    });
}
