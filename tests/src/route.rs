use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// RocketMQ: request code GET_ROUTEINFO_BY_TOPIC.
const GET_ROUTE: i32 = 105;
const TIMEOUT: Duration = Duration::from_secs(3);

/// Whether the name server at `address` knows a route of `topic`. Written without the project's codec, so that a
/// mistake there does not hide itself.
pub fn is_known(address: &str, topic: &str) -> bool {
    route(address, topic).is_some()
}

/// Whether the route names the broker at this `ip:port`.
pub fn has_broker(address: &str, topic: &str, broker: &str) -> bool {
    route(address, topic).is_some_and(|route| route.contains(&format!("\"{broker}\"")))
}

/// The JSON text of a topic's route.
fn route(address: &str, topic: &str) -> Option<String> {
    let header = serde_json::json!({
        "code": GET_ROUTE, "flag": 0, "language": "OTHER", "opaque": 1, "version": 0,
        "serializeTypeCurrentRPC": "JSON", "extFields": { "topic": topic },
    })
    .to_string();
    let mut frame = Vec::new();
    // The total length counts the header length field; the header length's top byte 0 means JSON.
    frame.extend_from_slice(&u32::try_from(4 + header.len()).ok()?.to_be_bytes());
    frame.extend_from_slice(&u32::try_from(header.len()).ok()?.to_be_bytes());
    frame.extend_from_slice(header.as_bytes());
    let mut stream = TcpStream::connect_timeout(&address.parse().ok()?, TIMEOUT).ok()?;
    stream.set_read_timeout(Some(TIMEOUT)).ok()?;
    stream.write_all(&frame).ok()?;

    let mut lengths = [0; 8];
    stream.read_exact(&mut lengths).ok()?;
    let size_bytes = u32::from_be_bytes([lengths[0], lengths[1], lengths[2], lengths[3]]);
    let header_size_bytes = usize::try_from(u32::from_be_bytes([0, lengths[5], lengths[6], lengths[7]])).ok()?;
    let mut reply = vec![0; usize::try_from(size_bytes).ok()?.checked_sub(4)?];
    stream.read_exact(&mut reply).ok()?;
    let (header, body) = reply.split_at_checked(header_size_bytes)?;
    let code = serde_json::from_slice::<serde_json::Value>(header).ok()?["code"].as_i64()?;
    (code == 0).then(|| String::from_utf8_lossy(body).into_owned())
}
