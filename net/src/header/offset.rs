//! Headers about queue offsets.
#![forbid(unsafe_code)]

use super::headers;
use crate::text::Text;

headers! {
    /// QUERY_CONSUMER_OFFSET (14).
    QueryOffsetHeader<'a> {
        consumer_group: required Text<'a> = "consumerGroup";
        topic: required Text<'a> = "topic";
        queue_id: required i32 = "queueId";
        /// Absent means true.
        set_zero_if_not_found: default bool = "setZeroIfNotFound", true;
    }

    /// UPDATE_CONSUMER_OFFSET (15). A missing queue or offset is INVALID_PARAMETER, not an error of
    /// the header.
    UpdateOffsetHeader<'a> {
        consumer_group: required Text<'a> = "consumerGroup";
        topic: required Text<'a> = "topic";
        queue_id: optional i32 = "queueId";
        commit_offset: optional i64 = "commitOffset";
    }

    /// SEARCH_OFFSET_BY_TIMESTAMP (29).
    SearchOffsetHeader<'a> {
        topic: required Text<'a> = "topic";
        queue_id: required i32 = "queueId";
        /// ms since the epoch.
        timestamp: required i64 = "timestamp";
        /// `UPPER` in any letter case is upper, everything else lower.
        boundary_type: optional Text<'a> = "boundaryType";
        lite_topic: optional Text<'a> = "liteTopic";
    }

    /// GET_MAX_OFFSET (30), GET_MIN_OFFSET (31), GET_EARLIEST_MSG_STORETIME (32).
    QueueHeader<'a> {
        topic: required Text<'a> = "topic";
        queue_id: required i32 = "queueId";
        /// Only 30 looks at it.
        committed: default bool = "committed", true;
    }

    /// Reply to 14, 29, 30, 31.
    OffsetReply {
        offset: required i64 = "offset";
    }

    /// Reply to 32; -1 for an empty queue.
    TimestampReply {
        timestamp: required i64 = "timestamp";
    }

    /// INVOKE_BROKER_TO_RESET_OFFSET (222); 220 carries the same fields to clients.
    ResetOffsetHeader<'a> {
        group: required Text<'a> = "group";
        topic: required Text<'a> = "topic";
        /// -1: every queue.
        queue_id: default i32 = "queueId", -1;
        offset: optional i64 = "offset";
        /// ms since the epoch; negative: the end of the queue.
        timestamp: default i64 = "timestamp", 0;
        is_force: default bool = "isForce", false;
    }

    /// INVOKE_BROKER_TO_GET_CONSUMER_STATUS (223); 221 carries topic and group to clients.
    ConsumerStatusHeader<'a> {
        topic: required Text<'a> = "topic";
        group: required Text<'a> = "group";
        /// A client id, whatever the name says; absent or blank: every client of the group.
        client_addr: optional Text<'a> = "clientAddr";
    }

    /// QUERY_CONSUME_TIME_SPAN (303).
    TimeSpanHeader<'a> {
        topic: required Text<'a> = "topic";
        group: required Text<'a> = "group";
    }

    /// QUERY_CORRECTION_OFFSET (308).
    CorrectionHeader<'a> {
        topic: required Text<'a> = "topic";
        compare_group: required Text<'a> = "compareGroup";
        /// Separated by `,`.
        filter_groups: optional Text<'a> = "filterGroups";
    }

    /// CLONE_GROUP_OFFSET (314).
    CloneOffsetsHeader<'a> {
        src_group: required Text<'a> = "srcGroup";
        dest_group: required Text<'a> = "destGroup";
        /// Absent or blank: every topic the group has offsets for.
        topic: optional Text<'a> = "topic";
        offline: default bool = "offline", false;
    }

    /// GET_BROKER_CONSUME_STATS (317).
    BrokerConsumeStatsHeader {
        is_order: required bool = "isOrder";
    }

    /// QUERY_CONSUME_QUEUE (321).
    ConsumeQueueHeader<'a> {
        topic: required Text<'a> = "topic";
        queue_id: default i32 = "queueId", 0;
        /// The queue offset to begin with.
        index: default i64 = "index", 0;
        count: default i32 = "count", 0;
        consumer_group: optional Text<'a> = "consumerGroup";
    }

    /// QUERY_MESSAGE (12).
    QueryMessageHeader<'a> {
        topic: required Text<'a> = "topic";
        /// A word of `KEYS`, a `UNIQ_KEY` or a tag.
        key: required Text<'a> = "key";
        max_num: required i32 = "maxNum";
        /// ms since the epoch; both times are included.
        begin_timestamp: required i64 = "beginTimestamp";
        end_timestamp: required i64 = "endTimestamp";
        /// `true` in any letter case: the key is a unique one, whatever `indexType` says.
        unique_key_query: optional Text<'a> = "_UNIQUE_KEY_QUERY";
        /// `K` (also when absent), `U` or `T`.
        index_type: optional Text<'a> = "indexType";
    }

    /// Reply to 12: when the newest message of the index was stored, and where.
    QueryMessageReply {
        index_last_update_timestamp: required i64 = "indexLastUpdateTimestamp";
        index_last_update_phyoffset: required i64 = "indexLastUpdatePhyoffset";
    }

    /// VIEW_MESSAGE_BY_ID (33).
    ViewMessageHeader<'a> {
        /// Physical offset in wire form.
        offset: required i64 = "offset";
        topic: optional Text<'a> = "topic";
    }
}

impl SearchOffsetHeader<'_> {
    pub fn is_upper(&self) -> bool {
        self.boundary_type.as_ref().is_some_and(|kind| kind.to_cow().eq_ignore_ascii_case("UPPER"))
    }
}
