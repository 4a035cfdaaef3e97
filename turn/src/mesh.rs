//! Letters between cores: one bounded single-producer ring per ordered pair of cores, one wake-up per
//! sleeping receiver and turn.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rtrb::{Consumer, Producer, RingBuffer};
use rustix::event::{EventfdFlags, eventfd};

/// Letters a pair of cores can have under way before the sender keeps the rest to itself.
const LETTERS_UNDER_WAY_MAX: usize = 4096;

/// How another thread gets a core out of its sleep. Cheap to clone; usable from any thread.
#[derive(Clone)]
pub struct Wake {
    shared: Arc<WakeState>,
}

struct WakeState {
    event: OwnedFd,
    asleep: AtomicBool,
}

impl Wake {
    fn new() -> std::io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { shared: Arc::new(WakeState { event, asleep: AtomicBool::new(false) }) })
    }

    /// Wakes the core if it sleeps or is about to. What the caller published before is seen by the core.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            // The counter can only be full when a wake-up is already pending, so a failure loses nothing.
            let _ = rustix::io::write(self.shared.event.as_fd(), &1u64.to_ne_bytes());
        }
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.shared.event.as_raw_fd()
    }

    /// Announces sleep; the caller must look at its inboxes once more before it really sleeps.
    pub(crate) fn fall_asleep(&self) {
        self.shared.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    pub(crate) fn stay_awake(&self) {
        self.shared.asleep.store(false, Ordering::Relaxed);
    }
}

/// Builds the posts of all cores at once.
pub struct Mesh;

impl Mesh {
    /// One [`Post`] per core, connected with each other.
    pub fn connect<L>(core_count: usize) -> std::io::Result<Vec<Post<L>>> {
        let wakes = (0..core_count).map(|_| Wake::new()).collect::<Result<Vec<_>, _>>()?;
        let mut posts: Vec<Post<L>> = (0..core_count)
            .map(|index| Post { index, wakes: wakes.clone(), outboxes: Vec::new(), inboxes: Vec::new() })
            .collect();
        for from in 0..core_count {
            for to in 0..core_count {
                let (producer, consumer) = RingBuffer::new(if from == to { 1 } else { LETTERS_UNDER_WAY_MAX });
                posts[from].outboxes.push(Outbox { producer, waiting: VecDeque::new(), posted: false });
                posts[to].inboxes.push(consumer);
            }
        }
        Ok(posts)
    }
}

struct Outbox<L> {
    producer: Producer<L>,
    /// Letters that found the ring full. Bounded by what the senders may have under way (their own bounds).
    waiting: VecDeque<L>,
    posted: bool,
}

/// One core's end of the mesh.
pub struct Post<L> {
    index: usize,
    wakes: Vec<Wake>,
    outboxes: Vec<Outbox<L>>,
    inboxes: Vec<Consumer<L>>,
}

impl<L> Post<L> {
    pub fn index(&self) -> usize {
        self.index
    }

    pub fn core_count(&self) -> usize {
        self.wakes.len()
    }

    pub fn wake_of(&self, core: usize) -> Wake {
        self.wakes[core].clone()
    }

    /// Queues a letter; the receiver is woken once, at the end of the sender's turn. Letters of one pair of
    /// cores arrive in the order sent.
    pub fn send(&mut self, to: usize, letter: L) {
        assert!(to != self.index, "a core does not write to itself");
        let outbox = &mut self.outboxes[to];
        outbox.posted = true;
        if outbox.waiting.is_empty() {
            if let Err(rtrb::PushError::Full(letter)) = outbox.producer.push(letter) {
                outbox.waiting.push_back(letter);
            }
        } else {
            outbox.waiting.push_back(letter);
        }
    }

    /// The next letter and its sender.
    pub(crate) fn receive(&mut self) -> Option<(usize, L)> {
        self.inboxes.iter_mut().enumerate().find_map(|(from, inbox)| inbox.pop().ok().map(|letter| (from, letter)))
    }

    pub(crate) fn has_mail(&self) -> bool {
        self.inboxes.iter().any(|inbox| !inbox.is_empty())
    }

    pub(crate) fn wake(&self) -> &Wake {
        &self.wakes[self.index]
    }

    /// Moves letters that waited for room, and wakes every core that got mail this turn. False while
    /// letters still wait.
    pub(crate) fn dispatch(&mut self) -> bool {
        let mut all_gone = true;
        for (to, outbox) in self.outboxes.iter_mut().enumerate() {
            while let Some(letter) = outbox.waiting.pop_front() {
                if let Err(rtrb::PushError::Full(letter)) = outbox.producer.push(letter) {
                    outbox.waiting.push_front(letter);
                    break;
                }
            }
            if std::mem::take(&mut outbox.posted) {
                self.wakes[to].wake();
            }
            all_gone &= outbox.waiting.is_empty();
        }
        all_gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_arrive_in_order_even_when_the_ring_overflows() {
        let mut posts = Mesh::connect::<usize>(2).unwrap();
        let (mut second, mut first) = (posts.pop().unwrap(), posts.pop().unwrap());
        let count = 3 * LETTERS_UNDER_WAY_MAX;
        for number in 0..count {
            first.send(1, number);
        }
        let mut expected = 0;
        while expected < count {
            first.dispatch();
            while let Some((from, number)) = second.receive() {
                assert_eq!((from, number), (0, expected));
                expected += 1;
            }
        }
        assert!(first.dispatch(), "nothing waits any more");
    }
}
