//! Frames that are none: cut off, of wrong lengths, of unknown kinds, random.

use std::net::Shutdown;
use std::time::Duration;

use rmq_tests::remoting::{Connection, Request, frame};

use crate::bystander::Bystander;
use crate::{addresses, assert_refused, cluster, connect};

/// RocketMQ: a frame with its length field has at most 16 MiB.
const FRAME_BYTES_MAX: i32 = 16 << 20;
const RANDOM_FRAMES: u32 = 200;
const SEED: u64 = 20_240_517;
/// A server closes a connection at once, not when it has been idle for 120 s.
const PATIENCE: Duration = Duration::from_secs(20);

fn bystander(test: &str) -> Bystander {
    Bystander::connect(&cluster().broker(), test)
}

#[track_caller]
fn assert_closes(what: &str, bytes: &[u8]) {
    for address in addresses() {
        let mut connection = Connection::open(&address);
        // The server may close while we still write.
        let _ = connection.write(bytes);
        assert!(connection.is_closed_within(PATIENCE), "{what}: {address} leaves the connection open");
    }
}

/// A frame's start with these two numbers, and enough after it that no server waits for more to see what it is.
fn start(length: i32, header_info: u32) -> Vec<u8> {
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(&header_info.to_be_bytes());
    bytes.resize(64, b' ');
    bytes
}

#[test]
fn a_frame_cut_off_anywhere_harms_nobody() {
    let mut bystander = bystander("cut_off");
    let whole = Request::send("cut_off", 0, "KEYS\u{1}k\u{2}", b"never stored").frame(1);
    for size in [1, 3, 4, 7, 8, 9, 100, whole.len() - 1] {
        let mut connection = connect();
        connection.write(&whole[..size]).expect("a part of a frame is written");
        connection.stream().shutdown(Shutdown::Write).expect("our half is closed");
        assert!(connection.is_closed_within(PATIENCE), "{size} bytes and then nothing: the connection stays open");
        let mut connection = connect();
        connection.write(&whole[..size]).expect("a part of a frame is written");
        drop(connection);
    }
    bystander.check();
    let pulled = connect().call(&Request::pull("cut_off", 0, 0));
    assert!([17, 19].contains(&pulled.code), "nothing of a part is stored: {pulled:?}");
}

#[test]
fn lengths_that_cannot_be_close_the_connection() {
    let mut bystander = bystander("lengths");
    for length in [FRAME_BYTES_MAX - 3, FRAME_BYTES_MAX + 1, i32::MAX, 0, -1, i32::MIN, 1, 3] {
        assert_closes(&format!("length {length}"), &start(length, 0));
        bystander.check();
    }
}

#[test]
fn a_header_longer_than_its_frame_closes_the_connection() {
    let mut bystander = bystander("header_lengths");
    for header_length in [57, 1000, 0x00FF_FFFF] {
        assert_closes(&format!("header of {header_length} bytes in 56"), &start(60, header_length));
        // The same in the binary form, type 1.
        assert_closes(&format!("binary header of {header_length} bytes"), &start(60, 1 << 24 | header_length));
    }
    bystander.check();
}

#[test]
fn an_unknown_serialisation_closes_the_connection() {
    let mut bystander = bystander("serialisation");
    for kind in [2_u8, 3, 127, 128, 255] {
        let mut bytes = Request::new(9999).frame(1);
        bytes[4] = kind;
        assert_closes(&format!("serialisation {kind}"), &bytes);
    }
    bystander.check();
}

#[test]
fn the_largest_frame_is_read() {
    let mut connection = connect();
    let request = Request::new(9999);
    let header_bytes = request.header(1).len();
    let body = vec![7; usize::try_from(FRAME_BYTES_MAX).expect("a size") - 8 - header_bytes];
    let reply = connection.call(&request.body(&body));
    assert_refused(&reply, 3, &["9999"]);
    assert_refused(&connection.call(&Request::new(9999)), 3, &["9999"]);
}

#[test]
fn headers_that_are_no_header_close_the_connection() {
    let mut bystander = bystander("no_header");
    for header in ["", "[]", "{", "junk", "\"text\"", r#"{"code":9999,"opaque":9999999999}"#, "{\"code\":\u{0}}"] {
        let mut bytes = frame(header, b"");
        // Enough after it that no server waits for more.
        bytes.extend_from_slice(&Request::new(9999).frame(1));
        assert_closes(&format!("header {header:?}"), &bytes);
    }
    bystander.check();
}

#[test]
fn binary_headers_of_wrong_lengths_close_the_connection() {
    let mut bystander = bystander("binary");
    // Remark length, length of all fields, key length, value length of the one field "k" = "v".
    let mut connection = connect();
    connection.write(&binary(0, 8, 1, 1)).expect("the request is written");
    assert_refused(&connection.reply().expect("an answer"), 3, &["9999"]);
    // A negative length of all fields is not among them: Apache's broker takes it for none, and answers.
    let cases = [
        (-1, 8, 1, 1),
        (i32::MIN, 8, 1, 1),
        (9, 8, 1, 1),
        (i32::MAX, 8, 1, 1),
        (0, 1000, 1, 1),
        (0, i32::MAX, 1, 1),
        (0, 8, -1, 1),
        (0, 8, 100, 1),
        (0, 8, 1, -1),
        (0, 8, 1, 2),
        (0, 8, 1, i32::MAX),
    ];
    for (remark, ext, key, value) in cases {
        let mut bytes = binary(remark, ext, key, value);
        bytes.extend_from_slice(&Request::new(9999).frame(1));
        assert_closes(&format!("remark {remark}, fields {ext}, key {key}, value {value}"), &bytes);
    }
    bystander.check();
}

/// A request 9999 with a binary header whose lengths are as given, whatever follows them.
fn binary(remark_length: i32, ext_length: i32, key_length: i16, value_length: i32) -> Vec<u8> {
    let mut header = 9999_i16.to_be_bytes().to_vec();
    header.push(0); // language
    header.extend_from_slice(&513_i16.to_be_bytes()); // version
    header.extend_from_slice(&1_i32.to_be_bytes()); // opaque
    header.extend_from_slice(&0_i32.to_be_bytes()); // flag
    header.extend_from_slice(&remark_length.to_be_bytes());
    header.extend_from_slice(&ext_length.to_be_bytes());
    header.extend_from_slice(&key_length.to_be_bytes());
    header.push(b'k');
    header.extend_from_slice(&value_length.to_be_bytes());
    header.push(b'v');
    let size = u32::try_from(header.len()).expect("a small header");
    let mut frame = (4 + size).to_be_bytes().to_vec();
    frame.extend_from_slice(&(1 << 24 | size).to_be_bytes());
    frame.extend_from_slice(&header);
    frame
}

#[test]
fn random_frames_harm_nobody() {
    let mut bystander = bystander("random");
    let mut random = Random(SEED);
    for number in 0..RANDOM_FRAMES {
        let bytes = random.frame(number % 4);
        let start = &bytes[..16];
        for address in addresses() {
            let mut connection = Connection::open(&address);
            let _ = connection.write(&bytes);
            // It may be closed already.
            let _ = connection.stream().shutdown(Shutdown::Write);
            let is_closed = connection.is_closed_within(PATIENCE);
            assert!(is_closed, "{address}: frame {number} of seed {SEED}, {start:?} ..: stays open");
        }
        if number % 20 == 19 {
            bystander.check();
        }
    }
}

/// Xorshift: the same frames in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> usize {
        usize::try_from(self.next() % bound).expect("a size")
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_be_bytes()).flatten().take(count).collect()
    }

    /// `kind` 0: bytes; 1: a true length, then bytes; 2: a true length and header length too; 3: a good send with
    /// some bytes changed.
    fn frame(&mut self, kind: u32) -> Vec<u8> {
        let size = 16 + self.below(2_000);
        let mut bytes = self.bytes(size);
        let length = |size: usize| u32::try_from(size).expect("a length").to_be_bytes();
        match kind {
            0 => {}
            1 => bytes[..4].copy_from_slice(&length(size - 4)),
            2 => {
                let header = self.below((size - 8) as u64 + 1);
                bytes[..4].copy_from_slice(&length(size - 4));
                bytes[4..8].copy_from_slice(&length(header));
                bytes[4] = (self.next() & 1) as u8;
            }
            _ => {
                bytes = Request::send("random_frames", 0, "KEYS\u{1}k\u{2}", &bytes).frame(1);
                for _ in 0..=self.below(8) {
                    let at = 8 + self.below(bytes.len() as u64 - 8);
                    bytes[at] = self.next() as u8;
                }
            }
        }
        bytes
    }
}
