//! Answers every send at once and stores nothing: what the load generator itself costs.
//!
//! Start it, then point `rmq-bench producer --broker ADDRESS` at the address it prints; JSON headers
//! only. The replies are as long as those of a broker.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

const HEAD: &[u8] = br#"{"code":0,"extFields":{"MSG_REGION":"DefaultRegion","TRACE_ON":"true","msgId":"7F00000100002A9F00000000000003E8","queueId":"3","queueOffset":"123456","transactionId":"00000007000000010000000000000053"},"flag":1,"language":"JAVA","opaque":"#;
const TAIL: &[u8] = br#","serializeTypeCurrentRPC":"JSON","version":513}"#;
/// Opaques of `rmq-bench` all have this many digits.
const OPAQUE_DIGITS: usize = 10;

fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for socket in listener.incoming() {
        let socket = socket?;
        std::thread::spawn(move || serve(socket));
    }
    Ok(())
}

fn serve(mut socket: TcpStream) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut input = vec![0; 1 << 20];
    let mut filled = 0;
    let mut output = Vec::new();
    loop {
        match socket.read(&mut input[filled..]) {
            Ok(0) | Err(_) => return None,
            Ok(count) => filled += count,
        }
        let mut rest = &input[..filled];
        while let Some(frame) = whole_frame(rest) {
            answer(&mut output, frame)?;
            rest = &rest[frame.len()..];
        }
        let start = filled - rest.len();
        input.copy_within(start..filled, 0);
        filled -= start;
        socket.write_all(&output).ok()?;
        output.clear();
    }
}

fn whole_frame(bytes: &[u8]) -> Option<&[u8]> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?) as usize;
    bytes.get(..length + 4)
}

fn answer(output: &mut Vec<u8>, frame: &[u8]) -> Option<()> {
    let header_bytes = u32::from_be_bytes(*frame.get(4..)?.first_chunk()?) as usize;
    let header = frame.get(8..8 + header_bytes)?;
    let name = b"\"opaque\":";
    let at = memchr::memmem::rfind(header, name)? + name.len();
    let length = HEAD.len() + OPAQUE_DIGITS + TAIL.len();
    output.extend_from_slice(&(length as u32 + 4).to_be_bytes());
    output.extend_from_slice(&(length as u32).to_be_bytes());
    output.extend_from_slice(HEAD);
    output.extend_from_slice(header.get(at..at + OPAQUE_DIGITS)?);
    output.extend_from_slice(TAIL);
    Some(())
}
