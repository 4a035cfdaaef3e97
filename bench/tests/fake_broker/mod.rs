//! A name server and broker in a few lines: it stores bodies in memory and serves them as records.
//! Tests make it misbehave through [`Mood`].

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};

/// What is wrong with the broker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Healthy,
    /// Flips one bit in the third message of every queue.
    Corrupting,
    /// Swaps the third and the fourth message of every queue.
    Reordering,
    /// Refuses every send.
    Refusing,
    /// Closes the connection at the tenth send.
    Closing,
    /// Pops every message twice.
    PoppingTwice,
    /// Lets nobody lock a queue.
    Locked,
    /// Answers the tenth send after this many milliseconds, and nothing in between.
    Stalling(u64),
}

#[derive(Default)]
struct Store {
    /// Bodies by queue.
    queues: Vec<Vec<Vec<u8>>>,
    /// Queue and body of half messages that are not committed yet.
    halves: Vec<Option<(usize, Vec<u8>)>>,
    /// Where the next pop of each queue starts.
    popped: Vec<usize>,
    pops: u64,
    /// Offsets whose acknowledgement is still to come, with their queue.
    unacknowledged: BTreeSet<(i64, i64)>,
    sends: u64,
}

/// Serves on a port of the loopback interface until the process ends.
pub fn start(mood: Mood) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let store = Arc::new(Mutex::new(Store { queues: vec![Vec::new(); 4], popped: vec![0; 4], ..Store::default() }));
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let store = store.clone();
            let socket = socket.unwrap();
            std::thread::spawn(move || serve(socket, address, mood, &store));
        }
    });
    address
}

fn serve(mut socket: TcpStream, address: SocketAddr, mood: Mood, store: &Mutex<Store>) {
    let mut input = Vec::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        let count = match socket.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        input.extend_from_slice(&chunk[..count]);
        let mut output = Vec::new();
        let mut at = 0;
        while let Some(length) = input.get(at..at + 4) {
            let size = 4 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
            let Some(frame) = input.get(at..at + size) else {
                break;
            };
            match answer(frame, address, mood, store) {
                Some(reply) => output.extend_from_slice(&reply),
                None => return,
            }
            at += size;
        }
        input.drain(..at);
        if socket.write_all(&output).is_err() {
            return;
        }
    }
}

/// The reply to one frame; `None` closes the connection.
fn answer(frame: &[u8], address: SocketAddr, mood: Mood, store: &Mutex<Store>) -> Option<Vec<u8>> {
    let header_bytes = u32::from_be_bytes(frame[4..8].try_into().unwrap()) as usize;
    let (header, body) = frame[8..].split_at(header_bytes);
    let header: Value = serde_json::from_slice(header).unwrap();
    let ext = &header["extFields"];
    let int = |key: &str| ext[key].as_str().unwrap().parse::<i64>().unwrap();
    let broker = json!({"brokerAddrs": {"0": address.to_string()}, "brokerName": "fake"});
    let ok = |ext: Value, body: Vec<u8>| Some(reply(&header, 0, "", ext, &body));
    match header["code"].as_i64().unwrap() {
        17 => ok(json!({}), Vec::new()),
        105 => {
            let queues = json!([{"brokerName": "fake", "perm": 6, "readQueueNums": 4, "writeQueueNums": 4}]);
            let route = json!({"brokerDatas": [broker], "queueDatas": queues});
            ok(json!({}), route.to_string().into_bytes())
        }
        106 => {
            // As the reference writes it: the broker id is an integer key without quotes.
            let text =
                format!(r#"{{"brokerAddrTable":{{"fake":{{"brokerAddrs":{{0:"{address}"}},"brokerName":"fake"}}}}}}"#);
            ok(json!({}), text.into_bytes())
        }
        31 => ok(json!({"offset": "0"}), Vec::new()),
        30 => {
            let count = store.lock().unwrap().queues[int("queueId") as usize].len();
            ok(json!({"offset": count.to_string()}), Vec::new())
        }
        code @ (310 | 320) => {
            let mut store = store.lock().unwrap();
            store.sends += 1;
            match mood {
                Mood::Refusing => {
                    let remark = format!("[REJECT] \"busy\" for {} ms", store.sends);
                    return Some(reply(&header, 2, &remark, json!({}), b""));
                }
                Mood::Closing if store.sends == 10 => return None,
                Mood::Stalling(ms) if store.sends == 10 => {
                    std::thread::sleep(Duration::from_millis(ms));
                }
                _ => {}
            }
            let queue_id = int("e") as usize;
            if ext["i"].as_str().unwrap().contains("TRAN_MSG\u{1}true") {
                assert_eq!(ext["f"], "4");
                store.halves.push(Some((queue_id, body.to_vec())));
                let at = store.halves.len() - 1;
                let ext = json!({"queueId": "0", "queueOffset": at.to_string(), "msgId": format!("7F000001000015B3{at:016X}")});
                return Some(reply(&header, 0, "", ext, b""));
            }
            let queue = &mut store.queues[queue_id];
            if code == 310 {
                queue.push(body.to_vec());
            } else {
                push_items(queue, body);
            }
            ok(json!({"queueId": ext["e"], "msgId": "00"}), Vec::new())
        }
        11 => {
            let store = store.lock().unwrap();
            let (queue_id, offset) = (int("queueId"), int("queueOffset") as usize);
            let queue = &store.queues[queue_id as usize];
            let end = queue.len().min(offset + int("maxMsgNums") as usize);
            let mut records = Vec::new();
            // The only expression this broker knows passes one message in ten.
            let is_filtered = ext["expressionType"] == "SQL92";
            assert!(!is_filtered || ext["subscription"] == "number < 1000");
            for at in (offset..end).filter(|at| !is_filtered || at % 10 == 0) {
                push_record(&mut records, queue, queue_id, at, mood);
            }
            let code = match (offset == end, records.is_empty()) {
                (true, _) => 19,
                (false, true) => 20,
                (false, false) => 0,
            };
            let ext = json!({"nextBeginOffset": end.to_string(), "minOffset": "0"});
            Some(reply(&header, code, "", ext, &records))
        }
        37 => {
            let mut store = store.lock().unwrap();
            assert_eq!((int("commitOrRollback"), int("tranStateTableOffset")), (8, int("commitLogOffset")));
            let (queue_id, body) = store.halves[int("commitLogOffset") as usize].take().expect("committed once");
            store.queues[queue_id].push(body);
            ok(json!({}), Vec::new())
        }
        41 => {
            let request: Value = serde_json::from_slice(body).unwrap();
            let queues = if mood == Mood::Locked { json!([]) } else { request["mqSet"].clone() };
            ok(json!({}), json!({"lockOKMQSet": queues}).to_string().into_bytes())
        }
        200_050 => Some(pop(&header, int("maxMsgNums") as usize, mood, &mut store.lock().unwrap())),
        200_051 => {
            let handle = ext["extraInfo"].as_str().unwrap();
            assert!(handle.ends_with(&format!("1700000000000 60000 3 0 fake {} {}", int("queueId"), int("offset"))));
            let was_popped = store.lock().unwrap().unacknowledged.remove(&(int("queueId"), int("offset")));
            assert!(was_popped || mood == Mood::PoppingTwice);
            ok(json!({}), Vec::new())
        }
        code => panic!("the fake broker does not know request {code}"),
    }
}

/// A pop takes from all queues at once.
fn pop(header: &Value, count_max: usize, mood: Mood, store: &mut Store) -> Vec<u8> {
    store.pops += 1;
    let is_repeated = mood == Mood::PoppingTwice && store.pops % 2 == 1;
    let (mut count, mut records, mut starts, mut offsets) = (count_max, Vec::new(), Vec::new(), Vec::new());
    for queue_id in 0..store.queues.len() {
        let start = store.popped[queue_id];
        let end = store.queues[queue_id].len().min(start + count);
        if start == end {
            continue;
        }
        for at in start..end {
            push_record(&mut records, &store.queues[queue_id], queue_id as i64, at, mood);
            store.unacknowledged.insert((queue_id as i64, at as i64));
        }
        count -= end - start;
        store.popped[queue_id] = if is_repeated { start } else { end };
        starts.push(format!("0 {queue_id} {start}"));
        let list: Vec<_> = (start..end).map(|at| at.to_string()).collect();
        offsets.push(format!("0 {queue_id} {}", list.join(",")));
    }
    let ext = json!({
        "popTime": "1700000000000", "invisibleTime": "60000", "reviveQid": "3", "restNum": "0",
        "startOffsetInfo": starts.join(";"), "msgOffsetInfo": offsets.join(";"),
    });
    reply(header, if records.is_empty() { 210 } else { 0 }, "", ext, &records)
}

fn push_items(queue: &mut Vec<Vec<u8>>, mut items: &[u8]) {
    while !items.is_empty() {
        let field = |at: usize| u32::from_be_bytes(items[at..at + 4].try_into().unwrap()) as usize;
        queue.push(items[20..20 + field(16)].to_vec());
        items = &items[field(0)..];
    }
}

fn push_record(out: &mut Vec<u8>, queue: &[Vec<u8>], queue_id: i64, at: usize, mood: Mood) {
    let source = match (mood, at) {
        (Mood::Reordering, 2) => 3,
        (Mood::Reordering, 3) => 2,
        _ => at,
    };
    let mut body = queue[source].clone();
    if mood == Mood::Corrupting && at == 2 {
        *body.last_mut().unwrap() ^= 1;
    }
    let start = out.len();
    out.resize(start + 88, 0);
    let record = &mut out[start..];
    record[4..8].copy_from_slice(&0xdaa3_20a7u32.to_be_bytes());
    let crc = crc32fast::hash(&body) & 0x7fff_ffff;
    record[8..12].copy_from_slice(&crc.to_be_bytes());
    record[12..16].copy_from_slice(&(queue_id as u32).to_be_bytes());
    record[20..28].copy_from_slice(&(at as u64).to_be_bytes());
    record[84..88].copy_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(&body);
    out.extend_from_slice(b"\x01T\x00\x00");
    let size = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// A reply as the reference encoder writes it: members in alphabetical order.
fn reply(request: &Value, code: i32, remark: &str, ext: Value, body: &[u8]) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("code".to_owned(), json!(code));
    header.insert("extFields".to_owned(), ext);
    header.insert("flag".to_owned(), json!(1));
    header.insert("language".to_owned(), json!("JAVA"));
    header.insert("opaque".to_owned(), request["opaque"].clone());
    if !remark.is_empty() {
        header.insert("remark".to_owned(), json!(remark));
    }
    header.insert("version".to_owned(), json!(513));
    let header = Value::Object(header).to_string();
    let mut frame = ((4 + header.len() + body.len()) as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&(header.len() as u32).to_be_bytes());
    frame.extend_from_slice(header.as_bytes());
    frame.extend_from_slice(body);
    frame
}
