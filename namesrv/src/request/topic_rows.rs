//! DELETE_TOPIC_IN_NAMESRV (216) and REGISTER_TOPIC_IN_NAMESRV (217).

use rmq_net::body::{self, TopicRouteData};

use super::{Arrival, Outcome, Refusal, Reply};
use crate::limits::NAME_BYTES_MAX;
use crate::registration::QueueData;
use crate::server::NameServer;

/// 216: forgets a topic, or its rows of one cluster. The brokers still have it, and bring it back with
/// their next changed registration.
pub fn delete<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    let topic = arrival.required("topic")?;
    let cluster = arrival.optional("clusterName").filter(|name| !name.is_empty());
    server.routes.remove_topic(&topic, cluster.as_deref());
    tracing::info!(%topic, ?cluster, peer = %arrival.peer.addr, "topic removed");
    Ok(Reply::default())
}

/// 217: stores the rows of a route that someone else made. When it names a broker that is not here,
/// nothing is stored and the answer is still success.
pub fn register<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    let topic = arrival.required("topic")?;
    if arrival.frame.body.is_empty() {
        return Ok(Reply::default());
    }
    let route: TopicRouteData = body::decode(arrival.frame.body)
        .map_err(|error| Refusal::system_error(format_args!("the body is not a route: {error}")))?;
    if topic.len() > NAME_BYTES_MAX {
        return Err(Refusal::system_error(format_args!("topic has {} bytes, more than {NAME_BYTES_MAX}", topic.len())));
    }
    let rows: Vec<(String, QueueData)> = route
        .queue_datas
        .into_iter()
        .map(|row| {
            let queues = QueueData {
                read_queue_nums: row.read_queue_nums,
                write_queue_nums: row.write_queue_nums,
                perm: row.perm,
                topic_sys_flag: row.topic_sys_flag,
            };
            (row.broker_name, queues)
        })
        .collect();
    let stored = server.routes.register_rows(&topic, &rows);
    stored.map_err(Refusal::system_error)?;
    Ok(Reply::default())
}
