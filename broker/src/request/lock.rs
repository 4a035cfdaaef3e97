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

/// A consumer has left the group: nobody need wait for the end of its locks. It gives them back itself, but a renewal that
/// was under way just then may come behind that.
pub fn on_left(broker: &mut Broker, group: &str, client_id: &str) {
    let is_changed = broker.system.as_mut().is_some_and(|system| system.locks.unlock_all(group, client_id));
    if is_changed {
        tell_cores(broker, group);
    }
}

/// Lets every core know whether the group holds locks. Consumers renew every 20 s, so this is rare.
fn tell_cores(broker: &mut Broker, group: &str) {
    let Some(system) = &broker.system else { return };
    let change = system.locks.change_of(group, broker.now_ms);
    broker.locked_groups.apply(change.clone());
    broker.broadcast(|| Letter::LocksChanged(change.clone()));
}

#[cfg(test)]
mod tests {
    use rmq_net::body::{self, LockBatchReply};
    use rmq_net::codes::request as code;

    use crate::testing::Cores;

    #[test]
    fn the_locks_of_a_consumer_end_when_it_leaves_its_group() {
        let mut cores = Cores::new(2);
        let lock = |cores: &mut Cores, client: &str| {
            let body = format!(
                r#"{{"clientId":"{client}","consumerGroup":"g","mqSet":[{{"brokerName":"b","queueId":0,"topic":"T"}}]}}"#
            );
            let answer = cores.call(1, code::LOCK_BATCH_MQ, &[], body.as_bytes());
            let reply: LockBatchReply = body::decode(&answer.body).expect("a reply");
            reply.lock_ok_mq_set.len()
        };
        assert_eq!([lock(&mut cores, "one"), lock(&mut cores, "two")], [1, 0]);
        let leave = |cores: &mut Cores, group: &str| {
            let ext = [("clientID", "one"), ("consumerGroup", group)];
            assert_eq!(cores.call(1, code::UNREGISTER_CLIENT, &ext, b"").code, 0);
        };
        leave(&mut cores, "another");
        assert_eq!(lock(&mut cores, "two"), 0);
        leave(&mut cores, "g");
        cores.run();
        let now_ms = cores.now_ms;
        assert!([0, 1].iter().all(|core| !cores.broker(*core).locked_groups.is_locked("g", now_ms)));
        assert_eq!([lock(&mut cores, "two"), lock(&mut cores, "one")], [1, 0]);
    }
}
