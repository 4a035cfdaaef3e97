//! Keeps the broker registered at its name servers, from a service thread of its own: a name server that
//! is slow or gone costs no core anything.
//!
//! Registers at start, every `registerNameServerPeriod`, and at once when a topic changes; unregisters when
//! the process stops. One connection per name server is kept open, because a name server drops a broker
//! whose connection closes.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rmq_net::codes::{request, response};
use rmq_net::frame::{Frame, Serialization, frame_size};
use rmq_net::reply::FrameWriter;

/// How long one connect or one answer may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Who registers, and where.
#[derive(Clone, Debug)]
pub struct Registration {
    pub cluster_name: String,
    pub broker_name: String,
    pub broker_id: i64,
    /// `ip:port` clients connect to.
    pub broker_address: String,
    /// `ip:port` of the (future) replication port; RocketMQ's listen port + 1.
    pub ha_address: String,
    pub name_servers: Vec<String>,
    pub period: Duration,
    pub answer_timeout: Duration,
}

enum Message {
    /// The JSON body of REGISTER_BROKER: every topic and the data version.
    Topics(Bytes),
    Stop,
}

/// The handle the system core keeps. Dropping it without [`stop_soon`](Self::stop_soon) leaves
/// the name servers to notice the closed connection.
pub struct Registrar {
    messages: Sender<Message>,
}

impl Registrar {
    pub fn start(registration: Registration) -> io::Result<(Self, RegistrarEnd)> {
        let (messages, inbox) = channel();
        let thread = std::thread::Builder::new()
            .name("rmq-registrar".into())
            .spawn(move || Worker::new(registration).run(&inbox))?;
        Ok((Self { messages }, RegistrarEnd(thread)))
    }

    /// Registers with this body at once and from now on.
    pub fn topics_changed(&self, body: Vec<u8>) {
        // The thread ends only after `stop_soon`, so there is nobody left who could miss this.
        let _ = self.messages.send(Message::Topics(body.into()));
    }

    /// Asks the thread to unregister everywhere and to end; does not wait for it.
    pub fn stop_soon(&self) {
        let _ = self.messages.send(Message::Stop);
    }
}

/// Waits for the end of the registration thread; kept by whoever waits for the cores.
pub struct RegistrarEnd(JoinHandle<()>);

impl RegistrarEnd {
    pub fn wait(self) {
        if self.0.join().is_err() {
            tracing::error!("the registration thread had panicked");
        }
    }
}

struct NameServer {
    address: String,
    stream: Option<TcpStream>,
    /// Whether the last attempt failed, so that only changes are logged.
    is_failing: bool,
}

struct Worker {
    registration: Registration,
    name_servers: Vec<NameServer>,
    body: Option<Bytes>,
    next_opaque: i32,
}

impl Worker {
    fn new(registration: Registration) -> Self {
        let name_servers = registration
            .name_servers
            .iter()
            .map(|address| NameServer { address: address.clone(), stream: None, is_failing: false })
            .collect();
        Self { registration, name_servers, body: None, next_opaque: 0 }
    }

    fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            match inbox.recv_timeout(self.registration.period) {
                Ok(Message::Topics(body)) => {
                    self.body = Some(body);
                    // Several changes in a row: only the last one matters.
                    while let Ok(message) = inbox.try_recv() {
                        match message {
                            Message::Topics(body) => self.body = Some(body),
                            Message::Stop => return self.unregister_everywhere(),
                        }
                    }
                    self.register_everywhere();
                }
                Err(RecvTimeoutError::Timeout) => self.register_everywhere(),
                Ok(Message::Stop) => return self.unregister_everywhere(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn register_everywhere(&mut self) {
        let Some(body) = self.body.clone() else { return };
        self.everywhere("register", request::REGISTER_BROKER, &body);
    }

    fn unregister_everywhere(&mut self) {
        self.everywhere("unregister", request::UNREGISTER_BROKER, &[]);
    }

    fn everywhere(&mut self, what: &str, code: i32, body: &[u8]) {
        for index in 0..self.name_servers.len() {
            self.next_opaque = self.next_opaque.wrapping_add(1);
            let opaque = self.next_opaque;
            let frame = self.frame(code, opaque, body);
            let timeout = self.registration.answer_timeout;
            let server = &mut self.name_servers[index];
            let outcome = server.call(&frame, opaque, timeout);
            match &outcome {
                Err(error) if !server.is_failing => {
                    tracing::warn!(name_server = %server.address, %error, "could not {what} at the name server; will keep trying");
                }
                Ok(()) if server.is_failing => tracing::info!(name_server = %server.address, "name server is back"),
                _ => {}
            }
            server.is_failing = outcome.is_err();
        }
    }

    fn frame(&self, code: i32, opaque: i32, body: &[u8]) -> Vec<u8> {
        let me = &self.registration;
        let mut frame = Vec::with_capacity(body.len() + 512);
        FrameWriter::request(&mut frame, Serialization::Json, code, opaque, false, body.len(), |ext| {
            if code == request::REGISTER_BROKER {
                ext.int("bodyCrc32", i64::from(crc32fast::hash(body) & 0x7fff_ffff));
            }
            ext.text("brokerAddr", &me.broker_address);
            ext.int("brokerId", me.broker_id);
            ext.text("brokerName", &me.broker_name);
            ext.text("clusterName", &me.cluster_name);
            if code == request::REGISTER_BROKER {
                ext.bool("compressed", false);
                ext.bool("enableActingMaster", false);
                ext.text("haServerAddr", &me.ha_address);
            }
        });
        frame.extend_from_slice(body);
        frame
    }
}

impl NameServer {
    fn call(&mut self, frame: &[u8], opaque: i32, timeout: Duration) -> io::Result<()> {
        let was_connected = self.stream.is_some();
        let mut outcome = self.try_call(frame, opaque, timeout);
        if was_connected && outcome.as_ref().is_err_and(is_connection_lost) {
            // Most likely the name server was restarted since; it knows nothing of this broker until it is told.
            self.stream = None;
            outcome = self.try_call(frame, opaque, timeout);
        }
        if outcome.is_err() {
            self.stream = None;
        }
        outcome
    }

    fn try_call(&mut self, frame: &[u8], opaque: i32, timeout: Duration) -> io::Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => none.insert(connect(&self.address)?),
        };
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        stream.write_all(frame)?;
        loop {
            let answer = read_frame(stream)?;
            let answer = Frame::decode(&answer).map_err(|error| io::Error::other(error.to_string()))?;
            // A name server may also send requests of its own (NOTIFY_MIN_BROKER_ID_CHANGE); they need no answer.
            if answer.is_response() && answer.opaque == opaque {
                return match answer.code {
                    response::SUCCESS => Ok(()),
                    code => Err(io::Error::other(format!("answered code {code}"))),
                };
            }
        }
    }
}

fn is_connection_lost(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name resolves to no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame)?;
    let size = frame_size(&frame).map_err(|error| io::Error::other(error.to_string()))?.unwrap_or(4);
    frame.resize(size, 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(frame)
}
