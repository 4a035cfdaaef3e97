//! Producers with many requests in flight, that commit offsets and make topics beside it, until the broker is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rmq_tests::remoting::{Connection, Reply, Request, code};

pub const TOPIC: &str = "crash";
pub const QUEUES: i32 = 4;
pub const PRODUCERS: u64 = 4;
const IN_FLIGHT: usize = 16;
/// Acknowledged messages of a producer between two commits of its group.
const ACKNOWLEDGED_PER_COMMIT: usize = 8;
/// Acknowledged messages of a producer before it makes a topic.
const ACKNOWLEDGED_BEFORE_TOPIC: usize = 20;

/// What a message says: which one it is. Its content follows from that.
pub type MessageId = u64;

pub fn message_id(life: u64, producer: u64, serial: u64) -> MessageId {
    life << 40 | producer << 32 | serial
}

/// The body of a message: its id, and bytes nobody else has. Mostly short, now and then longer than many.
pub fn body(id: MessageId) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(id);
    let size = match rng.u8(..100) {
        0..3 => rng.usize(50_000..600_000),
        3..10 => rng.usize(1_500..20_000),
        _ => rng.usize(20..1_500),
    };
    let mut body = vec![0; size];
    rng.fill(&mut body);
    [&id.to_be_bytes()[..], &body].concat()
}

pub fn group(producer: u64) -> String {
    format!("crash_group_{producer}")
}

pub fn make_topic(name: &str) -> Request {
    Request::new(code::UPDATE_AND_CREATE_TOPIC)
        .ext("topic", name)
        .ext("defaultTopic", "TBW102")
        .ext("readQueueNums", &QUEUES.to_string())
        .ext("writeQueueNums", &QUEUES.to_string())
        .ext("perm", "6")
        .ext("topicFilterType", "SINGLE_TAG")
        .ext("topicSysFlag", "0")
        .ext("order", "false")
}

/// What one producer knows at the end of a broker's life.
#[derive(Default)]
pub struct Account {
    pub producer: u64,
    /// Messages by queue, in the order in which they were sent.
    pub sent: HashMap<i32, Vec<MessageId>>,
    /// Queue, offset and message of each acknowledgement.
    pub acknowledged: Vec<(i32, i64, MessageId)>,
    /// Messages that were answered with an error.
    pub refused: Vec<MessageId>,
    /// By queue: the largest offset whose commit was asked for, and the largest one that was acknowledged.
    pub commits: HashMap<i32, (i64, Option<i64>)>,
    pub topics: Vec<String>,
}

enum Asked {
    Send { queue_id: i32, id: MessageId },
    Commit { queue_id: i32, offset: i64 },
    Topic(String),
}

/// All producers of one life.
pub struct Load {
    producers: Vec<JoinHandle<Account>>,
    acknowledged: Arc<AtomicU64>,
}

impl Load {
    pub fn start(broker: &str, life: u64, rng: &mut fastrand::Rng) -> Self {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let producers = (0..PRODUCERS).map(|number| {
            let producer = Producer {
                // Connected here, so that a broker that is killed at once is no failure of the producer.
                connection: Connection::open(broker),
                life,
                rng: rng.fork(),
                asked: HashMap::new(),
                account: Account { producer: number, ..Account::default() },
                next_serial: 0,
                reached: HashMap::new(),
            };
            let acknowledged = Arc::clone(&acknowledged);
            std::thread::spawn(move || producer.run(&acknowledged))
        });
        Self { producers: producers.collect(), acknowledged }
    }

    /// Messages acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits for the producers, which end when the broker does.
    pub fn accounts(self) -> Vec<Account> {
        self.producers.into_iter().map(|producer| producer.join().expect("a producer does not fail")).collect()
    }
}

struct Producer {
    connection: Connection,
    life: u64,
    rng: fastrand::Rng,
    asked: HashMap<i32, Asked>,
    account: Account,
    next_serial: u64,
    /// By queue: the end of what this producer knows to be acknowledged.
    reached: HashMap<i32, i64>,
}

impl Producer {
    fn run(mut self, acknowledged: &AtomicU64) -> Account {
        loop {
            while self.asked.len() < IN_FLIGHT {
                if !self.send() {
                    return self.drain();
                }
            }
            let Some(reply) = self.connection.reply_before_crash() else { return self.account };
            self.take(reply);
            acknowledged.store(
                acknowledged.load(Ordering::Relaxed).max(self.account.acknowledged.len() as u64),
                Ordering::Relaxed,
            );
        }
    }

    /// The broker takes no more; what it answered before counts.
    fn drain(mut self) -> Account {
        while let Some(reply) = self.connection.reply_before_crash() {
            self.take(reply);
        }
        self.account
    }

    fn ask(&mut self, request: &Request, asked: Asked) -> bool {
        match self.connection.try_start(request) {
            Ok(opaque) => {
                self.asked.insert(opaque, asked);
                true
            }
            Err(_) => false, // The broker was killed.
        }
    }

    fn send(&mut self) -> bool {
        let queue_id = self.rng.i32(0..QUEUES);
        let id = message_id(self.life, self.account.producer, self.next_serial);
        self.next_serial += 1;
        self.account.sent.entry(queue_id).or_default().push(id);
        self.ask(&Request::send(TOPIC, queue_id, "TAGS\u{1}A\u{2}", &body(id)), Asked::Send { queue_id, id })
    }

    fn commit(&mut self, queue_id: i32, offset: i64) {
        self.account.commits.entry(queue_id).or_default().0 = offset;
        let request = Request::new(code::UPDATE_CONSUMER_OFFSET)
            .ext("consumerGroup", &group(self.account.producer))
            .ext("topic", TOPIC)
            .ext("queueId", &queue_id.to_string())
            .ext("commitOffset", &offset.to_string());
        self.ask(&request, Asked::Commit { queue_id, offset });
    }

    fn take(&mut self, reply: Reply) {
        let asked = self.asked.remove(&reply.opaque).expect("an answer to a request");
        match asked {
            Asked::Send { id, .. } if reply.code != 0 => self.account.refused.push(id),
            Asked::Send { queue_id, id } => {
                let offset = reply.number("queueOffset").expect("the message's offset");
                self.account.acknowledged.push((queue_id, offset, id));
                let reached = self.reached.entry(queue_id).or_default();
                *reached = (offset + 1).max(*reached);
                let (reached, count) = (*reached, self.account.acknowledged.len());
                if count.is_multiple_of(ACKNOWLEDGED_PER_COMMIT) {
                    self.commit(queue_id, reached);
                }
                if count == ACKNOWLEDGED_BEFORE_TOPIC {
                    let name = format!("crash_{}_{}", self.life, self.account.producer);
                    self.ask(&make_topic(&name), Asked::Topic(name));
                }
            }
            // Refused when the log is: nothing was promised.
            Asked::Commit { .. } | Asked::Topic(_) if reply.code != 0 => {}
            Asked::Commit { queue_id, offset } => {
                let commit = self.account.commits.entry(queue_id).or_default();
                commit.1 = commit.1.max(Some(offset));
            }
            Asked::Topic(name) => self.account.topics.push(name),
        }
    }
}
