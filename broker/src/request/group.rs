//! Subscription groups: 200, 225 (update), 207 (delete), 352, 201 (read).

use rmq_net::body::{self, SubscriptionGroupConfig};
use rmq_net::codes::response;
use rmq_net::header::group as header;

use crate::broker::{Body, Broker, Handled, Outcome, Refusal};
use crate::letter::Request;
use crate::request::topic_change::{self, append_refused, done_after};
use crate::state::groups::GroupRefused;
use crate::state::paging::PageRequest;
use crate::state::settings::SettingKind;

fn refused(error: &GroupRefused) -> Refusal {
    Refusal::new(error.code(), error.to_string())
}

pub fn update(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let requested: SubscriptionGroupConfig = super::client::parse(request.frame.body)?;
    let config = broker.groups.decide_update(&requested).map_err(|error| refused(&error))?;
    let stored = topic_change::store_group(broker, config);
    done_after(broker, stored, request)
}

pub fn update_list(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let list: body::GroupConfigList = super::client::parse(request.frame.body)?;
    let decided: Result<Vec<_>, _> =
        list.group_config_list.iter().map(|requested| broker.groups.decide_update(requested)).collect();
    let mut stored = Ok(broker.shard.durable());
    for config in decided.map_err(|error| refused(&error))? {
        stored = topic_change::store_group(broker, config);
        if stored.is_err() {
            break;
        }
    }
    done_after(broker, stored, request)
}

/// Removes the group's settings and, if asked to, its offsets on every core.
pub fn delete(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::DeleteGroupHeader::decode(&request.frame)?;
    let group = header.group_name.to_cow().into_owned();
    let position = match broker.put_setting(SettingKind::Group, &group, None) {
        Ok(position) => position,
        Err(error) => return append_refused(broker, &error),
    };
    let now_ms = broker.now_ms;
    if let Some(change) = broker.groups.delete(&group, now_ms) {
        topic_change::publish_group(broker, position, change);
    }
    if !header.clean_offset {
        return done_after(broker, Ok(position), request);
    }
    let to = request.reply_address();
    let remove = move |broker: &mut Broker| broker.shard.remove_offsets_of_group(&group);
    topic_change::everywhere_after(broker, position, to, remove, "the removal of the group's offsets");
    Ok(Handled::Taken)
}

pub fn get(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::GroupHeader::decode(&request.frame)?;
    let group = header.group.to_cow();
    let Some(config) = broker.groups.get(&group).cloned() else {
        let remark = format!("No group in this broker. group: {group}");
        return Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    };
    broker.reply_json(request.reply_address(), &body::encode(&*config));
    Ok(Handled::Taken)
}

pub fn get_all(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::GroupPageHeader::decode(&request.frame)?;
    let version = header.data_version.as_ref().map(|text| text.to_cow().into_owned());
    let page = broker.groups.page(&PageRequest {
        first_index: header.group_seq,
        count_max: header.max_group_num,
        data_version: version.as_deref(),
    });
    let json = body::encode(&page.body);
    let total = page.total as i64;
    broker.reply(request.reply_address(), response::SUCCESS, Body::Bytes(&json), |ext| {
        ext.int("totalGroupNum", total);
    });
    Ok(Handled::Taken)
}
