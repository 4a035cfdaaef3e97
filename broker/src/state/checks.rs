//! The checks a send and a pull pass before the engine sees them, in RocketMQ's order: which of
//! two faults is answered is part of the protocol. Pure, and without allocation when all is well.

use std::borrow::Cow;
use std::sync::Arc;

use rmq_engine::TagFilter;
use rmq_net::body::topic::perm;
use rmq_net::body::{MessageModel, SubscriptionGroupConfig, TopicConfig};
use rmq_net::codes::response as code;
use rmq_net::header::pull::sys_flag;
use rmq_net::message::names;
use rmq_net::message::properties::get_str;

use super::attributes::{CLEANUP_POLICY, CLEANUP_POLICY_COMPACTION};
use super::clients::{GroupView, GroupViews};
use super::groups::{GroupLookup, GroupTable};
use super::settings::CheckSettings;
use super::subscription::{self, ExpressionError, ExpressionType, Subscription, parse_tags};
use super::topics::TopicTable;
use crate::filter::CompiledFilters;

/// Longest topic of a batch, in bytes: the batch format of RocketMQ has one signed byte for it.
const BATCH_TOPIC_BYTES_MAX: usize = 127;

/// `forbiddenType` of a pull's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum ForbiddenType {
    Broker = 1,
    Group = 2,
    Topic = 3,
    Broadcasting = 4,
    Subscription = 5,
}

/// A request that is refused: what to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: i32,
    pub remark: String,
    /// Only from a pull: the ext field `forbiddenType`.
    pub forbidden_type: Option<ForbiddenType>,
}

#[cold]
fn refuse<T>(code: i32, remark: String) -> Result<T, Refusal> {
    Err(Refusal { code, remark, forbidden_type: None })
}

#[cold]
fn forbid<T>(forbidden_type: ForbiddenType, remark: String) -> Result<T, Refusal> {
    Err(Refusal { code: code::NO_PERMISSION, remark, forbidden_type: Some(forbidden_type) })
}

/// The fields of a send that decide whether it may go on.
#[derive(Clone, Copy, Debug)]
pub struct SendRequest<'a> {
    pub topic: &'a str,
    pub queue_id: i32,
    pub default_topic: &'a str,
    pub default_topic_queue_nums: i32,
    pub unit_mode: bool,
    pub is_batch: bool,
    /// The property string, unescaped.
    pub properties: &'a [u8],
}

/// What a send that is not refused needs next.
#[derive(Debug)]
pub enum SendCheck<'t> {
    Ready(&'t Arc<TopicConfig>),
    /// Let core 0 store this topic, then check again: another send may have been first.
    CreateTopic(TopicConfig),
    /// Let core 0 store this group, then check again.
    CreateGroup(SubscriptionGroupConfig),
}

/// Checks a send (10, 310, 320) between the decoding of its header and the append.
pub fn check_send<'t>(
    settings: &CheckSettings,
    topics: &'t TopicTable,
    groups: &GroupTable,
    request: &SendRequest<'_>,
    now_ms: i64,
) -> Result<SendCheck<'t>, Refusal> {
    if now_ms < settings.start_accept_send_ms {
        let wait_ms = settings.start_accept_send_ms - now_ms;
        let remark = format!("broker unable to service for another {wait_ms} ms");
        return refuse(code::SYSTEM_ERROR, remark);
    }
    let name = request.topic;
    let known = topics.get(name);
    if settings.broker_permission & perm::WRITE == 0 && known.is_some_and(|topic| topic.order) {
        let remark = format!("the broker[{}] sending message is forbidden", settings.broker_ip);
        return refuse(code::NO_PERMISSION, remark);
    }
    // A topic in the table has passed this check, or is one the broker made itself.
    if known.is_none()
        && let Err(error) = names::check_topic(name)
    {
        return refuse(code::INVALID_PARAMETER, error.to_string());
    }
    if !names::is_sendable(name) {
        let remark = format!("Sending message to topic[{name}] is forbidden.");
        return refuse(code::NO_PERMISSION, remark);
    }
    let Some(topic) = known else {
        return decide_creation(topics, request);
    };
    let queues = topic.write_queue_nums.max(topic.read_queue_nums);
    if queues <= request.queue_id {
        let remark = format!(
            "request queueId[{}] is illegal, topic[{name}] has {} read and {} write queues",
            request.queue_id, topic.read_queue_nums, topic.write_queue_nums
        );
        return refuse(code::INVALID_PARAMETER, remark);
    }
    let retry_group = names::group_of_retry_topic(name);
    if request.is_batch {
        check_batch_topic(name, retry_group)?;
    } else if let Some(group) = retry_group {
        match groups.look_up(group) {
            GroupLookup::Known(_) => {}
            GroupLookup::Creatable(config) => return Ok(SendCheck::CreateGroup(config)),
            GroupLookup::Missing => {
                let remark = format!("subscription group not exist, {group}");
                return refuse(code::SUBSCRIPTION_GROUP_NOT_EXIST, remark);
            }
        }
    }
    check_message(topic, request.properties)?;
    Ok(SendCheck::Ready(topic))
}

#[cold]
fn decide_creation<'t>(topics: &TopicTable, request: &SendRequest<'_>) -> Result<SendCheck<'t>, Refusal> {
    let decided = topics.decide_auto_create(
        request.topic,
        request.default_topic,
        request.default_topic_queue_nums,
        request.unit_mode,
    );
    match decided {
        Ok(topic) => Ok(SendCheck::CreateTopic(topic)),
        Err(missing) => refuse(code::TOPIC_NOT_EXIST, missing.to_string()),
    }
}

fn check_batch_topic(name: &str, retry_group: Option<&str>) -> Result<(), Refusal> {
    if BATCH_TOPIC_BYTES_MAX < name.len() {
        let remark = format!("message topic length too long {}", name.len());
        return refuse(code::MESSAGE_ILLEGAL, remark);
    }
    if retry_group.is_some() {
        let remark = format!("batch request does not support retry group {name}");
        return refuse(code::MESSAGE_ILLEGAL, remark);
    }
    Ok(())
}

fn check_message(topic: &TopicConfig, properties: &[u8]) -> Result<(), Refusal> {
    let policy = topic.attributes.get(CLEANUP_POLICY);
    if policy.is_some_and(|policy| policy == CLEANUP_POLICY_COMPACTION)
        && get_str(properties, "KEYS").is_none_or(|keys| keys.trim().is_empty())
    {
        return refuse(code::MESSAGE_ILLEGAL, "Required message key is missing".to_owned());
    }
    Ok(())
}

/// The queue a send goes to: the one it names, or for a negative id any write queue, chosen by
/// `random`. `None`: the topic has no write queue to choose.
pub fn queue_of_send(topic: &TopicConfig, queue_id: i32, random: u32) -> Option<u32> {
    u32::try_from(queue_id).ok().or_else(|| {
        let queues = u32::try_from(topic.write_queue_nums).ok()?;
        random.checked_rem(queues)
    })
}

/// The fields of a pull that decide whether it may go on.
#[derive(Clone, Copy, Debug)]
pub struct PullRequest<'a> {
    pub group: &'a str,
    pub topic: &'a str,
    pub queue_id: i32,
    pub sys_flag: i32,
    /// Request code 361 instead of 11.
    pub is_lite: bool,
    pub subscription: Option<&'a str>,
    pub expression_type: Option<&'a str>,
    pub sub_version: i64,
}

/// What a pull that is not refused needs next.
#[derive(Debug)]
pub enum PullCheck<'t> {
    Ready {
        topic: &'t Arc<TopicConfig>,
        group: &'t Arc<SubscriptionGroupConfig>,
        /// Borrowed from the group's heartbeats, or owned when the request brought its own.
        filter: Cow<'t, TagFilter>,
    },
    /// Let core 0 store this group, then check again.
    CreateGroup(SubscriptionGroupConfig),
}

/// Checks a pull (11, 361) before it reads.
pub fn check_pull<'t>(
    settings: &CheckSettings,
    topics: &'t TopicTable,
    groups: &'t GroupTable,
    views: &'t GroupViews,
    filters: &mut CompiledFilters,
    request: &PullRequest<'_>,
) -> Result<PullCheck<'t>, Refusal> {
    let ip = &settings.broker_ip;
    if settings.broker_permission & perm::READ == 0 {
        let remark = format!("the broker[{ip}] pulling message is forbidden");
        return forbid(ForbiddenType::Broker, remark);
    }
    if request.is_lite && !settings.lite_pull_message_enable {
        let remark = format!("the broker[{ip}] for lite pull consumer is forbidden");
        return forbid(ForbiddenType::Broker, remark);
    }
    let group = match groups.look_up(request.group) {
        GroupLookup::Known(group) => group,
        GroupLookup::Creatable(config) => return Ok(PullCheck::CreateGroup(config)),
        GroupLookup::Missing => {
            let remark = format!("subscription group [{}] does not exist", request.group);
            return refuse(code::SUBSCRIPTION_GROUP_NOT_EXIST, remark);
        }
    };
    if !group.consume_enable {
        let remark = format!("subscription group no permission, {}", request.group);
        return forbid(ForbiddenType::Group, remark);
    }
    let topic = check_pulled_queue(topics, request)?;
    let filter = if request.sys_flag & sys_flag::SUBSCRIPTION != 0 {
        Cow::Owned(filter_of_request(settings, filters, request)?)
    } else {
        Cow::Borrowed(filter_of_group(settings, group, groups, views, request)?)
    };
    if settings.reject_pull_consumer_enable && views.get(request.group).is_none() {
        let remark = format!("the pull consumer group[{}] is rejected", request.group);
        return refuse(code::SUBSCRIPTION_NOT_EXIST, remark);
    }
    Ok(PullCheck::Ready { topic, group, filter })
}

fn check_pulled_queue<'t>(topics: &'t TopicTable, request: &PullRequest<'_>) -> Result<&'t Arc<TopicConfig>, Refusal> {
    let name = request.topic;
    let Some(topic) = topics.get(name) else {
        let remark = format!("topic[{name}] not exist, apply first please!");
        return refuse(code::TOPIC_NOT_EXIST, remark);
    };
    if topic.perm & perm::READ == 0 {
        let remark = format!("the topic[{name}] pulling message is forbidden");
        return forbid(ForbiddenType::Topic, remark);
    }
    if !(0..topic.read_queue_nums).contains(&request.queue_id) {
        let remark = format!(
            "queueId[{}] is illegal, topic:[{name}] topicConfig.readQueueNums:[{}] consumer group:[{}]",
            request.queue_id, topic.read_queue_nums, request.group
        );
        return refuse(code::INVALID_PARAMETER, remark);
    }
    Ok(topic)
}

fn filter_of_request(
    settings: &CheckSettings,
    filters: &mut CompiledFilters,
    request: &PullRequest<'_>,
) -> Result<TagFilter, Refusal> {
    let expression_type = ExpressionType::of(request.expression_type);
    let expression = request.subscription.unwrap_or_default();
    let parsed = if expression_type.is_tag() {
        parse_tags(expression)
    } else if expression.is_empty() {
        Err(ExpressionError::Empty)
    } else {
        check_expression_type(settings, &expression_type)?;
        subscription::compile(&expression_type, expression, |text| filters.get_or_compile(text))
    };
    match parsed {
        Ok(_) if request.sys_flag & sys_flag::CLASS_FILTER != 0 => Ok(TagFilter::All),
        Ok(filter) => Ok(filter),
        Err(error) => {
            refuse(code::SUBSCRIPTION_PARSE_FAILED, format!("parse the consumer's subscription failed: {error}"))
        }
    }
}

fn filter_of_group<'t>(
    settings: &CheckSettings,
    config: &SubscriptionGroupConfig,
    groups: &GroupTable,
    views: &'t GroupViews,
    request: &PullRequest<'_>,
) -> Result<&'t TagFilter, Refusal> {
    let group = request.group;
    let Some(view) = views.get(group) else {
        let remark = format!("the consumer's group info not exist, {group}");
        return refuse(code::SUBSCRIPTION_NOT_EXIST, remark);
    };
    if !config.consume_broadcast_enable && view.message_model == MessageModel::Broadcasting {
        let remark = format!("the consumer group[{group}] can not consume by broadcast way");
        return forbid(ForbiddenType::Broadcasting, remark);
    }
    if groups.is_read_forbidden(group, request.topic) {
        let remark = format!("the consumer group[{group}] is forbidden for topic[{}]", request.topic);
        return forbid(ForbiddenType::Subscription, remark);
    }
    let subscription = latest_subscription(view, request)?;
    let filter = match &subscription.filter {
        Ok(filter) => filter,
        Err(error) => {
            let remark = format!("The broker's consumer filter data is not exist! Your expression is wrong: {error}");
            return refuse(code::FILTER_DATA_NOT_EXIST, remark);
        }
    };
    check_expression_type(settings, &subscription.expression_type)?;
    Ok(filter)
}

fn latest_subscription<'t>(view: &'t GroupView, request: &PullRequest<'_>) -> Result<&'t Subscription, Refusal> {
    let Some(subscription) = view.subscriptions.get(request.topic) else {
        let remark =
            format!("the consumer's subscription not exist, group[{}] topic[{}]", request.group, request.topic);
        return refuse(code::SUBSCRIPTION_NOT_EXIST, remark);
    };
    if subscription.version < request.sub_version {
        let remark = format!(
            "the consumer's subscription not latest, known {} requested {}",
            subscription.version, request.sub_version
        );
        return refuse(code::SUBSCRIPTION_NOT_LATEST, remark);
    }
    Ok(subscription)
}

/// Anything but tags needs `enablePropertyFilter`.
pub fn check_expression_type(settings: &CheckSettings, expression_type: &ExpressionType) -> Result<(), Refusal> {
    if expression_type.is_tag() || settings.enable_property_filter {
        return Ok(());
    }
    let name = expression_type.name();
    let remark =
        format!("The broker does not support consumer to filter message by {name}: enablePropertyFilter=false");
    refuse(code::SYSTEM_ERROR, remark)
}

#[cfg(test)]
mod tests;
