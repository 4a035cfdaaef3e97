//! One file per request or family of requests, and the one `match` on the request code.

mod broker_info;
mod configuration;
mod heartbeat;
mod kv;
mod permission;
mod register;
mod route;
mod topic_list;
mod topic_rows;

use std::borrow::Cow;

use rmq_net::codes::{request, response};
use rmq_net::frame::Frame;

use crate::changes::{Change, FileWrite, Staged};
use crate::registration::{BrokerIdentity, Peer};
use crate::server::NameServer;

/// A request with what is known about its arrival.
pub struct Arrival<'a> {
    pub frame: &'a Frame<'a>,
    pub peer: Peer,
    pub now_ms: i64,
}

/// A value of the reply's ext fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtValue {
    Text(String),
    Int(i64),
    Bool(bool),
}

/// A successful answer. Finished bodies are borrowed from the tables.
#[derive(Debug, Default)]
pub struct Reply<'s> {
    /// In alphabetical order of the keys.
    pub ext: Vec<(&'static str, ExtValue)>,
    pub body: Cow<'s, [u8]>,
}

impl Reply<'_> {
    pub fn body(body: Vec<u8>) -> Self {
        Self { ext: Vec::new(), body: Cow::Owned(body) }
    }

    pub fn ext(key: &'static str, value: ExtValue) -> Self {
        Self { ext: vec![(key, value)], body: Cow::default() }
    }
}

/// An answer other than success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub code: i32,
    pub remark: String,
}

impl Refusal {
    /// Code 1, which RocketMQ uses for everything that has no code of its own.
    pub fn system_error(remark: impl std::fmt::Display) -> Self {
        Self { code: response::SYSTEM_ERROR, remark: remark.to_string() }
    }

    fn missing(field: &str) -> Self {
        Self::system_error(format_args!("the request has no field {field}"))
    }
}

pub type Outcome<'s> = Result<Reply<'s>, Refusal>;

impl Arrival<'_> {
    /// A field the request cannot do without.
    pub fn required(&self, key: &str) -> Result<String, Refusal> {
        self.optional(key).ok_or_else(|| Refusal::missing(key))
    }

    pub fn optional(&self, key: &str) -> Option<String> {
        self.frame.ext.get(key).map(|text| text.to_cow().into_owned())
    }

    pub fn required_i64(&self, key: &str) -> Result<i64, Refusal> {
        let text = self.frame.ext.get(key).ok_or_else(|| Refusal::missing(key))?;
        text.parse_i64()
            .ok_or_else(|| Refusal::system_error(format_args!("field {key} is not an integer: {}", text.to_cow())))
    }

    /// RocketMQ logs a number it cannot read and takes it as absent.
    pub fn optional_i64(&self, key: &str) -> Option<i64> {
        self.frame.ext.get(key)?.parse_i64()
    }

    pub fn optional_bool(&self, key: &str) -> Option<bool> {
        Some(self.frame.ext.get(key)?.parse_bool())
    }
}

/// The four fields that name a broker in requests 103, 104 and 322.
pub struct BrokerFields {
    cluster: String,
    broker_name: String,
    addr: String,
    id: i64,
}

impl BrokerFields {
    pub fn read(arrival: &Arrival<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            cluster: arrival.required("clusterName")?,
            broker_name: arrival.required("brokerName")?,
            addr: arrival.required("brokerAddr")?,
            id: arrival.required_i64("brokerId")?,
        })
    }

    pub fn identity(&self) -> BrokerIdentity<'_> {
        BrokerIdentity { cluster: &self.cluster, broker_name: &self.broker_name, addr: &self.addr, id: self.id }
    }
}

/// What a request wants changed that has a file; `None` for all other requests.
pub fn change(arrival: &Arrival<'_>) -> Option<Result<Change, Refusal>> {
    match arrival.frame.code {
        request::PUT_KV_CONFIG => Some(kv::put(arrival)),
        request::DELETE_KV_CONFIG => Some(kv::delete(arrival)),
        request::UPDATE_NAMESRV_CONFIG => Some(configuration::update(arrival)),
        _ => None,
    }
}

/// What to write for a change, and what is in force then; `None` if there is nothing to do.
pub fn stage(server: &NameServer, change: &Change) -> Result<Option<(FileWrite, Staged)>, Refusal> {
    match change {
        Change::Put { namespace, key, value } => {
            let changed = server.kv.with(namespace, key, value).map_err(Refusal::system_error)?;
            Ok(Some((changed.to_file(), Staged::Kv(changed))))
        }
        Change::Delete { namespace, key } => {
            Ok(server.kv.without(namespace, key).map(|changed| (changed.to_file(), Staged::Kv(changed))))
        }
        Change::Configure(changes) => configuration::stage(server, changes),
    }
}

/// Answers one request that changes no file.
pub fn answer<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    match arrival.frame.code {
        request::GET_ROUTEINFO_BY_TOPIC => route::query(server, arrival),
        request::REGISTER_BROKER => register::register(server, arrival),
        request::UNREGISTER_BROKER => register::unregister(server, arrival),
        request::QUERY_DATA_VERSION => heartbeat::query_data_version(server, arrival),
        request::BROKER_HEARTBEAT => heartbeat::heartbeat(server, arrival),
        request::GET_BROKER_MEMBER_GROUP => broker_info::member_group(server, arrival),
        request::GET_BROKER_CLUSTER_INFO => broker_info::cluster_info(server),
        request::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => topic_list::all(server),
        request::GET_TOPICS_BY_CLUSTER => topic_list::of_cluster(server, arrival),
        request::GET_SYSTEM_TOPIC_LIST_FROM_NS => topic_list::system(server),
        request::GET_UNIT_TOPIC_LIST => topic_list::unit(server),
        request::GET_HAS_UNIT_SUB_TOPIC_LIST => topic_list::unit_sub(server),
        request::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => topic_list::unit_sub_un_unit(server),
        request::WIPE_WRITE_PERM_OF_BROKER => permission::wipe(server, arrival),
        request::ADD_WRITE_PERM_OF_BROKER => permission::add(server, arrival),
        request::DELETE_TOPIC_IN_NAMESRV => topic_rows::delete(server, arrival),
        request::REGISTER_TOPIC_IN_NAMESRV => topic_rows::register(server, arrival),
        request::GET_KV_CONFIG => kv::get(server, arrival),
        request::GET_KVLIST_BY_NAMESPACE => kv::list(server, arrival),
        request::GET_NAMESRV_CONFIG => configuration::get(server),
        code => Err(Refusal {
            code: response::REQUEST_CODE_NOT_SUPPORTED,
            remark: format!(" request type {code} not supported"),
        }),
    }
}
