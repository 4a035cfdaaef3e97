//! A run: its clock and measured window, the threads that do the work, the live line, the result.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::BenchError;
use crate::options::CommonOptions;
use crate::process::{Resident, Usage};
use crate::report::{Report, Tally, Watched};

/// How often the supervisor looks whether the threads are done.
const SUPERVISOR_STEP: Duration = Duration::from_millis(20);

/// Nanoseconds since the run started, and the wall clock that belongs to them.
#[derive(Clone, Copy)]
pub struct Clock {
    start: Instant,
    start_wall_us: u64,
}

impl Clock {
    fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), start_wall_us: wall.as_micros() as u64 }
    }

    pub fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Microseconds since 1970 at `at_ns` of this clock.
    pub fn wall_us(&self, at_ns: u64) -> u64 {
        self.start_wall_us + at_ns / 1_000
    }
}

/// What all threads of a run share. The counters only feed the live line and the CPU figures.
pub struct Context {
    pub clock: Clock,
    /// Nothing before this moment counts.
    pub opens_ns: u64,
    /// No request is sent from this moment on; `u64::MAX` when only a count ends the run.
    pub closes_ns: u64,
    pub messages: AtomicU64,
    pub bytes: AtomicU64,
    pub errors: AtomicU64,
    /// When the last message came in, by the run's clock.
    pub last_ns: AtomicU64,
    is_interrupted: Arc<AtomicBool>,
}

impl Context {
    fn new(options: &CommonOptions, ends_by_itself: bool) -> Result<Self, BenchError> {
        let is_interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // The second signal ends the process at once.
            signal_hook::flag::register_conditional_shutdown(signal, 130, is_interrupted.clone())?;
            signal_hook::flag::register(signal, is_interrupted.clone())?;
        }
        let opens_ns = options.warmup.as_nanos() as u64;
        let closes_ns =
            options.duration(ends_by_itself).map_or(u64::MAX, |duration| opens_ns + duration.as_nanos() as u64);
        Ok(Self {
            clock: Clock::start(),
            opens_ns,
            closes_ns,
            messages: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            last_ns: AtomicU64::new(0),
            is_interrupted,
        })
    }

    pub fn is_over(&self, now_ns: u64) -> bool {
        now_ns >= self.closes_ns || self.is_interrupted.load(Relaxed)
    }

    pub fn is_measured(&self, at_ns: u64) -> bool {
        (self.opens_ns..self.closes_ns).contains(&at_ns)
    }

    /// Adds what one wake-up brought.
    pub fn publish(&self, now_ns: u64, messages: u64, bytes: u64) {
        self.messages.fetch_add(messages, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.last_ns.fetch_max(now_ns, Relaxed);
    }
}

/// What a thread does: everything is connected already, the clock has just started.
pub type Worker = Box<dyn FnOnce(&Context) -> Result<Tally, BenchError> + Send>;

/// Runs the workers to their end and adds up what they did.
pub fn run(
    work: &'static str,
    options: &CommonOptions,
    ends_by_itself: bool,
    workers: Vec<Worker>,
) -> Result<Report, BenchError> {
    let context = Arc::new(Context::new(options, ends_by_itself)?);
    let threads: Vec<_> = workers
        .into_iter()
        .map(|worker| {
            let context = context.clone();
            std::thread::spawn(move || worker(&context))
        })
        .collect();
    let (watched, messages_watched) = supervise(options, &context, &threads);
    let mut tally = Tally::new();
    for thread in threads {
        match thread.join() {
            Ok(result) => tally.add(result?),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    let ended_ns = match context.last_ns.load(Relaxed) {
        0 => context.clock.now_ns(),
        last_ns => last_ns,
    };
    let closes_ns = context.closes_ns.min(ended_ns);
    let window = Duration::from_nanos(closes_ns.saturating_sub(context.opens_ns));
    let messages_in_all = context.messages.load(Relaxed);
    Ok(Report::new(work, &options.label, window, tally, watched, messages_watched, messages_in_all))
}

/// Sleeps beside the threads; returns what the window cost, and how many messages fell into it.
fn supervise(
    options: &CommonOptions,
    context: &Context,
    threads: &[JoinHandle<Result<Tally, BenchError>>],
) -> (Watched, u64) {
    let line = live_line();
    let sample = || (own_usage(), server_usage(options), context.messages.load(Relaxed));
    let mut before = sample();
    let mut after = None;
    let mut is_open = context.opens_ns == 0;
    let mut resident = Resident::default();
    let mut shown = (0u64, 0u64, 0u64);
    while !threads.iter().all(JoinHandle::is_finished) {
        let now_ns = context.clock.now_ns();
        if !is_open && now_ns >= context.opens_ns {
            (before, is_open) = (sample(), true);
        }
        if after.is_none() && now_ns >= context.closes_ns {
            (after, resident) = (Some(sample()), server_resident(options));
        }
        if now_ns - shown.0 >= 1_000_000_000 {
            let now = (now_ns, context.messages.load(Relaxed), context.bytes.load(Relaxed));
            let seconds = (now.0 - shown.0) as f64 / 1e9;
            let errors = context.errors.load(Relaxed);
            line.set_message(format!(
                "{:>3} s{}  {:>9.0} messages/s  {:>7.1} MB/s  {} in all, {errors} errors",
                now_ns / 1_000_000_000,
                if is_open { "" } else { " (warm-up)" },
                (now.1 - shown.1) as f64 / seconds,
                (now.2 - shown.2) as f64 / seconds / 1e6,
                now.1,
            ));
            shown = now;
        }
        let edge_ns = if is_open { context.closes_ns } else { context.opens_ns };
        let until_edge = Duration::from_nanos(edge_ns.saturating_sub(now_ns).max(100_000));
        std::thread::park_timeout(until_edge.min(SUPERVISOR_STEP));
    }
    line.finish_and_clear();
    let after = after.unwrap_or_else(|| {
        resident = server_resident(options);
        sample()
    });
    let watched = Watched {
        own: after.0.since(before.0),
        server: (!options.server_pid.is_empty()).then(|| (after.1.since(before.1), resident)),
    };
    (watched, after.2 - before.2)
}

fn own_usage() -> Usage {
    Usage::of("self").unwrap_or_default()
}

fn server_usage(options: &CommonOptions) -> Usage {
    let usages = options.server_pid.iter().filter_map(|pid| Usage::of(&pid.to_string()));
    usages.fold(Usage::default(), Usage::plus)
}

fn server_resident(options: &CommonOptions) -> Resident {
    let sizes = options.server_pid.iter().filter_map(|pid| Resident::of(&pid.to_string()));
    sizes.fold(Resident::default(), Resident::plus)
}

fn live_line() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let line = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{msg}") {
        line.set_style(style);
    }
    line
}

/// Timers of this thread fire when they are due, not up to 50 us later.
pub fn sharpen_timers() {
    // A refusal only makes the open loop a little less even.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}
