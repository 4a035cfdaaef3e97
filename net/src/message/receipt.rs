//! The receipt of a popped message: the ext field `extraInfo`, the property `POP_CK`, the handle of SDKs.
//!
//! Eight parts, separated by one blank each:
//! `startOffset popTime invisibleTime reviveQueueId mark brokerName queueId queueOffset`. Clients build it themselves from the
//! fields of a pop's answer; the last part may be missing.
#![forbid(unsafe_code)]

use std::fmt;

use super::names::RETRY_PREFIX;

/// The revive queue id that says that the messages were popped in order.
pub const ORDER_REVIVE_QUEUE: i32 = 999;

/// Which topic a popped message is stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    /// The topic the consumer names.
    Topic = 0,
    /// `%RETRY%group_topic`
    RetryV1 = 1,
    /// `%RETRY%group+topic`
    RetryV2 = 2,
}

impl Mark {
    /// RocketMQ: of a topic's name alone.
    pub fn of(topic: &str) -> Self {
        match topic.strip_prefix(RETRY_PREFIX) {
            None => Self::Topic,
            Some(rest) if rest.contains('+') => Self::RetryV2,
            Some(_) => Self::RetryV1,
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [("0", Self::Topic), ("1", Self::RetryV1), ("2", Self::RetryV2)]
            .into_iter()
            .find_map(|(name, mark)| (name == text).then_some(mark))
    }

    /// The name of the topic the message is stored in.
    pub fn topic(self, group: &str, topic: &str) -> String {
        match self {
            Self::Topic => topic.to_owned(),
            Self::RetryV1 => format!("{RETRY_PREFIX}{group}_{topic}"),
            Self::RetryV2 => format!("{RETRY_PREFIX}{group}+{topic}"),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", *self as u8)
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt<'a> {
    /// First offset of the pop in that queue.
    pub start_offset: i64,
    pub pop_time_ms: i64,
    pub invisible_ms: i64,
    pub revive_queue_id: i32,
    pub mark: Mark,
    pub broker_name: &'a str,
    pub queue_id: i32,
    /// The message's own offset.
    pub queue_offset: Option<i64>,
}

/// Why a text is no receipt.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    #[error(
        "the receipt has {found} parts; it takes at least 7: startOffset popTime invisibleTime reviveQueueId mark \
         brokerName queueId"
    )]
    Parts { found: usize },
    #[error("the receipt's {part} is not one: {value}")]
    Part { part: &'static str, value: String },
}

impl<'a> Receipt<'a> {
    pub fn parse(text: &'a str) -> Result<Self, ReceiptError> {
        let mut parts = [""; 8];
        let mut found = 0;
        for part in text.split(' ') {
            if let Some(place) = parts.get_mut(found) {
                *place = part;
            }
            found += 1;
        }
        if !(7..=8).contains(&found) {
            return Err(ReceiptError::Parts { found });
        }
        let [start_offset, pop_time, invisible, revive_queue_id, mark, broker_name, queue_id, queue_offset] = parts;
        let bad = |part, value: &str| ReceiptError::Part { part, value: value.chars().take(64).collect() };
        Ok(Self {
            start_offset: start_offset.parse().map_err(|_| bad("startOffset", start_offset))?,
            pop_time_ms: pop_time.parse().map_err(|_| bad("popTime", pop_time))?,
            invisible_ms: invisible.parse().map_err(|_| bad("invisibleTime", invisible))?,
            revive_queue_id: revive_queue_id.parse().map_err(|_| bad("reviveQueueId", revive_queue_id))?,
            mark: Mark::parse(mark).ok_or_else(|| bad("mark", mark))?,
            broker_name,
            queue_id: queue_id.parse().map_err(|_| bad("queueId", queue_id))?,
            queue_offset: match found {
                8 => Some(queue_offset.parse().map_err(|_| bad("queueOffset", queue_offset))?),
                _ => None,
            },
        })
    }

    pub fn is_in_order(&self) -> bool {
        self.revive_queue_id == ORDER_REVIVE_QUEUE
    }
}

impl fmt::Display for Receipt<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start_offset, pop_time_ms, invisible_ms, revive_queue_id, mark, broker_name, queue_id, .. } = self;
        write!(out, "{start_offset} {pop_time_ms} {invisible_ms} {revive_queue_id} {mark} {broker_name} {queue_id}")?;
        match self.queue_offset {
            Some(queue_offset) => write!(out, " {queue_offset}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_receipt_of_the_java_client_is_read() {
        let text = "5 1700000000000 60000 3 1 broker-a 2 7";
        let receipt = Receipt::parse(text).expect("a receipt");
        assert_eq!((receipt.start_offset, receipt.queue_id, receipt.queue_offset), (5, 2, Some(7)));
        assert_eq!((receipt.mark, receipt.is_in_order()), (Mark::RetryV1, false));
        assert_eq!(receipt.to_string(), text);
        assert!(Receipt::parse("5 1700000000000 60000 999 0 b 2").expect("a receipt").is_in_order());
    }

    #[test]
    fn marks_name_the_topic_a_message_is_stored_in() {
        for (mark, name) in [(Mark::Topic, "T"), (Mark::RetryV1, "%RETRY%g_T"), (Mark::RetryV2, "%RETRY%g+T")] {
            assert_eq!(mark.topic("g", "T"), name);
            assert_eq!(Mark::of(name), mark);
            assert_eq!(Mark::parse(&mark.to_string()), Some(mark));
        }
    }

    proptest! {
        #[test]
        fn parse_undoes_display(
            numbers in any::<(i64, i64, i64, i32, i32)>(), mark in 0..3_u8, broker_name in "[^ ]{0,20}",
            queue_offset: Option<i64>,
        ) {
            let (start_offset, pop_time_ms, invisible_ms, revive_queue_id, queue_id) = numbers;
            let mark = Mark::parse(&mark.to_string()).expect("a mark");
            let broker_name = broker_name.as_str();
            let receipt = Receipt {
                start_offset, pop_time_ms, invisible_ms, revive_queue_id, mark, broker_name, queue_id, queue_offset,
            };
            let text = receipt.to_string();
            prop_assert_eq!(Receipt::parse(&text), Ok(receipt));
        }

        #[test]
        fn junk_never_panics(text in "([0-9-]{1,22}| |[a-z]){0,12}", other in any::<String>()) {
            let _ = (Receipt::parse(&text), Receipt::parse(&other)); // Only that it returns matters.
        }
    }
}
