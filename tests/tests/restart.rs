//! Ends of a broker, by force and as asked: what was acknowledged is there afterwards, and the name server knows.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rmq_tests::remoting::{Answering, Connection, Record, Request, code, records};
use rmq_tests::{Cluster, Folder, Kind, Process, await_condition, free_port, is_for_ringmq, rmq};

const TOPIC: &str = "restart";
const GROUP: &str = "restart_group";
const QUEUES: i32 = 3;
const MESSAGES: usize = 300;
const LARGE_BYTES: usize = 1 << 20;
/// How long a broker that is asked to end may take.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// 128 and the number of SIGTERM.
const ENDED_BY_SECOND_SIGTERM: i32 = 143;

/// What the broker acknowledged, by queue: properties and body of each message at its offset.
type Sent = BTreeMap<i32, Vec<(String, Vec<u8>)>>;

fn body(number: usize) -> Vec<u8> {
    let size = if number == MESSAGES / 2 { LARGE_BYTES } else { 10 + number * 13 % 3_000 };
    (0..size).map(|at| (at * 7 + number) as u8).collect()
}

fn send_all(connection: &mut Connection, sent: &mut Sent, first: usize) {
    for number in first..first + MESSAGES {
        let queue_id = i32::try_from(number).expect("a small number") % QUEUES;
        let (properties, body) = (format!("KEYS\u{1}key-{number}\u{2}TAGS\u{1}A\u{2}"), body(number));
        let reply = connection.call(&Request::send(TOPIC, queue_id, &properties, &body));
        let queue = sent.entry(queue_id).or_default();
        let place = (reply.number("queueId"), reply.number("queueOffset"));
        let expected = (Some(i64::from(queue_id)), i64::try_from(queue.len()).ok());
        assert_eq!((reply.code, place), (0, expected), "message {number}: {reply:?}");
        queue.push((properties, body));
    }
}

fn read_queue(connection: &mut Connection, queue_id: i32) -> Vec<Record> {
    let mut read: Vec<Record> = Vec::new();
    loop {
        let offset = i64::try_from(read.len()).expect("an offset");
        let reply = connection.call(&Request::pull(TOPIC, queue_id, offset));
        match reply.code {
            0 => read.extend(records(&reply.body)),
            19 => return read,
            _ => panic!("queue {queue_id} at {offset}: {reply:?}"),
        }
    }
}

fn assert_all_there(connection: &mut Connection, sent: &Sent) {
    for (queue_id, queue) in sent {
        let read = read_queue(connection, *queue_id);
        assert_eq!(read.len(), queue.len(), "messages in queue {queue_id}");
        for (offset, (record, (properties, body))) in read.iter().zip(queue).enumerate() {
            assert_eq!(record.queue_offset, i64::try_from(offset).expect("an offset"), "queue {queue_id}");
            assert!(record.body == *body, "queue {queue_id} at {offset}: another body");
            assert!(record.properties.contains(properties.as_str()), "queue {queue_id} at {offset}: {record:?}");
        }
    }
}

fn assert_code_0(connection: &mut Connection, request: &Request) {
    let reply = connection.call(request);
    assert_eq!(reply.code, 0, "{request:?}: {reply:?}");
}

fn commit(queue_id: i32, offset: i64) -> Request {
    Request::new(code::UPDATE_CONSUMER_OFFSET)
        .ext("consumerGroup", GROUP)
        .ext("topic", TOPIC)
        .ext("queueId", &queue_id.to_string())
        .ext("commitOffset", &offset.to_string())
}

fn committed(connection: &mut Connection, queue_id: i32) -> Option<i64> {
    let request = Request::new(code::QUERY_CONSUMER_OFFSET)
        .ext("consumerGroup", GROUP)
        .ext("topic", TOPIC)
        .ext("queueId", &queue_id.to_string());
    connection.call(&request).number("offset")
}

fn make_topic_and_group(connection: &mut Connection) {
    let topic = Request::new(code::UPDATE_AND_CREATE_TOPIC)
        .ext("topic", TOPIC)
        .ext("defaultTopic", "TBW102")
        .ext("readQueueNums", &QUEUES.to_string())
        .ext("writeQueueNums", &QUEUES.to_string())
        .ext("perm", "6")
        .ext("topicFilterType", "SINGLE_TAG")
        .ext("topicSysFlag", "0")
        .ext("order", "true");
    assert_code_0(connection, &topic);
    let group = format!(r#"{{"groupName":"{GROUP}","consumeEnable":true,"retryQueueNums":2,"retryMaxTimes":5}}"#);
    assert_code_0(connection, &Request::new(code::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP).body(group.as_bytes()));
}

fn assert_topic_and_group_there(connection: &mut Connection) {
    let reply = connection.call(&Request::new(code::GET_TOPIC_CONFIG).ext("topic", TOPIC));
    assert_eq!(reply.code, 0, "{reply:?}");
    let topic: serde_json::Value = serde_json::from_slice(&reply.body).expect("the topic's JSON");
    assert_eq!((&topic["readQueueNums"], &topic["order"]), (&QUEUES.into(), &true.into()), "{topic}");
    let reply = connection.call(&Request::new(code::GET_SUBSCRIPTIONGROUP_CONFIG).ext("group", GROUP));
    assert_eq!(reply.code, 0, "{reply:?}");
    let group: serde_json::Value = serde_json::from_slice(&reply.body).expect("the group's JSON");
    assert_eq!((&group["retryQueueNums"], &group["retryMaxTimes"]), (&2.into(), &5.into()), "{group}");
}

/// A cluster with the topic, the group and [`MESSAGES`] messages.
fn with_messages() -> (Cluster, Connection, Sent) {
    let cluster = Cluster::start(Kind::RingMq);
    let mut connection = Connection::open(&cluster.broker());
    make_topic_and_group(&mut connection);
    let mut sent = Sent::new();
    send_all(&mut connection, &mut sent, 0);
    (cluster, connection, sent)
}

#[test]
fn everything_is_at_its_place_after_kill_9() {
    if !is_for_ringmq() {
        return;
    }
    let mut cluster = Cluster::start(Kind::RingMq);
    let mut connection = Connection::open(&cluster.broker());
    make_topic_and_group(&mut connection);
    let mut sent = Sent::new();
    for round in 0..2 {
        send_all(&mut connection, &mut sent, round * MESSAGES);
        for queue_id in 0..QUEUES {
            assert_code_0(&mut connection, &commit(queue_id, i64::from(queue_id + 10)));
        }
        // A smaller offset counts too: the last one wins, not the largest.
        assert_code_0(&mut connection, &commit(0, 3));
        cluster.crash();
        cluster.restart();
        connection = Connection::open(&cluster.broker());
        assert_all_there(&mut connection, &sent);
        assert_topic_and_group_there(&mut connection);
        let offsets: Vec<_> = (0..QUEUES).map(|queue_id| committed(&mut connection, queue_id)).collect();
        assert_eq!(offsets, [Some(3), Some(11), Some(12)]);
    }
    // And the queues go on where they were.
    send_all(&mut connection, &mut sent, 2 * MESSAGES);
    assert_all_there(&mut connection, &sent);
}

#[test]
fn a_killed_broker_starts_again_at_once() {
    if !is_for_ringmq() {
        return;
    }
    let mut cluster = Cluster::start(Kind::RingMq);
    for _ in 0..20 {
        cluster.broker_process().kill_hard();
        cluster.restart();
    }
}

#[test]
fn everything_is_at_its_place_after_an_orderly_end() {
    if !is_for_ringmq() {
        return;
    }
    let (mut cluster, mut connection, sent) = with_messages();
    assert_code_0(&mut connection, &commit(1, 7));
    cluster.broker_process().terminate();
    cluster.restart();
    let mut connection = Connection::open(&cluster.broker());
    assert_all_there(&mut connection, &sent);
    assert_topic_and_group_there(&mut connection);
    assert_eq!(committed(&mut connection, 1), Some(7));
}

/// Runs `rmq store` on the store; its exit code and what it printed.
fn store_tool(arguments: &[&str], store: &Path) -> (Option<i32>, String) {
    let output = Command::new(rmq()).arg("store").args(arguments).arg(store).output().expect("rmq");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_damaged_log_is_explained_and_repaired_up_to_the_damage() {
    if !is_for_ringmq() {
        return;
    }
    let (mut cluster, _, mut sent) = with_messages();
    // Not stopped: a snapshot would spare the next start reading the log.
    cluster.crash();

    let store = cluster.store();
    let (exit, lines) = store_tool(&["dump", "--json", "--topic", TOPIC, "--queue", "0"], &store);
    let messages: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    let messages: Vec<_> = messages.into_iter().filter(|line| line["kind"] == "message").collect();
    assert_eq!((exit, messages.len()), (Some(0), sent[&0].len()));
    let damaged = &messages[messages.len() / 2];
    let position = damaged["position"].as_u64().expect("a position");
    let segment = store.join(format!("shard-{:02}/log/{:020}", damaged["shard"].as_u64().expect("a shard"), 0));
    let middle = position + damaged["bytes"].as_u64().expect("a size") / 2;
    let file = fs::OpenOptions::new().read(true).write(true).open(&segment).expect("the first segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], middle).expect("a byte");

    let (exit, text) = store_tool(&["check"], &store);
    assert_eq!(exit, Some(5), "{text}");
    let (exit, text) = store_tool(&["repair"], &store);
    let offset = damaged["queueOffset"].as_i64().expect("an offset");
    assert_eq!(exit, Some(5), "{text}");
    assert!(
        text.contains("nothing was changed") && text.contains(&format!("{TOPIC} queue 0: offsets {offset}")),
        "{text}"
    );
    let (exit, text) = store_tool(&["repair", "--yes"], &store);
    assert_eq!(exit, Some(0), "{text}");
    let (exit, text) = store_tool(&["check"], &store);
    assert_eq!(exit, Some(0), "{text}");
    let (exit, text) = store_tool(&["repair"], &store);
    assert!(exit == Some(0) && text.contains("nothing to repair"), "{text}");

    cluster.restart();
    let mut connection = Connection::open(&cluster.broker());
    for (queue_id, queue) in &mut sent {
        let kept = read_queue(&mut connection, *queue_id).len();
        assert!(kept <= queue.len());
        assert!(*queue_id != 0 || i64::try_from(kept) == Ok(offset), "{kept} messages are left of queue 0");
        queue.truncate(kept);
    }
    assert_all_there(&mut connection, &sent);
    send_all(&mut connection, &mut sent, MESSAGES);
    assert_all_there(&mut connection, &sent);
}

/// A name server that takes registrations and writes down what it was asked.
struct Registry {
    address: String,
    /// The request codes that came in, in order.
    asked: Arc<Mutex<Vec<i32>>>,
}

impl Registry {
    /// Answers every request but those of code `unanswered`.
    fn start(unanswered: Option<i32>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&asked);
        // Ends with the test process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let mut peer = Answering::new(stream);
                    while let Some((code, opaque)) = peer.request() {
                        asked.lock().expect("the list").push(code);
                        if Some(code) != unanswered {
                            peer.answer_success(opaque);
                        }
                    }
                });
            }
        });
        Self { address, asked }
    }

    fn has_been_asked(&self, code: i32) -> bool {
        self.asked.lock().expect("the list").contains(&code)
    }

    /// A broker that is registered here.
    fn broker(&self, folder: &Path) -> (Process, String) {
        let port = free_port();
        let file = folder.join("broker.conf");
        let text = format!("brokerIP1=127.0.0.1\nlistenPort={port}\nstorePathRootDir={}/store\n", folder.display());
        fs::write(&file, text).expect("broker.conf is written");
        let mut command = Command::new(rmq());
        command.args(["broker", "-n", &self.address]).arg("-c").arg(&file);
        let process = Process::start("broker", folder, &command);
        process.await_ready("registered broker", || self.has_been_asked(code::REGISTER_BROKER));
        (process, format!("127.0.0.1:{port}"))
    }
}

#[test]
fn a_broker_asked_to_end_unregisters_and_ends_within_seconds() {
    if !is_for_ringmq() {
        return;
    }
    let (registry, folder) = (Registry::start(None), Folder::new());
    let (mut process, broker) = registry.broker(folder.path());
    let mut connection = Connection::open(&broker);
    assert_code_0(&mut connection, &Request::send("ending", 0, "", b"body"));
    // A client that waits for messages does not hold the end up.
    connection.start(&Request::pull("ending", 0, 1).ext("sysFlag", "6").ext("suspendTimeoutMillis", "60000"));
    assert!(!registry.has_been_asked(code::UNREGISTER_BROKER));
    let asked = Instant::now();
    process.ask_to_end();
    let code_of_exit = process.exit_code();
    assert_eq!(code_of_exit, 0, "{}", process.log_tail());
    assert!(asked.elapsed() < END_PATIENCE, "it took {:?}", asked.elapsed());
    assert!(registry.has_been_asked(code::UNREGISTER_BROKER), "{}", process.log_tail());
}

#[test]
fn a_second_sigterm_ends_the_broker_at_once() {
    if !is_for_ringmq() {
        return;
    }
    // The first one waits for the name server to answer.
    let (registry, folder) = (Registry::start(Some(code::UNREGISTER_BROKER)), Folder::new());
    let (mut process, _) = registry.broker(folder.path());
    process.ask_to_end();
    await_condition("the broker to unregister", || registry.has_been_asked(code::UNREGISTER_BROKER));
    assert!(!process.is_ended());
    let asked = Instant::now();
    process.ask_to_end();
    let code_of_exit = process.exit_code();
    assert_eq!(code_of_exit, ENDED_BY_SECOND_SIGTERM, "{}", process.log_tail());
    assert!(asked.elapsed() < Duration::from_secs(1), "it took {:?}", asked.elapsed());
}

#[test]
fn standalone_ends_within_seconds_too() {
    if !is_for_ringmq() {
        return;
    }
    let mut cluster = Cluster::start(Kind::RingMq);
    let asked = Instant::now();
    let process = cluster.broker_process_mut();
    process.ask_to_end();
    let code_of_exit = process.exit_code();
    assert_eq!(code_of_exit, 0, "{}", process.log_tail());
    assert!(asked.elapsed() < END_PATIENCE, "it took {:?}", asked.elapsed());
}

/// A pop of up to 32 messages of queue 0 for `invisible_ms`, held for up to 10 s.
fn pop(connection: &mut Connection, invisible_ms: i64) -> (Vec<Record>, String) {
    let request = Request::new(code::POP_MESSAGE)
        .ext("consumerGroup", GROUP)
        .ext("topic", TOPIC)
        .ext("queueId", "0")
        .ext("maxMsgNums", "32")
        .ext("invisibleTime", &invisible_ms.to_string())
        .ext("pollTime", "10000")
        .ext("initMode", "0");
    let reply = connection.call(&request);
    let start = reply.ext.get("startOffsetInfo").and_then(|info| info.as_str()).unwrap_or_default();
    let start = start.split(' ').next_back().unwrap_or_default();
    let numbers = ["popTime", "invisibleTime", "reviveQid"].map(|key| reply.number(key).unwrap_or(-1).to_string());
    (records(&reply.body), format!("{start} {} 0 broker 0", numbers.join(" ")))
}

#[test]
fn an_acknowledged_pop_stays_so_over_kill_9_and_the_others_return_once() {
    if !is_for_ringmq() {
        return;
    }
    let mut cluster = Cluster::start(Kind::RingMq);
    let mut connection = Connection::open(&cluster.broker());
    for number in 0..20 {
        let reply = connection.call(&Request::send(TOPIC, 0, "", format!("{number:02}").as_bytes()));
        assert_eq!(reply.code, 0, "{}", reply.remark);
    }
    let (taken, receipt) = pop(&mut connection, 3_000);
    assert_eq!(taken.len(), 20);
    for record in taken.iter().filter(|record| record.queue_offset % 2 == 0) {
        let offset = record.queue_offset.to_string();
        let ack = Request::new(code::ACK_MESSAGE)
            .ext("consumerGroup", GROUP)
            .ext("topic", TOPIC)
            .ext("queueId", "0")
            .ext("offset", &offset)
            .ext("extraInfo", &format!("{receipt} {offset}"));
        let reply = connection.call(&ack);
        assert_eq!((reply.code, reply.remark.as_str()), (0, ""));
    }
    let mut again = Vec::new();
    while again.len() < 10 {
        // Each time while some of them are on their way back.
        cluster.crash();
        cluster.restart();
        connection = Connection::open(&cluster.broker());
        again.extend(pop(&mut connection, 60_000).0);
    }
    again.extend(pop(&mut connection, 60_000).0);
    let mut bodies: Vec<_> = again.iter().map(|record| String::from_utf8_lossy(&record.body).into_owned()).collect();
    bodies.sort_unstable();
    let expected: Vec<_> = (0..20).filter(|number| number % 2 == 1).map(|number| format!("{number:02}")).collect();
    assert_eq!(bodies, expected);
}
