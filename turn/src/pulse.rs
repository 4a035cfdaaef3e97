//! What a core is doing at the moment: published for the thread that looks for stuck cores, and added up per turn so
//! that a long one can be explained.
//!
//! Everything here is on the way of every turn: a relaxed store per kind of work, and a reading of the clock where one
//! kind of work ends and the next begins. Nothing is counted per message.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// A turn longer than this is worth a line in the log.
const TURN_LONG: Duration = Duration::from_millis(50);
/// One line in this time per core; what is left out is counted.
const LINE_PERIOD: Duration = Duration::from_secs(10);
/// Kinds of completions change often in a busy turn; so many of these changes are timed, the rest counts as one.
const TIMED_CHANGES_MAX: u32 = 8;
/// Readings of the thread's own usage are at most this old when a turn begins: what a long turn is compared with.
const USAGE_AGE_MAX: Duration = Duration::from_millis(10);

/// What a core does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// In the kernel until something happens, or not started, or finished.
    Asleep,
    /// Between the kernel and the first completion or letter.
    Reaping,
    /// Handling completions of one kind.
    Completions(u8),
    /// Handling completions of so many kinds in turn that they are not told apart any more.
    MixedCompletions,
    Letters,
    TurnEnd,
    /// In the kernel, which carries out what the turn submitted.
    Submitting,
    Background,
}

impl Work {
    fn to_bits(self) -> u64 {
        match self {
            Self::Asleep => 0,
            Self::Reaping => 1 << 8,
            Self::Completions(kind) => 2 << 8 | u64::from(kind),
            Self::MixedCompletions => 3 << 8,
            Self::Letters => 4 << 8,
            Self::TurnEnd => 5 << 8,
            Self::Submitting => 6 << 8,
            Self::Background => 7 << 8,
        }
    }

    fn from_bits(bits: u64) -> Self {
        match bits >> 8 & 0xff {
            0 => Self::Asleep,
            1 => Self::Reaping,
            2 => Self::Completions(bits as u8),
            3 => Self::MixedCompletions,
            4 => Self::Letters,
            5 => Self::TurnEnd,
            6 => Self::Submitting,
            _ => Self::Background,
        }
    }

    /// For the log. `name_of` names kinds of completions.
    pub fn describe(self, name_of: fn(u8) -> &'static str) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::Reaping => "reaping completions",
            Self::Completions(kind) => name_of(kind),
            Self::MixedCompletions => "completions of several kinds",
            Self::Letters => "letters from other cores",
            Self::TurnEnd => "the end of the turn",
            Self::Submitting => "submitting to the kernel",
            Self::Background => "background tasks",
        }
    }
}

/// Whether a thread that should have been done was given a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Processor {
    Running,
    Waiting,
    Withheld,
}

impl Processor {
    pub fn describe(self) -> &'static str {
        match self {
            Self::Running => "its thread was running: the work took that long",
            Self::Waiting => "its thread waited inside the kernel: something blocked it",
            Self::Withheld => "the host did not run this thread: others had its processor",
        }
    }
}

/// What one core publishes.
///
/// | bits  | field | meaning                                    |
/// |------:|-------|--------------------------------------------|
/// | 16-63 | turn  | counts up with every turn                  |
/// |  0-15 | work  | what the core does in it (`Work::to_bits`) |
pub(crate) struct Pulse {
    word: AtomicU64,
    /// Linux' number of the core's thread; 0 before it runs.
    thread: AtomicI32,
}

impl Pulse {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { word: AtomicU64::new(0), thread: AtomicI32::new(0) })
    }

    pub fn publish(&self, turn: u64, work: Work) {
        self.word.store(turn << 16 | work.to_bits(), Ordering::Relaxed);
    }

    pub fn now(&self) -> (u64, Work) {
        let word = self.word.load(Ordering::Relaxed);
        (word >> 16, Work::from_bits(word & 0xffff))
    }

    pub fn thread(&self) -> i32 {
        self.thread.load(Ordering::Relaxed)
    }

    pub fn set_thread(&self, thread: i32) {
        self.thread.store(thread, Ordering::Relaxed);
    }
}

/// What the calling thread has used so far.
#[derive(Clone, Copy)]
struct Usage {
    at: Instant,
    running: Duration,
    /// How often it gave up the processor by itself, to wait for something.
    waits: i64,
}

impl Usage {
    fn read(at: Instant) -> Self {
        let running = clock_gettime(ClockId::ThreadCPUTime);
        let running = Duration::new(running.tv_sec as u64, running.tv_nsec as u32);
        // SAFETY: plain numbers, for which all zeroes is a value.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel fills the structure we own. It cannot fail with these arguments; zeroes would be left.
        unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
        Self { at, running, waits: usage.ru_nvcsw }
    }
}

/// One core's account of its turns. Lives on the core.
pub(crate) struct TurnAccount {
    core: usize,
    pulse: Arc<Pulse>,
    name_of: fn(u8) -> &'static str,
    turn: u64,
    turn_begin: Instant,
    is_ended: bool,
    work: Work,
    work_begin: Instant,
    timed_changes: u32,
    longest: (Work, Duration),
    usage: Usage,
    /// How often the core fell asleep since `usage` was read: waits that are nobody's fault.
    sleeps: i64,
    next_line: Instant,
    untold: u32,
}

impl TurnAccount {
    /// Must run on the core's thread.
    pub fn new(core: usize, pulse: Arc<Pulse>, name_of: fn(u8) -> &'static str) -> Self {
        pulse.set_thread(rustix::thread::gettid().as_raw_nonzero().get());
        let now = Instant::now();
        Self {
            core,
            pulse,
            name_of,
            turn: 0,
            turn_begin: now,
            is_ended: true,
            work: Work::Asleep,
            work_begin: now,
            timed_changes: 0,
            longest: (Work::Reaping, Duration::ZERO),
            usage: Usage::read(now),
            sleeps: 0,
            next_line: now,
            untold: 0,
        }
    }

    /// The core is back from the kernel.
    pub fn begin_turn(&mut self, now: Instant) {
        self.end_turn(now);
        self.turn += 1;
        self.is_ended = false;
        self.turn_begin = now;
        self.work = Work::Reaping;
        self.work_begin = now;
        self.timed_changes = 0;
        self.longest = (Work::Reaping, Duration::ZERO);
        self.pulse.publish(self.turn, Work::Reaping);
        if now.saturating_duration_since(self.usage.at) > USAGE_AGE_MAX {
            self.usage = Usage::read(now);
            self.sleeps = 0;
        }
    }

    /// The core turns to a completion of this kind.
    pub fn completion(&mut self, kind: u8) {
        let work = Work::Completions(kind);
        if self.work == work {
            return;
        }
        if self.timed_changes < TIMED_CHANGES_MAX {
            self.timed_changes += 1;
            return self.change(work);
        }
        // The one at hand is published all the same: it is what the core would be stuck in.
        self.pulse.publish(self.turn, work);
        if self.work != Work::MixedCompletions {
            self.close(Instant::now(), Work::MixedCompletions);
        }
    }

    /// The core turns to something else.
    pub fn change(&mut self, work: Work) {
        if self.work == work {
            return;
        }
        self.pulse.publish(self.turn, work);
        if self.work == Work::Reaping {
            self.work = work; // Reaping itself takes no time: no reading of the clock for it.
        } else {
            self.close(Instant::now(), work);
        }
    }

    /// The core goes to sleep.
    pub fn fall_asleep(&mut self, now: Instant) {
        self.end_turn(now);
        self.sleeps += 1;
        self.pulse.publish(self.turn, Work::Asleep);
    }

    fn close(&mut self, now: Instant, next: Work) {
        let took = now.saturating_duration_since(self.work_begin);
        if took > self.longest.1 {
            self.longest = (self.work, took);
        }
        self.work = next;
        self.work_begin = now;
    }

    fn end_turn(&mut self, now: Instant) {
        if self.is_ended {
            return;
        }
        self.is_ended = true;
        self.close(now, Work::Asleep);
        let took = now.saturating_duration_since(self.turn_begin);
        if took > TURN_LONG {
            self.report(now, took);
        }
    }

    #[cold]
    fn report(&mut self, now: Instant, took: Duration) {
        if now < self.next_line {
            self.untold += 1;
            return;
        }
        self.next_line = now + LINE_PERIOD;
        let usage = Usage::read(now);
        let running = usage.running.saturating_sub(self.usage.running).min(took);
        let has_waited = usage.waits - self.usage.waits > self.sleeps;
        let processor = match running * 2 >= took {
            true => Processor::Running,
            false if has_waited => Processor::Waiting,
            false => Processor::Withheld,
        };
        tracing::warn!(
            core = self.core,
            milliseconds = took.as_millis() as u64,
            running_ms = running.as_millis() as u64,
            longest = self.longest.0.describe(self.name_of),
            longest_ms = self.longest.1.as_millis() as u64,
            untold = std::mem::take(&mut self.untold),
            "a turn took long; {}",
            processor.describe()
        );
    }
}

impl Drop for TurnAccount {
    fn drop(&mut self) {
        self.pulse.publish(self.turn, Work::Asleep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watching_thread_reads_what_the_core_published() {
        let pulse = Pulse::new();
        assert_eq!(pulse.now(), (0, Work::Asleep));
        for work in [
            Work::Asleep,
            Work::Reaping,
            Work::Completions(0),
            Work::Completions(255),
            Work::MixedCompletions,
            Work::Letters,
            Work::TurnEnd,
            Work::Submitting,
            Work::Background,
        ] {
            pulse.publish(77, work);
            assert_eq!(pulse.now(), (77, work));
        }
    }

    #[test]
    fn the_longest_work_of_a_turn_is_named_however_often_kinds_change() {
        let mut account = TurnAccount::new(0, Pulse::new(), |_| "");
        let begin = Instant::now();
        account.begin_turn(begin);
        for kind in 0..100 {
            account.completion(kind % 2);
        }
        assert_eq!((account.work, account.timed_changes), (Work::MixedCompletions, TIMED_CHANGES_MAX));
        assert_eq!(account.pulse.now(), (1, Work::Completions(1)), "what runs now is published exactly");
        account.change(Work::TurnEnd);
        let end = account.work_begin + Duration::from_millis(40);
        account.fall_asleep(end);
        assert_eq!(account.longest, (Work::TurnEnd, Duration::from_millis(40)));
        assert_eq!(account.pulse.now(), (1, Work::Asleep));
    }
}
