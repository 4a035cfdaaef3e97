//! Headers of topic administration at a broker.
#![forbid(unsafe_code)]

use super::headers;
use crate::text::Text;

headers! {
    /// UPDATE_AND_CREATE_TOPIC (17).
    CreateTopicHeader<'a> {
        topic: required Text<'a> = "topic";
        default_topic: optional Text<'a> = "defaultTopic";
        read_queue_nums: required i32 = "readQueueNums";
        write_queue_nums: required i32 = "writeQueueNums";
        perm: required i32 = "perm";
        /// `SINGLE_TAG` or `MULTI_TAG`.
        topic_filter_type: optional Text<'a> = "topicFilterType";
        topic_sys_flag: default i32 = "topicSysFlag", 0;
        order: default bool = "order", false;
        /// `+key=value,-key`.
        attributes: optional Text<'a> = "attributes";
        force: optional bool = "force";
    }

    /// A request that names one topic: 202, 215, 216 (with cluster), 217, 300, 351.
    TopicHeader<'a> {
        topic: required Text<'a> = "topic";
        /// Only 216 looks at it.
        cluster_name: optional Text<'a> = "clusterName";
    }

    /// GET_ALL_TOPIC_CONFIG (21). All three absent means everything.
    TopicPageHeader<'a> {
        topic_seq: optional i32 = "topicSeq";
        max_topic_num: optional i32 = "maxTopicNum";
        /// JSON of a data version, or blank.
        data_version: optional Text<'a> = "dataVersion";
    }

    /// UPDATE_AND_GET_GROUP_FORBIDDEN (353). Without `readable` it only asks.
    GroupForbiddenHeader<'a> {
        group: required Text<'a> = "group";
        topic: required Text<'a> = "topic";
        readable: optional bool = "readable";
    }

    /// VIEW_BROKER_STATS_DATA (315).
    StatsHeader<'a> {
        stats_name: required Text<'a> = "statsName";
        stats_key: required Text<'a> = "statsKey";
    }
}
