//! Headers of the pop family: 200050 to 200056.
#![forbid(unsafe_code)]

use super::headers;
use crate::text::Text;

headers! {
    /// POP_MESSAGE (200050).
    PopHeader<'a> {
        consumer_group: required Text<'a> = "consumerGroup";
        topic: required Text<'a> = "topic";
        /// Negative: any queue.
        queue_id: required i32 = "queueId";
        max_msg_nums: required i32 = "maxMsgNums";
        /// How long the messages are hidden from others, ms.
        invisible_time: required i64 = "invisibleTime";
        /// How long the request may be held from `born_time` on, ms.
        poll_time: required i64 = "pollTime";
        /// By the client's clock; absent and 0 mean now.
        born_time: strict i64 = "bornTime";
        /// Where a group without an offset begins: 0 at the first message, else at the last.
        init_mode: required i32 = "initMode";
        exp_type: optional Text<'a> = "expType";
        exp: optional Text<'a> = "exp";
        order: default bool = "order", false;
        attempt_id: optional Text<'a> = "attemptId";
    }

    /// PEEK_MESSAGE (200052).
    PeekHeader<'a> {
        consumer_group: required Text<'a> = "consumerGroup";
        topic: required Text<'a> = "topic";
        queue_id: required i32 = "queueId";
        max_msg_nums: required i32 = "maxMsgNums";
    }

    /// NOTIFICATION (200054).
    NotificationHeader<'a> {
        consumer_group: required Text<'a> = "consumerGroup";
        topic: required Text<'a> = "topic";
        queue_id: required i32 = "queueId";
        poll_time: required i64 = "pollTime";
        born_time: strict i64 = "bornTime";
        order: default bool = "order", false;
        attempt_id: optional Text<'a> = "attemptId";
        exp_type: optional Text<'a> = "expType";
        exp: optional Text<'a> = "exp";
    }

    /// POLLING_INFO (200055).
    PollingInfoHeader<'a> {
        consumer_group: required Text<'a> = "consumerGroup";
        topic: required Text<'a> = "topic";
        queue_id: required i32 = "queueId";
    }

    /// ACK_MESSAGE (200051). The topic is where the message is stored: the pop retry topic for one from there.
    AckHeader<'a> {
        consumer_group: required Text<'a> = "consumerGroup";
        topic: required Text<'a> = "topic";
        queue_id: required i32 = "queueId";
        /// A receipt: see [`crate::message::receipt`].
        extra_info: required Text<'a> = "extraInfo";
        offset: required i64 = "offset";
    }

    /// CHANGE_MESSAGE_INVISIBLETIME (200053).
    ChangeInvisibleHeader<'a> {
        consumer_group: required Text<'a> = "consumerGroup";
        topic: required Text<'a> = "topic";
        queue_id: required i32 = "queueId";
        extra_info: required Text<'a> = "extraInfo";
        offset: required i64 = "offset";
        /// From now on, ms.
        invisible_time: required i64 = "invisibleTime";
        /// The time's end does not count as a delivery.
        suspend: default bool = "suspend", false;
    }
}
