//! The name server's settings: property file and flags into a `NamesrvConfig`.

use rmq_broker::config::{ConfigError, Notes, Origin};
use rmq_namesrv::{Effect, NamesrvConfig, SettingError, property_table};
use rmq_net::properties;

/// Takes over a property file, whose text is `text`. Every wrong value is reported, not only the first.
///
/// Returns what the user should know about the settings written.
pub fn apply_properties(config: &mut NamesrvConfig, text: &[u8], path: &str) -> Result<Notes, ConfigError> {
    let found = properties::parse(text).map_err(|error| ConfigError::Malformed { path: path.into(), error })?;
    let rows = property_table();
    let (mut wrong, mut unknown, mut without_effect, mut not_yet) = (vec![], vec![], vec![], vec![]);
    for property in &found {
        let origin = Origin::File { path: path.into(), line: property.line };
        match config.set(&property.key, &property.value) {
            Ok(()) => {
                let effect = rows.iter().find(|row| row.name == property.key).map(|row| row.effect);
                match effect {
                    Some(Effect::Ignored) => without_effect.push(property.key.as_str()),
                    Some(Effect::NotYet) => not_yet.push(property.key.as_str()),
                    Some(Effect::Used | Effect::AtStart) | None => {}
                }
            }
            // As RocketMQ does, which keeps the default.
            Err(SettingError::Refused { value, .. }) if value.is_empty() => {}
            Err(SettingError::Refused { name, value, expected }) => {
                wrong.push(ConfigError::WrongValue { name, value, origin, allowed: expected });
            }
            Err(SettingError::Unknown { name }) => unknown.push(format!("{name} ({origin})")),
        }
    }
    match wrong.len() {
        0 => {}
        1 => return Err(wrong.remove(0)),
        _ => return Err(ConfigError::Several(wrong)),
    }
    let mut notes = Notes::default();
    if !unknown.is_empty() {
        notes.warnings.push(format!("unknown settings, ignored: {}", unknown.join(", ")));
    }
    if !not_yet.is_empty() {
        notes.warnings.push(format!("ignored for now: {}: not built yet", not_yet.join(", ")));
    }
    if !without_effect.is_empty() {
        notes.remarks.push(format!("accepted, nothing to tune with them here: {}", without_effect.join(", ")));
    }
    Ok(notes)
}

/// `-p`: all settings, `name=value` a line, in RocketMQ's order and not escaped.
pub fn print_all(config: &NamesrvConfig) -> String {
    let line = |name: &str| format!("{name}={}\n", config.get(name).unwrap_or_default());
    property_table().iter().map(|row| line(row.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_sets_the_fields_and_tells_what_it_does_not_do() {
        let mut config = NamesrvConfig::default();
        let text = b"listenPort = 19876\norderMessageEnable=true\nfoo=1\nserverWorkerThreads=4\nneedWaitForService=";
        let notes = apply_properties(&mut config, text, "namesrv.conf").unwrap();
        assert_eq!((config.listen_port, config.order_message_enable), (19876, true));
        assert_eq!(notes.warnings, ["unknown settings, ignored: foo (namesrv.conf line 3)"]);
        assert_eq!(notes.remarks, ["accepted, nothing to tune with them here: serverWorkerThreads"]);
        assert!(print_all(&config).contains("\nlistenPort=19876\n"));
    }

    #[test]
    fn wrong_values_are_refused_by_name_range_and_line() {
        let mut config = NamesrvConfig::default();
        let error = apply_properties(&mut config, b"a=1\nlistenPort=x\nclusterTest=1", "n.conf").unwrap_err();
        let lines: Vec<_> = error.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), 2, "{error}");
        assert!(lines[0].starts_with("listenPort=x (n.conf line 2) is not allowed: "), "{error}");
        assert!(lines[1].starts_with("clusterTest=1 (n.conf line 3) is not allowed: "), "{error}");
    }
}
