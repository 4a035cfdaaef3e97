//! The name server: which broker serves which topic.
//!
//! Brokers register here every 30 seconds with all their topics; clients ask for the route of a topic.
//! Everything is in memory and comes back with the next registrations, except the KV table, which has a
//! file. [`NameServer`] is a plain state machine: it is given decoded frames and the time, and appends
//! reply frames to a buffer. It opens no socket and reads no clock.
//!
//! ```text
//! frame -> request::answer -> one handler -> RouteTable { BrokerSets, LiveBrokers, Topics } | KvTable
//!                                         <- Reply (finished route bytes are borrowed) -> reply frame
//! ```

#![forbid(unsafe_code)]

mod broker_sets;
mod changes;
mod config;
mod json;
mod kv;
mod limits;
mod live;
mod registration;
mod request;
mod route_body;
mod routes;
mod server;
mod topics;

pub use changes::{FileWrite, LateReply};
pub use config::{Effect, NamesrvConfig, PropertyRow, SettingError, property_table};
pub use kv::KvLoadError;
pub use server::{Answered, NameServer, Push};
