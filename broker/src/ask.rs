//! Requests of the broker to a client that wait for the client's answer: until it comes, its time is up, or the client's
//! connection is gone, whichever is first. Only the system core asks: it knows where each client is connected.
//!
//! How many questions may wait is bounded by those who ask.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rmq_net::connection::ConnectionId;
use rmq_net::frame::Frame;
use rmq_net::reply::ExtWriter;

use crate::broker::Broker;
use crate::letter::Request;

/// What one waiting question costs beside what its asker keeps.
pub const QUESTION_BYTES: usize = 512;
/// Questions given up at a turn's end: what follows from each may be an append and an answer, and a turn has to stay short.
const GIVEN_UP_PER_TURN: usize = 256;

/// What became of a question.
pub enum ClientAnswer<'a> {
    Said(&'a Frame<'a>),
    /// No answer in time.
    Late,
    /// The client's connection is gone.
    Gone,
}

type Continuation = Box<dyn FnOnce(&mut Broker, ClientAnswer<'_>)>;

struct Waiting {
    client: ConnectionId,
    deadline_ms: i64,
    then: Continuation,
}

/// The questions clients have not answered yet.
#[derive(Default)]
pub struct ClientQuestions {
    /// By the opaque of the request to the client.
    waiting: BTreeMap<i32, Waiting>,
    by_client: BTreeSet<(ConnectionId, i32)>,
    by_deadline: BTreeSet<(i64, i32)>,
    /// Clients that are gone and had questions waiting.
    gone: VecDeque<ConnectionId>,
    last_opaque: i32,
}

impl ClientQuestions {
    fn add(&mut self, waiting: Waiting) -> i32 {
        // Beyond 2^31 questions it begins anew; those of then have long been answered.
        self.last_opaque = self.last_opaque.checked_add(1).unwrap_or(1);
        let opaque = self.last_opaque;
        self.by_client.insert((waiting.client, opaque));
        self.by_deadline.insert((waiting.deadline_ms, opaque));
        self.waiting.insert(opaque, waiting);
        opaque
    }

    fn take(&mut self, opaque: i32) -> Option<Waiting> {
        let waiting = self.waiting.remove(&opaque)?;
        self.by_client.remove(&(waiting.client, opaque));
        self.by_deadline.remove(&(waiting.deadline_ms, opaque));
        Some(waiting)
    }

    fn of_client(&self, client: ConnectionId) -> Option<i32> {
        let mut all = self.by_client.range((client, i32::MIN)..=(client, i32::MAX));
        all.next().map(|(_, opaque)| *opaque)
    }

    /// The next question whose client is gone or has not answered in time.
    fn next_given_up(&mut self, now_ms: i64) -> Option<(Waiting, ClientAnswer<'static>)> {
        while let Some(client) = self.gone.front() {
            if let Some(opaque) = self.of_client(*client) {
                return self.take(opaque).map(|waiting| (waiting, ClientAnswer::Gone));
            }
            self.gone.pop_front();
        }
        let (_, opaque) = *self.by_deadline.first().filter(|(deadline_ms, _)| *deadline_ms <= now_ms)?;
        self.take(opaque).map(|waiting| (waiting, ClientAnswer::Late))
    }
}

/// A request to a client.
pub struct ClientRequest<'a> {
    pub client: ConnectionId,
    pub code: i32,
    pub body: &'a [u8],
    pub wait_ms: i64,
}

/// Sends a request through the client's own connection and runs `then` with what becomes of it.
pub fn ask_client(
    broker: &mut Broker,
    request: &ClientRequest<'_>,
    ext: impl FnOnce(&mut ExtWriter<'_>),
    then: impl FnOnce(&mut Broker, ClientAnswer<'_>) + 'static,
) {
    let deadline_ms = broker.now_ms + request.wait_ms;
    let opaque = broker.questions.add(Waiting { client: request.client, deadline_ms, then: Box::new(then) });
    broker.request_of_broker(request.client, request.code, Some(opaque), request.body, ext);
}

/// A client's answer to a request of the broker's. One that was not asked for, or of another client, says nothing.
pub fn on_answer(broker: &mut Broker, answer: &Request<'_>) {
    let opaque = answer.frame.opaque;
    if broker.questions.waiting.get(&opaque).is_none_or(|waiting| waiting.client != answer.origin.connection) {
        return;
    }
    if let Some(waiting) = broker.questions.take(opaque) {
        (waiting.then)(broker, ClientAnswer::Said(&answer.frame));
    }
}

/// Gives up on clients that are gone or do not answer.
pub fn tick(broker: &mut Broker) {
    let now_ms = broker.now_ms;
    for _ in 0..GIVEN_UP_PER_TURN {
        let Some((waiting, answer)) = broker.questions.next_given_up(now_ms) else { return };
        (waiting.then)(broker, answer);
    }
}

/// A client is gone: what waits for it is given up by the next turns.
pub fn on_connection_closed(broker: &mut Broker, id: ConnectionId) {
    if broker.questions.of_client(id).is_some() {
        broker.questions.gone.push_back(id);
    }
}
