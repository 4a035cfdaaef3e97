//! PULL_MESSAGE (11) and LITE_PULL_MESSAGE (361).
#![forbid(unsafe_code)]

use super::{HeaderError, headers};
use crate::frame::Frame;
use crate::text::Text;

/// Bits of [`PullHeader::sys_flag`].
pub mod sys_flag {
    /// Store `commit_offset` as the group's offset.
    pub const COMMIT_OFFSET: i32 = 0x01;
    /// The broker may hold the request while there is nothing to deliver.
    pub const SUSPEND: i32 = 0x02;
    /// `subscription` is authoritative; the heartbeat's subscription is not consulted.
    pub const SUBSCRIPTION: i32 = 0x04;
    /// Class filter mode; everything passes.
    pub const CLASS_FILTER: i32 = 0x08;
    pub const LITE_PULL: i32 = 0x10;
}

headers! {
    /// The request as it stands in the frame; see [`PullHeader`] for the checked one.
    RawPullHeader<'a> {
        consumer_group: required Text<'a> = "consumerGroup";
        topic: required Text<'a> = "topic";
        queue_id: required i32 = "queueId";
        queue_offset: required i64 = "queueOffset";
        max_msg_nums: required i32 = "maxMsgNums";
        sys_flag: required i32 = "sysFlag";
        commit_offset: strict i64 = "commitOffset";
        suspend_timeout_millis: strict i64 = "suspendTimeoutMillis";
        subscription: optional Text<'a> = "subscription";
        sub_version: strict i64 = "subVersion";
        expression_type: optional Text<'a> = "expressionType";
        max_msg_bytes: strict i32 = "maxMsgBytes";
        request_source: strict i32 = "requestSource";
        proxy_forward_client_id: optional Text<'a> = "proxyFrowardClientId";
        lite_topic: optional Text<'a> = "liteTopic";
    }
}

headers! {
    /// Reply to a pull. The four offsets must be there on codes 0, 19, 20 and 21: the Java client
    /// unboxes them.
    PullReply {
        suggest_which_broker_id: required i64 = "suggestWhichBrokerId";
        next_begin_offset: required i64 = "nextBeginOffset";
        min_offset: required i64 = "minOffset";
        max_offset: required i64 = "maxOffset";
        topic_sys_flag: optional i32 = "topicSysFlag";
        group_sys_flag: optional i32 = "groupSysFlag";
        forbidden_type: optional i32 = "forbiddenType";
    }
}

/// A pull request. Every number is parsed strictly: garbage is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullHeader<'a> {
    pub consumer_group: Text<'a>,
    pub topic: Text<'a>,
    pub queue_id: i32,
    /// First wanted queue offset.
    pub queue_offset: i64,
    pub max_msg_nums: i32,
    /// Bits of [`sys_flag`].
    pub sys_flag: i32,
    /// Meaningful with [`sys_flag::COMMIT_OFFSET`], where it is required; else 0 when absent.
    pub commit_offset: i64,
    /// How long the broker may hold the request, ms. Required with [`sys_flag::SUSPEND`]; else 0
    /// when absent.
    pub suspend_timeout_millis: i64,
    pub subscription: Option<Text<'a>>,
    /// Version of the consumer's subscription; 0 when absent (Go clients leave it out).
    pub sub_version: i64,
    /// `TAG` when absent or empty.
    pub expression_type: Option<Text<'a>>,
    /// Sent by 5.x clients; the reference does not look at it.
    pub max_msg_bytes: Option<i32>,
    pub request_source: Option<i32>,
    pub proxy_forward_client_id: Option<Text<'a>>,
    pub lite_topic: Option<Text<'a>>,
}

impl<'a> PullHeader<'a> {
    /// Cost: one pass over the ext fields, no allocation.
    pub fn decode(frame: &Frame<'a>) -> Result<Self, HeaderError> {
        let raw = RawPullHeader::decode(frame)?;
        if raw.sys_flag & sys_flag::COMMIT_OFFSET != 0 && raw.commit_offset.is_none() {
            return Err(HeaderError::Missing {
                field: "commitOffset",
            });
        }
        if raw.sys_flag & sys_flag::SUSPEND != 0 && raw.suspend_timeout_millis.is_none() {
            return Err(HeaderError::Missing {
                field: "suspendTimeoutMillis",
            });
        }
        Ok(Self {
            consumer_group: raw.consumer_group,
            topic: raw.topic,
            queue_id: raw.queue_id,
            queue_offset: raw.queue_offset,
            max_msg_nums: raw.max_msg_nums,
            sys_flag: raw.sys_flag,
            commit_offset: raw.commit_offset.unwrap_or(0),
            suspend_timeout_millis: raw.suspend_timeout_millis.unwrap_or(0),
            subscription: raw.subscription,
            sub_version: raw.sub_version.unwrap_or(0),
            expression_type: raw.expression_type,
            max_msg_bytes: raw.max_msg_bytes,
            request_source: raw.request_source,
            proxy_forward_client_id: raw.proxy_forward_client_id,
            lite_topic: raw.lite_topic,
        })
    }

    /// Whether the bits of `mask` (one of [`sys_flag`]) are set.
    pub fn has(&self, mask: i32) -> bool {
        self.sys_flag & mask != 0
    }

    /// Client side: writes the request's ext fields.
    pub fn encode(&self, ext: &mut crate::reply::ExtWriter<'_>) {
        RawPullHeader {
            consumer_group: self.consumer_group.clone(),
            topic: self.topic.clone(),
            queue_id: self.queue_id,
            queue_offset: self.queue_offset,
            max_msg_nums: self.max_msg_nums,
            sys_flag: self.sys_flag,
            commit_offset: Some(self.commit_offset),
            suspend_timeout_millis: Some(self.suspend_timeout_millis),
            subscription: self.subscription.clone(),
            sub_version: Some(self.sub_version),
            expression_type: self.expression_type.clone(),
            max_msg_bytes: self.max_msg_bytes,
            request_source: self.request_source,
            proxy_forward_client_id: self.proxy_forward_client_id.clone(),
            lite_topic: self.lite_topic.clone(),
        }
        .encode(ext);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Serialization;
    use crate::reply::FrameWriter;

    fn header() -> PullHeader<'static> {
        PullHeader {
            consumer_group: Text::plain("cg"),
            topic: Text::plain("T"),
            queue_id: 3,
            queue_offset: 1 << 40,
            max_msg_nums: 32,
            sys_flag: 3,
            commit_offset: 9,
            suspend_timeout_millis: 15_000,
            subscription: Some(Text::plain("A || B")),
            sub_version: 1_700_000_000_000,
            expression_type: Some(Text::plain("TAG")),
            max_msg_bytes: Some(262_144),
            request_source: None,
            proxy_forward_client_id: None,
            lite_topic: None,
        }
    }

    #[test]
    fn decode_undoes_encode_in_both_forms() {
        for serialization in [Serialization::Json, Serialization::Binary] {
            let mut out = Vec::new();
            FrameWriter::request(&mut out, serialization, 11, 1, false, 0, |ext| {
                header().encode(ext)
            });
            assert_eq!(
                PullHeader::decode(&Frame::decode(&out).unwrap()),
                Ok(header())
            );
        }
    }

    #[test]
    fn numbers_are_strict_and_needed_where_they_mean_something() {
        let decode = |skip: &str, set: Option<(&str, &str)>| {
            let mut out = Vec::new();
            FrameWriter::request(&mut out, Serialization::Json, 11, 1, false, 0, |ext| {
                header().encode(ext)
            });
            let frame = Frame::decode(&out).unwrap();
            let pairs = frame
                .ext
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()));
            let pairs = pairs
                .filter(|(key, _)| key != skip)
                .chain(set.map(|(k, v)| (k.into(), v.into())));
            let ext = crate::ext::ExtFields::owned(pairs);
            PullHeader::decode(&Frame {
                ext,
                ..frame.clone()
            })
            .map_err(|error| error.to_string())
            .map(|_| ())
        };
        assert_eq!(decode("subVersion", None), Ok(()));
        assert_eq!(
            decode("topic", None),
            Err("the custom field <topic> is null".into())
        );
        assert_eq!(
            decode("commitOffset", None),
            Err("the custom field <commitOffset> is null".into())
        );
        assert_eq!(decode("commitOffset", Some(("sysFlag", "2"))), Ok(()));
        assert!(decode("", Some(("queueId", "x"))).is_err());
        assert!(decode("", Some(("maxMsgBytes", "x"))).is_err());
    }
}
