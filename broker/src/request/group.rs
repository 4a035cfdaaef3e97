//! Subscription groups: 200, 225 (update), 207 (delete), 352, 201 (read),
//! 353 (which topics a group must not read).

use rmq_net::body::{self, SubscriptionGroupConfig};
use rmq_net::codes::response;
use rmq_net::header::group as header;
use rmq_net::header::topic::GroupForbiddenHeader;

use crate::broker::{After, Body, Broker, Handled, Outcome, Refusal};
use crate::letter::Request;
use crate::request::topic_change::{self, append_refused, done_after};
use crate::state::groups::{GroupLookup, GroupRefused};
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
    let removed = broker.put_setting(SettingKind::Forbidden, &group, None);
    let position = match removed.and_then(|_| broker.put_setting(SettingKind::Group, &group, None)) {
        Ok(position) => position,
        Err(error) => return append_refused(broker, &error),
    };
    let now_ms = broker.now_ms;
    if let Some(change) = broker.groups.delete(&group, now_ms) {
        topic_change::publish_group(broker, position, change);
    }
    if let Some(system) = &mut broker.system {
        system.stats.remove_group(&group);
    }
    if !header.clean_offset {
        return done_after(broker, Ok(position), request);
    }
    let to = request.reply_address();
    let remove = move |broker: &mut Broker| {
        broker.resets.remove_group(&group);
        broker.shard.remove_offsets_of_group(&group)
    };
    topic_change::everywhere_after(broker, position, to, remove, "the removal of the group's offsets");
    Ok(Handled::Taken)
}

pub fn get(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = header::GroupHeader::decode(&request.frame)?;
    let group = header.group.to_cow();
    match broker.groups.look_up(&group) {
        GroupLookup::Known(config) => {
            let json = body::encode(&**config);
            broker.reply_json(request.reply_address(), &json);
            Ok(Handled::Taken)
        }
        // RocketMQ: asking for a group is using it.
        GroupLookup::Creatable(config) => topic_change::create_group_for(broker, request, config),
        GroupLookup::Missing => {
            let remark = format!("No group in this broker. group: {group}");
            Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark))
        }
    }
}

/// Says whether the group may read the topic, after allowing or forbidding it if the request wants that.
pub fn forbidden(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let header = GroupForbiddenHeader::decode(&request.frame)?;
    let (group, topic) = (header.group.to_cow().into_owned(), header.topic.to_cow().into_owned());
    let mut position = broker.settings_end();
    if let Some(is_readable) = header.readable {
        position = match topic_change::store_readable(broker, &group, &topic, is_readable) {
            Ok(position) => position,
            Err(error) => return append_refused(broker, &error),
        };
    }
    let readable = !broker.groups.is_read_forbidden(&group, &topic);
    let json = body::encode(&body::GroupForbidden { group, topic, readable });
    let to = request.reply_address();
    let work = Box::new(move |broker: &mut Broker| broker.reply_json(to, &json));
    broker.after(position, After::Answer { to, work });
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

#[cfg(test)]
mod tests {
    use rmq_net::codes::{request as code, response};

    use crate::testing::Cores;

    #[test]
    fn asking_for_a_group_makes_it_where_the_configuration_allows() {
        for (auto_create, code) in [("true", 0), ("false", response::SUBSCRIPTION_GROUP_NOT_EXIST)] {
            let mut cores = Cores::with_config(2, &[("autoCreateSubscriptionGroup", auto_create)]);
            let answer = cores.call(1, code::GET_SUBSCRIPTIONGROUP_CONFIG, &[("group", "g")], b"");
            assert_eq!(answer.code, code, "{}", answer.remark);
            assert_eq!(cores.broker(1).groups.get("g").is_some(), code == 0);
        }
    }

    #[test]
    fn a_group_is_kept_from_a_topic_on_every_core_until_it_is_deleted() {
        let mut cores = Cores::new(2);
        cores.create_group(r#"{"groupName":"g"}"#);
        let ask = |cores: &mut Cores, readable: Option<&str>| {
            let mut ext = vec![("group", "g"), ("topic", "T")];
            ext.extend(readable.map(|readable| ("readable", readable)));
            let answer = cores.call(1, code::UPDATE_AND_GET_GROUP_FORBIDDEN, &ext, b"");
            assert_eq!(answer.code, 0, "{}", answer.remark);
            let is_forbidden = [0, 1].map(|core| cores.broker(core).groups.is_read_forbidden("g", "T"));
            assert_eq!(is_forbidden[0], is_forbidden[1]);
            assert_eq!(is_forbidden[0], !String::from_utf8_lossy(&answer.body).contains(r#""readable":true"#));
            is_forbidden[0]
        };
        assert!(!ask(&mut cores, None));
        assert!(ask(&mut cores, Some("false")));
        assert!(ask(&mut cores, None));
        assert!(!ask(&mut cores, Some("true")));
        assert!(ask(&mut cores, Some("false")));
        assert_eq!(cores.call(0, code::DELETE_SUBSCRIPTIONGROUP, &[("groupName", "g")], b"").code, 0);
        assert!(!ask(&mut cores, None));
        assert_eq!(crate::start::stored_settings(&cores.broker(0).shard).len(), 0);
    }
}
