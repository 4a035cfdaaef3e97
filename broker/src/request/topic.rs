//! Topic settings: 17, 18 (update), 215 (delete), 351, 21 (read), 305 (system topics).

use std::collections::BTreeSet;

use rmq_net::body::{self, TopicConfig, TopicFilterType};
use rmq_net::codes::response;
use rmq_net::header::topic as header;
use rmq_net::message::receipt::Mark;
use rmq_net::text::Text;

use crate::broker::{Body, Broker, Handled, Outcome, Refusal};
use crate::gather::gather;
use crate::letter::{ReplyAddress, Request};
use crate::request::stats;
use crate::request::topic_change::{self, done_after};
use crate::state::attributes;
use crate::state::paging::PageRequest;
use crate::state::topics::TopicRefused;

fn refused(error: &TopicRefused) -> Refusal {
    Refusal::new(error.code(), error.to_string())
}

/// Anything but MULTI_TAG is the default, as in the reference.
fn filter_type(name: Option<&Text<'_>>) -> TopicFilterType {
    if name.is_some_and(|name| name.eq_str("MULTI_TAG")) {
        TopicFilterType::MultiTag
    } else {
        TopicFilterType::SingleTag
    }
}

pub fn update(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::CreateTopicHeader::decode(&request.frame)?;
    let given = header.attributes.as_ref().map(|text| text.to_cow()).unwrap_or_default();
    let requested = TopicConfig {
        topic_name: header.topic.to_cow().into_owned(),
        read_queue_nums: header.read_queue_nums,
        write_queue_nums: header.write_queue_nums,
        perm: header.perm,
        topic_filter_type: filter_type(header.topic_filter_type.as_ref()),
        topic_sys_flag: header.topic_sys_flag,
        order: header.order,
        attributes: attributes::parse(&given)
            .map_err(|error| Refusal::new(response::SYSTEM_ERROR, error.to_string()))?,
    };
    let config = broker.topics.decide_update(&requested).map_err(|error| refused(&error))?;
    let stored = topic_change::store_topic(broker, config);
    done_after(broker, stored, request)
}

pub fn update_list(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let list: body::TopicConfigList = super::client::parse(request.frame.body)?;
    let decided: Result<Vec<_>, _> =
        list.topic_config_list.iter().map(|requested| broker.topics.decide_update(requested)).collect();
    let mut stored = Ok(broker.shard.durable());
    for config in decided.map_err(|error| refused(&error))? {
        stored = topic_change::store_topic(broker, config);
        if stored.is_err() {
            break;
        }
    }
    done_after(broker, stored, request)
}

/// Removes the topic's settings, then its queues and offsets on every core; and those of the topics its popped messages came
/// back in.
pub fn delete(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::TopicHeader::decode(&request.frame)?;
    let topic = header.topic.to_cow().into_owned();
    broker.topics.check_delete(&topic).map_err(|error| refused(&error))?;
    let to = request.reply_address();
    if !broker.config.clear_retry_topic_when_delete_topic {
        return delete_all(broker, to, vec![topic]);
    }
    gather(broker, stats::groups_with_offsets_of(topic.clone()), move |broker, groups| {
        let groups = groups.into_iter().flatten();
        let retries = groups.flat_map(|group| [Mark::RetryV1, Mark::RetryV2].map(|mark| mark.topic(&group, &topic)));
        let mut topics: BTreeSet<String> = retries.filter(|retry| broker.topics.get(retry).is_some()).collect();
        topics.insert(topic);
        match delete_all(broker, to, topics.into_iter().collect()) {
            Ok(Handled::Full) => {
                let remark = "the log has no room for the removal just now; delete it again";
                broker.refuse_later(to, &Refusal::new(response::SYSTEM_ERROR, remark));
            }
            Ok(_) => {}
            Err(refusal) => broker.refuse_later(to, &refusal),
        }
    });
    Ok(Handled::Taken)
}

fn delete_all(broker: &mut Broker, to: ReplyAddress, topics: Vec<String>) -> Outcome {
    let mut position = broker.settings_end();
    for topic in &topics {
        position = match topic_change::remove_topic(broker, topic) {
            Ok(position) => position,
            Err(error) => return topic_change::append_refused(broker, &error),
        };
    }
    let remove = move |broker: &mut Broker| {
        let mut end = broker.shard.durable();
        for topic in &topics {
            broker.resets.remove_topic(topic);
            end = broker.shard.remove_topic(topic)?.max(end);
        }
        Ok(end)
    };
    topic_change::everywhere_after(broker, position, to, remove, "the removal of the topic's queues");
    Ok(Handled::Taken)
}

pub fn get(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::TopicHeader::decode(&request.frame)?;
    let topic = header.topic.to_cow();
    let Some(config) = broker.topics.get(&topic).cloned() else {
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, format!("No topic in this broker. topic: {topic}")));
    };
    broker.reply_json(request.reply_address(), &body::encode(&*config));
    Ok(Handled::Taken)
}

pub fn get_all(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::TopicPageHeader::decode(&request.frame)?;
    let version = header.data_version.as_ref().map(|text| text.to_cow().into_owned());
    let page = broker.topics.page(&PageRequest {
        first_index: header.topic_seq,
        count_max: header.max_topic_num,
        data_version: version.as_deref(),
    });
    let json = body::encode(&page.body);
    let total = page.total as i64;
    broker.reply(request.reply_address(), response::SUCCESS, Body::Bytes(&json), |ext| {
        ext.int("totalTopicNum", total);
    });
    Ok(Handled::Taken)
}

pub fn system_topics(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let json = body::encode(&body::TopicList { topic_list: broker.topics.system_topics(), broker_addr: None });
    broker.reply_json(request.reply_address(), &json);
    Ok(Handled::Taken)
}
