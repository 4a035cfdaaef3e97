use super::*;
use proptest::prelude::*;
use std::io::Write;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn queue(queue_id: i32) -> MessageQueue {
    MessageQueue { broker_name: "broker-a".into(), queue_id, topic: "T".into() }
}

const REGISTRATION: &str = r#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":5,"stateVersion":0,"timestamp":1700000000000},"mappingDataVersion":{"counter":0,"stateVersion":0,"timestamp":1700000000000},"topicConfigTable":{"T":{"attributes":{},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"T","topicSysFlag":0,"writeQueueNums":4}},"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{"S":{"bname":"broker-a","currIdMap":{0:0,1:1},"dirty":false,"epoch":7,"scope":"__global__","topic":"S","totalQueues":4}}}}"#;

const ROUTE: &str = r#"{"brokerDatas":[{"brokerAddrs":{0:"127.0.0.1:10911",1:"127.0.0.1:10921"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#;

const HEARTBEAT: &str = r#"{"clientID":"10.0.0.1@4711#123456","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"cg","messageModel":"CLUSTERING","subscriptionDataSet":[{"classFilterMode":false,"codeSet":[65,66],"expressionType":"TAG","subString":"A || B","subVersion":1700000000000,"tagsSet":["A","B"],"topic":"T"}],"unitMode":false}],"heartbeatFingerprint":0,"producerDataSet":[{"groupName":"pg"}],"withoutSub":false}"#;

const GROUP: &str = r#"{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"cg","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}"#;

#[test]
fn java_bodies_decode_and_encode_to_the_same_bytes() {
    let heartbeat: HeartbeatData = decode(HEARTBEAT.as_bytes()).unwrap();
    assert_eq!(text(encode(&heartbeat)), HEARTBEAT);
    let registration = RegisterBrokerBody::decode(REGISTRATION.as_bytes(), false, 513).unwrap();
    assert_eq!(text(registration.encode()), REGISTRATION);
    let route: TopicRouteData = decode(ROUTE.as_bytes()).unwrap();
    assert_eq!(text(encode_legacy(&route)), ROUTE);
    let standard = ROUTE.replace("{0:", "{\"0\":").replace(",1:", ",\"1\":");
    assert_eq!(text(encode(&route)), standard);
    assert_eq!(decode::<TopicRouteData>(standard.as_bytes()).unwrap(), route);
    let group: SubscriptionGroupConfig = decode(br#"{"groupName":"cg"}"#).unwrap();
    assert_eq!(text(encode(&group)), GROUP);
    let cluster = r#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"127.0.0.1:10911"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}},"clusterAddrTable":{"DefaultCluster":["broker-a"]}}"#;
    assert_eq!(text(encode_legacy(&decode::<ClusterInfo>(cluster.as_bytes()).unwrap())), cluster);
    let members = r#"{"brokerMemberGroup":{"brokerAddrs":{0:"x:1"},"brokerName":"b","cluster":"c"}}"#;
    assert_eq!(text(encode_legacy(&decode::<BrokerMemberGroupReply>(members.as_bytes()).unwrap())), members);
    let locks = r#"{"clientId":"cid","consumerGroup":"cg","mqSet":[{"brokerName":"broker-a","queueId":0,"topic":"T"}],"onlyThisBroker":false}"#;
    assert_eq!(text(encode(&decode::<LockBatchBody>(locks.as_bytes()).unwrap())), locks);
    let offsets = r#"{"offsetTable":{"T@cg":{0:5,1:6}}}"#;
    assert_eq!(text(encode_legacy(&decode::<ConsumerOffsets>(offsets.as_bytes()).unwrap())), offsets);
}

#[test]
fn queue_keyed_maps_use_the_object_form() {
    let reset = ResetOffsetBody { offset_table: [(queue(1), 6), (queue(0), 5)].into() };
    let expected = r#"{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:5,{"brokerName":"broker-a","queueId":1,"topic":"T"}:6}}"#;
    assert_eq!(text(reset.encode()), expected);
    assert_eq!(decode::<ResetOffsetBody>(expected.as_bytes()).unwrap(), reset);
    let offset = TopicOffset { last_update_timestamp: 9, max_offset: 42, min_offset: 0 };
    let stats = TopicStatsTable { offset_table: [(queue(0), offset)].into(), topic_put_tps: 1.5 };
    let expected = r#"{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:{"lastUpdateTimestamp":9,"maxOffset":42,"minOffset":0}},"topicPutTps":1.5}"#;
    assert_eq!(text(stats.encode()), expected);
    assert_eq!(decode::<TopicStatsTable>(expected.as_bytes()).unwrap(), stats);
    let stats = ConsumeStats { consume_tps: 0.0, offset_table: [(queue(0), OffsetWrapper::default())].into() };
    let expected = r#"{"consumeTps":0.0,"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:{"brokerOffset":0,"consumerOffset":0,"lastTimestamp":0,"pullOffset":0}}}"#;
    assert_eq!(text(stats.encode()), expected);
    let status =
        r#"{"consumerTable":{"c":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:6}},"messageQueueTable":{}}"#;
    assert_eq!(text(decode::<ConsumerStatus>(status.as_bytes()).unwrap().encode()), status);
}

#[test]
fn heartbeats_of_go_clients_are_read() {
    let body = br#"{"clientID":"c","consumerDataSet":[{"groupName":"cg","consumeType":"CONSUME_PASSIVELY","messageModel":"BroadCasting","consumeFromWhere":4,"subscriptionDataSet":[{"topic":"T","codeSet":["65"],"tagsSet":["A"],"subVersion":1700000000000000000,"expressionType":null}],"unitMode":"true"}],"isWithoutSub":true,"producerDataSet":null}"#;
    let heartbeat: HeartbeatData = decode(body).unwrap();
    let consumer = &heartbeat.consumer_data_set[0];
    assert_eq!((consumer.message_model, consumer.unit_mode), (MessageModel::Broadcasting, true));
    assert_eq!(consumer.consume_from_where, ConsumeFromWhere::FirstOffset);
    let subscription = &consumer.subscription_data_set[0];
    assert_eq!((subscription.code_set.as_slice(), subscription.sub_version), (&[65][..], 1_700_000_000_000_000_000));
    assert_eq!(subscription.expression_type, "TAG");
    assert!(heartbeat.without_sub && heartbeat.producer_data_set.is_empty());
}

#[test]
fn compressed_registrations_are_read() {
    let mut plain = Vec::new();
    let mut section = |count: Option<u32>, texts: &[&str]| {
        plain.extend(count.iter().flat_map(|count| count.to_be_bytes()));
        for text in texts {
            plain.extend((text.len() as u32).to_be_bytes());
            plain.extend(text.as_bytes());
        }
    };
    section(None, &[r#"{"counter":5,"stateVersion":0,"timestamp":9}"#]);
    section(Some(2), &[r#"T 4 8 6 SINGLE_TAG {"message.type":"FIFO"}"#, "U 1 1 7 MULTI_TAG"]);
    section(None, &["[]"]);
    section(Some(1), &[r#"{"bname":"b","currIdMap":{0:0},"topic":"S","totalQueues":4}"#]);
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(&plain).unwrap();
    let body = encoder.finish().unwrap();
    let wrapper = RegisterBrokerBody::decode(&body, true, 513).unwrap().topic_config_serialize_wrapper;
    assert_eq!(wrapper.data_version, DataVersion { counter: 5, state_version: 0, timestamp: 9 });
    assert_eq!(wrapper.topic_config_table["T"].attributes["message.type"], "FIFO");
    assert_eq!(wrapper.topic_config_table["T"].write_queue_nums, 8);
    assert_eq!(wrapper.topic_config_table["U"].topic_filter_type, TopicFilterType::MultiTag);
    assert_eq!(wrapper.topic_queue_mapping_info_map["S"].curr_id_map[&0], 0);
    assert!(
        RegisterBrokerBody::decode(&body, true, 401)
            .unwrap()
            .topic_config_serialize_wrapper
            .topic_queue_mapping_info_map
            .is_empty()
    );
    assert!(RegisterBrokerBody::decode(&body[..body.len() / 2], true, 513).is_err());
    assert!(RegisterBrokerBody::decode(b"no zlib", true, 513).is_err());
}

#[test]
fn old_brokers_send_the_bare_wrapper() {
    let body = br#"{"topicConfigTable":{"T":{"topicName":"T"}}}"#;
    let wrapper = RegisterBrokerBody::decode(body, false, 36).unwrap().topic_config_serialize_wrapper;
    assert_eq!(wrapper.topic_config_table["T"], TopicConfig { topic_name: "T".into(), ..TopicConfig::default() });
}

#[test]
fn what_is_no_json_is_an_error() {
    for body in ["", "x", "[]x", "{\"clientID\":}", "[1]"] {
        assert!(decode::<HeartbeatData>(body.as_bytes()).is_err(), "{body}");
    }
    assert!(decode::<QueueData>(br#"{"perm":"six"}"#).is_err());
    assert!(decode::<QueueData>(br#"{"perm":2147483648}"#).is_err());
}

fn config() -> impl Strategy<Value = TopicConfig> {
    (".{0,8}", any::<bool>(), any::<i32>(), proptest::collection::btree_map(".{0,4}", ".{0,4}", 0..3)).prop_map(
        |(topic_name, order, perm, attributes)| TopicConfig {
            topic_name,
            order,
            perm,
            attributes,
            ..TopicConfig::default()
        },
    )
}

proptest! {
    #[test]
    fn registrations_survive_a_round_trip(topics in proptest::collection::vec(config(), 0..4), ids in proptest::collection::btree_map(any::<i32>(), any::<i32>(), 0..3)) {
        let mut body = RegisterBrokerBody::default();
        for config in topics {
            body.topic_config_serialize_wrapper.topic_config_table.insert(config.topic_name.clone(), config);
        }
        let mapping = topic::TopicQueueMappingInfo { curr_id_map: ids, ..Default::default() };
        body.topic_config_serialize_wrapper.topic_queue_mapping_info_map.insert("S".into(), mapping);
        prop_assert_eq!(RegisterBrokerBody::decode(&body.encode(), false, 513), Ok(body));
    }

    #[test]
    fn queue_maps_survive_a_round_trip(table in proptest::collection::btree_map((".{0,5}", any::<i32>(), ".{0,5}"), any::<i64>(), 0..4)) {
        let offset_table = table.into_iter().map(|((broker_name, queue_id, topic), offset)| (MessageQueue { broker_name, queue_id, topic }, offset)).collect();
        let body = ResetOffsetBody { offset_table };
        prop_assert_eq!(decode::<ResetOffsetBody>(&body.encode()), Ok(body));
    }

    #[test]
    fn one_wrong_byte_never_panics(at in 0usize..400, byte: u8) {
        for sample in [HEARTBEAT, REGISTRATION, ROUTE] {
            let mut body = sample.as_bytes().to_vec();
            if let Some(slot) = body.get_mut(at) {
                *slot = byte;
            }
            let _either = (decode::<HeartbeatData>(&body).is_ok(), decode::<RegisterBrokerBody>(&body).is_ok(), decode::<TopicRouteData>(&body).is_ok());
        }
    }

    #[test]
    fn junk_never_panics(junk in proptest::collection::vec(any::<u8>(), 0..60), is_compressed: bool) {
        let _either = RegisterBrokerBody::decode(&junk, is_compressed, 513);
    }
}
