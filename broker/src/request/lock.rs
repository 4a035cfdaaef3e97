//! LOCK_BATCH_MQ (41) and UNLOCK_BATCH_MQ (42): who consumes a queue in order. Locks live in memory and
//! expire 60 s after the last call, as in RocketMQ.

use rmq_net::body::{self, LockBatchBody, LockBatchReply};

use crate::broker::{Broker, Handled, Outcome};
use crate::letter::{Letter, Request};

pub fn lock(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let body: LockBatchBody = super::client::parse(request.frame.body)?;
    let now_ms = broker.now_ms;
    let Some(system) = &mut broker.system else { return Ok(Handled::Taken) };
    let locked = system.locks.lock(&body.consumer_group, &body.client_id, &body.mq_set, now_ms);
    tell_cores(broker, &body.consumer_group);
    let json = body::encode(&LockBatchReply { lock_ok_mq_set: locked });
    broker.reply_json(request.reply_address(), &json);
    Ok(Handled::Taken)
}

pub fn unlock(broker: &mut Broker, request: &Request<'_>) -> Outcome {
    let body: LockBatchBody = super::client::parse(request.frame.body)?;
    if let Some(system) = &mut broker.system {
        system.locks.unlock(&body.consumer_group, &body.client_id, &body.mq_set);
    }
    tell_cores(broker, &body.consumer_group);
    broker.reply_done(request.reply_address());
    Ok(Handled::Taken)
}

/// Lets every core know whether the group holds locks. Consumers renew every 20 s, so this is rare.
fn tell_cores(broker: &mut Broker, group: &str) {
    let Some(system) = &broker.system else { return };
    let change = system.locks.change_of(group, broker.now_ms);
    broker.locked_groups.apply(change.clone());
    broker.broadcast(|| Letter::LocksChanged(change.clone()));
}
