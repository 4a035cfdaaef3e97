//! What must exist before a heartbeat can be registered: the groups it names and their retry
//! topics. Pure decisions; the caller stores the result (table, log, letters) and then calls
//! [`super::ClientRegistry::heartbeat`].

use rmq_net::body::{ConsumeType, ConsumerData, HeartbeatData, SubscriptionGroupConfig, TopicConfig};

use super::groups::{GroupLookup, GroupTable};
use super::reserved::retry_topic;
use super::topics::TopicTable;

/// Groups and topics to store, in this order. Empty for nearly every heartbeat.
#[derive(Debug, Default, PartialEq)]
pub struct HeartbeatPlan {
    pub groups: Vec<SubscriptionGroupConfig>,
    pub topics: Vec<TopicConfig>,
}

/// Decides what a heartbeat brings into being. A consumer entry whose group is missing and must
/// not be created is passed over, as its registration will be.
pub fn plan(
    data: &HeartbeatData,
    groups: &GroupTable,
    topics: &TopicTable,
    reject_pull_consumers: bool,
) -> HeartbeatPlan {
    let mut plan = HeartbeatPlan::default();
    for consumer in &data.consumer_data_set {
        if is_rejected(consumer, reject_pull_consumers) {
            continue;
        }
        let created;
        let group = match groups.look_up(&consumer.group_name) {
            GroupLookup::Known(group) => &**group,
            GroupLookup::Creatable(group) => {
                plan.groups.push(group.clone());
                created = group;
                &created
            }
            GroupLookup::Missing => continue,
        };
        // A heartbeat without subscriptions says nothing about order.
        let is_order = (!data.without_sub).then(|| subscribes_to_order_topic(consumer, topics));
        plan.topics.extend(topics.decide_group_topic(
            &retry_topic(&consumer.group_name),
            group.retry_queue_nums,
            is_order,
            consumer.unit_mode,
        ));
    }
    plan
}

/// Pull consumers are not registered while `rejectPullConsumerEnable`.
pub(super) fn is_rejected(consumer: &ConsumerData, reject_pull_consumers: bool) -> bool {
    reject_pull_consumers && consumer.consume_type == ConsumeType::ConsumeActively
}

fn subscribes_to_order_topic(consumer: &ConsumerData, topics: &TopicTable) -> bool {
    consumer
        .subscription_data_set
        .iter()
        .any(|subscription| topics.get(&subscription.topic).is_some_and(|topic| topic.order))
}

#[cfg(test)]
mod tests {
    use rmq_net::body::SubscriptionData;

    use super::super::reserved::topic;
    use super::super::settings::{GroupSettings, TopicSettings};
    use super::*;

    fn tables() -> (GroupTable, TopicTable) {
        let mut topics = TopicTable::new(TopicSettings::default(), 1);
        topics.put(TopicConfig { order: true, ..topic("ordered", 4, 6) }, 1);
        (GroupTable::new(GroupSettings::default(), 1), topics)
    }

    fn heartbeat(group: &str, subscribed: &str) -> HeartbeatData {
        HeartbeatData {
            consumer_data_set: vec![ConsumerData {
                group_name: group.to_owned(),
                consume_type: ConsumeType::ConsumeActively,
                subscription_data_set: vec![SubscriptionData {
                    topic: subscribed.to_owned(),
                    ..SubscriptionData::default()
                }],
                ..ConsumerData::default()
            }],
            ..HeartbeatData::default()
        }
    }

    #[test]
    fn the_first_heartbeat_creates_group_and_retry_topic_and_the_second_nothing() {
        let (mut groups, mut topics) = tables();
        let first = plan(&heartbeat("g", "ordered"), &groups, &topics, false);
        assert_eq!(first.groups.len(), 1);
        let retry = first.topics.first().expect("a retry topic");
        assert_eq!((retry.topic_name.as_str(), retry.order), ("%RETRY%g", true));
        for group in first.groups {
            groups.put(group, 2);
        }
        for topic in first.topics {
            topics.put(topic, 2);
        }
        let again = heartbeat("g", "ordered");
        assert_eq!(plan(&again, &groups, &topics, false), HeartbeatPlan::default());
        let without_sub = HeartbeatData { without_sub: true, ..heartbeat("g", "other") };
        assert_eq!(plan(&without_sub, &groups, &topics, false), HeartbeatPlan::default());
        let unordered = plan(&heartbeat("g", "other"), &groups, &topics, false);
        assert_eq!(unordered.topics.first().map(|topic| topic.order), Some(false));
    }

    #[test]
    fn bad_names_and_rejected_pull_consumers_bring_nothing() {
        let (groups, topics) = tables();
        let bad = heartbeat("bad name", "ordered");
        assert_eq!(plan(&bad, &groups, &topics, false), HeartbeatPlan::default());
        let pull = heartbeat("g", "ordered");
        assert_eq!(plan(&pull, &groups, &topics, true), HeartbeatPlan::default());
    }
}
