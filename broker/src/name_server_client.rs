//! A name server as a broker's service threads ask it: one kept connection, one request at a time, all of it blocking and
//! within a deadline.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use rmq_net::codes::response;
use rmq_net::frame::{Frame, frame_size};

/// How long one address of a name server may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a call that waits looks whether it is given up.
const GIVEN_UP_LOOK: Duration = Duration::from_millis(100);
const READ_BYTES: usize = 16 * 1024;

/// How long a call may go on.
pub struct Patience<'a> {
    pub deadline: Instant,
    /// Looked at while the call waits.
    pub is_given_up: &'a dyn Fn() -> bool,
}

impl Patience<'_> {
    pub fn is_given_up(&self) -> bool {
        (self.is_given_up)()
    }

    /// The time left, never zero; an error when there is none.
    fn rest(&self) -> io::Result<Duration> {
        if self.is_given_up() {
            return Err(io::Error::other("the broker stops"));
        }
        match self.deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
            rest => Ok(rest),
        }
    }

    /// How long one system call may block.
    fn step(&self) -> io::Result<Duration> {
        Ok(self.rest()?.min(GIVEN_UP_LOOK))
    }
}

/// What a name server said.
pub struct Answer {
    pub code: i32,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body, if the request was carried out.
    pub fn succeeded(self) -> io::Result<Vec<u8>> {
        match self.code {
            response::SUCCESS => Ok(self.body),
            code => Err(io::Error::other(format!("answered code {code}"))),
        }
    }
}

/// One name server and the connection to it that is kept open.
pub struct NameServerClient {
    address: String,
    connection: Option<Connection>,
}

impl NameServerClient {
    /// Connects with the first call.
    pub fn new(address: String) -> Self {
        Self { address, connection: None }
    }

    /// `host:port`, as it was given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// One request and its answer, all within the deadline. A lost connection is made again once.
    pub fn call(&mut self, frame: &[u8], opaque: i32, patience: &Patience<'_>) -> io::Result<Answer> {
        let was_connected = self.connection.is_some();
        let mut outcome = self.try_call(frame, opaque, patience);
        if was_connected && outcome.as_ref().is_err_and(is_connection_lost) {
            // Most likely the name server was restarted since; it knows nothing of this broker until it is told.
            self.connection = None;
            outcome = self.try_call(frame, opaque, patience);
        }
        // A call given up for a stop leaves its connection to the unregistration, if no frame was cut in two.
        let is_whole = self.connection.as_ref().is_some_and(|connection| !connection.is_mid_write);
        if outcome.is_err() && !(patience.is_given_up() && is_whole) {
            self.connection = None;
        }
        outcome
    }

    fn try_call(&mut self, frame: &[u8], opaque: i32, patience: &Patience<'_>) -> io::Result<Answer> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(Connection::open(&self.address, patience)?),
        };
        connection.write(frame, patience)?;
        loop {
            let answer = connection.read_frame(patience)?;
            let answer = Frame::decode(&answer).map_err(|error| io::Error::other(error.to_string()))?;
            // A name server may also send requests of its own (NOTIFY_MIN_BROKER_ID_CHANGE); they need no answer.
            if answer.is_response() && answer.opaque == opaque {
                return Ok(Answer { code: answer.code, body: answer.body.to_vec() });
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// What has arrived of the next frames.
    received: Vec<u8>,
    /// Part of a request was written and the rest was not: nothing else can follow.
    is_mid_write: bool,
}

impl Connection {
    fn open(address: &str, patience: &Patience<'_>) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "the name resolves to no address");
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT.min(patience.rest()?)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Self { stream, received: Vec::new(), is_mid_write: false });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn write(&mut self, mut frame: &[u8], patience: &Patience<'_>) -> io::Result<()> {
        while !frame.is_empty() {
            self.stream.set_write_timeout(Some(patience.step()?))?;
            match self.stream.write(frame) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    frame = &frame[written..];
                    self.is_mid_write = !frame.is_empty();
                }
                Err(error) if is_worth_another_try(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_frame(&mut self, patience: &Patience<'_>) -> io::Result<Vec<u8>> {
        loop {
            let size = frame_size(&self.received).map_err(|error| io::Error::other(error.to_string()))?;
            if let Some(size) = size.filter(|size| *size <= self.received.len()) {
                return Ok(self.received.drain(..size).collect());
            }
            self.stream.set_read_timeout(Some(patience.step()?))?;
            let mut piece = [0; READ_BYTES];
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.received.extend_from_slice(&piece[..length]),
                Err(error) if is_worth_another_try(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A step is over, not the call.
fn is_worth_another_try(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn is_connection_lost(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

#[cfg(test)]
pub mod stub;
