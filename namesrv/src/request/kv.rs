//! PUT, GET, DELETE_KV_CONFIG (100, 101, 102) and GET_KVLIST_BY_NAMESPACE (219).

use rmq_net::codes::response;

use super::{Arrival, ExtValue, Outcome, Refusal, Reply};
use crate::changes::Change;
use crate::json;
use crate::server::NameServer;

/// 100: stores an entry.
pub fn put(arrival: &Arrival<'_>) -> Result<Change, Refusal> {
    let (namespace, key) = namespace_and_key(arrival)?;
    let value = arrival.required("value")?;
    Ok(Change::Put { namespace, key, value })
}

/// 101.
pub fn get<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    let (namespace, key) = namespace_and_key(arrival)?;
    match server.kv.get(&namespace, &key) {
        Some(value) => Ok(Reply::ext("value", ExtValue::Text(value.to_owned()))),
        None => Err(Refusal {
            code: response::QUERY_NOT_FOUND,
            remark: format!("No config item, Namespace: {namespace} Key: {key}"),
        }),
    }
}

/// 102: success also when there is nothing to delete, as in RocketMQ.
pub fn delete(arrival: &Arrival<'_>) -> Result<Change, Refusal> {
    let (namespace, key) = namespace_and_key(arrival)?;
    Ok(Change::Delete { namespace, key })
}

/// 219.
pub fn list<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    let namespace = arrival.required("namespace")?;
    match table(server, &namespace) {
        Some(body) => Ok(Reply::body(body)),
        None => {
            Err(Refusal { code: response::QUERY_NOT_FOUND, remark: format!("No config item, Namespace: {namespace}") })
        }
    }
}

/// A namespace as JSON (`KVTable`).
pub fn table(server: &NameServer, namespace: &str) -> Option<Vec<u8>> {
    let entries = server.kv.namespace(namespace)?;
    let mut body = b"{\"table\":".to_vec();
    let entries = entries.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    json::string_map(&mut body, entries);
    body.push(b'}');
    Some(body)
}

fn namespace_and_key(arrival: &Arrival<'_>) -> Result<(String, String), Refusal> {
    match (arrival.optional("namespace"), arrival.optional("key")) {
        (Some(namespace), Some(key)) => Ok((namespace, key)),
        _ => Err(Refusal::system_error("namespace or key is null")),
    }
}
