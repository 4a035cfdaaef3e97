//! A name server for tests of its clients.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rmq_net::codes::response;
use rmq_net::frame::{Frame, Serialization, frame_size};
use rmq_net::reply::FrameWriter;

#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    pub code: i32,
    pub body: Vec<u8>,
}

/// How a name server of a test treats its brokers.
#[derive(Clone, Copy)]
pub enum Manner {
    Answers(&'static str),
    Refuses(i32),
    /// Accepts, reads and says nothing.
    Silent,
    /// Sends an answer's bytes one by one, each soon after the one before, and never all of them.
    Drips,
}

/// A name server on a free port. Ends with the connections to it.
pub fn name_server(manner: Manner) -> (String, Receiver<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let (asked, requests) = channel();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let asked = asked.clone();
            std::thread::spawn(move || serve(stream, manner, &asked));
        }
    });
    (address, requests)
}

/// Until the client is gone.
fn serve(mut stream: TcpStream, manner: Manner, asked: &Sender<Asked>) -> Option<()> {
    loop {
        let mut bytes = vec![0; 4];
        stream.read_exact(&mut bytes).ok()?;
        bytes.resize(frame_size(&bytes).ok()??, 0);
        stream.read_exact(&mut bytes[4..]).ok()?;
        let frame = Frame::decode(&bytes).expect("clients write frames");
        asked.send(Asked { code: frame.code, body: frame.body.to_vec() }).ok()?;
        match manner {
            Manner::Silent => {}
            Manner::Drips => {
                let _ = stream.write_all(&1000_i32.to_be_bytes());
                while stream.write_all(b" ").is_ok() {
                    std::thread::sleep(Duration::from_millis(50));
                }
                return None;
            }
            Manner::Answers(body) => answer(&mut stream, frame.opaque, response::SUCCESS, body)?,
            Manner::Refuses(code) => answer(&mut stream, frame.opaque, code, "")?,
        }
    }
}

fn answer(stream: &mut TcpStream, opaque: i32, code: i32, body: &str) -> Option<()> {
    let mut answer = Vec::new();
    FrameWriter::response(&mut answer, Serialization::Json, code, opaque, None, body.len(), |_| ());
    answer.extend_from_slice(body.as_bytes());
    stream.write_all(&answer).ok()
}
