//! The attribute tables of topics and groups and the update syntax `+key=value,-key`.
//!
//! A request carries *signed* keys (`+message.type`, `-message.type`); what is stored has no sign.
//! Every rule here is RocketMQ's: unknown keys are refused, immutable ones may only be given while
//! the topic is created, and deleting a key that is not there is an error.

use std::collections::BTreeMap;

use thiserror::Error;

/// Attributes as stored: names without a sign, sorted.
pub type Attributes = BTreeMap<String, String>;

/// Attribute name of how a topic's queues count, and its value for topics of inner batches.
pub const QUEUE_TYPE: &str = "queue.type";
pub const BATCH_CQ: &str = "BatchCQ";
/// Attribute name of a topic's clean-up policy, and its value for compaction topics.
pub const CLEANUP_POLICY: &str = "cleanup.policy";
pub const CLEANUP_POLICY_COMPACTION: &str = "COMPACTION";
/// Attribute name of the type of messages a topic holds.
pub const MESSAGE_TYPE: &str = "message.type";
/// Its queues are priorities.
pub const MESSAGE_TYPE_PRIORITY: &str = "PRIORITY";
/// Of a group: in how many of a hundred pops priorities count.
pub const PRIORITY_FACTOR: &str = "priority.factor";
pub const MESSAGE_TYPE_MIXED: &str = "MIXED";

/// One attribute the broker knows.
#[derive(Debug)]
pub struct Attribute {
    pub name: &'static str,
    pub is_mutable: bool,
    pub values: Values,
}

/// The values an attribute takes.
#[derive(Debug)]
pub enum Values {
    /// One of these words, compared exactly.
    OneOf(&'static [&'static str]),
    /// `true` or `false` in any letter case.
    Bool,
    /// A decimal i64 between the two, both included.
    Range(i64, i64),
    Any,
}

/// The attributes of topics (RocketMQ 5.5).
pub static TOPIC_ATTRIBUTES: &[Attribute] = &[
    Attribute { name: QUEUE_TYPE, is_mutable: false, values: Values::OneOf(&[BATCH_CQ, "SimpleCQ"]) },
    Attribute {
        name: CLEANUP_POLICY,
        is_mutable: false,
        values: Values::OneOf(&["DELETE", CLEANUP_POLICY_COMPACTION]),
    },
    Attribute {
        name: MESSAGE_TYPE,
        is_mutable: true,
        values: Values::OneOf(&[
            "UNSPECIFIED",
            "NORMAL",
            "FIFO",
            "DELAY",
            "TRANSACTION",
            MESSAGE_TYPE_PRIORITY,
            "LITE",
            MESSAGE_TYPE_MIXED,
        ]),
    },
    Attribute { name: "reserve.time", is_mutable: true, values: Values::Range(-1, i64::MAX) },
    Attribute { name: "lite.topic.expiration", is_mutable: true, values: Values::Range(-1, 43_200) },
];

/// The attributes of subscription groups (RocketMQ 5.5). All can change at any time.
pub static GROUP_ATTRIBUTES: &[Attribute] = &[
    Attribute { name: PRIORITY_FACTOR, is_mutable: true, values: Values::Range(0, 100) },
    Attribute { name: "lite.bind.topic", is_mutable: true, values: Values::Any },
    Attribute { name: "lite.sub.model", is_mutable: true, values: Values::OneOf(&["Shared", "Exclusive"]) },
    Attribute { name: "lite.sub.reset.offset.exclusive", is_mutable: true, values: Values::Bool },
    Attribute { name: "lite.sub.reset.offset.unsubscribe", is_mutable: true, values: Values::Bool },
    Attribute { name: "lite.sub.client.quota", is_mutable: true, values: Values::Range(-1, i64::MAX) },
    Attribute { name: "lite.sub.client.max.event.cnt", is_mutable: true, values: Values::Range(10, i64::MAX) },
    Attribute { name: "lite.sub.wildcard", is_mutable: true, values: Values::Any },
];

/// Why a change of attributes is refused. Answered with code 1; Display is the remark.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AttributeError {
    #[error("attribute change [{0}] is malformed, expected +key=value or -key")]
    Malformed(String),
    #[error("key duplication: {0}")]
    Duplicate(String),
    #[error("unsupported key: {0}")]
    Unknown(String),
    #[error("only add attribute is supported while creating. key: {0}")]
    DeleteWhileCreating(String),
    #[error("attempt to update an unchangeable attribute. key: {0}")]
    Immutable(String),
    #[error("attempt to delete a nonexistent key: {0}")]
    DeleteMissing(String),
    #[error("value [{value}] is not allowed for attribute {key}, expected {expected}")]
    Value { key: String, value: String, expected: String },
}

/// Splits the header text `+a=b,-c` into signed keys and values (empty for deletions).
/// Absent or empty text is no change.
pub fn parse(text: &str) -> Result<Attributes, AttributeError> {
    let mut changes = Attributes::new();
    let text = text.trim_end_matches(',');
    if text.is_empty() {
        return Ok(changes);
    }
    for part in text.split(',') {
        let malformed = || AttributeError::Malformed(part.to_owned());
        let (key, value) = match part.split_once('=') {
            Some((key, value)) if key.starts_with('+') && !value.contains('=') => (key, value),
            None if part.starts_with('-') => (part, ""),
            _ => return Err(malformed()),
        };
        if key.len() < 2 {
            return Err(malformed());
        }
        if changes.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(AttributeError::Duplicate(key.to_owned()));
        }
    }
    Ok(changes)
}

/// Applies signed `changes` to the stored attributes; `current` is `None` while creating.
pub fn alter(
    known: &[Attribute],
    current: Option<&Attributes>,
    changes: &Attributes,
) -> Result<Attributes, AttributeError> {
    let mut result = current.cloned().unwrap_or_default();
    for (signed, value) in changes {
        let is_added = signed.starts_with('+');
        let name = signed
            .strip_prefix(['+', '-'])
            .filter(|name| !name.is_empty())
            .ok_or_else(|| AttributeError::Malformed(signed.clone()))?;
        if changes.contains_key(&format!("{}{name}", if is_added { '-' } else { '+' })) {
            return Err(AttributeError::Duplicate(name.to_owned()));
        }
        let attribute = known
            .iter()
            .find(|attribute| attribute.name == name)
            .ok_or_else(|| AttributeError::Unknown(name.to_owned()))?;
        if current.is_none() && !is_added {
            return Err(AttributeError::DeleteWhileCreating(name.to_owned()));
        }
        if current.is_some() && !attribute.is_mutable {
            return Err(AttributeError::Immutable(name.to_owned()));
        }
        if is_added {
            check_value(attribute, value)?;
            result.insert(name.to_owned(), value.clone());
        } else if result.remove(name).is_none() {
            return Err(AttributeError::DeleteMissing(name.to_owned()));
        }
    }
    Ok(result)
}

fn check_value(attribute: &Attribute, value: &str) -> Result<(), AttributeError> {
    let (is_allowed, expected) = match &attribute.values {
        Values::Any => (true, String::new()),
        Values::OneOf(words) => (words.contains(&value), format!("one of {}", words.join(", "))),
        Values::Bool => {
            (value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false"), "true or false".to_owned())
        }
        Values::Range(low, high) => (
            value.parse::<i64>().is_ok_and(|number| (*low..=*high).contains(&number)),
            format!("a number from {low} to {high}"),
        ),
    };
    if is_allowed {
        return Ok(());
    }
    Err(AttributeError::Value { key: attribute.name.to_owned(), value: value.to_owned(), expected })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pairs: &[(&str, &str)]) -> Attributes {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn header_text_is_split_into_signed_keys() {
        assert_eq!(parse(""), Ok(table(&[])));
        assert_eq!(parse(","), Ok(table(&[])));
        assert_eq!(parse("+a=b,-c,"), Ok(table(&[("+a", "b"), ("-c", "")])));
        for bad in ["a=b", "+a", "-a=b", "+=b", "-", "+a=b=c", "+a=b,,-c"] {
            assert!(matches!(parse(bad), Err(AttributeError::Malformed(_))), "{bad}");
        }
        assert_eq!(parse("+a=b,+a=c"), Err(AttributeError::Duplicate("+a".to_owned())));
    }

    #[test]
    fn changes_follow_the_rules_of_their_attribute() {
        use AttributeError as E;
        let stored = table(&[("message.type", "FIFO")]);
        type Case<'a> = (Option<&'a Attributes>, &'a str, Result<Attributes, E>);
        let cases: Vec<Case<'_>> = vec![
            (None, "", Ok(table(&[]))),
            (None, "+message.type=FIFO", Ok(stored.clone())),
            (None, "-message.type", Err(E::DeleteWhileCreating("message.type".into()))),
            (None, "+queue.type=BatchCQ", Ok(table(&[("queue.type", "BatchCQ")]))),
            (None, "+color=red", Err(E::Unknown("color".into()))),
            (Some(&stored), "+queue.type=BatchCQ", Err(E::Immutable("queue.type".into()))),
            (Some(&stored), "+message.type=NORMAL", Ok(table(&[("message.type", "NORMAL")]))),
            (Some(&stored), "-message.type", Ok(table(&[]))),
            (Some(&stored), "-reserve.time", Err(E::DeleteMissing("reserve.time".into()))),
            (Some(&stored), "+reserve.time=-1", Ok(table(&[("message.type", "FIFO"), ("reserve.time", "-1")]))),
            (Some(&stored), "+reserve.time=1,-reserve.time", Err(E::Duplicate("reserve.time".into()))),
        ];
        for (current, text, expected) in cases {
            let changes = parse(text).expect("well formed");
            assert_eq!(alter(TOPIC_ATTRIBUTES, current, &changes), expected, "{text}");
        }
        for bad in ["+message.type=fifo", "+reserve.time=-2", "+reserve.time=x"] {
            let refused = alter(TOPIC_ATTRIBUTES, Some(&stored), &parse(bad).expect("well formed"));
            assert!(matches!(refused, Err(E::Value { .. })), "{bad}");
        }
        let group = alter(GROUP_ATTRIBUTES, None, &table(&[("+priority.factor", "101")]));
        assert!(matches!(group, Err(E::Value { .. })));
        assert_eq!(alter(GROUP_ATTRIBUTES, None, &table(&[("color", "red")])), Err(E::Malformed("color".into())));
    }
}
