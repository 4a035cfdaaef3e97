//! The values of all settings of a broker: defaults, then a property file, then the command line.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;

use rustc_hash::FxHashMap;
use thiserror::Error;

use super::machine::Machine;
use rmq_net::properties::{self, PropertiesError};

use super::setting::{Kind, Setting, Status};
use super::table;

/// Where a value came from, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File {
        path: String,
        line: u32,
    },
    /// A flag or an environment variable, as the user wrote it: `-n`, `NAMESRV_ADDR`.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => out.write_str("default"),
            Origin::File { path, line } => write!(out, "{path} line {line}"),
            Origin::Flag(flag) => write!(out, "from {flag}"),
        }
    }
}

/// The user must change a setting.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    #[error("{name}={value} ({origin}) is not allowed: {allowed}")]
    WrongValue { name: &'static str, value: String, origin: Origin, allowed: String },
    #[error("cannot read the property file {path}: {reason}")]
    Unreadable { path: String, reason: String },
    #[error("the property file {path}: {error}")]
    Malformed { path: String, error: PropertiesError },
    /// All that is wrong with one file, one line each.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<ConfigError>),
}

/// The text of a property file, of which no more is read than `PROPERTIES_BYTES_MAX`: a larger one is refused.
pub fn read_file(path: &str) -> Result<Vec<u8>, ConfigError> {
    let read = || -> std::io::Result<(u64, Vec<u8>)> {
        let file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        let mut text = Vec::new();
        // One byte more tells a device or pipe, which has no size, from a file that just fits.
        file.take(properties::PROPERTIES_BYTES_MAX as u64 + 1).read_to_end(&mut text)?;
        Ok((size_bytes, text))
    };
    let (size_bytes, text) =
        read().map_err(|error| ConfigError::Unreadable { path: path.into(), reason: error.to_string() })?;
    if text.len() > properties::PROPERTIES_BYTES_MAX {
        let size_bytes = usize::try_from(size_bytes).unwrap_or(usize::MAX).max(text.len());
        return Err(ConfigError::Malformed { path: path.into(), error: PropertiesError::TooLarge { size_bytes } });
    }
    Ok(text)
}

/// A value with its setting and its origin.
#[derive(Debug, Clone)]
struct Entry {
    setting: &'static Setting,
    /// `None` where RocketMQ has no value.
    value: Option<String>,
    origin: Origin,
}

/// All settings of a broker in RocketMQ's order, each with its value.
#[derive(Debug, Clone)]
pub struct Settings {
    entries: Vec<Entry>,
    /// Position in `entries` by name.
    positions: FxHashMap<&'static str, usize>,
    /// Keys of the file that RocketMQ does not know, with their origin.
    unknown: Vec<(String, Origin)>,
}

impl Settings {
    /// The broker's settings with the defaults of this machine.
    pub fn broker(machine: &Machine) -> Self {
        let mut settings = Self { entries: Vec::new(), positions: FxHashMap::default(), unknown: Vec::new() };
        for setting in table::BROKER.iter().copied().flatten().chain(table::FORMER) {
            // RocketMQ declares a few in two classes and writes both with one key; the first row stands for both.
            if settings.positions.contains_key(setting.name) {
                continue;
            }
            settings.positions.insert(setting.name, settings.entries.len());
            let value = setting.default_on(machine);
            settings.entries.push(Entry { setting, value, origin: Origin::Default });
        }
        settings
    }

    /// Takes over a property file. Every wrong value is reported, not only the first.
    pub fn load_file(&mut self, path: &str) -> Result<(), ConfigError> {
        self.load(&read_file(path)?, path)
    }

    /// Takes over the text of a property file; `path` is its name in messages.
    pub fn load(&mut self, text: &[u8], path: &str) -> Result<(), ConfigError> {
        let found = properties::parse(text).map_err(|error| ConfigError::Malformed { path: path.into(), error })?;
        let mut wrong = Vec::new();
        for property in found {
            let origin = Origin::File { path: path.into(), line: property.line };
            if let Err(error) = self.set(&property.key, &property.value, origin) {
                wrong.push(error);
            }
        }
        match wrong.len() {
            0 => Ok(()),
            1 => Err(wrong.remove(0)),
            _ => Err(ConfigError::Several(wrong)),
        }
    }

    /// Sets one value. A name RocketMQ does not know is remembered for [`Settings::notes`].
    ///
    /// An empty value leaves the default of anything but a text, as RocketMQ does.
    pub fn set(&mut self, name: &str, value: &str, origin: Origin) -> Result<(), ConfigError> {
        let value = value.trim();
        let Some(entry) = self.positions.get(name).and_then(|position| self.entries.get_mut(*position)) else {
            self.unknown.push((name.to_owned(), origin));
            return Ok(());
        };
        let Setting { name, kind, text, .. } = *entry.setting;
        if value.is_empty() && kind != Kind::Text {
            return Ok(());
        }
        let Some(kept) = kind.normalise(value) else {
            let mut allowed = kind.allowed();
            if matches!(kind, Kind::Only(_)) {
                allowed = format!("{allowed}; {text}");
            }
            return Err(ConfigError::WrongValue { name, value: value.into(), origin, allowed });
        };
        entry.value = Some(kept);
        entry.origin = origin;
        Ok(())
    }

    /// The value as RocketMQ prints it; `None` if there is none or no such setting.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.entry(name)?.value.as_deref()
    }

    /// Where the value came from; `None` if there is no such setting.
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        Some(&self.entry(name)?.origin)
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(*self.positions.get(name)?)
    }

    /// The declarations of all settings, in RocketMQ's order.
    pub fn declared(&self) -> impl Iterator<Item = &'static Setting> {
        self.entries.iter().map(|entry| entry.setting)
    }

    /// `-p`: all settings that RocketMQ knows, `name=value` a line, in RocketMQ's order.
    pub fn print_all(&self) -> String {
        self.print(|_| true)
    }

    /// `-m`: those RocketMQ calls important.
    pub fn print_important(&self) -> String {
        self.print(|setting| setting.is_important)
    }

    fn print(&self, is_wanted: impl Fn(&Setting) -> bool) -> String {
        let mut text = String::new();
        for entry in &self.entries {
            let is_former = table::FORMER.iter().any(|setting| setting.name == entry.setting.name);
            if !is_former && is_wanted(entry.setting) {
                text.push_str(entry.setting.name);
                text.push('=');
                text.push_str(entry.value.as_deref().unwrap_or_default());
                text.push('\n');
            }
        }
        text
    }

    /// The body of GET_BROKER_CONFIG: `name=value` lines sorted by name, not escaped.
    ///
    /// RocketMQ leaves out what has no value, and shows the settings of `AuthConfig` only when the file has them.
    pub fn to_properties(&self) -> String {
        let is_shown = |entry: &&Entry| entry.origin != Origin::Default || !table::is_security(entry.setting.name);
        let sorted: BTreeMap<&str, &str> = self
            .entries
            .iter()
            .filter(is_shown)
            .filter_map(|entry| Some((entry.setting.name, entry.value.as_deref()?)))
            .collect();
        sorted.into_iter().map(|(name, value)| format!("{name}={value}\n")).collect()
    }

    /// What the user should know about the settings written: one line per finding, for the start-up log.
    pub fn notes(&self) -> Notes {
        let mut notes = Notes::default();
        if !self.unknown.is_empty() {
            let names: Vec<_> = self.unknown.iter().map(|(name, origin)| format!("{name} ({origin})")).collect();
            notes.warnings.push(format!("unknown settings, ignored: {}", names.join(", ")));
        }
        // Grouped by reason in the order of their first row.
        let mut ignored: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut without_effect = Vec::new();
        for Entry { setting, origin, .. } in self.entries.iter().filter(|entry| entry.origin != Origin::Default) {
            match setting.status {
                Status::Used => {}
                Status::NoEffect => without_effect.push(setting.name),
                Status::Obsolete => {
                    notes.warnings.push(format!("{} ({origin}) is ignored: {}", setting.name, setting.text));
                }
                Status::NotYet => match ignored.iter_mut().find(|(reason, _)| *reason == setting.text) {
                    Some((_, names)) => names.push(setting.name),
                    None => ignored.push((setting.text, vec![setting.name])),
                },
            }
        }
        notes
            .warnings
            .extend(ignored.iter().map(|(reason, names)| format!("ignored for now: {}: {reason}", names.join(", "))));
        if !without_effect.is_empty() {
            notes.remarks.push(format!("accepted, nothing to tune with them here: {}", without_effect.join(", ")));
        }
        notes
    }
}

/// What to say at start about the settings written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// Settings that do not do what their writer expects.
    pub warnings: Vec<String>,
    /// Settings that change nothing a client could see.
    pub remarks: Vec<String>,
}

#[cfg(test)]
mod tests;
