//! The loop itself: what happens in a turn, when a core sleeps, and what shares its thread.

use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use glommio::{Latency, LocalExecutorBuilder, Placement, Shares, TaskQueueHandle};
use io_uring::{opcode, types};

use crate::mesh::{Mesh, Post, Wake};
use crate::pulse::{Pulse, TurnAccount, Work};
use crate::ring::{Completion, Ring, RingError, Token};
use crate::watch::Watch;

/// A core never sleeps longer than this, so that no missed wake-up can stall it for good.
const SLEEP_MAX: Duration = Duration::from_millis(500);
/// While background tasks live, a sleep is this short: their completions arrive on glommio's rings, which a
/// core asleep on its own ring does not see.
const SLEEP_WITH_BACKGROUND: Duration = Duration::from_micros(500);
/// A core that expects its next completion within this time looks out for it instead of sleeping: falling asleep and
/// being woken takes 20 to 50 us, as long as a write of a fast device.
const WATCH_MAX: Duration = Duration::from_micros(200);
/// When nobody waits for the core, what comes next is a request. It is looked out for only where requests follow the
/// answers this fast, as those of a client that sends one at a time: otherwise a core with thousands of requests per
/// second would be busy all the time, and most of it with looking.
const WATCH_FOR_REQUESTS_MAX: Duration = Duration::from_micros(50);
/// Looks between two readings of the clock while watching.
const LOOKS_PER_CLOCK: u32 = 8;
/// Pauses between two looks: a processor that shares its core with another leaves it the core meanwhile.
const PAUSES_PER_LOOK: u32 = 8;
/// Turns between two yields to background tasks on a busy core.
const TURNS_PER_YIELD: u32 = 16;
/// glommio's preempt timer. Shorter values make its executor park with a runnable task now and then.
const PREEMPT_TIMER: Duration = Duration::from_millis(20);
/// Bounds such a park: a guard task sleeps on a glommio timer of this length while background tasks live.
const GUARD_PERIOD: Duration = Duration::from_millis(5);

/// One core's program. All methods run on the core's thread and must not block.
pub trait App {
    type Letter: Send + 'static;

    /// An operation finished. Tokens of kind 0 belong to the loop and never arrive here.
    fn on_completion(&mut self, core: &mut Core<Self::Letter>, completion: Completion);
    fn on_letter(&mut self, core: &mut Core<Self::Letter>, from: usize, letter: Self::Letter);
    /// Ends every turn: submit what it produced, fire what is due.
    fn on_turn_end(&mut self, core: &mut Core<Self::Letter>);
    /// When [`on_turn_end`](Self::on_turn_end) must run next even if nothing happens.
    fn deadline(&self) -> Option<Instant>;
    /// How many wait for an answer of this core that it cannot give yet.
    fn waited_for_by(&self) -> Waiting;
    /// True once the core has nothing left to do and the loop should end.
    fn is_finished(&self) -> bool;
    /// What completions of this token kind are about, for the log.
    fn name_of(kind: u8) -> &'static str;
}

/// Who waits for a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    Nobody,
    /// So few that answering each at once is better than doing more in one go.
    Few,
    Many,
}

/// The clocks, read when a turn begins and with each letter: nothing is handled at a time before it was sent.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub monotonic: Instant,
    /// Wall clock, milliseconds since the epoch.
    pub wall_ms: i64,
}

impl Clock {
    pub fn now() -> Self {
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        Self { monotonic: Instant::now(), wall_ms }
    }
}

/// What a core lends its app.
pub struct Core<L> {
    pub ring: Ring,
    pub post: Post<L>,
    pub clock: Clock,
    /// There is a processor left for whoever would otherwise have to share this core's.
    may_watch: bool,
    /// Running mean of how long the core waited for what a few requests wait for: the device.
    usual_wait: Duration,
    /// The same when nobody waited.
    usual_idle_wait: Duration,
    background_count: Rc<Cell<usize>>,
    is_guarded: Rc<Cell<bool>>,
    background_queue: OnceCell<TaskQueueHandle>,
    account: TurnAccount,
}

impl<L> Core<L> {
    pub fn index(&self) -> usize {
        self.post.index()
    }

    /// Runs slow, rare work (preparing a segment) as a glommio task with lower shares on this core's thread.
    /// It tells the app about its end by whatever it captured; the loop wakes within a millisecond of it.
    pub fn spawn_background(&self, work: impl Future<Output = ()> + 'static) {
        let count = self.background_count.clone();
        count.set(count.get() + 1);
        if !self.is_guarded.replace(true) {
            let (guarded, is_guarded) = (count.clone(), self.is_guarded.clone());
            glommio::spawn_local(async move {
                // Its timer ends a park that glommio entered although a task was runnable.
                while guarded.get() > 0 {
                    glommio::timer::sleep(GUARD_PERIOD).await;
                }
                is_guarded.set(false);
            })
            .detach();
        }
        // One for all: glommio never takes a queue away again.
        let queue = *self.background_queue.get_or_init(|| {
            glommio::executor().create_task_queue(Shares::Static(100), Latency::NotImportant, "background")
        });
        let task = async move {
            work.await;
            count.set(count.get() - 1);
        };
        // The queue handle is ours and was made on this executor, so spawning into it cannot fail.
        if let Ok(task) = glommio::spawn_local_into(task, queue) {
            task.detach();
        }
    }
}

/// Runs blocking work on glommio's helper threads. Only for background tasks of a core.
pub async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    glommio::executor().spawn_blocking(work).await
}

/// How many cores a machine offers this process.
pub struct CoreCount;

impl CoreCount {
    pub fn available() -> usize {
        std::thread::available_parallelism().map_or(1, |count| count.get())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Ring(#[from] RingError),
    #[error("core {core}: {text}")]
    Executor { core: usize, text: String },
    #[error("letters between cores need an eventfd each: {0}")]
    Mesh(std::io::Error),
    #[error("core {core} stopped: {source}")]
    Core { core: usize, source: std::io::Error },
    #[error("the thread that looks for stuck cores cannot be started: {0}")]
    Watch(std::io::Error),
}

/// Runs one app per core until all have finished. `make` runs on each core's own thread; `wakes` gets a
/// handle per core before any starts, for other threads that need to wake one.
///
/// Cores are pinned to processors in order and share them when there are more cores than processors.
pub fn run<A, M>(core_count: usize, wakes: impl FnOnce(Vec<Wake>), make: M) -> Result<(), RunError>
where
    A: App + 'static,
    M: Fn(&mut Core<A::Letter>) -> Result<A, RunError> + Clone + Send + 'static,
{
    let posts = Mesh::connect::<A::Letter>(core_count).map_err(RunError::Mesh)?;
    wakes((0..core_count).map(|index| posts[0].wake_of(index)).collect());
    let processors = CoreCount::available();
    let may_watch = core_count < processors;
    let pulses: Vec<_> = (0..core_count).map(|_| Pulse::new()).collect();
    let watch = Watch::start(pulses.clone(), A::name_of).map_err(RunError::Watch)?;
    let mut threads = Vec::new();
    for (post, pulse) in posts.into_iter().zip(pulses) {
        let (index, make) = (post.index(), make.clone());
        let thread = LocalExecutorBuilder::new(Placement::Fixed(index % processors))
            .name(&format!("rmq-core-{index}"))
            .preempt_timer(PREEMPT_TIMER)
            .spawn(move || run_core::<A, M>(post, pulse, may_watch, make))
            .map_err(|error| RunError::Executor { core: index, text: error.to_string() })?;
        threads.push((index, thread));
    }
    let mut outcome = Ok(());
    for (core, thread) in threads {
        let ended = thread.join().map_err(|error| RunError::Executor { core, text: error.to_string() });
        outcome = outcome.and(ended.and_then(|inner| inner));
    }
    drop(watch);
    outcome
}

async fn run_core<A, M>(post: Post<A::Letter>, pulse: Arc<Pulse>, may_watch: bool, make: M) -> Result<(), RunError>
where
    A: App,
    M: Fn(&mut Core<A::Letter>) -> Result<A, RunError>,
{
    let index = post.index();
    let ring = Ring::new()?;
    let mut core = Core {
        ring,
        post,
        clock: Clock::now(),
        may_watch,
        usual_wait: SLEEP_MAX,
        usual_idle_wait: SLEEP_MAX,
        background_count: Rc::default(),
        is_guarded: Rc::default(),
        background_queue: OnceCell::new(),
        account: TurnAccount::new(index, pulse, A::name_of),
    };
    let mut app = make(&mut core)?;
    let mut wake = WakeWatch::default();
    let mut turns_since_yield = 0;
    let mut had_work = true;
    core.account.begin_turn(Instant::now());
    while !app.is_finished() {
        core.account.change(Work::TurnEnd);
        wake.arm(&mut core);
        app.on_turn_end(&mut core);
        let all_posted = core.post.dispatch();
        enter(&mut core, &app, had_work || !all_posted).map_err(|source| RunError::Core { core: index, source })?;
        core.clock = Clock::now();
        core.account.begin_turn(core.clock.monotonic);
        had_work = run_turn(&mut core, &mut app, &mut wake);
        if core.background_count.get() > 0 {
            turns_since_yield += 1;
            if turns_since_yield >= TURNS_PER_YIELD || !had_work {
                turns_since_yield = 0;
                core.account.change(Work::Background);
                glommio::executor().yield_task_queue_now().await;
            }
        }
    }
    core.post.dispatch();
    // The ring first: what the app owns may be named by operations still in it.
    drop(core);
    drop(app);
    Ok(())
}

/// One system call: submit, and either just reap or sleep until something completes or is due.
fn enter<A: App>(core: &mut Core<A::Letter>, app: &A, busy: bool) -> std::io::Result<()> {
    if busy {
        core.account.change(Work::Submitting);
        return core.ring.enter(None);
    }
    let begin = Instant::now();
    core.account.fall_asleep(begin);
    let waiting = app.waited_for_by();
    let outcome = wait(core, app, waiting, begin);
    let usual = match waiting {
        Waiting::Nobody => &mut core.usual_idle_wait,
        Waiting::Few | Waiting::Many => &mut core.usual_wait,
    };
    *usual = (*usual * 7 + begin.elapsed().min(WATCH_MAX * 4)) / 8;
    outcome
}

fn wait<A: App>(core: &mut Core<A::Letter>, app: &A, waiting: Waiting, begin: Instant) -> std::io::Result<()> {
    let is_quick = core.usual_idle_wait < WATCH_FOR_REQUESTS_MAX;
    let is_worth_watching = match waiting {
        Waiting::Nobody => is_quick,
        Waiting::Few => is_quick && core.usual_wait < WATCH_MAX * 3 / 4,
        Waiting::Many => false,
    };
    if core.may_watch && is_worth_watching {
        core.ring.enter(None)?;
        if watch(core, begin + WATCH_MAX) {
            return core.ring.enter(None);
        }
    }
    core.post.wake().fall_asleep();
    // A letter published before the announcement was not followed by a wake-up: look once more.
    if core.post.has_mail() {
        core.post.wake().stay_awake();
        return core.ring.enter(None);
    }
    let limit = if core.background_count.get() > 0 { SLEEP_WITH_BACKGROUND } else { SLEEP_MAX };
    let until_deadline = app.deadline().map_or(limit, |at| at.saturating_duration_since(Instant::now()));
    let outcome = core.ring.enter(Some(until_deadline.min(limit)));
    core.post.wake().stay_awake();
    outcome
}

/// True when a completion or a letter came before `until`.
fn watch<L>(core: &mut Core<L>, until: Instant) -> bool {
    loop {
        for _ in 0..LOOKS_PER_CLOCK {
            if core.ring.has_completions() || core.post.has_mail() {
                return true;
            }
            (0..PAUSES_PER_LOOK).for_each(|_| std::hint::spin_loop());
        }
        if Instant::now() > until {
            return false;
        }
    }
}

fn run_turn<A: App>(core: &mut Core<A::Letter>, app: &mut A, wake: &mut WakeWatch) -> bool {
    let mut had_work = false;
    while let Some(completion) = core.ring.next_completion() {
        had_work = true;
        if completion.token.kind == WakeWatch::KIND {
            wake.fired();
        } else {
            core.account.completion(completion.token.kind);
            app.on_completion(core, completion);
        }
    }
    while let Some((from, letter)) = core.post.receive() {
        had_work = true;
        // Its sender may have sent it after this turn began.
        core.clock = Clock::now();
        core.account.change(Work::Letters);
        app.on_letter(core, from, letter);
    }
    had_work
}

/// Keeps a poll of the core's eventfd in the ring, so that a wake-up is an ordinary completion.
#[derive(Default)]
struct WakeWatch {
    is_armed: bool,
}

impl WakeWatch {
    const KIND: u8 = 0;

    fn arm<L>(&mut self, core: &mut Core<L>) {
        if self.is_armed {
            return;
        }
        self.is_armed = true;
        let descriptor = core.post.wake().descriptor();
        // Drain the counter, or the poll would complete at once for ever.
        let mut counter = [0u8; 8];
        // SAFETY: the descriptor is the post's own eventfd, open as long as the post.
        let event = unsafe { rustix::fd::BorrowedFd::borrow_raw(descriptor) };
        // EAGAIN means nothing was pending, which is fine.
        let _ = rustix::io::read(event, &mut counter);
        let poll = opcode::PollAdd::new(types::Fd(descriptor), libc::POLLIN as u32)
            .build()
            .user_data(Token::new(Self::KIND, 0, 0).to_user_data());
        // SAFETY: the entry points to no memory; the descriptor outlives the ring.
        unsafe { core.ring.push(&poll) };
    }

    fn fired(&mut self) {
        self.is_armed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two cores play ping-pong until a count is reached; every letter crosses a sleeping receiver.
    struct PingPong {
        left: u32,
        finished: bool,
        background_done: Rc<Cell<bool>>,
    }

    impl App for PingPong {
        type Letter = u32;

        fn on_completion(&mut self, _: &mut Core<u32>, completion: Completion) {
            panic!("no operation was submitted: {completion:?}");
        }

        fn on_letter(&mut self, core: &mut Core<u32>, from: usize, count: u32) {
            self.left = count;
            core.post.send(from, count.saturating_sub(1));
            self.finished = count <= 1;
        }

        fn on_turn_end(&mut self, _: &mut Core<u32>) {}

        fn deadline(&self) -> Option<Instant> {
            None
        }

        fn waited_for_by(&self) -> Waiting {
            Waiting::Nobody
        }

        fn is_finished(&self) -> bool {
            self.finished && self.background_done.get()
        }

        fn name_of(_: u8) -> &'static str {
            "nothing"
        }
    }

    fn play(with_background: bool) {
        let started = Instant::now();
        run(
            2,
            |_| (),
            move |core: &mut Core<u32>| {
                let background_done = Rc::new(Cell::new(!with_background));
                if with_background {
                    let done = background_done.clone();
                    core.spawn_background(async move {
                        for _ in 0..20 {
                            glommio::timer::sleep(Duration::from_millis(1)).await;
                        }
                        done.set(true);
                    });
                }
                if core.index() == 0 {
                    core.post.send(1, 10_000);
                }
                Ok(PingPong { left: 0, finished: false, background_done })
            },
        )
        .unwrap();
        assert!(started.elapsed() < Duration::from_secs(20), "wake-ups were missed: {:?}", started.elapsed());
    }

    #[test]
    fn letters_wake_sleeping_cores() {
        play(false);
    }

    #[test]
    fn letters_wake_sleeping_cores_while_background_tasks_live() {
        play(true);
    }

    /// Core 0 tells core 1 the time, which takes long over each letter.
    struct TimeTeller {
        left: u32,
    }

    impl App for TimeTeller {
        type Letter = i64;

        fn on_completion(&mut self, _: &mut Core<i64>, completion: Completion) {
            panic!("no operation was submitted: {completion:?}");
        }

        fn on_letter(&mut self, core: &mut Core<i64>, _: usize, sent_ms: i64) {
            assert!(core.clock.wall_ms >= sent_ms, "handled {} ms before it was sent", sent_ms - core.clock.wall_ms);
            self.left -= 1;
            std::thread::sleep(Duration::from_millis(2));
        }

        fn on_turn_end(&mut self, core: &mut Core<i64>) {
            if core.index() == 0 {
                self.left -= 1;
                core.post.send(1, Clock::now().wall_ms);
                std::thread::sleep(Duration::from_millis(1));
            }
        }

        fn deadline(&self) -> Option<Instant> {
            Some(Instant::now() + Duration::from_millis(1))
        }

        fn waited_for_by(&self) -> Waiting {
            Waiting::Nobody
        }

        fn is_finished(&self) -> bool {
            self.left == 0
        }

        fn name_of(_: u8) -> &'static str {
            "nothing"
        }
    }

    #[test]
    fn letters_are_not_handled_at_a_time_before_they_were_sent() {
        run(2, |_| (), |_: &mut Core<i64>| Ok(TimeTeller { left: 50 })).unwrap();
    }
}
