//! What one RocketMQ property is: its name, type, default, range, effect, and whether RingMQ honours it.
//!
//! The rows themselves stand in `table`. Everything that reads, prints or explains settings works from them.

use std::net::IpAddr;

use super::DelayLevels;
use super::machine::Machine;

/// One property of RocketMQ 5.5, declared once.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// RocketMQ's name, as it stands in property files.
    pub name: &'static str,
    pub kind: Kind,
    /// Equal to RocketMQ's.
    pub default: DefaultValue,
    pub status: Status,
    /// The effect of a used setting; for any other, what comes of writing it.
    pub text: &'static str,
    /// RocketMQ prints these with `-m`.
    pub is_important: bool,
}

/// The type and range of a setting's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    /// Smallest and largest value, both allowed.
    Int(i64, i64),
    Float,
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// This one value. Any other asks for something whose absence must not go unnoticed.
    Only(&'static str),
    /// An IPv4 or IPv6 address.
    Ip,
    /// An IPv4 address, an IPv6 address with or without brackets, or a host name.
    Host,
    /// `host:port` separated by `;`.
    Addresses,
    /// Delays such as `5s`, `1m`, `2h`, `1d`, separated by blanks.
    Delays,
    /// Hours of the day, `00` to `23`, separated by `;`.
    Hours,
}

#[derive(Debug, Clone, Copy)]
pub enum DefaultValue {
    /// RocketMQ has no value: printed as an empty one, absent from GET_BROKER_CONFIG.
    Null,
    Fixed(&'static str),
    /// Depends on the machine, such as the host name.
    Machine(fn(&Machine) -> String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Used,
    /// Accepted; RingMQ has nothing that this could tune, and clients see no difference.
    NoEffect,
    /// Accepted; belongs to a part that is not built yet.
    NotYet,
    /// Written for a RocketMQ, or a way to use it, that RingMQ does not follow.
    Obsolete,
}

impl Kind {
    /// The value as it is kept and printed, or `None` if it is not allowed. `raw` is trimmed.
    pub fn normalise(self, raw: &str) -> Option<String> {
        let kept = match self {
            Kind::Bool => parse_bool(raw)?.to_string(),
            Kind::Int(min, max) => {
                raw.parse::<i64>().ok().filter(|number| min <= *number && *number <= max)?.to_string()
            }
            Kind::Float => {
                raw.parse::<f64>().ok().filter(|number| number.is_finite())?;
                raw.to_owned()
            }
            Kind::Text => raw.to_owned(),
            Kind::Choice(words) => words.iter().find(|word| **word == raw)?.to_string(),
            Kind::Only(word) => word.eq_ignore_ascii_case(raw).then(|| word.to_owned())?,
            Kind::Ip => raw.parse::<IpAddr>().ok()?.to_string(),
            Kind::Host => host(raw)?,
            Kind::Addresses => addresses(raw)?.join(";"),
            Kind::Delays => DelayLevels::parse(raw).map(|_| raw.to_owned())?,
            Kind::Hours => {
                let is_hour = |part: &str| part.trim().parse::<u8>().is_ok_and(|hour| hour < 24);
                raw.split(';').all(is_hour).then(|| raw.to_owned())?
            }
        };
        Some(kept)
    }

    /// The allowed values, for messages: `1 to 65535`.
    pub fn allowed(self) -> String {
        match self {
            Kind::Bool => "true or false".into(),
            Kind::Int(min, max) => format!("{min} to {max}"),
            Kind::Float => "a number".into(),
            Kind::Text => "any text".into(),
            Kind::Choice(words) => words.join(" or "),
            Kind::Only(word) => format!("only {word}"),
            Kind::Ip => "an IPv4 or IPv6 address".into(),
            Kind::Host => "an IPv4 or IPv6 address or a host name".into(),
            Kind::Addresses => "host:port, several separated by ;".into(),
            Kind::Delays => "delays such as 5s, 1m, 2h or 1d, 1 to 200 of them, separated by blanks".into(),
            Kind::Hours => "hours from 00 to 23, several separated by ;".into(),
        }
    }
}

impl Setting {
    /// RocketMQ's default on this machine; `None` where RocketMQ has no value.
    pub fn default_on(&self, machine: &Machine) -> Option<String> {
        match self.default {
            DefaultValue::Null => None,
            DefaultValue::Fixed(value) => Some(value.to_owned()),
            DefaultValue::Machine(value) => Some(value(machine)),
        }
    }
}

/// RocketMQ takes anything but "true" for false; we take a typing mistake for a mistake.
fn parse_bool(raw: &str) -> Option<bool> {
    if raw.eq_ignore_ascii_case("true") {
        Some(true)
    } else if raw.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

/// An address in its plain form (no brackets), or a host name as it is written.
fn host(raw: &str) -> Option<String> {
    let bare = raw.strip_prefix('[').and_then(|raw| raw.strip_suffix(']')).filter(|bare| bare.contains(':'));
    if let Ok(address) = bare.unwrap_or(raw).parse::<IpAddr>() {
        return Some(address.to_string());
    }
    // RFC 1123, and the underscore that container names have.
    let is_label = |label: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(is_allowed) && !label.starts_with('-')
    };
    // The last label of a name is no number: what looks like an address but is none is a typing mistake.
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let name = raw.strip_suffix('.').unwrap_or(raw);
    let is_name = name.len() <= 253 && name.split('.').all(is_label) && !name.rsplit('.').next().is_some_and(is_number);
    is_name.then(|| raw.to_owned())
}

/// Splits `host:port;host:port`; empty parts are dropped, as RocketMQ does. `None` if a part is neither.
pub(super) fn addresses(raw: &str) -> Option<Vec<String>> {
    let is_address = |address: &str| match address.rsplit_once(':') {
        Some((host, port)) => {
            let is_bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
            !host.is_empty() && !is_bare_ipv6 && port.parse::<u16>().is_ok_and(|port| port != 0)
        }
        None => false,
    };
    let parts = raw.split(';').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| is_address(part).then(|| part.to_owned())).collect()
}
