//! GET_BROKER_CLUSTER_INFO (106) and GET_BROKER_MEMBER_GROUP (901): who forms a cluster, a broker set.

use super::{Arrival, Outcome, Refusal, Reply};
use crate::broker_sets::BrokerSet;
use crate::json::{self, RouteForm};
use crate::route_body;
use crate::server::NameServer;

/// 106. Integer keys are always unquoted here, whatever the version of the asker.
pub fn cluster_info(server: &mut NameServer) -> Outcome<'_> {
    let sets = &server.routes.sets;
    let mut body = b"{\"brokerAddrTable\":".to_vec();
    json::joined(&mut body, *b"{}", sets.iter(), |out, set| {
        json::string(out, &set.broker_name);
        out.push(b':');
        route_body::write_set(out, set, addrs(set), RouteForm::Legacy);
    });
    body.extend_from_slice(b",\"clusterAddrTable\":");
    json::joined(&mut body, *b"{}", sets.clusters(), |out, (cluster, names)| {
        json::string(out, cluster);
        out.push(b':');
        json::strings(out, names.iter().map(AsRef::as_ref));
    });
    body.push(b'}');
    Ok(Reply::body(body))
}

/// 901. A name nobody registered is a group without members, not an error.
pub fn member_group<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    let cluster = arrival.required("clusterName")?;
    let broker_name = arrival.required("brokerName")?;
    let set = server.routes.sets.get(&broker_name);
    let mut body = b"{\"brokerMemberGroup\":{\"brokerAddrs\":".to_vec();
    let members = set.into_iter().flat_map(addrs);
    json::id_map(&mut body, members, RouteForm::Legacy);
    body.extend_from_slice(b",\"brokerName\":");
    json::string(&mut body, &broker_name);
    body.extend_from_slice(b",\"cluster\":");
    json::string(&mut body, &cluster);
    body.extend_from_slice(b"}}");
    Ok::<_, Refusal>(Reply::body(body))
}

fn addrs(set: &BrokerSet) -> impl Iterator<Item = (i64, &str)> {
    set.addrs.iter().map(|(id, addr)| (*id, addr.as_ref()))
}
