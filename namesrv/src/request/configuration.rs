//! UPDATE_NAMESRV_CONFIG (318) and GET_NAMESRV_CONFIG (319).

use std::path::Path;

use rmq_net::codes::response;
use rmq_net::properties;

use super::{Arrival, Outcome, Refusal, Reply};
use crate::config::SettingError;
use crate::kv::replace_file;
use crate::server::NameServer;

/// 319: all properties as text.
pub fn get(server: &mut NameServer) -> Outcome<'_> {
    Ok(Reply::body(server.config.to_properties().into_bytes()))
}

/// 318: all properties of the body or none. Unknown names are passed over as in RocketMQ; a value that
/// cannot be taken is refused, where RocketMQ keeps the old value and answers success.
pub fn update<'s>(server: &'s mut NameServer, arrival: &Arrival<'_>) -> Outcome<'s> {
    if arrival.frame.body.is_empty() {
        return Ok(Reply::default());
    }
    let text = std::str::from_utf8(arrival.frame.body).map_err(Refusal::system_error)?;
    let changes = properties::parse(text.as_bytes())
        .map_err(|error| Refusal::system_error(format_args!("string2Properties error: {error}")))?;
    if changes.iter().any(|change| server.config.is_black_listed(&change.key)) {
        return Err(Refusal {
            code: response::NO_PERMISSION,
            remark: "Can not update config in black list.".to_owned(),
        });
    }
    let mut changed = server.config.clone();
    for change in &changes {
        match changed.set(&change.key, &change.value) {
            Ok(()) => {}
            Err(SettingError::Unknown { name }) => {
                tracing::warn!(name, "request 318 names a property that does not exist");
            }
            Err(refused) => return Err(Refusal::system_error(refused)),
        }
    }
    let path = Path::new(&changed.config_store_path);
    replace_file(path, changed.to_properties().as_bytes()).map_err(|error| {
        Refusal::system_error(format_args!("cannot write configStorePath {}: {error}", path.display()))
    })?;
    tracing::info!(?changes, peer = %arrival.peer.addr, "configuration changed");
    server.config = changed;
    server.routes.forget_answers(); // they may show another order configuration or acting master now
    Ok(Reply::default())
}
