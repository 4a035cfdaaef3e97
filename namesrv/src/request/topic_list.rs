//! The lists of topics: 206, 224, 304, 311, 312, 313. Names are sorted.

use std::collections::BTreeSet;

use super::{Arrival, Outcome, Refusal, Reply};
use crate::json;
use crate::server::NameServer;
use crate::topics::Topic;

/// `topicSysFlag` bits.
const UNIT: i32 = 1;
const UNIT_SUB: i32 = 2;

/// 206: every topic.
pub fn all(server: &mut NameServer) -> Outcome<'_> {
    if !server.config.enable_all_topic_list {
        return Err(Refusal::system_error("disable"));
    }
    Ok(names_where(server, |_| true))
}

/// 224: topics with a row of one of the cluster's brokers; an unknown cluster has none.
pub fn of_cluster<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    let cluster = arrival.required("cluster")?;
    check_enabled(server)?;
    let sets = &server.routes.sets;
    Ok(names_where(server, |topic| {
        let mut rows = topic.rows().iter();
        rows.any(|(broker_name, _)| sets.is_in_cluster(broker_name, &cluster))
    }))
}

/// 304: the names of clusters and brokers, each of which is a topic too, and the address of some broker
/// to ask for the rest.
pub fn system(server: &mut NameServer) -> Outcome<'_> {
    let sets = &server.routes.sets;
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for (cluster, broker_names) in sets.clusters() {
        names.insert(cluster);
        names.extend(broker_names.iter().map(AsRef::as_ref));
    }
    let mut body = b"{".to_vec();
    if let Some((_, addr)) = sets.iter().find_map(|set| set.first()) {
        body.extend_from_slice(b"\"brokerAddr\":");
        json::string(&mut body, addr);
        body.push(b',');
    }
    body.extend_from_slice(b"\"topicList\":");
    json::strings(&mut body, names);
    body.push(b'}');
    Ok(Reply::body(body))
}

/// 311: unit topics.
pub fn unit(server: &mut NameServer) -> Outcome<'_> {
    check_enabled(server)?;
    Ok(names_where(server, |topic| topic.sys_flag() & UNIT != 0))
}

/// 312: topics with unit subscriptions.
pub fn unit_sub(server: &mut NameServer) -> Outcome<'_> {
    check_enabled(server)?;
    Ok(names_where(server, |topic| topic.sys_flag() & UNIT_SUB != 0))
}

/// 313: topics with unit subscriptions that are not unit topics themselves.
pub fn unit_sub_un_unit(server: &mut NameServer) -> Outcome<'_> {
    check_enabled(server)?;
    Ok(names_where(server, |topic| topic.sys_flag() & (UNIT | UNIT_SUB) == UNIT_SUB))
}

fn check_enabled(server: &NameServer) -> Result<(), Refusal> {
    if server.config.enable_topic_list { Ok(()) } else { Err(Refusal::system_error("disable")) }
}

fn names_where(server: &NameServer, chosen: impl Fn(&Topic) -> bool) -> Reply<'static> {
    let topics = server.routes.topics.iter();
    let mut names: Vec<&str> = topics.filter(|(_, topic)| chosen(topic)).map(|(name, _)| name).collect();
    names.sort_unstable();
    let mut body = b"{\"topicList\":".to_vec();
    json::strings(&mut body, names);
    body.push(b'}');
    Reply::body(body)
}
