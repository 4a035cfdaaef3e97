//! Connections on a real ring and real sockets: what clients can do to a core, and what it must survive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rmq_net::connection::{
    Accepted, Connections, FrameHandler, Limits, Listener, ListenerRole, Outbox, Peer, Verdict, bind,
};
use rmq_net::frame::{FRAME_BYTES_MAX, frame_size};
use rmq_turn::{App, Completion, Core, RunError};

/// What a test sees of the server from outside.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    open: AtomicUsize,
    closed: AtomicUsize,
    /// Most bytes of replies that waited at the end of a turn.
    outboxes_bytes: AtomicUsize,
    /// Frames are answered with `Stall` while this is set.
    is_full: AtomicBool,
    /// Of each frame handled, the port of its client.
    handled: Mutex<Vec<u16>>,
    /// Ports of the clients that were stalled.
    stalled: Mutex<BTreeSet<u16>>,
}

/// Answers every frame with its own bytes, half copied and half shared.
struct Echo {
    connections: Connections<Arc<[u8]>>,
    listener: Listener,
    handler: EchoHandler,
}

struct EchoHandler {
    shared: Arc<Shared>,
}

impl FrameHandler<Arc<[u8]>> for EchoHandler {
    fn on_frame(&mut self, peer: &Peer, frame: &[u8], outbox: &mut Outbox<Arc<[u8]>>) -> Verdict {
        if self.shared.is_full.load(Ordering::SeqCst) {
            self.shared.stalled.lock().unwrap().insert(peer.address.port());
            return Verdict::Stall;
        }
        self.shared.handled.lock().unwrap().push(peer.address.port());
        let (copied, shared) = frame.split_at(frame.len() / 2);
        outbox.bytes().extend_from_slice(copied);
        outbox.share(shared.into());
        Verdict::Done
    }

    fn on_closed(&mut self, _: &Peer) {
        self.shared.closed.fetch_add(1, Ordering::SeqCst);
    }
}

impl App for Echo {
    type Letter = Accepted;

    fn on_completion(&mut self, core: &mut Core<Accepted>, completion: Completion) {
        if completion.token.kind == Listener::KIND {
            if let Some(accepted) = self.listener.on_completion(&completion) {
                self.connections.adopt(&mut core.ring, accepted, core.clock.wall_ms);
            }
        } else {
            self.connections.on_completion(&mut core.ring, &completion, &mut self.handler, core.clock.wall_ms);
        }
    }

    fn on_letter(&mut self, _: &mut Core<Accepted>, _: usize, _: Accepted) {}

    fn on_turn_end(&mut self, core: &mut Core<Accepted>) {
        self.listener.arm(&mut core.ring);
        if self.connections.has_stalled() {
            self.connections.resume(&mut core.ring, &mut self.handler);
        }
        self.connections.close_idle(core.clock.wall_ms, &mut self.handler);
        self.connections.close_unread(core.clock.wall_ms, &mut self.handler);
        self.connections.submit(&mut core.ring, &mut self.handler);
        self.handler.shared.outboxes_bytes.fetch_max(self.connections.outboxes_bytes(), Ordering::SeqCst);
        self.handler.shared.open.store(self.connections.open_count(), Ordering::SeqCst);
    }

    fn deadline(&self) -> Option<Instant> {
        let patience = if self.connections.wants_turn() { 0 } else { 5 };
        Some(Instant::now() + Duration::from_millis(patience))
    }

    fn waited_for_by(&self) -> rmq_turn::Waiting {
        rmq_turn::Waiting::Nobody
    }

    fn is_finished(&self) -> bool {
        self.handler.shared.stop.load(Ordering::SeqCst)
    }

    fn name_of(_: u8) -> &'static str {
        "connections"
    }
}

/// The test that weighs the process runs alone.
static WEIGHING: RwLock<()> = RwLock::new(());

struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<Result<(), RunError>>>,
}

impl Server {
    fn start(limits: Limits) -> Self {
        let socket = bind("127.0.0.1:0".parse().unwrap(), 1024).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let shared = Arc::new(Shared::default());
        let (socket, in_thread) = (Arc::new(socket), shared.clone());
        let thread = std::thread::spawn(move || {
            rmq_turn::run(
                1,
                |_| (),
                move |core| {
                    Ok(Echo {
                        connections: Connections::new(0, &core.ring, limits)?,
                        listener: Listener::new(socket.try_clone().unwrap(), ListenerRole::Broker, 0),
                        handler: EchoHandler { shared: in_thread.clone() },
                    })
                },
            )
        });
        Self { address, shared, thread: Some(thread) }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what} did not happen");
        std::thread::yield_now();
    }
}

/// A frame of `size` bytes whose content tells it from others.
fn frame(size: usize, seed: u8) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect();
    bytes[..4].copy_from_slice(&(size as u32 - 4).to_be_bytes());
    bytes
}

fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    stream.read_exact(&mut bytes).unwrap();
    bytes.resize(frame_size(&bytes).unwrap().unwrap(), 0);
    stream.read_exact(&mut bytes[4..]).unwrap();
    bytes
}

fn is_closed(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn frames_arrive_whole_however_the_stream_is_cut() {
    let _turn = WEIGHING.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(Limits::default());
    for cut in [1, 3, 7, 4096, 70_000] {
        let mut stream = server.connect();
        let frames: Vec<_> =
            [8, 9, 100, 5000, 66_000, 8].iter().zip(0..).map(|(size, seed)| frame(*size, seed)).collect();
        let all: Vec<u8> = if cut < 8 { frames[..3].concat() } else { frames.concat() };
        let expected = if cut < 8 { &frames[..3] } else { &frames[..] };
        for piece in all.chunks(cut) {
            stream.write_all(piece).unwrap();
        }
        for sent in expected {
            assert_eq!(&read_frame(&mut stream), sent, "cut at {cut}");
        }
    }
}

#[test]
fn a_frame_of_the_largest_size_comes_back() {
    let _turn = WEIGHING.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(Limits::default());
    let mut stream = server.connect();
    let sent = frame(FRAME_BYTES_MAX, 1);
    let mut writer = stream.try_clone().unwrap();
    let copy = sent.clone();
    let writing = std::thread::spawn(move || writer.write_all(&copy).unwrap());
    assert!(read_frame(&mut stream) == sent);
    writing.join().unwrap();
}

#[test]
fn lengths_that_no_frame_has_close_the_connection_and_no_other() {
    let _turn = WEIGHING.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(Limits::default());
    let mut bystander = server.connect();
    for length in [-1_i32, 0, i32::MAX, FRAME_BYTES_MAX as i32 - 3] {
        let mut stream = server.connect();
        stream.write_all(&length.to_be_bytes()).unwrap();
        stream.write_all(&[0; 16]).unwrap();
        assert!(is_closed(&mut stream), "length {length}");
    }
    bystander.write_all(&frame(64, 3)).unwrap();
    assert_eq!(read_frame(&mut bystander), frame(64, 3));
}

#[test]
fn a_client_that_never_reads_is_not_read_from_and_others_go_on() {
    let _turn = WEIGHING.read().unwrap_or_else(PoisonError::into_inner);
    // However little may be queued: it is not closed as long as it may still begin to read.
    let server = Server::start(Limits { outbox_bytes_max: 1 << 20, unread_ms_max: 20_000, ..Limits::default() });
    let mut greedy = server.connect();
    greedy.set_nonblocking(true).unwrap();
    // Fills the socket buffers both ways; then the server must stop taking more.
    let sent = frame(64 * 1024, 9);
    let mut written = 0_usize;
    let mut last_progress = Instant::now();
    while last_progress.elapsed() < Duration::from_millis(300) {
        match greedy.write(&sent[written % sent.len()..]) {
            Ok(count) => {
                written += count;
                last_progress = Instant::now();
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert!(written < 256 << 20, "the server buffers without bound");
    }
    let mut other = server.connect();
    other.write_all(&frame(100, 1)).unwrap();
    assert_eq!(read_frame(&mut other), frame(100, 1));
    // Once the client reads, everything it sent is answered.
    greedy.set_nonblocking(false).unwrap();
    for _ in 0..written / sent.len() {
        assert!(read_frame(&mut greedy) == sent);
    }
}

#[test]
fn clients_that_read_nothing_have_one_bound_together_and_others_go_on() {
    let _turn = WEIGHING.read().unwrap_or_else(PoisonError::into_inner);
    const BOUND: usize = 4 << 20;
    let server = Server::start(Limits { outboxes_bytes_max: BOUND, ..Limits::default() });
    let sent = frame(64 * 1024, 9);
    let mut greedy: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let (started, mut last_progress) = (Instant::now(), Instant::now());
    greedy.iter().for_each(|stream| stream.set_nonblocking(true).unwrap());
    let mut written = vec![0; greedy.len()];
    let is_half_full = || server.shared.outboxes_bytes.load(Ordering::SeqCst) >= BOUND / 2;
    while !is_half_full() || last_progress.elapsed() < Duration::from_millis(300) {
        assert!(started.elapsed() < Duration::from_secs(20), "replies do not pile up");
        for (stream, written) in greedy.iter_mut().zip(&mut written) {
            if let Ok(count) = stream.write(&sent[*written % sent.len()..]) {
                *written += count;
                last_progress = Instant::now();
            }
        }
    }
    let most = server.shared.outboxes_bytes.load(Ordering::SeqCst);
    assert!((BOUND / 2..=BOUND).contains(&most), "{most} bytes waited for clients that do not read");
    assert_eq!(server.shared.closed.load(Ordering::SeqCst), 0, "nobody is closed as long as not reading helps");
    let mut other = server.connect();
    other.write_all(&frame(100, 1)).unwrap();
    assert_eq!(read_frame(&mut other), frame(100, 1));
}

#[test]
fn a_client_that_takes_nothing_of_too_much_is_closed() {
    let _turn = WEIGHING.read().unwrap_or_else(PoisonError::into_inner);
    let limits =
        Limits { outbox_bytes_max: 1 << 20, outbox_bytes_pause: 2 << 20, unread_ms_max: 50, ..Limits::default() };
    let server = Server::start(limits);
    let mut stream = server.connect();
    let mut writer = stream.try_clone().unwrap();
    let sent = frame(64 * 1024, 9);
    // Fails once the server has closed the connection, which is what is waited for below.
    let writing = std::thread::spawn(move || (0..1024).try_for_each(|_| writer.write_all(&sent)));
    until("the close", || server.shared.closed.load(Ordering::SeqCst) == 1);
    assert!(writing.join().unwrap().is_err());
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest); // what was under way, then the end or a reset
    assert!(rest.len() < 1024 * 64 * 1024);
}

#[test]
fn a_stalled_frame_is_given_again_and_nothing_is_lost() {
    let _turn = WEIGHING.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(Limits::default());
    server.shared.is_full.store(true, Ordering::SeqCst);
    let mut stream = server.connect();
    let frames: Vec<_> = (0..50).map(|seed| frame(1000 + seed as usize, seed)).collect();
    stream.write_all(&frames.concat()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(stream.read(&mut [0; 1]).is_err(), "nothing is answered while the handler is full");
    server.shared.is_full.store(false, Ordering::SeqCst);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    for sent in &frames {
        assert_eq!(&read_frame(&mut stream), sent);
    }
}

/// More connections than there are receive buffers, each with far more to say than one receive brings.
#[test]
fn connections_that_all_have_much_to_say_are_heard_in_turn() {
    const FRAMES: usize = 400;
    let _turn = WEIGHING.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(Limits::default());
    server.shared.is_full.store(true, Ordering::SeqCst);
    let all = frame(1000, 1).repeat(FRAMES);
    let mut streams: Vec<_> = (0..300).map(|_| server.connect()).collect();
    for stream in &mut streams {
        stream.set_nonblocking(true).unwrap();
        let mut written = 0;
        let mut last_progress = Instant::now();
        while written < all.len() && last_progress.elapsed() < Duration::from_millis(100) {
            if let Ok(count) = stream.write(&all[written..]) {
                (written, last_progress) = (written + count, Instant::now());
            }
        }
        assert!(written > all.len() / 2, "the kernel takes {written} bytes only");
    }
    until("all connections", || server.shared.open.load(Ordering::SeqCst) == streams.len());
    server.shared.is_full.store(false, Ordering::SeqCst);
    let half = streams.len() * FRAMES / 2;
    until("half of the frames", || server.shared.handled.lock().unwrap().len() >= half);
    let ports = streams.iter().map(|stream| stream.local_addr().unwrap().port());
    let mut counts: BTreeMap<u16, usize> = ports.map(|port| (port, 0)).collect();
    for port in &server.shared.handled.lock().unwrap()[..half] {
        *counts.get_mut(port).unwrap() += 1;
    }
    let slowest = *counts.values().min().unwrap();
    assert!(slowest >= FRAMES / 4, "half of {FRAMES} frames per connection are handled; by client's port: {counts:?}");
}

#[test]
fn a_small_request_does_not_wait_behind_the_large_backlogs_of_others() {
    let _turn = WEIGHING.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(Limits::default());
    let mut crowd: Vec<_> = (0..10).map(|_| server.connect()).collect();
    let mut quiet = server.connect();
    // One frame of each tells when everybody is known to the server.
    for stream in crowd.iter_mut().chain([&mut quiet]) {
        stream.write_all(&frame(20_000, 1)[..]).unwrap();
        read_frame(stream);
    }
    quiet.write_all(&frame(100, 1)).unwrap();
    read_frame(&mut quiet);
    server.shared.is_full.store(true, Ordering::SeqCst);
    server.shared.handled.lock().unwrap().clear();
    let stalled = |count| until("the stall", || server.shared.stalled.lock().unwrap().len() == count);
    for stream in &mut crowd {
        stream.write_all(&frame(1000, 1).repeat(50)).unwrap();
    }
    stalled(crowd.len());
    quiet.write_all(&frame(100, 2)).unwrap();
    stalled(crowd.len() + 1);
    server.shared.is_full.store(false, Ordering::SeqCst);
    assert_eq!(read_frame(&mut quiet), frame(100, 2));
    assert_eq!(server.shared.handled.lock().unwrap()[0], quiet.local_addr().unwrap().port());
}

#[test]
fn idle_connections_are_closed() {
    let _turn = WEIGHING.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(Limits { idle_ms: 50, ..Limits::default() });
    let mut stream = server.connect();
    assert!(is_closed(&mut stream));
}

#[test]
fn half_frames_of_many_connections_stay_within_the_budget() {
    let _turn = WEIGHING.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(Limits { assembly_bytes_max: FRAME_BYTES_MAX, ..Limits::default() });
    // Each announces the largest frame and sends a little of it.
    let mut streams: Vec<_> = (0..8).map(|_| server.connect()).collect();
    let sent = frame(FRAME_BYTES_MAX, 5);
    for stream in &mut streams {
        stream.write_all(&sent[..100]).unwrap();
    }
    until("all connections", || server.shared.open.load(Ordering::SeqCst) == 8);
    // They all get through, one after the other.
    let workers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            let sent = sent.clone();
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                let rest = sent[100..].to_vec();
                let writing = std::thread::spawn(move || writer.write_all(&rest).unwrap());
                assert!(read_frame(&mut stream) == sent);
                writing.join().unwrap();
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
}

#[test]
fn thousands_of_silent_connections_cost_little_and_disturb_nobody() {
    let _turn = WEIGHING.write().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(Limits::default());
    let before = resident_bytes();
    let silent: Vec<_> = (0..2000).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    until("all connections", || server.shared.open.load(Ordering::SeqCst) >= 2000);
    let each = (resident_bytes().saturating_sub(before)) / silent.len();
    assert!(each < 8 * 1024, "{each} bytes per silent connection");
    let mut stream = server.connect();
    stream.write_all(&frame(500, 2)).unwrap();
    assert_eq!(read_frame(&mut stream), frame(500, 2));
    drop(silent);
    until("all closes", || server.shared.closed.load(Ordering::SeqCst) >= 2000);
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
