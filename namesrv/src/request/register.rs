//! REGISTER_BROKER (103) and UNREGISTER_BROKER (104).

use rmq_net::body::{RegisterBrokerBody, TopicConfig};

use super::{Arrival, BrokerFields, ExtValue, Outcome, Refusal, Reply};
use crate::kv::ORDER_TOPIC_CONFIG;
use crate::registration::{HEARTBEAT_TIMEOUT_MS, QueueData};
use crate::routes::Registration;
use crate::server::NameServer;

/// 103: the answer tells a slave where its master is, and every broker how ordered topics are laid out.
pub fn register<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    let fields = BrokerFields::read(arrival)?;
    check_crc(arrival)?;
    let is_compressed = arrival.optional_bool("compressed").unwrap_or(false);
    let body = RegisterBrokerBody::decode(arrival.frame.body, is_compressed, arrival.frame.version)
        .map_err(Refusal::system_error)?;
    let wrapper = body.topic_config_serialize_wrapper;
    let topics: Vec<(String, QueueData)> = wrapper.topic_config_table.into_iter().map(queues_of).collect();
    let timeout_ms = arrival.optional_i64("heartbeatTimeoutMillis");
    let ha_server_addr = arrival.optional("haServerAddr").unwrap_or_default();
    let zone_name = arrival.optional("__ZONE_NAME");
    let registration = Registration {
        broker: fields.identity(),
        ha_server_addr: &ha_server_addr,
        timeout_ms: timeout_ms.unwrap_or(HEARTBEAT_TIMEOUT_MS),
        enable_acting_master: arrival.optional_bool("enableActingMaster"),
        zone_name: zone_name.as_deref(),
        data_version: wrapper.data_version,
        topics: &topics,
        mappings: &wrapper.topic_queue_mapping_info_map,
        filter_servers: &body.filter_server_list,
        peer: arrival.peer.key,
        now_ms: arrival.now_ms,
        removes_missing_topics: server.config.delete_topic_with_broker_registration,
    };
    let registered = server.routes.register(&registration).map_err(|error| {
        tracing::warn!(%error, broker = ?registration.broker, peer = %arrival.peer.addr, "refused");
        Refusal::system_error(error)
    })?;
    server.announce(registered.min_id_change);

    let mut reply = Reply::default();
    if let Some(master) = registered.master {
        reply.ext.push(("haServerAddr", ExtValue::Text(master.ha_server_addr)));
        reply.ext.push(("masterAddr", ExtValue::Text(master.master_addr)));
    }
    if server.config.return_order_topic_config_to_broker
        && let Some(table) = super::kv::table(server, ORDER_TOPIC_CONFIG)
    {
        reply.body = table.into();
    }
    Ok(reply)
}

/// The topic's own name counts, the key of the table only when it has none.
fn queues_of((key, topic): (String, TopicConfig)) -> (String, QueueData) {
    let queues = QueueData {
        read_queue_nums: topic.read_queue_nums,
        write_queue_nums: topic.write_queue_nums,
        perm: topic.perm,
        topic_sys_flag: topic.topic_sys_flag,
    };
    let is_unnamed = topic.topic_name.is_empty();
    (if is_unnamed { key } else { topic.topic_name }, queues)
}

/// The sender's checksum of the body, 31 bits wide; 0 or absent means it made none.
fn check_crc(arrival: &Arrival<'_>) -> Result<(), Refusal> {
    let expected = arrival.optional_i64("bodyCrc32").unwrap_or(0);
    let actual = i64::from(crc32fast::hash(arrival.frame.body) & 0x7FFF_FFFF);
    if expected != 0 && expected != actual {
        return Err(Refusal::system_error("crc32 not match"));
    }
    Ok(())
}

/// 104: removed before it is answered; RocketMQ only queues the removal.
pub fn unregister<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    let fields = BrokerFields::read(arrival)?;
    let change = server.routes.unregister(&fields.identity());
    server.announce(change);
    Ok(Reply::default())
}
