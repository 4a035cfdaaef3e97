//! When a message is to be delivered later: delay levels (`DELAY`) and timers (`TIMER_DELAY_SEC`, `TIMER_DELAY_MS`,
//! `TIMER_DELIVER_MS`), behaviour 5 and 6.1. What is stored and delivered then is in [`crate::owed`].
//!
//! RocketMQ delivers a timer at the end of the span of `timerPrecisionMs` it falls into; RingMQ at the millisecond asked
//! for. The property `TIMER_OUT_MS`, by which recalls name the span, is RocketMQ's.

use std::borrow::Cow;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE;
use rmq_net::codes::response;

use crate::broker::{Broker, Refusal};
use crate::config::BrokerConfig;
use crate::owed::{OWED_MAX, OwedQueue};

/// What a message's properties say about its delivery.
#[derive(Default)]
pub struct Asked<'a> {
    /// `DELAY`; 0 without one.
    pub level: i64,
    /// `DELAY` is not a number.
    is_level_wrong: bool,
    pub timer_delay_sec: Option<&'a [u8]>,
    pub timer_delay_ms: Option<&'a [u8]>,
    pub timer_deliver_ms: Option<&'a [u8]>,
    /// One of the four is there, whatever it says.
    pub has_delay: bool,
    /// `TIMER_OUT_MS`: it has been a timer before.
    pub was_timer: bool,
    /// `TIMER_DEL_UNIQKEY`: it takes back another one.
    pub is_recall: bool,
    /// `CHECK_IMMUNITY_TIME_IN_SECONDS`, of a half message.
    pub check_immunity: Option<&'a [u8]>,
}

/// A message that is not delivered now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Later {
    pub queue: OwedQueue,
    /// Milliseconds since 1970.
    pub due_ms: i64,
    /// `TIMER_OUT_MS` of a timer: the start of its span.
    pub out_ms: Option<i64>,
}

impl<'a> Asked<'a> {
    /// Takes in one property.
    pub fn note(&mut self, key: &[u8], value: &'a [u8]) {
        self.has_delay |= matches!(key, b"DELAY" | b"TIMER_DELAY_SEC" | b"TIMER_DELAY_MS" | b"TIMER_DELIVER_MS");
        match key {
            b"DELAY" => {
                let level = number(value);
                (self.level, self.is_level_wrong) = (level.unwrap_or(0), level.is_none());
            }
            b"TIMER_DELAY_SEC" => self.timer_delay_sec = Some(value),
            b"TIMER_DELAY_MS" => self.timer_delay_ms = Some(value),
            b"TIMER_DELIVER_MS" => self.timer_deliver_ms = Some(value),
            b"TIMER_OUT_MS" => self.was_timer = true,
            b"TIMER_DEL_UNIQKEY" => self.is_recall = true,
            b"CHECK_IMMUNITY_TIME_IN_SECONDS" => self.check_immunity = Some(value),
            _ => {}
        }
    }

    /// Whether anything asks for a later delivery.
    pub fn is_anything(&self) -> bool {
        self.level > 0 || self.is_level_wrong || self.is_timer()
    }

    /// Whether any property of a timer is there.
    pub fn has_timer(&self) -> bool {
        self.timer_delay_sec.is_some() || self.timer_delay_ms.is_some() || self.timer_deliver_ms.is_some()
    }

    fn is_timer(&self) -> bool {
        self.has_timer() && !self.was_timer
    }

    /// When the message is to be delivered; `None` for now. A level wins over a timer.
    pub fn later(&self, broker: &Broker) -> Result<Option<Later>, Refusal> {
        let (config, now_ms) = (&broker.config, broker.now_ms);
        if !self.is_anything() {
            return Ok(None);
        }
        if self.is_level_wrong {
            let levels = "a level is a whole number: 1 for the first delay of messageDelayLevel, 0 for none";
            return Err(Refusal::new(response::SYSTEM_ERROR, format!("the property DELAY is no number; {levels}")));
        }
        if broker.owed.is_full() {
            let remark = format!(
                "this core already holds {OWED_MAX} messages for later delivery, and takes no more until some are due"
            );
            return Err(Refusal::new(response::SYSTEM_ERROR, remark));
        }
        if self.level > 0 {
            return Ok(config.message_delay_level.of(self.level).map(|(level, delay_ms)| Later {
                queue: OwedQueue::Level(level),
                due_ms: now_ms.saturating_add(delay_ms),
                out_ms: None,
            }));
        }
        if !config.timer_wheel_enable {
            let remark = "accurate timer message is not enabled, timerWheelEnable is false";
            return Err(Refusal::new(response::SYSTEM_ERROR, remark));
        }
        let deliver_ms = self.deliver_ms(now_ms).ok_or_else(|| illegal(config))?;
        if deliver_ms <= now_ms {
            return if self.is_recall { Err(illegal(config)) } else { Ok(None) };
        }
        if deliver_ms - now_ms > config.timer_max_delay_sec * 1000 {
            return Err(illegal(config));
        }
        let precision_ms = config.timer_precision_ms;
        let out_ms = (deliver_ms - 1).div_euclid(precision_ms) * precision_ms;
        let due_ms = if self.is_recall { out_ms } else { deliver_ms };
        Ok(Some(Later { queue: OwedQueue::Timer, due_ms, out_ms: Some(out_ms) }))
    }

    fn deliver_ms(&self, now_ms: i64) -> Option<i64> {
        match (self.timer_delay_sec, self.timer_delay_ms, self.timer_deliver_ms) {
            (Some(seconds), ..) => now_ms.checked_add(number(seconds)?.checked_mul(1000)?),
            (_, Some(ms), _) => now_ms.checked_add(number(ms)?),
            (_, _, Some(at_ms)) => number(at_ms),
            _ => None,
        }
    }
}

/// A whole number in decimal.
pub fn number(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cold]
fn illegal(config: &BrokerConfig) -> Refusal {
    let remark = format!(
        "timer message illegal, the delay time should not be bigger than the max delay {}ms (timerMaxDelaySec); or if \
         set del msg, the delay time should be bigger than the current time; and it must be a number",
        config.timer_max_delay_sec * 1000
    );
    Refusal::new(response::MESSAGE_ILLEGAL, remark)
}

/// By which a producer can take a timer back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecallHandle<'a> {
    pub topic: Cow<'a, str>,
    pub broker_name: Cow<'a, str>,
    /// `TIMER_OUT_MS` + 1.
    pub timestamp_ms: i64,
    pub unique_key: Cow<'a, str>,
}

impl RecallHandle<'_> {
    /// URL-safe Base64 of `v1 TOPIC BROKER TIMESTAMP KEY`.
    pub fn encode_in<'b>(&self, buffer: &'b mut Vec<u8>) -> &'b [u8] {
        let mut digits = itoa::Buffer::new();
        buffer.clear();
        buffer.extend_from_slice(b"v1");
        for part in [&self.topic, &self.broker_name, digits.format(self.timestamp_ms), &self.unique_key] {
            buffer.push(b' ');
            buffer.extend_from_slice(part.as_bytes());
        }
        let plain_bytes = buffer.len();
        buffer.resize(plain_bytes + plain_bytes.div_ceil(3) * 4, 0);
        let (plain, encoded) = buffer.split_at_mut(plain_bytes);
        let written = BASE64_URL_SAFE.encode_slice(plain, encoded);
        debug_assert_eq!(written, Ok(encoded.len()), "padded Base64 has four characters for three bytes");
        encoded
    }
}

impl RecallHandle<'static> {
    /// `None` if it is not one.
    pub fn decode(text: &str) -> Option<Self> {
        let text = String::from_utf8(BASE64_URL_SAFE.decode(text).ok()?).ok()?;
        let mut parts = text.split(' ');
        if parts.next()? != "v1" {
            return None;
        }
        let (topic, broker_name) = (parts.next()?.to_owned().into(), parts.next()?.to_owned().into());
        let timestamp_ms = parts.next()?.parse().unwrap_or(-1);
        let unique_key = parts.next()?.to_owned().into();
        Some(Self { topic, broker_name, timestamp_ms, unique_key })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn handles_are_read_back(topic in "[a-zA-Z0-9_%-]{1,40}", key in "[0-9A-F]{1,40}", timestamp_ms in 0..i64::MAX) {
            let handle =
                RecallHandle { topic: topic.into(), broker_name: "broker-a".into(), timestamp_ms, unique_key: key.into() };
            let mut buffer = b"old".to_vec();
            let text = str::from_utf8(handle.encode_in(&mut buffer)).unwrap();
            prop_assert_eq!(RecallHandle::decode(text), Some(handle));
        }

        #[test]
        fn junk_is_no_handle(text in ".{0,80}") {
            prop_assert_eq!(RecallHandle::decode(&text), None);
        }
    }
}
