//! What producers were told, and whether a broker that came back keeps to it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rmq_tests::remoting::{Connection, Request, code, records};

use crate::load::{Account, MessageId, PRODUCERS, QUEUES, TOPIC, body, group, make_topic};

/// Answers of RocketMQ to a pull: no message at this offset yet; and to a query: nothing committed.
const PULL_NOT_FOUND: i32 = 19;
const QUERY_NOT_FOUND: i32 = 22;

#[derive(Default)]
struct Queue {
    /// What this ledger expects to find, by offset.
    acknowledged: BTreeMap<i64, MessageId>,
    /// Messages found at the last start. A start makes what it finds stable, so they stay.
    found: Vec<MessageId>,
    /// Messages in the order of sending, of the last life only: by producer.
    sent: HashMap<u64, Vec<MessageId>>,
}

#[derive(Default)]
struct Commit {
    asked: i64,
    /// No smaller offset may be found.
    promised: Option<i64>,
}

/// The promises of all lives of one store.
#[derive(Default)]
pub struct Ledger {
    queues: BTreeMap<i32, Queue>,
    refused: HashSet<MessageId>,
    /// By producer, whose group it is, and queue.
    commits: BTreeMap<(u64, i32), Commit>,
    topics: BTreeSet<String>,
    /// Topics found at the last start.
    found_topics: BTreeSet<String>,
    pub acknowledged_count: u64,
    /// Acknowledged messages a power cut has taken.
    pub lost_count: u64,
}

impl Ledger {
    /// Takes what the producers of a life know.
    pub fn add(&mut self, accounts: Vec<Account>) {
        for account in accounts {
            for (queue_id, ids) in account.sent {
                self.queues.entry(queue_id).or_default().sent.insert(account.producer, ids);
            }
            for (queue_id, offset, id) in account.acknowledged {
                let earlier = self.queues.entry(queue_id).or_default().acknowledged.insert(offset, id);
                assert_eq!(earlier, None, "queue {queue_id}: offset {offset} was given to two messages");
                self.acknowledged_count += 1;
            }
            self.refused.extend(account.refused);
            for (queue_id, (asked, promised)) in account.commits {
                let commit = self.commits.entry((account.producer, queue_id)).or_default();
                commit.asked = commit.asked.max(asked);
                commit.promised = commit.promised.max(promised);
            }
            self.topics.extend(account.topics);
        }
    }

    /// Compares a broker that has started again with the promises, and notes what it has. `must_keep_all`: nothing
    /// acknowledged may be missing; else an end of each queue may be, and topics and offsets of the last life.
    pub fn check(&mut self, connection: &mut Connection, must_keep_all: bool) {
        self.check_topics(connection, must_keep_all);
        prepare(connection);
        for queue_id in 0..QUEUES {
            let queue = self.queues.entry(queue_id).or_default();
            let found = read_queue(connection, queue_id);
            self.lost_count += queue.check(queue_id, &found, &self.refused, must_keep_all);
            let end = found.len() as i64;
            queue.found = found;
            queue.sent.clear();
            for producer in 0..PRODUCERS {
                let commit = self.commits.entry((producer, queue_id)).or_default();
                let committed = committed(connection, producer, queue_id);
                let place = format!("queue {queue_id}, group {}", group(producer));
                assert!(
                    committed.is_none_or(|offset| offset <= commit.asked && offset <= end),
                    "{place}: offset {committed:?}, largest asked for {}, the queue's end {end}",
                    commit.asked
                );
                assert!(
                    !must_keep_all || commit.promised <= committed,
                    "{place}: offset {committed:?} behind the acknowledged {:?}",
                    commit.promised
                );
                *commit = Commit { asked: committed.unwrap_or(0), promised: committed };
            }
        }
    }

    fn check_topics(&mut self, connection: &mut Connection, must_keep_all: bool) {
        let expected = if must_keep_all { &self.topics } else { &self.found_topics };
        let is_there = |name: &String, connection: &mut Connection| {
            connection.call(&Request::new(code::GET_TOPIC_CONFIG).ext("topic", name)).code == 0
        };
        for name in expected {
            assert!(is_there(name, connection), "topic {name} is gone");
        }
        self.topics.retain(|name| is_there(name, connection));
        self.found_topics.clone_from(&self.topics);
    }
}

impl Queue {
    /// Returns how many acknowledged messages are gone, which is none where all must be kept.
    fn check(&mut self, queue_id: i32, found: &[MessageId], refused: &HashSet<MessageId>, must_keep_all: bool) -> u64 {
        assert!(found.starts_with(&self.found), "queue {queue_id}: what an earlier start had found has changed");
        for (offset, id) in &self.acknowledged {
            match found.get(*offset as usize) {
                Some(there) => assert_eq!(there, id, "queue {queue_id}: another message at offset {offset}"),
                None => assert!(!must_keep_all, "queue {queue_id}: acknowledged message {id:x} at {offset} is gone"),
            }
        }
        // Of each producer the first ones, in its order, without a hole.
        let mut new: HashMap<u64, Vec<MessageId>> = HashMap::new();
        for id in &found[self.found.len()..] {
            new.entry(id >> 32 & 0xFF).or_default().push(*id);
        }
        for (producer, ids) in new {
            let mut sent = self.sent.get(&producer).into_iter().flatten();
            for id in ids {
                let passed: Vec<_> = sent.by_ref().take_while(|sent| **sent != id).collect();
                assert!(
                    passed.iter().all(|passed| refused.contains(*passed)),
                    "queue {queue_id}, producer {producer}: {id:x} is there, but not {passed:x?}, sent before it"
                );
            }
        }
        let lost = self.acknowledged.split_off(&(found.len() as i64));
        lost.len() as u64
    }
}

/// Makes what the load needs, where it is not there yet or was lost.
fn prepare(connection: &mut Connection) {
    let mut requests = vec![make_topic(TOPIC)];
    requests.extend((0..PRODUCERS).map(|producer| {
        let body = format!(r#"{{"groupName":"{}","consumeEnable":true}}"#, group(producer));
        Request::new(code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).body(body.as_bytes())
    }));
    for request in requests {
        let reply = connection.call(&request);
        assert_eq!(reply.code, 0, "{request:?}: {reply:?}");
    }
}

/// The messages of a queue from its first to its last, each with the bytes it was sent with.
fn read_queue(connection: &mut Connection, queue_id: i32) -> Vec<MessageId> {
    let mut found = Vec::new();
    loop {
        let reply = connection.call(&Request::pull(TOPIC, queue_id, found.len() as i64));
        match reply.code {
            0 => {}
            PULL_NOT_FOUND => return found,
            _ => panic!("queue {queue_id} at {}: {reply:?}", found.len()),
        }
        for record in records(&reply.body) {
            assert_eq!(record.queue_offset, found.len() as i64, "queue {queue_id}");
            let id = record.body.first_chunk().map(|id| u64::from_be_bytes(*id));
            let id = id.filter(|id| record.body == body(*id));
            let id = id.unwrap_or_else(|| panic!("queue {queue_id} at {}: bytes nobody sent", record.queue_offset));
            found.push(id);
        }
    }
}

fn committed(connection: &mut Connection, producer: u64, queue_id: i32) -> Option<i64> {
    let request = Request::new(code::QUERY_CONSUMER_OFFSET)
        .ext("consumerGroup", &group(producer))
        .ext("topic", TOPIC)
        .ext("queueId", &queue_id.to_string())
        .ext("setZeroIfNotFound", "false");
    let reply = connection.call(&request);
    assert!([0, QUERY_NOT_FOUND].contains(&reply.code), "{reply:?}");
    (reply.code == 0).then(|| reply.number("offset").expect("an offset"))
}
