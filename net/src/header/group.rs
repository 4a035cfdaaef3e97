//! Headers about groups and their clients.
#![forbid(unsafe_code)]

use super::headers;
use crate::text::Text;

headers! {
    /// UNREGISTER_CLIENT (35).
    UnregisterClientHeader<'a> {
        client_id: required Text<'a> = "clientID";
        producer_group: optional Text<'a> = "producerGroup";
        consumer_group: optional Text<'a> = "consumerGroup";
    }

    /// A request that names one consumer group as `consumerGroup`: 38, 40, 203.
    ConsumerGroupHeader<'a> {
        consumer_group: required Text<'a> = "consumerGroup";
    }

    /// GET_PRODUCER_CONNECTION_LIST (204).
    ProducerGroupHeader<'a> {
        producer_group: required Text<'a> = "producerGroup";
    }

    /// A request that names one group as `group`: 343, 352; 345 adds the topic.
    GroupHeader<'a> {
        group: required Text<'a> = "group";
        topic: optional Text<'a> = "topic";
    }

    /// GET_ALL_SUBSCRIPTIONGROUP_CONFIG (201). All three absent means everything.
    GroupPageHeader<'a> {
        group_seq: optional i32 = "groupSeq";
        max_group_num: optional i32 = "maxGroupNum";
        /// JSON of a data version, or blank.
        data_version: optional Text<'a> = "dataVersion";
    }

    /// DELETE_SUBSCRIPTIONGROUP (207).
    DeleteGroupHeader<'a> {
        group_name: required Text<'a> = "groupName";
        clean_offset: default bool = "cleanOffset", false;
    }

    /// GET_CONSUME_STATS (208). `topic_list` (separated by `;`) wins over `topic`.
    ConsumeStatsHeader<'a> {
        consumer_group: required Text<'a> = "consumerGroup";
        topic: optional Text<'a> = "topic";
        topic_list: optional Text<'a> = "topicList";
    }

    /// GET_CONSUMER_RUNNING_INFO (307).
    RunningInfoHeader<'a> {
        consumer_group: required Text<'a> = "consumerGroup";
        client_id: required Text<'a> = "clientId";
        jstack_enable: default bool = "jstackEnable", false;
    }

    /// CONSUME_MESSAGE_DIRECTLY (309). The broker fills in the last three when it forwards.
    ConsumeDirectlyHeader<'a> {
        consumer_group: required Text<'a> = "consumerGroup";
        client_id: optional Text<'a> = "clientId";
        /// Offset message id.
        msg_id: optional Text<'a> = "msgId";
        topic: optional Text<'a> = "topic";
        broker_name: optional Text<'a> = "brokerName";
        topic_sys_flag: optional i32 = "topicSysFlag";
        group_sys_flag: optional i32 = "groupSysFlag";
    }

    /// CONSUMER_SEND_MSG_BACK (36).
    SendBackHeader<'a> {
        /// Physical offset in wire form.
        offset: required i64 = "offset";
        group: required Text<'a> = "group";
        /// 0: the broker decides; negative: straight to the dead letters.
        delay_level: required i32 = "delayLevel";
        origin_msg_id: optional Text<'a> = "originMsgId";
        origin_topic: optional Text<'a> = "originTopic";
        unit_mode: default bool = "unitMode", false;
        max_reconsume_times: optional i32 = "maxReconsumeTimes";
    }
}
