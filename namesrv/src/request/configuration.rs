//! UPDATE_NAMESRV_CONFIG (318) and GET_NAMESRV_CONFIG (319).

use std::path::PathBuf;

use rmq_net::codes::response;
use rmq_net::properties::{self, Property};

use super::{Arrival, Outcome, Refusal, Reply};
use crate::changes::{Change, FileWrite, Staged};
use crate::config::SettingError;
use crate::server::NameServer;

/// 319: all properties as text.
pub fn get(server: &mut NameServer) -> Outcome<'_> {
    Ok(Reply::body(server.config.to_properties().into_bytes()))
}

/// 318.
pub fn update(arrival: &Arrival<'_>) -> Result<Change, Refusal> {
    let text = std::str::from_utf8(arrival.frame.body).map_err(Refusal::system_error)?;
    let changes = properties::parse(text.as_bytes())
        .map_err(|error| Refusal::system_error(format_args!("string2Properties error: {error}")))?;
    Ok(Change::Configure(changes))
}

/// All properties or none. Unknown names are passed over as in RocketMQ; a value that cannot be taken is refused, where
/// RocketMQ keeps the old value and answers success.
pub fn stage(server: &NameServer, changes: &[Property]) -> Result<Option<(FileWrite, Staged)>, Refusal> {
    if changes.is_empty() {
        return Ok(None);
    }
    if changes.iter().any(|change| server.config.is_black_listed(&change.key)) {
        return Err(Refusal {
            code: response::NO_PERMISSION,
            remark: "Can not update config in black list.".to_owned(),
        });
    }
    let mut changed = server.config.clone();
    for change in changes {
        match changed.set(&change.key, &change.value) {
            Ok(()) => {}
            Err(SettingError::Unknown { name }) => {
                tracing::warn!(name, "request 318 names a property that does not exist");
            }
            Err(refused) => return Err(Refusal::system_error(refused)),
        }
    }
    let path = PathBuf::from(&changed.config_store_path);
    let write = FileWrite { setting: "configStorePath", path, content: changed.to_properties().into_bytes() };
    Ok(Some((write, Staged::Config(Box::new(changed)))))
}
