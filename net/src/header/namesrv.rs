//! Headers of the name server's requests.
#![forbid(unsafe_code)]

use super::headers;
use crate::text::Text;

headers! {
    /// PUT_KV_CONFIG (100).
    PutKvHeader<'a> {
        namespace: required Text<'a> = "namespace";
        key: required Text<'a> = "key";
        value: required Text<'a> = "value";
    }

    /// GET_KV_CONFIG (101), DELETE_KV_CONFIG (102).
    KvKeyHeader<'a> {
        namespace: required Text<'a> = "namespace";
        key: required Text<'a> = "key";
    }

    /// Reply to 101.
    KvValueReply<'a> {
        value: optional Text<'a> = "value";
    }

    /// GET_KVLIST_BY_NAMESPACE (219).
    NamespaceHeader<'a> {
        namespace: required Text<'a> = "namespace";
    }

    /// REGISTER_BROKER (103).
    RegisterBrokerHeader<'a> {
        /// `ip:port` clients connect to.
        broker_addr: required Text<'a> = "brokerAddr";
        /// 0: master.
        broker_id: required i64 = "brokerId";
        broker_name: required Text<'a> = "brokerName";
        cluster_name: required Text<'a> = "clusterName";
        ha_server_addr: required Text<'a> = "haServerAddr";
        /// How long the entry lives without news, ms; absent: 120 000.
        heartbeat_timeout_millis: optional i64 = "heartbeatTimeoutMillis";
        /// Absent marks a broker from before 5.0.
        enable_acting_master: optional bool = "enableActingMaster";
        compressed: default bool = "compressed", false;
        /// CRC-32 of the body, masked to 31 bits; 0: not checked.
        body_crc32: default i32 = "bodyCrc32", 0;
        zone_name: optional Text<'a> = "__ZONE_NAME";
    }

    /// Reply to 103.
    RegisterBrokerReply<'a> {
        ha_server_addr: optional Text<'a> = "haServerAddr";
        master_addr: optional Text<'a> = "masterAddr";
    }

    /// The four fields that name one broker: UNREGISTER_BROKER (104), QUERY_DATA_VERSION (322).
    BrokerHeader<'a> {
        broker_addr: required Text<'a> = "brokerAddr";
        broker_id: required i64 = "brokerId";
        broker_name: required Text<'a> = "brokerName";
        cluster_name: required Text<'a> = "clusterName";
    }

    /// Reply to 322.
    DataVersionReply {
        changed: required bool = "changed";
    }

    /// GET_ROUTEINFO_BY_TOPIC (105).
    RouteHeader<'a> {
        topic: required Text<'a> = "topic";
        accept_standard_json_only: default bool = "acceptStandardJsonOnly", false;
        zone_mode: default bool = "__ZONE_MODE", false;
        zone_name: optional Text<'a> = "__ZONE_NAME";
    }

    /// WIPE_WRITE_PERM_OF_BROKER (205), ADD_WRITE_PERM_OF_BROKER (327).
    BrokerNameHeader<'a> {
        broker_name: required Text<'a> = "brokerName";
    }

    /// GET_TOPICS_BY_CLUSTER (224).
    ClusterHeader<'a> {
        cluster: required Text<'a> = "cluster";
    }

    /// GET_BROKER_MEMBER_GROUP (901).
    MemberGroupHeader<'a> {
        cluster_name: required Text<'a> = "clusterName";
        broker_name: required Text<'a> = "brokerName";
    }

    /// BROKER_HEARTBEAT (904).
    BrokerHeartbeatHeader<'a> {
        cluster_name: required Text<'a> = "clusterName";
        broker_addr: required Text<'a> = "brokerAddr";
        broker_name: required Text<'a> = "brokerName";
        broker_id: optional i64 = "brokerId";
        epoch: optional i32 = "epoch";
        max_offset: optional i64 = "maxOffset";
        confirm_offset: optional i64 = "confirmOffset";
        /// Spelt unlike the field of 103; ms.
        heartbeat_timeout_mills: optional i64 = "heartbeatTimeoutMills";
        election_priority: optional i32 = "electionPriority";
    }

    /// NOTIFY_MIN_BROKER_ID_CHANGE (905), name server to broker.
    MinBrokerIdHeader<'a> {
        min_broker_id: optional i64 = "minBrokerId";
        broker_name: optional Text<'a> = "brokerName";
        min_broker_addr: optional Text<'a> = "minBrokerAddr";
        offline_broker_addr: optional Text<'a> = "offlineBrokerAddr";
        ha_broker_addr: optional Text<'a> = "haBrokerAddr";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext::ExtFields;
    use crate::frame::{Frame, Serialization};
    use crate::reply::FrameWriter;
    use proptest::prelude::*;

    #[test]
    fn defaults_and_garbage_follow_the_generic_rules() {
        let mut out = Vec::new();
        FrameWriter::request(&mut out, Serialization::Json, 103, 1, false, 0, |ext| {
            ext.text("brokerAddr", "127.0.0.1:10911");
            ext.text("brokerId", "0");
            ext.text("brokerName", "b");
            ext.text("clusterName", "c");
            ext.text("haServerAddr", "127.0.0.1:10912");
            ext.text("heartbeatTimeoutMillis", "soon");
            ext.text("bodyCrc32", "x");
        });
        let frame = Frame::decode(&out).unwrap();
        let header = RegisterBrokerHeader::decode(&frame).unwrap();
        assert_eq!((header.heartbeat_timeout_millis, header.body_crc32, header.compressed), (None, 0, false));
        assert_eq!(header.enable_acting_master, None);
    }

    proptest! {
        #[test]
        fn decode_undoes_encode(addr in ".{1,9}", broker_id: i64, acting in any::<Option<bool>>(), zone in proptest::option::of(".{1,9}"), timeout in any::<Option<i64>>(), crc: i32, is_binary: bool) {
            let header = RegisterBrokerHeader {
                broker_addr: Text::plain(&addr),
                broker_id,
                broker_name: Text::plain("b"),
                cluster_name: Text::plain("c"),
                ha_server_addr: Text::plain("h"),
                heartbeat_timeout_millis: timeout,
                enable_acting_master: acting,
                compressed: true,
                body_crc32: crc,
                zone_name: zone.as_deref().map(Text::plain),
            };
            let serialization = if is_binary { Serialization::Binary } else { Serialization::Json };
            let mut out = Vec::new();
            FrameWriter::request(&mut out, serialization, 103, 1, false, 0, |ext| header.encode(ext));
            prop_assert_eq!(RegisterBrokerHeader::decode(&Frame::decode(&out).unwrap()), Ok(header));
        }

        #[test]
        fn junk_never_panics(pairs in proptest::collection::vec(("(topic|brokerId|brokerName|group|queueId|x)", ".{0,9}"), 0..9)) {
            let mut out = Vec::new();
            FrameWriter::request(&mut out, Serialization::Json, 1, 1, false, 0, |_| {});
            let frame = Frame { ext: ExtFields::owned(pairs), ..Frame::decode(&out).unwrap() };
            let _either = (BrokerHeader::decode(&frame).is_ok(), RouteHeader::decode(&frame).is_ok());
        }
    }
}
