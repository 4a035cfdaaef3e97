//! WIPE_WRITE_PERM_OF_BROKER (205) and ADD_WRITE_PERM_OF_BROKER (327).
//!
//! Both last until the broker's next registration with a changed data version.

use super::{Arrival, ExtValue, Outcome, Reply};
use crate::server::NameServer;

/// 205: clears the write bit of every topic of the broker.
pub fn wipe<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    let broker_name = arrival.required("brokerName")?;
    let count = server.routes.wipe_write_permission(&broker_name);
    tracing::info!(%broker_name, count, peer = %arrival.peer.addr, "write permission wiped");
    Ok(Reply::ext("wipeTopicCount", topic_count(count)))
}

/// 327: sets read and write; other bits are lost, as in RocketMQ.
pub fn add<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    let broker_name = arrival.required("brokerName")?;
    let count = server.routes.add_write_permission(&broker_name);
    tracing::info!(%broker_name, count, peer = %arrival.peer.addr, "write permission added");
    Ok(Reply::ext("addTopicCount", topic_count(count)))
}

fn topic_count(count: usize) -> ExtValue {
    ExtValue::Int(i64::try_from(count).unwrap_or(i64::MAX))
}
