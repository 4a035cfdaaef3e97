//! Connections that say nothing, and clients that do not listen: nobody else notices, and memory stays bounded.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rmq_tests::remoting::{Connection, Request};
use rmq_tests::{Cluster, Kind, await_condition, is_for_ringmq};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::bystander::Bystander;

/// Unless `RMQ_TEST_SILENT_CONNECTIONS` says otherwise.
const SILENT_CONNECTIONS: usize = 2_000;
const BYTES_PER_SILENT_CONNECTION: u64 = 24 * 1024;
const DEAF_CLIENTS: usize = 8;
/// Connections that stop in the middle of a frame of nearly 16 MiB: 0.8 GB, were they all to get their buffer.
const UNFINISHED_FRAMES: usize = 50;
const UNFINISHED_FRAME_BYTES: usize = 16_000_000;
/// If the broker reads this many requests of a client that takes no answer, it reads without end.
const UNREAD_REQUESTS_MAX: usize = 200_000;
const RESIDENT_BYTES_MAX: u64 = 600 << 20;

/// As many open files as this process may have; the servers it starts inherit that.
fn raise_open_files() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("the soft limit rises to the hard one");
    limit.maximum.map_or(usize::MAX, |maximum| usize::try_from(maximum).unwrap_or(usize::MAX))
}

#[test]
fn silent_connections_cost_little_and_harm_nobody() {
    if !is_for_ringmq() {
        return;
    }
    let count = std::env::var("RMQ_TEST_SILENT_CONNECTIONS")
        .map_or(SILENT_CONNECTIONS, |count| count.parse().expect("RMQ_TEST_SILENT_CONNECTIONS is a number"));
    let open_files = raise_open_files();
    assert!(count + 500 < open_files, "{count} connections need more than {open_files} open files");
    let cluster = Cluster::start(Kind::RingMq);
    let broker = cluster.broker_process();
    let mut bystander = Bystander::connect(&cluster.broker(), "silent");
    let (before_bytes, before_files) = (broker.resident_bytes(), broker.open_file_count());
    let mut silent = Vec::with_capacity(count);
    for number in 0..count {
        silent.push(TcpStream::connect(cluster.broker()).expect("the broker accepts"));
        if number % 500 == 499 {
            bystander.check();
        }
    }
    await_condition("the broker to accept them all", || count <= broker.open_file_count() - before_files);
    bystander.check();
    let each = broker.resident_bytes().saturating_sub(before_bytes) / count as u64;
    println!("{count} silent connections: {each} bytes each");
    assert!(each < BYTES_PER_SILENT_CONNECTION, "{each} bytes for each of {count} connections");
    drop(silent);
    await_condition("the broker to close them all", || broker.open_file_count() <= before_files + 10);
    bystander.check();
}

#[test]
fn clients_that_never_read_small_messages_are_not_read_either() {
    if is_for_ringmq() {
        // 32 of them fill a pull's answer to its 256 KiB.
        assert_deaf_clients_are_bounded(128, 8 * 1024);
    }
}

#[test]
fn clients_that_never_read_large_messages_are_not_read_either() {
    if is_for_ringmq() {
        assert_deaf_clients_are_bounded(40, 4 << 20);
    }
}

fn assert_deaf_clients_are_bounded(message_count: usize, message_bytes: usize) {
    let cluster = Cluster::start(Kind::RingMq);
    let mut sender = Connection::open(&cluster.broker());
    let body = vec![b'x'; message_bytes];
    for _ in 0..message_count {
        assert_eq!(sender.call(&Request::send("backlog", 0, "", &body)).code, 0);
    }
    let mut bystander = Bystander::connect(&cluster.broker(), "deaf");
    let pulls: Vec<Vec<u8>> =
        (0..message_count as i64).map(|offset| Request::pull("backlog", 0, offset).frame(1)).collect();
    let mut deaf = Vec::new();
    for _ in 0..DEAF_CLIENTS {
        let mut stream = TcpStream::connect(cluster.broker()).expect("the broker accepts");
        stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a write timeout");
        let requests = unread_requests(&mut stream, &pulls);
        assert!(requests < UNREAD_REQUESTS_MAX, "the broker reads on although nobody takes its answers");
        bystander.check();
        let resident_bytes = cluster.broker_process().resident_bytes();
        println!("a deaf client could write {requests} pulls; {} MiB resident", resident_bytes >> 20);
        assert!(resident_bytes < RESIDENT_BYTES_MAX, "{resident_bytes} bytes resident with {} of them", deaf.len() + 1);
        deaf.push(stream);
    }
    let asked = Instant::now();
    bystander.check();
    assert!(asked.elapsed() < Duration::from_secs(5), "the bystander waited {:?}", asked.elapsed());
    drop(deaf);
    bystander.check();
}

#[test]
fn frames_that_never_end_are_bounded_in_memory() {
    if !is_for_ringmq() {
        return;
    }
    let cluster = Cluster::start(Kind::RingMq);
    let mut bystander = Bystander::connect(&cluster.broker(), "unfinished");
    let unfinished = start_unfinished(&cluster.broker(), UNFINISHED_FRAMES, UNFINISHED_FRAME_BYTES);
    let resident_bytes = cluster.broker_process().resident_bytes();
    println!("{UNFINISHED_FRAMES} unfinished frames: {} MiB resident", resident_bytes >> 20);
    assert!(resident_bytes < RESIDENT_BYTES_MAX, "{resident_bytes} bytes resident");
    bystander.check();
    let newcomer = Connection::open(&cluster.broker()).call(&Request::new(9999));
    assert_eq!(newcomer.code, 3, "{newcomer:?}");
    drop(unfinished);
    bystander.check();
    let large = vec![b'x'; 4 << 20];
    let sent = Connection::open(&cluster.broker()).call(&Request::send("unfinished", 0, "", &large));
    assert_eq!(sent.code, 0, "{sent:?}");
}

#[test]
fn unfinished_frames_do_not_hold_up_large_frames_of_others() {
    if !is_for_ringmq() {
        return;
    }
    let cluster = Cluster::start(Kind::RingMq);
    // Of a size that leaves no room between the frames that are taken and the bound.
    let unfinished = start_unfinished(&cluster.broker(), 2 * UNFINISHED_FRAMES, 4_190_000);
    let mut connection = Connection::open(&cluster.broker());
    let asked = Instant::now();
    let sent = connection.call(&Request::send("held_up", 0, "", &vec![b'x'; 4 << 20]));
    assert_eq!(sent.code, 0, "{sent:?}");
    assert!(asked.elapsed() < Duration::from_secs(10), "it took {:?}", asked.elapsed());
    drop(unfinished);
}

/// Connections that have sent all of a frame but its end, or as much of it as the broker takes.
fn start_unfinished(broker: &str, count: usize, body_bytes: usize) -> Vec<TcpStream> {
    let whole = Request::send("unfinished", 0, "", &vec![b'x'; body_bytes]).frame(1);
    std::thread::scope(|scope| {
        let connect = || {
            let mut stream = TcpStream::connect(broker).expect("the broker accepts");
            stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a write timeout");
            // A timeout is right too: how much the broker takes is its own choice.
            let _ = stream.write_all(&whole[..whole.len() - 1]);
            stream
        };
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(connect)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a connection")).collect()
    })
}

/// Asks again and again, until the socket takes nothing more; returns how often.
fn unread_requests(stream: &mut TcpStream, requests: &[Vec<u8>]) -> usize {
    for (count, request) in requests.iter().cycle().take(UNREAD_REQUESTS_MAX).enumerate() {
        match stream.write_all(request) {
            Ok(()) => {}
            // Not read any more, or closed: both are right.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ) =>
            {
                return count;
            }
            Err(error) => panic!("after {count} requests: {error}"),
        }
    }
    UNREAD_REQUESTS_MAX
}
