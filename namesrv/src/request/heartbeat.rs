//! QUERY_DATA_VERSION (322) and BROKER_HEARTBEAT (904): signs of life between registrations.

use rmq_net::body::{self, DataVersion};

use super::{Arrival, BrokerFields, ExtValue, Outcome, Refusal, Reply};
use crate::server::NameServer;

/// 322: does this name server know the broker's topics in this version? Counts as a sign of life.
pub fn query_data_version<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    let fields = BrokerFields::read(arrival)?;
    let broker = fields.identity();
    let is_changed = match arrival.frame.body {
        [] => true, // no version is never the one that is known
        bytes => {
            let version: DataVersion = body::decode(bytes)
                .map_err(|error| Refusal::system_error(format_args!("the body is not a data version: {error}")))?;
            server.routes.is_changed(&broker, &version)
        }
    };
    let live = &mut server.routes.live;
    live.refresh(broker.cluster, broker.addr, arrival.now_ms);
    let mut reply = Reply::ext("changed", ExtValue::Bool(is_changed));
    if let Some(known) = live.get(broker.cluster, broker.addr) {
        let body = serde_json::to_vec(&known.data_version).map_err(Refusal::system_error)?;
        reply.body = body.into();
    }
    Ok(reply)
}

/// 904: a sign of life and nothing else; an unknown broker is answered success and stays unknown.
pub fn heartbeat<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    let cluster = arrival.required("clusterName")?;
    let addr = arrival.required("brokerAddr")?;
    server.routes.live.refresh(&cluster, &addr, arrival.now_ms);
    Ok(Reply::default())
}
