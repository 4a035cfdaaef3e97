//! Looks at queues of one topic wherever they are, for requests about all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use rmq_engine::{StorageError, StoreTime, Ticket};

use crate::broker::{Broker, Refusal};
use crate::gather::{self, Asked};
use crate::request::{Job, read_failed};

/// Why a look at a queue gave nothing.
pub enum NotSeen {
    /// The disk has been asked: look again when the ticket is ready.
    Pending,
    Failed(StorageError),
    Refused(Refusal),
}

type Look<T> = Arc<dyn Fn(&mut Broker, u32, Ticket) -> Result<T, NotSeen> + Send + Sync>;

/// Looks at each queue on its own core and runs `then` with what was seen, by queue id. One refusal is all that is told.
pub fn look_at<T: Send + 'static>(
    broker: &mut Broker,
    topic: String,
    queue_ids: Vec<u32>,
    look: impl Fn(&mut Broker, u32, Ticket) -> Result<T, NotSeen> + Send + Sync + 'static,
    then: impl FnOnce(&mut Broker, Result<BTreeMap<u32, T>, Refusal>) + 'static,
) {
    let look: Look<T> = Arc::new(look);
    let ask = move |broker: &mut Broker, asked: Asked| {
        let own = queue_ids.iter().copied().filter(|queue_id| broker.owner(&topic, *queue_id) == broker.core);
        next(broker, Round { left: own.collect(), seen: Vec::new(), look: look.clone(), asked });
    };
    gather::gather_later(broker, ask, |broker, answers: Vec<Result<Vec<(u32, T)>, Refusal>>| {
        let all: Result<Vec<_>, Refusal> = answers.into_iter().collect();
        then(broker, all.map(|all| all.into_iter().flatten().collect()));
    });
}

/// One core's part.
struct Round<T> {
    left: Vec<u32>,
    seen: Vec<(u32, T)>,
    look: Look<T>,
    asked: Asked,
}

fn next<T: Send + 'static>(broker: &mut Broker, mut round: Round<T>) {
    while let Some(queue_id) = round.left.last().copied() {
        let ticket = broker.new_ticket();
        let refusal = match (round.look)(broker, queue_id, ticket) {
            Ok(seen) => {
                round.seen.push((queue_id, seen));
                round.left.pop();
                continue;
            }
            Err(NotSeen::Pending) => {
                let again = move |broker: &mut Broker| next(broker, round);
                return broker.keep_job(ticket, Job::Look(Box::new(again)));
            }
            Err(NotSeen::Failed(error)) => read_failed(&error),
            Err(NotSeen::Refused(refusal)) => refusal,
        };
        return round.asked.answer(broker, Err::<Vec<(u32, T)>, Refusal>(refusal));
    }
    round.asked.answer(broker, Ok::<_, Refusal>(round.seen));
}

/// When the message at an offset was stored; -1 where there is none.
pub fn store_time(
    broker: &mut Broker,
    topic: &str,
    queue_id: u32,
    offset: i64,
    ticket: Ticket,
) -> Result<i64, NotSeen> {
    match broker.shard.store_time(topic, queue_id, offset, ticket) {
        StoreTime::Known(time) => Ok(time),
        StoreTime::NotFound => Ok(-1),
        StoreTime::Pending => Err(NotSeen::Pending),
        StoreTime::Failed(error) => Err(NotSeen::Failed(error)),
    }
}
