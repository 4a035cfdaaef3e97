//! The requests of a broker: one request code, one file (or one small family), one arm below.

pub mod assignment;
pub mod check_back;
pub mod client;
pub mod dead_letter;
pub mod delay;
pub mod group;
pub mod lock;
pub mod message;
pub mod offset;
pub mod pop;
pub mod progress;
pub mod pull;
pub mod query;
pub mod queues;
pub mod recall;
pub mod relay;
pub mod reply;
pub mod reset;
pub mod runtime;
pub mod send;
pub mod send_back;
pub mod stats;
pub mod topic;
pub mod topic_change;
pub mod transaction;

use bytes::Bytes;
use rmq_engine::{Shard, StorageError, Ticket};
use rmq_net::codes::{request as code, response};

use crate::broker::{Broker, Handled, Outcome, Refusal, SYSTEM_CORE, Work, not_supported};
use crate::letter::Request;

/// The one place where a request code becomes a handler.
pub fn dispatch(broker: &mut Broker, request_code: i32, request: &Request<'_>) -> Outcome {
    match request_code {
        // A queue's core: each finds out itself which one that is.
        code::SEND_MESSAGE | code::SEND_MESSAGE_V2 | code::SEND_BATCH_MESSAGE => send::handle(broker, request),
        code::PULL_MESSAGE | code::LITE_PULL_MESSAGE => pull::handle(broker, request),
        code::QUERY_CONSUMER_OFFSET => offset::query(broker, request),
        code::UPDATE_CONSUMER_OFFSET => offset::update(broker, request),
        code::SEARCH_OFFSET_BY_TIMESTAMP => offset::search(broker, request),
        code::GET_MAX_OFFSET => offset::bound(broker, request, true),
        code::GET_MIN_OFFSET => offset::bound(broker, request, false),
        code::GET_EARLIEST_MSG_STORETIME => offset::earliest_store_time(broker, request),
        code::QUERY_MESSAGE => query::handle(broker, request),
        code::VIEW_MESSAGE_BY_ID => message::view(broker, request),
        code::POP_MESSAGE => pop::pop(broker, request),
        code::PEEK_MESSAGE => pop::peek(broker, request),
        code::NOTIFICATION => pop::notification(broker, request),
        code::POLLING_INFO => pop::polling_info(broker, request),
        code::ACK_MESSAGE => pop::ack::ack(broker, request),
        code::BATCH_ACK_MESSAGE => pop::ack::ack_batch(broker, request),
        code::CHANGE_MESSAGE_INVISIBLETIME => pop::ack::change_invisible(broker, request),
        code::END_TRANSACTION => transaction::end(broker, request),
        code::RESUME_CHECK_HALF_MESSAGE => check_back::resume(broker, request),
        code::CONSUMER_SEND_MSG_BACK => send_back::handle(broker, request),
        code::QUERY_CONSUME_QUEUE => progress::rows(broker, request),
        code::POP_ROLLBACK => {
            // RocketMQ: from its key-value store of pops to the revive topic. Here both are the log.
            broker.reply_done(request.reply_address());
            Ok(Handled::Taken)
        }
        _ => dispatch_system(broker, request_code, request),
    }
}

/// Requests about the whole broker, answered by the system core.
fn dispatch_system(broker: &mut Broker, request_code: i32, request: &Request<'_>) -> Outcome {
    let handler: fn(&mut Broker, &Request<'_>) -> Outcome = match request_code {
        code::SEND_REPLY_MESSAGE | code::SEND_REPLY_MESSAGE_V2 => reply::handle,
        code::RECALL_MESSAGE => recall::handle,
        code::HEART_BEAT => client::heartbeat,
        code::UNREGISTER_CLIENT => client::unregister,
        code::GET_CONSUMER_LIST_BY_GROUP => client::consumer_list,
        code::CHECK_CLIENT_CONFIG => client::check_config,
        code::GET_CONSUMER_CONNECTION_LIST => client::consumer_connections,
        code::GET_PRODUCER_CONNECTION_LIST => client::producer_connections,
        code::GET_ALL_PRODUCER_INFO => client::all_producers,
        code::QUERY_ASSIGNMENT => assignment::query,
        code::SET_MESSAGE_REQUEST_MODE => assignment::set_mode,
        code::GET_ALL_MESSAGE_REQUEST_MODE => assignment::all_modes,
        code::LOCK_BATCH_MQ => lock::lock,
        code::UNLOCK_BATCH_MQ => lock::unlock,
        code::UPDATE_AND_CREATE_TOPIC => topic::update,
        code::UPDATE_AND_CREATE_TOPIC_LIST => topic::update_list,
        code::DELETE_TOPIC_IN_BROKER => topic::delete,
        code::GET_TOPIC_CONFIG => topic::get,
        code::GET_ALL_TOPIC_CONFIG => topic::get_all,
        code::GET_SYSTEM_TOPIC_LIST_FROM_BROKER => topic::system_topics,
        code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP => group::update,
        code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP_LIST => group::update_list,
        code::DELETE_SUBSCRIPTIONGROUP => group::delete,
        code::GET_SUBSCRIPTIONGROUP_CONFIG => group::get,
        code::GET_ALL_SUBSCRIPTIONGROUP_CONFIG => group::get_all,
        code::GET_TOPIC_STATS_INFO => stats::topic_stats,
        code::GET_CONSUME_STATS => stats::consume_stats,
        code::GET_ALL_CONSUMER_OFFSET => stats::all_offsets,
        code::QUERY_TOPIC_CONSUME_BY_WHO => stats::groups_of_topic,
        code::QUERY_TOPICS_BY_CONSUMER => stats::topics_of_group,
        code::GET_BROKER_RUNTIME_INFO => runtime::info,
        code::GET_BROKER_CONFIG => runtime::config,
        code::VIEW_BROKER_STATS_DATA => runtime::statistic,
        code::DELETE_EXPIRED_COMMITLOG => runtime::delete_expired,
        code::SWITCH_TIMER_ENGINE => runtime::switch_timer_engine,
        code::UPDATE_AND_GET_GROUP_FORBIDDEN => group::forbidden,
        code::INVOKE_BROKER_TO_RESET_OFFSET => reset::handle,
        code::INVOKE_BROKER_TO_GET_CONSUMER_STATUS => relay::consumer_status,
        code::GET_CONSUMER_RUNNING_INFO => relay::running_info,
        code::CONSUME_MESSAGE_DIRECTLY => relay::consume_directly,
        code::QUERY_CONSUME_TIME_SPAN => progress::time_span,
        code::QUERY_CORRECTION_OFFSET => progress::correction,
        code::CLONE_GROUP_OFFSET => progress::clone_offsets,
        code::GET_BROKER_CONSUME_STATS => progress::of_all_groups,
        code::QUERY_SUBSCRIPTION_BY_CONSUMER => progress::subscription,
        code::CLEAN_EXPIRED_CONSUMEQUEUE | code::CLEAN_UNUSED_TOPIC => runtime::clean,
        _ => return Err(not_supported(request_code)),
    };
    if !broker.is_system_core() {
        return broker.forward(SYSTEM_CORE, request, request.origin);
    }
    handler(broker, request)
}

/// A request that waits for the disk.
pub enum Job {
    Pull(pull::PullOrder),
    TimeLookup(offset::TimeLookup),
    View(message::View),
    Search(query::Search),
    SendBack(send_back::SendBack),
    /// A look at a queue or message to repeat, for one of the requests that are about several.
    Look(Work),
    Pop(pop::PopOrder),
    Revive(rmq_engine::in_flight::Due),
}

pub fn resume(broker: &mut Broker, job: Job) {
    match job {
        Job::Pull(order) => pull::execute(broker, order),
        Job::TimeLookup(lookup) => offset::resume(broker, lookup),
        Job::Search(search) => query::resume(broker, search),
        Job::View(view) => message::resume(broker, view),
        Job::Pop(order) => pop::look::look(broker, order),
        Job::Revive(due) => pop::revive::revive(broker, due),
        Job::SendBack(back) => send_back::resume(broker, back),
        Job::Look(again) => again(broker),
    }
}

/// Handles a request again from the start when the disk has read what it asked for.
pub fn again_when_read(broker: &mut Broker, ticket: Ticket, request: &Request<'_>) -> Outcome {
    let (origin, frame) = (request.origin, Bytes::copy_from_slice(request.bytes));
    broker.keep_job(ticket, Job::Look(Box::new(move |broker| broker.again(origin, &frame))));
    Ok(Handled::Taken)
}

/// The answer when the disk refuses to read; the same request may succeed later.
#[cold]
pub fn read_failed(error: &StorageError) -> Refusal {
    Refusal::new(response::SYSTEM_ERROR, format!("the disk could not be read: {error}"))
}

/// The answer while the log takes no more writes.
#[cold]
pub fn log_failed(shard: &Shard) -> Refusal {
    let reason = shard.poison_reason().map_or_else(String::new, |reason| format!(" ({reason})"));
    Refusal::new(
        response::SERVICE_NOT_AVAILABLE,
        format!(
            "the commit log takes no more writes after a failed one{reason}; restart the broker to read the disk again"
        ),
    )
}
