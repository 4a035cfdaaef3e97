//! The thread that looks for stuck cores: one per process, four looks a second at one word per core.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::pulse::{Processor, Pulse, Work};

const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// A core that is in the same turn at so many looks after the first is stuck. Looks are counted and not time: while a
/// machine is suspended nobody looks.
const LOOKS_STUCK: u32 = 4;

/// The thread; ends when dropped.
pub(crate) struct Watch {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub fn start(pulses: Vec<Arc<Pulse>>, name_of: fn(u8) -> &'static str) -> std::io::Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let until = is_over.clone();
        let mut cores: Vec<_> = pulses.into_iter().map(Watched::new).collect();
        let thread = std::thread::Builder::new().name("rmq-watch".to_owned()).spawn(move || {
            while !until.load(Ordering::Relaxed) {
                std::thread::park_timeout(LOOK_PERIOD);
                let now = Instant::now();
                for (core, watched) in cores.iter_mut().enumerate() {
                    if let Some(stuck) = watched.look(now) {
                        stuck.report(core, name_of);
                    }
                }
            }
        })?;
        Ok(Self { is_over, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic in it was printed when it happened, and must not hide why the cores stopped.
            let _ = thread.join();
        }
    }
}

/// A core that has been in one turn for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stuck {
    work: Work,
    lasts: Duration,
    processor: Processor,
}

impl Stuck {
    #[cold]
    fn report(self, core: usize, name_of: fn(u8) -> &'static str) {
        tracing::error!(
            core,
            milliseconds = self.lasts.as_millis() as u64,
            doing = self.work.describe(name_of),
            "a core is stuck in one turn and serves nobody; {}",
            self.processor.describe()
        );
    }
}

/// What is known of one core.
struct Watched {
    pulse: Arc<Pulse>,
    turn: u64,
    since: Instant,
    /// Running time of its thread at `since`, if the kernel tells.
    running: Option<Duration>,
    looks: u32,
    /// Number of looks that is told next: each line comes after twice the time of the one before.
    next_told: u32,
}

impl Watched {
    fn new(pulse: Arc<Pulse>) -> Self {
        Self { pulse, turn: 0, since: Instant::now(), running: None, looks: 0, next_told: LOOKS_STUCK }
    }

    fn look(&mut self, now: Instant) -> Option<Stuck> {
        let (turn, work) = self.pulse.now();
        if work == Work::Asleep || turn != self.turn {
            (self.turn, self.since, self.looks, self.next_told) = (turn, now, 0, LOOKS_STUCK);
            return None;
        }
        self.looks += 1;
        if self.looks == 1 {
            // From here it may become a stuck one.
            self.since = now;
            self.running = running_time(self.pulse.thread());
        }
        if self.looks <= self.next_told {
            return None;
        }
        self.next_told *= 2;
        let lasts = now.saturating_duration_since(self.since);
        Some(Stuck { work, lasts, processor: self.processor(lasts) })
    }

    fn processor(&self, lasts: Duration) -> Processor {
        let thread = self.pulse.thread();
        let running = running_time(thread).zip(self.running).map(|(now, before)| now.saturating_sub(before));
        match running {
            Some(running) if running * 2 >= lasts => Processor::Running,
            _ if is_runnable(thread) => Processor::Withheld,
            _ => Processor::Waiting,
        }
    }
}

/// How long a thread of this process has run, from the scheduler's statistics: nanoseconds are the first number.
fn running_time(thread: i32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).ok()?;
    text.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Whether a thread of this process wants a processor: state `R`, behind the name in brackets.
fn is_runnable(thread: i32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    text.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('R'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks `count` times at a core that is in `turn(look)` and returns how long it was said to be stuck each time.
    fn told(count: u32, state: impl Fn(u32) -> (u64, Work)) -> Vec<(Duration, Work)> {
        let pulse = Pulse::new();
        let mut watched = Watched::new(pulse.clone());
        let begin = Instant::now();
        let look = |look: u32| {
            let (turn, work) = state(look);
            pulse.publish(turn, work);
            watched.look(begin + LOOK_PERIOD * look).map(|stuck| (stuck.lasts, stuck.work))
        };
        (0..count).filter_map(look).collect()
    }

    #[test]
    fn a_core_that_stays_in_one_turn_is_told_of_at_growing_distances() {
        let work = Work::Completions(17);
        let lasts: Vec<_> = told(40, |_| (5, work));
        let seconds = |quarters: u32| LOOK_PERIOD * quarters;
        assert_eq!(lasts, [(seconds(4), work), (seconds(8), work), (seconds(16), work), (seconds(32), work)]);
    }

    #[test]
    fn a_core_that_sleeps_or_moves_on_is_not_stuck() {
        assert_eq!(told(100, |_| (5, Work::Asleep)), []);
        assert_eq!(told(100, |look| (u64::from(look / LOOKS_STUCK), Work::TurnEnd)), []);
    }
}
